"""Cutting out of each neuron's array the pixels where something is."""

import numpy as np

from whatwhere.exploration.explored import Cropped
from whatwhere.run_data import shrunken

MOST_SIDE = 64
"""Values on a side of what is cut out; larger pieces are averaged over squares of pixels."""
_LEAST_SIDE = 7
_FAINT = 0.05  # of a neuron's largest magnitude: fainter pixels need not be seen
_NEURONS = 0.95  # of the neurons whose visible pixels the piece holds


def whole(values: np.ndarray, edges: np.ndarray) -> Cropped:
    """Arrays (n_neurons, n_channels, h, w) that are cut out already, averaged where they are large."""
    step = -(-max(values.shape[2:]) // MOST_SIDE)
    return Cropped(shrunken(np.nan_to_num(values), step).astype(np.float32), edges.astype(np.float32), step)


def around_peaks(values: np.ndarray, offset: tuple[float, float]) -> Cropped:
    """The piece of each neuron's array around its pixel of largest magnitude, of one size for all.

    values: (n_neurons, n_channels, h, w); offset: row and column of its first pixel's centre in the image.

    >>> values = np.zeros((1, 1, 20, 30)); values[0, 0, 4, 25] = 2.0
    >>> piece = around_peaks(values, (0.0, 0.0))
    >>> piece.values.shape, piece.edges, float(piece.values[0, 0, 3, 3])
    ((1, 1, 7, 7), array([[ 0.5, 21.5]], dtype=float32), 2.0)
    """
    peaks, side = peaks_and_side(values)
    return cut(values, peaks, side, offset)


def peaks_and_side(values: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Each neuron's pixel of largest magnitude (n_neurons, 2), and the size that shows nearly all of most neurons."""
    size = values.shape[2:]
    peaks, reach = np.zeros((len(values), 2), int), np.zeros((len(values), 2), int)
    for number, value in enumerate(values):
        magnitude = np.abs(np.nan_to_num(value)).max(0)
        peak = np.array(np.unravel_index(magnitude.argmax(), magnitude.shape))
        seen = np.argwhere(magnitude > _FAINT * magnitude.max())
        peaks[number] = peak
        reach[number] = np.abs(seen - peak).max(0) if len(seen) else 0
    wide = np.quantile(reach, _NEURONS, axis=0, method="higher")
    sides = [int(min(most, max(_LEAST_SIDE, 2 * r + 1))) for most, r in zip(size, wide, strict=True)]
    return peaks, (sides[0], sides[1])


def cut(values: np.ndarray, centres: np.ndarray, side: tuple[int, int], offset: tuple[float, float]) -> Cropped:
    """Pieces of a size around centres (n_neurons, 2), shifted inside where they would reach out."""
    n, _, height, width = values.shape
    starts = np.clip(centres - np.array(side) // 2, 0, np.array([height, width]) - side)
    rows = starts[:, :1] + np.arange(side[0])  # (n_neurons, side)
    columns = starts[:, 1:] + np.arange(side[1])
    pieces = np.nan_to_num(values[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]])
    return whole(np.moveaxis(pieces, 3, 1), starts + np.array(offset) - 0.5)
