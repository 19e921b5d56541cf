"""A curve of medians over seeds with the range as bars."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from whatwhere.experiments.grid import CurvePoint


def draw_curve(axes: Axes, points: Sequence[CurvePoint], look: dict[str, Any], *, times: int = 1) -> None:
    """FEV against `times` the number of images; no bars where every point is of one seed."""
    medians = np.array([point.median for point in points])
    bars = np.array([[point.median - point.low, point.high - point.median] for point in points]).T
    axes.errorbar(
        [times * point.n_images for point in points],
        medians,
        bars if max(point.n_seeds for point in points) > 1 else None,
        linewidth=1.3,
        markersize=4,
        elinewidth=0.7,
        **look,
    )
