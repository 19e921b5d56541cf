"""Outlines of regions of pixels, along the pixels' own edges."""

import numpy as np


def outline(inside: np.ndarray, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The edges between what is inside a region and what is not: (n_edges, 2 ends, 2: x and y), pixels of the image.

    - `inside` bool (h, w); `offset`: row and column in the image of its first pixel, whose edges are half a pixel
      away from it

    >>> outline(np.array([[True]]), (2.0, 5.0)).reshape(-1, 4)  # above, below, left, right
    array([[4.5, 1.5, 5.5, 1.5],
           [4.5, 2.5, 5.5, 2.5],
           [4.5, 1.5, 4.5, 2.5],
           [5.5, 1.5, 5.5, 2.5]])
    """
    around = np.pad(np.asarray(inside, bool), 1)
    rows, columns = np.nonzero(around[1:, 1:-1] != around[:-1, 1:-1])  # an edge above pixel (row, column)
    level = np.stack([np.stack([columns, rows], 1), np.stack([columns + 1, rows], 1)], 1)
    rows, columns = np.nonzero(around[1:-1, 1:] != around[1:-1, :-1])  # an edge left of pixel (row, column)
    upright = np.stack([np.stack([columns, rows], 1), np.stack([columns, rows + 1], 1)], 1)
    return np.concatenate([level, upright]) + np.array(offset)[::-1] - 0.5
