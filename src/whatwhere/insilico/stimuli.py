"""Gratings, full-field or in a round aperture, and what a response to their phases tells."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

EDGE = 1.0
"""Pixels over which an aperture fades from full contrast to grey."""


def grating(
    size: tuple[int, int], orientation: Tensor, frequency: Tensor, phase: Tensor, centre: Tensor | None = None
) -> Tensor:
    """cos(2 pi f u + phase) with u = (row - r) cos(orientation) + (column - c) sin(orientation): (..., height, width).

    size: (height, width). orientation and phase in radians, frequency f in cycles per pixel: tensors of one shape, or
    that broadcast, float64. As in `simulation.gabor` orientation 0 is stripes that lie horizontally, pi / 2 upright
    ones; it grows anticlockwise as seen. centre (..., 2): row r and column c, in pixels, where `phase` is told; None:
    the middle of the image.

    >>> numbers = [torch.tensor(value, dtype=torch.float64) for value in (0.0, 0.25, 0.0)]
    >>> grating((5, 2), *numbers).round().abs()[:, 0].tolist()  # across the rows, a period of four
    [1.0, 0.0, 1.0, 0.0, 1.0]
    """
    rows, columns = (torch.arange(n, device=orientation.device, dtype=torch.float64) for n in size)
    if centre is None:
        centre = torch.tensor([(n - 1) / 2 for n in size], device=orientation.device, dtype=torch.float64)
    row, column = (centre[..., axis, None] for axis in (0, 1))
    down = (rows - row) * torch.cos(orientation)[..., None]  # (..., height)
    along = (columns - column) * torch.sin(orientation)[..., None]  # (..., width)
    across = down[..., :, None] + along[..., None, :]
    return torch.cos(2 * math.pi * frequency[..., None, None] * across + phase[..., None, None])


def aperture(size: tuple[int, int], radius: Tensor, centre: Tensor) -> Tensor:
    """1 inside a circle and 0 outside, with an edge of one pixel: (..., height, width).

    size: (height, width). radius (...) in pixels, centre (..., 2): row and column; float64, of shapes that broadcast.

    >>> aperture((1, 5), torch.tensor(1.0), torch.zeros(2)).tolist()
    [[1.0, 0.5, 0.0, 0.0, 0.0]]
    """
    rows, columns = (torch.arange(n, device=radius.device, dtype=torch.float64) for n in size)
    row, column = (centre[..., axis, None] for axis in (0, 1))
    distance = torch.sqrt((rows - row).square()[..., :, None] + (columns - column).square()[..., None, :])
    return ((radius[..., None, None] - distance) / EDGE + 0.5).clamp(0, 1).float()


def phases(n_phases: int) -> Tensor:
    """Evenly from 0 to 2 pi, the end left out: (n_phases,), radians, float64."""
    return 2 * math.pi * torch.arange(n_phases, dtype=torch.float64) / n_phases


def mean_and_modulation(responses: Tensor) -> tuple[Tensor, Tensor]:
    """F0 and F1: mean over the phases of a grating, and the amplitude of the response's first harmonic.

    responses: (..., n_phases), at `phases`; both results (...). F1 = 2 |mean r(phase) exp(-i phase)|.

    >>> found = mean_and_modulation(3 + 2 * torch.cos(phases(8) + 1))
    >>> [round(float(value), 6) for value in found]
    [3.0, 2.0]
    """
    angle = phases(responses.shape[-1]).to(responses.device)
    values = responses.double()
    cosine, sine = (2 * (values * of(angle)).mean(-1) for of in (torch.cos, torch.sin))
    return values.mean(-1), torch.hypot(cosine, sine)


def above_grey(mean: np.ndarray, modulation: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """How strongly a grating drives neurons: F0 - r_grey + F1, at least 0; rounding errors count as 0.

    mean, modulation: (n_neurons, ...), grey: (n_neurons,). F1 is what a linear neuron has, F0 - r_grey what a complex
    cell has, and a rectified one has both in the same proportion everywhere; and it hardly matters where phases fall.
    """
    spontaneous = grey.reshape(-1, *(1,) * (mean.ndim - 1))
    response = mean - spontaneous + modulation
    least = 1e-5 * np.maximum(np.abs(spontaneous), np.abs(mean).max(tuple(range(1, mean.ndim)), keepdims=True))
    return np.where(response > least, response, 0.0)


def as_axis(values: Sequence[float] | np.ndarray) -> Tensor:
    """Values of an option as float64."""
    return torch.tensor([float(value) for value in values], dtype=torch.float64)
