"""Tuning for size: gratings in growing apertures, the size that each neuron prefers, how larger ones suppress it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.checks import check_same_rows
from whatwhere.errors import InputError, OptionError
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.gratings import LEAST_PHASES, GratingTuning, grey_responses, painted
from whatwhere.insilico.places import find_places, or_middle
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.stimuli import above_grey, aperture, as_axis, grating, mean_and_modulation, phases
from whatwhere.insilico.subjects import Subject, groups, images_at_once, statistics_for
from whatwhere.simulation.counts import check_count, check_number, check_numbers

_SMALLEST = 1.5  # pixels
_N_RADII = 10
_NEARLY = 0.95


@dataclass(frozen=True)
class SizeOptions:
    """The apertures that are shown.

    - `radii`, pixels, rising; None: ten, evenly on a logarithmic axis, from 1.5 to half the image's diagonal
    - `n_phases`, evenly over a period, at least 4
    - `contrast`: of the grating without its aperture, as in `GratingOptions`

    Raises `OptionError` for a number out of range.
    """

    radii: tuple[float, ...] | None = None
    n_phases: int = 8
    contrast: float = 1.0

    def __post_init__(self) -> None:
        check_count("n_phases", self.n_phases, least=LEAST_PHASES)
        check_number("contrast", self.contrast, above=0)
        if self.radii is not None:
            check_numbers("radii", self.radii, above=0)
            if list(self.radii) != sorted(set(self.radii)):
                raise OptionError(f"radii must rise from one to the next, got {self.radii!r}.")

    def radii_for(self, image_size: tuple[int, int]) -> np.ndarray:
        """Those given, or the usual ones for images of (height, width), (n_radii,), pixels."""
        if self.radii is not None:
            return np.array(self.radii, np.float64)
        return np.geomspace(_SMALLEST, max(np.hypot(*image_size) / 2, 2 * _SMALLEST), _N_RADII)


@dataclass(frozen=True, eq=False)
class SizeTuning:
    """Responses of some neurons to gratings that they prefer, in apertures at their places.

    - `radii` (n_radii,), pixels
    - `mean`, `modulation` (n_neurons, n_radii): F0 and F1 over phases, in the units of the responses; `grey`
      (n_neurons,): the response to a grey image
    - `places` (n_neurons, 2): row and column of the apertures' centre; NaN for neurons that no grating drives,
      and for those without a place, whose apertures stood in the middle of the image
    - `neurons` (n_neurons,), int: positions in the model; `names`: identifiers
    """

    radii: np.ndarray
    mean: np.ndarray
    modulation: np.ndarray
    grey: np.ndarray
    places: np.ndarray
    neurons: np.ndarray
    names: list[str]

    @cached_property
    def response(self) -> np.ndarray:
        """F0 - r_grey + F1, at least 0, (n_neurons, n_radii), see `stimuli.above_grey`; 0 for neurons not driven."""
        return above_grey(self.mean, self.modulation, self.grey)

    @property
    def preferred_radius(self) -> np.ndarray:
        """The smallest radius, pixels, with 95 % of the largest response, (n_neurons,); NaN where there is none."""
        most = self.response.max(1, keepdims=True)
        found = self.radii[(self.response >= _NEARLY * most).argmax(1)]
        return np.where(most[:, 0] > 0, found, np.nan)

    @property
    def suppression(self) -> np.ndarray:
        """(largest response - response to the largest aperture) / largest response, (n_neurons,), from 0 to 1.

        NaN where there is no response. Cavanaugh, Bair & Movshon 2002.
        """
        most = self.response.max(1)
        found = (most - self.response[:, -1]) / np.where(most > 0, most, 1.0)
        return np.where(most > 0, found, np.nan)

    def table(self) -> pd.DataFrame:
        """One row a neuron."""
        return pd.DataFrame(
            {
                "neuron": self.names,
                "preferred_radius": self.preferred_radius,
                "suppression_index": self.suppression,
                "size_response": self.response.max(1),
            }
        )


@torch.no_grad()
def size_tuning(
    model: Any,
    gratings: GratingTuning,
    options: SizeOptions | None = None,
    *,
    statistics: ImageStatistics | None = None,
    places: Any = None,
    memory_gib: float = 1.0,
) -> SizeTuning:
    """Shows each neuron of `gratings` the grating that it prefers, at its place, in apertures of growing radius.

    The orientation is that of the vector average, the frequency that of the largest response.

    - `model`: a fitted network or filter model, or a simulated population
    - `statistics`: of the recording's images, for grey and contrast; None: the model's own
    - `places` (n_neurons, 2): row and column in pixels of the image; None: where each is sensitive, see `find_places`
    - `memory_gib`: what images and feature maps may take at once, roughly

    Raises `InputError` where `gratings` are not of this model, or `places` have another shape.
    """
    subject, options = as_subject(model), options or SizeOptions()
    statistics, chosen = statistics_for(subject, statistics), gratings.neurons
    if chosen.max() >= subject.n_neurons or [subject.names[number] for number in chosen] != gratings.names:
        raise InputError("gratings hold other neurons than the model: give the tuning of this model.")
    size = subject.image_shape[1:]
    radii = as_axis(options.radii_for(size))
    if places is None:
        places = find_places(subject, statistics=statistics, neurons=chosen, memory_gib=memory_gib)
    places = np.asarray(places, np.float64)
    check_same_rows("places", len(places), "gratings", len(chosen), each="neuron")
    grey = grey_responses(subject, statistics)[chosen]
    mean, modulation = (np.repeat(values[:, None], len(radii), 1) for values in (grey, np.zeros(len(chosen))))
    driven = np.flatnonzero(gratings.peak > 0)
    preferred = torch.from_numpy(np.stack([gratings.orientation, gratings.best_frequency], 1))  # (n_neurons, 2)
    centres = torch.from_numpy(or_middle(places, size))
    most = images_at_once(subject, memory_gib)
    for _, which in groups(driven, most // (len(radii) * options.n_phases)):
        patterns = _patterns(size, preferred[which], centres[which], radii, options.n_phases)
        for number in range(0, len(radii), step := max(1, most // (options.n_phases * len(which)))):
            shown = painted(subject, statistics, options.contrast, patterns[:, number : number + step])
            responses = _responses(subject, chosen[which], shown)
            for into, found in zip((mean, modulation), mean_and_modulation(responses), strict=True):
                into[which, number : number + step] = found.cpu().numpy()
    known = np.where((gratings.peak > 0)[:, None], places, np.nan)
    return SizeTuning(radii.numpy(), mean, modulation, grey, known, chosen, gratings.names)


def _patterns(size: tuple[int, int], preferred: Tensor, centres: Tensor, radii: Tensor, n_phases: int) -> Tensor:
    """Gratings in apertures, (n_neurons, n_radii, n_phases, height, width), from -1 to 1."""
    orientation, frequency = preferred[:, None, 0], preferred[:, None, 1]
    whole = grating(size, orientation, frequency, phases(n_phases), centres[:, None])
    windows = aperture(size, radii, centres[:, None])  # (n_neurons, n_radii, height, width)
    return whole[:, None].float() * windows[:, :, None]


def _responses(subject: Subject, neurons: np.ndarray, images: Tensor) -> Tensor:
    """images (n, n_radii, n_phases, n_channels, height, width) to (n, n_radii, n_phases)."""
    which = torch.from_numpy(neurons).to(subject.device)
    return subject.rates_of(which, images.flatten(1, 2)).unflatten(1, images.shape[1:3])
