"""A recording made ready for a fit: standardised, scaled, on the device."""

import math
import os
import shutil
from dataclasses import dataclass

import numpy as np
import torch

from whatwhere.config import ModelOptions
from whatwhere.errors import OptionError
from whatwhere.estimators.base import constant_note, response_scale
from whatwhere.recording import Recording
from whatwhere.rows import by_columns
from whatwhere.standardisation import Standardisation
from whatwhere.stored_images import Images, StoredImages
from whatwhere.stored_responses import Responses, StoredResponses
from whatwhere.training import TrainingData


@dataclass(frozen=True)
class Prepared:
    """A recording made ready for a fit: tensors on the device, and what undoes the scaling."""

    data: TrainingData
    standardisation: Standardisation
    response_scale: np.ndarray
    notes: tuple[str, ...]


def prepare(
    recording: Recording,
    options: ModelOptions,
    rows: np.ndarray,
    validation_rows: np.ndarray,
    device: torch.device,
    fingerprint: str,
) -> Prepared:
    """Standardises and scales by statistics of the training rows alone, and moves all to the device.

    Images stay where they are if those of the training rows would take more than `training.memory_gib`, and responses
    the recording's: a copy of them might be as large (the posterior readout makes one where it infers places).
    """
    standardisation = Standardisation.fit(recording.images, options.preprocessing.standardize, rows=rows)
    scale = np.ones(recording.n_neurons, np.float32)
    if options.preprocessing.scale_responses:
        scale = by_columns(response_scale, recording.responses, rows).astype(np.float32)

    memory = int(options.training.memory_gib * 2**30)
    stored = 4 * len(rows) * math.prod(recording.image_shape) > memory

    def to_device(some: np.ndarray) -> tuple[Images, Responses]:
        responses = StoredResponses(recording.responses, some, scale, device)
        if stored:
            return StoredImages(recording.images, some, standardisation, device, memory), responses
        return torch.from_numpy(standardisation.apply(recording.read_images(some))).to(device), responses[:]

    data = TrainingData(*to_device(rows), *to_device(validation_rows), fingerprint)
    notes = (*recording.notes, *constant_note(recording))
    if stored:
        notes = (*notes, _note(recording, rows, options.training.memory_gib))
    return Prepared(data, standardisation, scale, notes)


def _note(recording: Recording, rows: np.ndarray, memory_gib: float) -> str:
    needed = 4 * len(rows) * math.prod(recording.image_shape) / 2**30
    return (
        f"training images would take {needed:.1f} GiB, more than memory_gib={memory_gib:g}: they are read as they are"
        " needed, in blocks of neighbours"
    )


def check_compiler(options: ModelOptions, device: torch.device) -> None:
    """Raises `OptionError` where a core is to be compiled for the CPU without a C++ compiler."""
    known = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
    if options.training.compile and device.type == "cpu" and not any(map(shutil.which, known)):
        raise OptionError(
            "training.compile needs a C++ compiler for the CPU, and none of g++, clang++, cl is here (nor CXX): install"
            " one, or leave it at false."
        )


def choose_device(name: str) -> torch.device:
    """The device named, or for "auto" a GPU where there is one; raises `OptionError` where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("double precision is needed, which it may lack")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"device {name!r} cannot be used ({reason}): choose 'auto', 'cpu' or 'cuda'.") from None
    return device
