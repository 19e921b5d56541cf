"""Linearised receptive fields: the gradient of each neuron's predicted response with respect to the image."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.baselines.crops import Crops
from whatwhere.errors import InputError, OptionError
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.places import find_places, or_middle
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject, chosen_neurons, groups, images_at_once, slopes, statistics_for
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import as_images
from whatwhere.simulation.counts import check_size

SPRITE = (24, 24)
"""Height and width of a usual crop, pixels."""


@dataclass(frozen=True, eq=False)
class LinearFields:
    """Linearised receptive fields of some neurons, whole or cropped.

    - `values` (n_neurons, n_channels, height, width), float32: change of the response for a change of the pixel by one
      unit of grey value
    - `corners` (n_neurons, 2), int: row and column in the image of the first (top left) pixel; zeros for whole fields
    - `places` (n_neurons, 2): row and column in the image of where each neuron looks, see `find_places`; NaN for none
    - `neurons` (n_neurons,), int: positions in the model, `names`: identifiers
    - `image_size` (height, width), pixels
    """

    values: np.ndarray
    corners: np.ndarray
    places: np.ndarray
    neurons: np.ndarray
    names: list[str]
    image_size: tuple[int, int]


def linear_fields(
    model: Any,
    average_over: Any = None,
    *,
    crop: int | tuple[int, int] | None = None,
    statistics: ImageStatistics | None = None,
    neurons: Any = None,
    memory_gib: float = 1.0,
) -> LinearFields:
    """d r_n / d x_c(i, j), at the mean image, or averaged over images: the best linear account of a neuron there.

    Of a linear neuron it is the filter. A rectified one that is silent at the mean image has a field of zeros there,
    and a complex cell a small one; averages over images that drive them tell more.

    - `model`: a fitted network or filter model, or a simulated population
    - `average_over`: images (n_images, n_channels, height, width) in the recording's units, in memory or on disk; takes
      as long as so many times the single image
    - `crop`: height and width of a window around each neuron's place, shifted inside where it would reach out; None:
      the whole image. `SPRITE` is a usual one
    - `statistics`: of the recording's images, for their mean; None: the model's own
    - `neurons`: positions, or one boolean each; None: all
    - `memory_gib`: what images and feature maps may take at once, roughly

    Raises `OptionError` for a crop larger than the image, `InputError` for images of another shape.

    >>> from whatwhere.simulation import gabor_population
    >>> population = gabor_population(3, image_size=(24, 40), seed=1)
    >>> bool(np.allclose(linear_fields(population).values[:, 0], population.receptive_fields(), atol=1e-6))
    True
    """
    subject = as_subject(model)
    statistics, chosen = statistics_for(subject, statistics), chosen_neurons(subject, neurons)
    size = _window(crop, subject.image_shape[1:])
    images = None if average_over is None else _check(average_over, subject)
    places = find_places(subject, statistics=statistics, neurons=chosen, memory_gib=memory_gib)
    image_size = subject.image_shape[1:]
    crops = Crops.around(or_middle(places, image_size), size, image_size)
    values = np.zeros((len(chosen), subject.image_shape[0], *size), np.float32)
    most = images_at_once(subject, memory_gib)
    n_images = 1 if images is None else images.shape[0]
    for first in range(0, n_images, most):
        some = statistics.mean[None] if images is None else _read(images, first, first + most)
        shown = torch.from_numpy(some.astype(np.float32)).to(subject.device)
        for where, which in groups(chosen, most // len(shown)):
            gradient = slopes(subject, torch.from_numpy(which).to(subject.device), shown).sum(1)
            values[where] += cut(gradient, crops.positions[where], size).cpu().numpy() / np.float32(n_images)
    return LinearFields(values, crops.positions, places, chosen, [subject.names[n] for n in chosen], image_size)


def cut(images: Tensor, corners: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Of each image (n, n_channels, height, width) its own window, whose first pixel is in corners (n, 2)."""
    rows, columns = (
        torch.from_numpy(corners[:, axis, None] + np.arange(size[axis])).to(images.device) for axis in (0, 1)
    )
    each = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[each, channels, rows[:, None, :, None], columns[:, None, None, :]]


def _window(crop: int | tuple[int, int] | None, image_size: tuple[int, int]) -> tuple[int, int]:
    if crop is None:
        return image_size
    height, width = check_size("crop", (crop, crop) if isinstance(crop, int) else crop)
    if height > image_size[0] or width > image_size[1]:
        raise OptionError(
            f"crop (={height} x {width}) does not fit in images of {image_size[0]} x {image_size[1]} pixels, height x"
            " width: choose a smaller one, or None for the whole image."
        )
    return height, width


def _check(images: Any, subject: Subject) -> Any:
    images = as_images("average_over", images)
    if tuple(images.shape[1:]) != subject.image_shape:
        expected = ", ".join(map(str, subject.image_shape))
        raise InputError(
            f"average_over has shape {tuple(images.shape)}: expected (n_images, {expected}), that is (n_images,"
            " n_channels, height, width) as in the fit. Height comes before width."
        )
    return images


def _read(images: Any, start: int, stop: int) -> np.ndarray:
    some = np.asarray(images[start:stop])
    check_image_rows("average_over", some, range(start, start + len(some)))
    return some
