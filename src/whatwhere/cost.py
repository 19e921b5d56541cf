"""What a fit needs before it starts: memory from the sizes, time from a few steps made on a copy."""

import copy
import math
import time
from dataclasses import dataclass

from whatwhere.gradients import backpropagate
from whatwhere.local_features import local_memory
from whatwhere.location_inference import settle
from whatwhere.model import Model
from whatwhere.place_evidence import location_memory
from whatwhere.readouts import PosteriorReadout
from whatwhere.shared_model import Network
from whatwhere.training_data import SharedData, TrainingData

_TIMED_STEPS = 2


@dataclass(frozen=True)
class Plan:
    """Estimated before a fit starts.

    memory: bytes held at the peak, data, parameters with their gradients, moments and best copy, and activations of
    one step or what the inference of places takes, at first or later. seconds_per_step: measured, the posterior
    readout's inferences of places spread over the steps between two of them (those while masks are held come once); 0
    for a model that is solved without steps. least_seconds: if the validation loss never got better; most_seconds: at
    `max_steps`, and again for a last fit to all images; both for all candidates. Of several processes that share the
    fit, n_processes, both are those of each.
    """

    n_images: int
    n_validation: int
    n_parameters: int
    n_candidates: int
    memory: int
    seconds_per_step: float
    least_seconds: float
    most_seconds: float
    notes: tuple[str, ...] = ()
    n_processes: int = 1


def make_plan(
    model: Network,
    data: TrainingData | SharedData,
    n_candidates: int,
    notes: tuple[str, ...] = (),
    n_processes: int = 1,
) -> Plan:
    """The plan for fitting `n_candidates` models like this one; `model` itself is not changed.

    Of several recordings, images are those of all of them.
    """
    options, readout = model.options.training, model.options.readout
    batch = _batch(model, data, n_processes)
    seconds, places = _seconds_per_step(model, data, batch), _seconds_of_places(model, data)
    at_first = 0.0
    if model.members[0].readout.holds_masks(0):
        steps = min(readout.hold_masks, options.max_steps) - readout.locate_from
        at_first = places * max(0, math.ceil(steps / readout.locate_every))
    else:
        seconds += places / readout.locate_every
    counted_from = max(options.patience_from, model.members[0].readout.n_held_steps)
    least = min(counted_from + options.check_every * options.patience * options.n_rates, options.max_steps)
    return Plan(
        n_images=sum(len(part.images) for part in data.parts),
        n_validation=sum(len(part.validation_images) for part in data.parts),
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        n_candidates=n_candidates,
        memory=estimate_memory(model, data, n_processes),
        seconds_per_step=seconds,
        least_seconds=(at_first + seconds * least) * n_candidates,
        most_seconds=(at_first + seconds * options.max_steps) * (n_candidates + options.refit),
        notes=notes,
        n_processes=n_processes,
    )


def _batch(model: Network, data: TrainingData | SharedData, n_processes: int) -> int:
    """Images of each recording that each process takes in a step, at most."""
    n_images = min(len(part.images) for part in data.parts)
    return math.ceil(min(model.options.training.batch_size, n_images) / n_processes)


def estimate_memory(model: Network, data: TrainingData | SharedData, n_processes: int = 1) -> int:
    """Bytes at the peak, of each process that shares the fit: data, parameters, maps.

    The parameters come seven times, and every map that is kept for the gradient of a step. Where places are inferred,
    the posterior and its best copy too, and the inference's own where that is more; of several recordings it is made of
    one after the other.
    """
    data_bytes = sum(
        each.nbytes
        for part in data.parts
        for each in (part.images, part.responses, part.validation_images, part.validation_responses)
    )
    parameter_bytes = sum(parameter.numel() for parameter in model.parameters()) * 4
    parameters = 7 * parameter_bytes  # value, gradient, two moments; the best value and its two moments
    buffers = 3 * 4 * sum(buffer.numel() for member in model.members for buffer in member.readout.buffers())
    at_once = 4 * _batch(model, data, n_processes) * sum(map(_floats_per_image, model.members))
    pairs = list(zip(model.members, data.parts, strict=True))
    located = [
        location_memory(member, len(part.images))
        for member, part in pairs
        if isinstance(member.readout, PosteriorReadout) or member.readout.holds_masks(0)
    ]
    at_once = max([at_once, *located])
    if model.options.readout.start == "features":
        of_start = sum(map(_start_memory, model.members))
        at_once = at_once + of_start if located else max(at_once, of_start)  # beside the features that are kept
    return data_bytes + parameters + buffers + at_once


def _start_memory(model: Model) -> int:
    n_ridges = len(model.options.readout.prior_ridges)
    return local_memory(model.shapes.n_channels, model.core.output_shape[1:], model.shapes.n_neurons, n_ridges)


def _floats_per_image(model: Model) -> int:
    """Activations and their gradients per image: convolved, normalised and rectified maps, and the pooled maps."""
    shapes, total = model.shapes, 0
    height, width = shapes.height, shapes.width
    for layer in model.options.core.layers():
        if layer.padding == "valid":
            height, width = height - layer.kernel_size[0] + 1, width - layer.kernel_size[1] + 1
        total += 4 * layer.n_maps * height * width
    pooled = shapes.n_neurons * model.core.output_shape[0]
    return total + 2 * pooled + 4 * shapes.n_neurons


def _seconds_per_step(model: Network, data: TrainingData | SharedData, batch: int) -> float:
    trial = copy.deepcopy(model).train()
    images, responses = [part.images[:batch] for part in data.parts], [part.responses[:batch] for part in data.parts]
    seconds = 0.0
    for number in range(1 + _TIMED_STEPS):  # the first one warms up
        started = time.perf_counter()
        backpropagate(trial, images, responses).item()
        if number:
            seconds += time.perf_counter() - started
    return seconds / _TIMED_STEPS


def _seconds_of_places(model: Network, data: TrainingData | SharedData) -> float:
    """Of one inference of the places, measured; 0 where they are not inferred."""
    trial, seconds = copy.deepcopy(model), 0.0
    for member, part in zip(trial.members, data.parts, strict=True):
        readout = member.readout
        if not (isinstance(readout, PosteriorReadout) or readout.holds_masks(0)):
            continue
        if isinstance(readout, PosteriorReadout) and readout.evidence_renewed is not None:
            readout.evidence_renewed.fill_(True)  # which is done once in a fit
        started = time.perf_counter()
        settle(member, part.images, part.responses[:], 0, trial.members)
        seconds += time.perf_counter() - started
    return seconds
