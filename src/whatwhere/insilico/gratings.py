"""Tuning for gratings: preferred orientation and spatial frequency, selectivity, and simple against complex cells."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.errors import OptionError
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.places import find_places, or_middle
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.stimuli import above_grey, aperture, as_axis, grating, mean_and_modulation, phases
from whatwhere.insilico.subjects import Subject, chosen_neurons, groups, images_at_once, statistics_for
from whatwhere.simulation.counts import check_count, check_number, check_numbers

LEAST_PHASES = 4
"""Fewer cannot tell a mean from a harmonic."""
_HIGHEST = 0.35  # cycles per pixel, of the usual frequencies: finer oblique gratings are hardly drawn by pixels
_N_FREQUENCIES = 8
_CYCLES = 2.0  # of the coarsest usual grating, in the shorter side of the image


@dataclass(frozen=True)
class GratingOptions:
    """The gratings that are shown.

    - `n_orientations`, evenly over half a turn; `n_phases`, evenly over a period, at least 4
    - `frequencies`, cycles per pixel, above 0 and at most 0.5; None: eight, evenly on a logarithmic axis, from two
      cycles in the image's shorter side to 0.35
    - `contrast`: root mean square of a full-field grating, in multiples of the images'; every channel has the same
    - `aperture`: None, gratings fill the image and all neurons see the same ones; else the radius in pixels of a round
      window at each neuron's place, which takes as many times longer as there are neurons

    Raises `OptionError` for a number out of range.
    """

    n_orientations: int = 16
    frequencies: tuple[float, ...] | None = None
    n_phases: int = 8
    contrast: float = 1.0
    aperture: float | None = None

    def __post_init__(self) -> None:
        check_count("n_orientations", self.n_orientations, least=2)
        check_count("n_phases", self.n_phases, least=LEAST_PHASES)
        check_number("contrast", self.contrast, above=0)
        if self.aperture is not None:
            check_number("aperture", self.aperture, above=0)
        if self.frequencies is not None:
            check_numbers("frequencies", self.frequencies, above=0, most=0.5)
            if list(self.frequencies) != sorted(set(self.frequencies)):
                raise OptionError(f"frequencies must rise from one to the next, got {self.frequencies!r}.")

    def frequencies_for(self, image_size: tuple[int, int]) -> np.ndarray:
        """Those given, or the usual ones for images of (height, width), (n_frequencies,), cycles per pixel."""
        if self.frequencies is not None:
            return np.array(self.frequencies, np.float64)
        lowest = min(_CYCLES / min(image_size), _HIGHEST / 2)
        return np.geomspace(lowest, _HIGHEST, _N_FREQUENCIES)

    def orientations(self) -> np.ndarray:
        """(n_orientations,), radians from 0 to pi, the end left out."""
        return np.pi * np.arange(self.n_orientations) / self.n_orientations


@dataclass(frozen=True, eq=False)
class GratingTuning:
    """Responses of some neurons to gratings, and what they prefer.

    - `orientations` (n_orientations,), radians, 0 is stripes that lie horizontally; `frequencies` (n_frequencies,),
      cycles per pixel
    - `mean` (n_neurons, n_orientations, n_frequencies): F0, the mean over phases, in the units of the responses
    - `modulation`, of that shape: F1, the amplitude of the first harmonic over phases
    - `grey` (n_neurons,): the response to a grey image
    - `neurons` (n_neurons,), int: positions in the model; `names`: identifiers

    Orientation and frequency are NaN for a neuron that no grating drives.
    """

    orientations: np.ndarray
    frequencies: np.ndarray
    mean: np.ndarray
    modulation: np.ndarray
    grey: np.ndarray
    neurons: np.ndarray
    names: list[str]

    @cached_property
    def response(self) -> np.ndarray:
        """F0 - r_grey + F1, at least 0, (n_neurons, n_orientations, n_frequencies), see `stimuli.above_grey`."""
        return above_grey(self.mean, self.modulation, self.grey)

    @cached_property
    def best(self) -> np.ndarray:
        """Numbers of the orientation and of the frequency of the largest response, (n_neurons, 2), int."""
        flat = self.response.reshape(len(self.neurons), -1).argmax(1)
        return np.stack(np.unravel_index(flat, self.response.shape[1:]), 1)

    @cached_property
    def orientation_curves(self) -> np.ndarray:
        """Responses by orientation at each neuron's best frequency, (n_neurons, n_orientations)."""
        return self.response[np.arange(len(self.neurons)), :, self.best[:, 1]]

    @cached_property
    def frequency_curves(self) -> np.ndarray:
        """Responses by frequency at each neuron's best orientation, (n_neurons, n_frequencies)."""
        return self.response[np.arange(len(self.neurons)), self.best[:, 0]]

    @property
    def peak(self) -> np.ndarray:
        """The largest response, (n_neurons,)."""
        return self._at_best(self.response)

    @property
    def best_orientation(self) -> np.ndarray:
        """The orientation of the largest response, (n_neurons,), radians."""
        return self._if_driven(self.orientations[self.best[:, 0]])

    @property
    def best_frequency(self) -> np.ndarray:
        """The frequency of the largest response, (n_neurons,), cycles per pixel."""
        return self._if_driven(self.frequencies[self.best[:, 1]])

    @property
    def orientation(self) -> np.ndarray:
        """Preferred one, (n_neurons,), radians: half the angle of sum_t a(t) exp(2 i t) at the best frequency."""
        return self._if_driven(np.angle(self._vector()) / 2 % np.pi)

    @property
    def frequency(self) -> np.ndarray:
        """Preferred frequency, (n_neurons,), cycles per pixel: exp(sum_f a(f) log f / sum_f a(f)), best orientation."""
        with np.errstate(invalid="ignore"):
            return np.exp(self.frequency_curves @ np.log(self.frequencies) / self.frequency_curves.sum(1))

    @property
    def selectivity(self) -> np.ndarray:
        """1 - circular variance, |sum_t a(t) exp(2 i t)| / sum_t a(t), (n_neurons,): 0 alike for all, 1 for one alone.

        0 for a neuron that no grating drives. Ringach, Shapley & Hawken 2002.
        """
        total = self.orientation_curves.sum(1)
        return np.abs(self._vector()) / np.where(total > 0, total, 1.0)

    @property
    def f1_f0(self) -> np.ndarray:
        """F1 / F0 at the best grating, spontaneous response included, (n_neurons,); NaN where F0 is not above 0."""
        mean, modulation = self._at_best(self.mean), self._at_best(self.modulation)
        return self._if_driven(np.where(mean > 0, modulation / np.where(mean > 0, mean, 1.0), np.nan))

    @property
    def phase_invariance(self) -> np.ndarray:
        """(F0 - r_grey) / (F0 - r_grey + F1) at the best grating, within 0 and 1: (n_neurons,).

        0 of a linear neuron, 0.39 of a half-rectified one, 1 of an energy-model cell; 0.5 is where F1 is as large as
        the mean response above the spontaneous one, the usual border of simple and complex cells (Skottun et al. 1991).
        """
        raised = np.maximum(self._at_best(self.mean) - self.grey, 0)
        total = raised + self._at_best(self.modulation)
        return self._if_driven(raised / np.where(total > 0, total, 1.0))

    def table(self) -> pd.DataFrame:
        """One row a neuron; orientations in degrees, frequencies in cycles per pixel, responses in their units."""
        return pd.DataFrame(
            {
                "neuron": self.names,
                "orientation": np.degrees(self.orientation),
                "best_orientation": np.degrees(self.best_orientation),
                "orientation_selectivity": self.selectivity,
                "frequency": self.frequency,
                "best_frequency": self.best_frequency,
                "phase_invariance": self.phase_invariance,
                "f1_f0": self.f1_f0,
                "grating_response": self.peak,
                "grey_response": self.grey,
            }
        )

    def _vector(self) -> np.ndarray:
        total: np.ndarray = self.orientation_curves @ np.exp(2j * self.orientations)
        return total

    def _at_best(self, values: np.ndarray) -> np.ndarray:
        return values[np.arange(len(self.neurons)), self.best[:, 0], self.best[:, 1]]

    def _if_driven(self, values: np.ndarray) -> np.ndarray:
        return np.where(self.peak > 0, values, np.nan)


def grating_tuning(
    model: Any,
    options: GratingOptions | None = None,
    *,
    statistics: ImageStatistics | None = None,
    neurons: Any = None,
    memory_gib: float = 1.0,
) -> GratingTuning:
    """Shows gratings on grey of every orientation, frequency and phase, and keeps mean and modulation over phases.

    - `model`: a fitted network or filter model, or a simulated population
    - `statistics`: of the recording's images, for grey and contrast; None: the model's own
    - `neurons`: positions, or one boolean each; None: all
    - `memory_gib`: what images and feature maps may take at once, roughly

    >>> from whatwhere.simulation import gabor_population
    >>> population = gabor_population(2, image_size=(32, 40), orientations=(np.pi / 4, 3 * np.pi / 4), variation=0)
    >>> grating_tuning(population).orientation.round(2).tolist()
    [0.79, 2.36]
    """
    subject, options = as_subject(model), options or GratingOptions()
    statistics, chosen = statistics_for(subject, statistics), chosen_neurons(subject, neurons)
    frequencies, orientations = options.frequencies_for(subject.image_shape[1:]), options.orientations()
    pairs = torch.cartesian_prod(as_axis(orientations), as_axis(frequencies))  # (n_conditions, 2)
    show = _Show(subject, statistics, options)
    most = images_at_once(subject, memory_gib)
    if options.aperture is None:
        found = _to_all(show, pairs, most, chosen)
    else:
        places = find_places(subject, statistics=statistics, neurons=chosen, memory_gib=memory_gib)
        centres = torch.from_numpy(or_middle(places, subject.image_shape[1:]))
        found = _to_each(show, pairs, most, chosen, centres)
    mean, modulation = (values.reshape(len(chosen), len(orientations), -1) for values in found)
    grey = grey_responses(subject, statistics)[chosen]
    return GratingTuning(
        orientations, frequencies, mean, modulation, grey, chosen, [subject.names[number] for number in chosen]
    )


def grey_responses(subject: Subject, statistics: ImageStatistics) -> np.ndarray:
    """Of all neurons to an image of grey alone, (n_neurons,), float64."""
    grey = np.broadcast_to(statistics.grey, subject.image_shape)[None].astype(np.float32)
    return subject.rates(torch.from_numpy(grey).to(subject.device))[0].double().cpu().numpy()


def painted(subject: Subject, statistics: ImageStatistics, contrast: float, patterns: Tensor) -> Tensor:
    """Images of patterns from -1 to 1, (..., height, width), on grey: (..., n_channels, height, width), float32.

    contrast: of a full-field grating, root mean square, in multiples of the images'.
    """
    grey = torch.from_numpy(statistics.grey).to(patterns.device)
    images = grey + np.sqrt(2) * contrast * statistics.contrast * patterns[..., None, :, :]
    return images.float().to(subject.device)


class _Show:
    """Images of gratings: pairs (..., 2) of orientation and frequency, each at all phases."""

    def __init__(self, subject: Subject, statistics: ImageStatistics, options: GratingOptions) -> None:
        self.subject, self.statistics, self.options = subject, statistics, options
        self.size = subject.image_shape[1:]

    def images(self, pairs: Tensor, centres: Tensor | None = None) -> Tensor:
        """pairs (m, 2) to (m, n_phases, ...); with centres (n, 2), in apertures there: (n, m, n_phases, ...)."""
        orientation, frequency = pairs[:, None, 0], pairs[:, None, 1]
        angle = phases(self.options.n_phases)
        if centres is None:
            patterns = grating(self.size, orientation, frequency, angle)
        else:
            assert self.options.aperture is not None
            patterns = grating(self.size, orientation, frequency, angle, centres[:, None, None])
            window = aperture(self.size, torch.tensor(self.options.aperture, dtype=torch.float64), centres)
            patterns = patterns * window[:, None, None]
        return painted(self.subject, self.statistics, self.options.contrast, patterns)


def _to_all(show: _Show, pairs: Tensor, most: int, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F0 and F1 for images that all neurons see, (n_neurons, n_conditions) both."""
    mean, modulation = (np.empty((len(chosen), len(pairs))) for _ in range(2))
    for start, some in _stretches(pairs, most // show.options.n_phases):
        images = show.images(some)  # (m, n_phases, n_channels, height, width)
        responses = show.subject.rates(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        responses = responses[:, :, torch.from_numpy(chosen).to(responses.device)].movedim(1, 2)
        for into, found in zip((mean, modulation), mean_and_modulation(responses), strict=True):
            into[:, start : start + len(some)] = found.T.cpu().numpy()
    return mean, modulation


@torch.no_grad()
def _to_each(
    show: _Show, pairs: Tensor, most: int, chosen: np.ndarray, centres: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The same for apertures at each neuron's place."""
    mean, modulation = (np.empty((len(chosen), len(pairs))) for _ in range(2))
    n_phases, subject = show.options.n_phases, show.subject
    for where, which in groups(chosen, most // n_phases):
        neurons = torch.from_numpy(which).to(subject.device)
        for start, some in _stretches(pairs, most // (n_phases * len(which))):
            images = show.images(some, centres[where])  # (n, m, n_phases, ...)
            responses = subject.rates_of(neurons, images.flatten(1, 2)).unflatten(1, images.shape[1:3])
            for into, found in zip((mean, modulation), mean_and_modulation(responses), strict=True):
                into[where, start : start + len(some)] = found.cpu().numpy()
    return mean, modulation


def _stretches(pairs: Tensor, most: int) -> Iterator[tuple[int, Tensor]]:
    """At most so many pairs after the other, one at least, each with the number of the first."""
    for start in range(0, len(pairs), max(1, most)):
        yield start, pairs[start : start + max(1, most)]
