"""Where each neuron's response changes with the image: the place that apertures and sprites are centred on."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject, chosen_neurons, groups, images_at_once, slopes, statistics_for
from whatwhere.location_posterior import blur

N_NOISES = 4
_SMOOTHING = 1.5  # pixels
_LEAST_SHARE = 0.5


def find_places(
    model: Any, *, statistics: ImageStatistics | None = None, neurons: Any = None, memory_gib: float = 1.0
) -> np.ndarray:
    """Row and column, in pixels of the image, of the middle of each neuron's sensitivity, (n_neurons, 2), float64.

    The sensitivity is E(i, j) = sum_c mean_x (d u / d x_c(i, j))^2 with the drive u that the output nonlinearity is
    applied to, over images x of white noise of the recording's grey and contrast, always the same four; smoothed by
    a Gaussian of 1.5 pixels, its place is the centroid of what exceeds half of its peak. It sees simple and complex
    cells alike, and what kernels that are learned off-centre do to a mask's position does not matter. NaN for a neuron
    that no pixel moves. neurons: positions, or one boolean each; None: all.

    >>> from whatwhere.simulation import gabor_population
    >>> population = gabor_population(3, image_size=(24, 40), seed=1)
    >>> bool(np.abs(find_places(population) - population.locations).max() < 0.5)
    True
    """
    subject = as_subject(model)
    chosen, statistics = chosen_neurons(subject, neurons), statistics_for(subject, statistics)
    images = noise_images(subject, statistics, N_NOISES)
    places = np.empty((len(chosen), 2))
    for where, some in groups(chosen, images_at_once(subject, memory_gib) // N_NOISES):
        gradient = slopes(subject, torch.from_numpy(some).to(subject.device), images, of_drive=True)
        places[where] = centroids(gradient.square().sum(2).mean(1)).cpu().numpy()
    return places


def noise_images(subject: Subject, statistics: ImageStatistics, n_images: int, seed: int = 0) -> Tensor:
    """White noise of the recording's grey and contrast, (n_images, n_channels, height, width)."""
    noise = np.random.default_rng(seed).standard_normal((n_images, *subject.image_shape))
    images = statistics.grey + statistics.contrast * noise
    return torch.from_numpy(images.astype(np.float32)).to(subject.device)


def centroids(energy: Tensor) -> Tensor:
    """Row and column of the middle of each map's largest values, (n, 2), float64; energy: (n, height, width), from 0.

    >>> centroids(torch.nn.functional.one_hot(torch.tensor([[23]]), 40).view(1, 5, 8).float()).round().tolist()
    [[2.0, 7.0]]
    """
    smooth = blur(energy.double(), _SMOOTHING)
    peaks = smooth.amax((1, 2), keepdim=True)
    weights = (smooth - _LEAST_SHARE * peaks).clamp(min=0)
    weights = weights / weights.sum((1, 2), keepdim=True)  # 0 / 0, NaN, where there is no energy
    rows, columns = (torch.arange(size, device=energy.device, dtype=weights.dtype) for size in energy.shape[1:])
    return torch.stack([weights.sum(2) @ rows, weights.sum(1) @ columns], 1)


def or_middle(places: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Places, and the middle of the image for neurons that have none."""
    return np.where(np.isnan(places), (np.array(image_size) - 1) / 2, places)
