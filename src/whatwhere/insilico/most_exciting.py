"""Most exciting images: of all smooth images of one contrast the one that a neuron responds to most."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.errors import OptionError
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject, chosen_neurons, groups, images_at_once, statistics_for
from whatwhere.location_posterior import blur
from whatwhere.simulation.counts import check_count, check_number
from whatwhere.simulation.seeds import stream

_LEAST_STEP = 2.0**-10
_SCALINGS = 12
_MOST_SCALING = 4.0


@dataclass(frozen=True)
class MostExcitingOptions:
    """How most exciting images are sought.

    - `contrast`: root mean square of the image about its grey, over all pixels and channels, in multiples of the
      recording's images. A small receptive field takes all of it, so that its pixels stand out more than any image's
    - `smoothness`: standard deviation, pixels, of the Gaussian that fine detail costs as much as; 0: none
    - `pixel_range`: lowest and highest value of a pixel, or None. A contrast that cannot be had within it is missed
    - `n_starts`: random images that the search starts from; the best end is kept
    - `steps`: at most so many; `tolerance`: of convergence, 1 - cosine between an image and its own (smooth) gradient
    - `seed`: of the starts; a neuron's are the same whichever others are asked for

    Raises `OptionError` for a number out of range.
    """

    contrast: float = 1.0
    smoothness: float = 1.0
    pixel_range: tuple[float, float] | None = None
    n_starts: int = 2
    steps: int = 200
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("contrast", self.contrast, above=0)
        check_number("smoothness", self.smoothness, least=0)
        check_number("tolerance", self.tolerance, above=0, below=1)
        check_count("n_starts", self.n_starts)
        check_count("steps", self.steps)
        check_count("seed", self.seed, least=0)
        if self.pixel_range is not None:
            low, high = self.pixel_range
            check_number("the lowest of pixel_range", low)
            check_number("the highest of pixel_range", high, above=low)


@dataclass(frozen=True, eq=False)
class MostExciting:
    """Most exciting images of some neurons.

    - `images` (n_neurons, n_channels, height, width), float32, in the units of the recording's pixels
    - `responses` (n_neurons,): the predicted ones to them
    - `contrasts` (n_neurons,): root mean square about the grey that was reached, in the units of the pixels
    - `converged` (n_neurons,), bool: whether the search ended at an image from which no small step leads higher; False
      where steps ran out, and for a neuron that no pixel moves, whose image is grey
    - `steps` (n_neurons,), int: taken from the best start
    - `neurons` (n_neurons,), int: positions in the model; `names`: identifiers
    """

    images: np.ndarray
    responses: np.ndarray
    contrasts: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    neurons: np.ndarray
    names: list[str]

    def table(self) -> pd.DataFrame:
        """One row a neuron."""
        return pd.DataFrame(
            {
                "neuron": self.names,
                "most_exciting_response": self.responses,
                "most_exciting_contrast": self.contrasts,
                "most_exciting_converged": self.converged,
            }
        )


def most_exciting_images(
    model: Any,
    options: MostExcitingOptions | None = None,
    *,
    statistics: ImageStatistics | None = None,
    neurons: Any = None,
    memory_gib: float = 1.0,
    told: Callable[[int, int], None] | None = None,
) -> MostExciting:
    """argmax_x u_n(x) over x = grey + p A z with |z| = 1: A blurs and takes each channel's mean, p sets the contrast.

    u_n is the drive, which the response rises with, so that a silent neuron has a gradient, too. The search moves z on
    the sphere towards the gradient's direction, all the way at first (the generalised power method, which for a convex
    u_n never falls), and a shorter way where the response would fall. At its end z and the gradient are parallel. Of a
    linear neuron the image is its filter, blurred, on grey.

    - `model`: a fitted network or filter model, or a simulated population
    - `statistics`: of the recording's images, for grey and contrast; None: the model's own
    - `neurons`: positions, or one boolean each; None: all. `memory_gib`: of images and feature maps at once, roughly
    - `told`: called with the numbers of neurons done and of all

    Raises `OptionError` where grey is outside `pixel_range`. Source: Walker et al. 2019, Inception loops discover what
    excites neurons most using deep predictive models; Journee et al. 2010 for the method.

    >>> from whatwhere.simulation import gabor_population
    >>> population = gabor_population(2, image_size=(20, 28), seed=1)
    >>> found = most_exciting_images(population, MostExcitingOptions(smoothness=0.0))
    >>> fields = population.receptive_fields()[0]
    >>> bool(np.corrcoef(found.images[0].ravel(), fields.ravel())[0, 1] > 0.999), found.converged.tolist()
    (True, [True, True])
    """
    subject, options = as_subject(model), options or MostExcitingOptions()
    statistics, chosen = statistics_for(subject, statistics), chosen_neurons(subject, neurons)
    canvas = _Canvas(subject, statistics, options)
    images = np.empty((len(chosen), *subject.image_shape), np.float32)
    responses, contrasts = np.empty(len(chosen)), np.empty(len(chosen))
    converged, steps = np.zeros(len(chosen), bool), np.zeros(len(chosen), int)
    for where, which in groups(chosen, images_at_once(subject, memory_gib)):
        at = torch.from_numpy(which).to(subject.device)
        end = _best_end(subject, at, canvas, options)
        shown = canvas.images(end.z, end.power)
        with torch.no_grad():
            responses[where] = subject.rates_of(at, shown[:, None])[:, 0].double().cpu().numpy()
        images[where], contrasts[where] = shown.cpu().numpy(), canvas.contrasts(shown).cpu().numpy()
        converged[where], steps[where] = end.converged.cpu().numpy(), end.steps.cpu().numpy()
        if told is not None:
            told(where.stop, len(chosen))
    names = [subject.names[number] for number in chosen]
    return MostExciting(images, responses, contrasts, converged, steps, chosen, names)


class _Canvas:
    """From z (n, n_channels, height, width) of norm 1 and p (n,) to images grey + p A z within the pixels' range."""

    def __init__(self, subject: Subject, statistics: ImageStatistics, options: MostExcitingOptions) -> None:
        self.width = options.smoothness / np.sqrt(2)  # twice, by A and by its adjoint, gives the smoothness asked for
        self.contrast = options.contrast * statistics.contrast
        self.range = options.pixel_range
        self.grey = torch.from_numpy(statistics.grey.astype(np.float32)).to(subject.device)
        if self.range is not None and not (self.range[0] < self.grey.min() and self.grey.max() < self.range[1]):
            raise OptionError(
                f"grey, {self.grey.min():g} to {self.grey.max():g} by channel, is not within pixel_range {self.range}:"
                " give the range of the recording's pixels."
            )

    def smoothed(self, z: Tensor) -> Tensor:
        """A z."""
        smooth = blur(z, self.width)
        return smooth - smooth.mean((2, 3), keepdim=True)

    def images(self, z: Tensor, power: Tensor) -> Tensor:
        """grey + p A z, cut to the range."""
        images = self.grey + power[:, None, None, None] * self.smoothed(z)
        return images if self.range is None else images.clamp(*self.range)

    def contrasts(self, images: Tensor) -> Tensor:
        """Root mean square about grey, (n,)."""
        return (images - self.grey).square().mean((1, 2, 3)).sqrt()

    @torch.no_grad()
    def power(self, z: Tensor) -> Tensor:
        """p that gives the contrast asked for; 0 for a z of zeros, and within a range as near as some scalings come."""
        power = self.contrast / self.contrasts(self.grey + self.smoothed(z))
        power = torch.where(power.isfinite(), power, 0.0)
        for _ in range(_SCALINGS if self.range is not None else 0):
            lack = self.contrast / self.contrasts(self.images(z, power))
            power = power * torch.where(lack.isfinite(), lack, 1.0).clamp(1.0, _MOST_SCALING)
        return power


@dataclass
class _End:
    """Where a search stands: z, p and the drive, whether it converged, and the steps taken; of n neurons."""

    z: Tensor
    power: Tensor
    drive: Tensor
    converged: Tensor
    steps: Tensor

    def keep(self, better: Tensor, other: "_End") -> None:
        """Takes the other's place for the neurons that it is better for."""
        for name in ("z", "power", "drive", "converged", "steps"):
            getattr(self, name)[better] = getattr(other, name)[better]


def _best_end(subject: Subject, neurons: Tensor, canvas: _Canvas, options: MostExcitingOptions) -> _End:
    """The best of searches from several starts."""
    best: _End | None = None
    for start in range(options.n_starts):
        end = _climb(subject, neurons, canvas, _starts(subject, neurons, start, options.seed), options)
        if best is None:
            best = end
        else:
            best.keep(end.drive > best.drive, end)
    assert best is not None
    return best


def _starts(subject: Subject, neurons: Tensor, number: int, seed: int) -> Tensor:
    """White noise of norm 1 for each neuron, from the seed, the start's number and its own position alone."""
    drawn = [
        np.random.default_rng(stream(seed, number, neuron)).standard_normal(subject.image_shape, np.float32)
        for neuron in neurons.tolist()
    ]
    return _unit(torch.from_numpy(np.stack(drawn)).to(subject.device))


def _climb(subject: Subject, neurons: Tensor, canvas: _Canvas, z: Tensor, options: MostExcitingOptions) -> _End:
    power = canvas.power(z)
    drive, slope = _drive_and_slope(subject, neurons, canvas, z, power)
    end = _End(z, power, drive, torch.zeros_like(drive, dtype=torch.bool), torch.zeros_like(neurons))
    share = torch.ones_like(drive)  # of the way to the gradient's direction
    left = torch.arange(len(neurons), device=neurons.device)
    for _ in range(options.steps):
        flat = slope[left].flatten(1).norm(dim=1) == 0
        nowhere = flat & (end.steps[left] == 0)
        end.power[left[nowhere]] = 0.0
        target = _unit(slope[left])
        aligned = (end.z[left] * target).sum((1, 2, 3)) > 1 - options.tolerance
        end.converged[left] = ~nowhere & (flat | aligned | (share[left] < _LEAST_STEP))
        going = ~(nowhere | end.converged[left])
        left, target = left[going], target[going]
        if not len(left):
            break
        trial = _unit(end.z[left] + share[left, None, None, None] * (target - end.z[left]))
        with torch.no_grad():
            risen = (
                subject.drives(neurons[left], canvas.images(trial, end.power[left])[:, None])[:, 0] > end.drive[left]
            )
        share[left] = torch.where(risen, (2 * share[left]).clamp(max=1.0), share[left] / 2)
        end.steps[left] += 1
        moved = left[risen]
        if len(moved):
            end.z[moved] = trial[risen]
            end.power[moved] = canvas.power(end.z[moved])
            end.drive[moved], slope[moved] = _drive_and_slope(
                subject, neurons[moved], canvas, end.z[moved], end.power[moved]
            )
    return end


def _drive_and_slope(
    subject: Subject, neurons: Tensor, canvas: _Canvas, z: Tensor, power: Tensor
) -> tuple[Tensor, Tensor]:
    """The drive of each neuron (n,), and its gradient by z, p held."""
    with torch.enable_grad():
        at = z.detach().clone().requires_grad_()
        drives = subject.drives(neurons, canvas.images(at, power)[:, None])[:, 0]
        (slope,) = torch.autograd.grad(drives.sum(), at)
    return drives.detach(), slope


def _unit(z: Tensor) -> Tensor:
    """Each image divided by its norm; zeros stay."""
    norms = z.flatten(1).norm(dim=1)
    return z / torch.where(norms > 0, norms, 1.0)[:, None, None, None]
