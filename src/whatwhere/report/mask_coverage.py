"""How a population's masks cover the visual field: single outlines, and how many neurons read each pixel."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from whatwhere.checks import check_finite, check_ndim
from whatwhere.errors import OptionError
from whatwhere.report.outlines import outline
from whatwhere.report.style import (
    COLOURS,
    DENSITY,
    GREY,
    SMALL,
    WIDTH,
    counted,
    dress,
    dress_colour_bar,
    new_figure,
    percent,
)
from whatwhere.rows import spaced

MOST_OUTLINES = 60


def mask_coverage(
    masks: Any, offset: tuple[float, float], image_size: tuple[int, int], *, level: float = 0.5
) -> Figure:
    """Left the outlines of the masks, right how many neurons read each pixel: sum_n [|m_n| >= level max |m_n|].

    A neuron reads the pixels where its mask has at least `level` of its largest magnitude; a mask that is zero
    everywhere reads none, and is counted below. Of more than 60 neurons evenly spaced ones are outlined, all are
    counted. The dashed frame is how far masks reach; the title says which share of it some neuron reads. Row 0 is on
    top. `masks_on_visual_field` shows the density of neurons with their locations and types.

    - `masks` (n_neurons, h, w); `offset`: row and column in the image of the masks' first pixel (`core.map_offset`)
    - `image_size` (height, width), pixels

    Raises `InputError` where shapes do not fit or a mask is not finite, `OptionError` for a level that is not above 0
    and at most 1.
    """
    masks = np.asarray(masks)
    check_ndim("masks", masks, ("n_neurons", "mask height", "mask width"))
    check_finite("masks", masks.reshape(len(masks), -1), row="neuron")
    if not 0 < level <= 1:
        raise OptionError(f"level must be above 0 and at most 1, got {level}: 0.5 is the width at half height.")
    readers = np.flatnonzero(masks.any(axis=(1, 2)))
    coverage = np.zeros(masks.shape[1:], int)
    for neuron in readers:
        coverage += read_pixels(masks[neuron], level)
    height, width = image_size
    figure = new_figure(*_figure_size(height, width))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    chosen = readers[spaced(len(readers), MOST_OUTLINES)]
    for place, neuron in enumerate(chosen):
        edges = outline(read_pixels(masks[neuron], level), offset)
        left.add_collection(LineCollection(list(edges), colors=COLOURS[place % len(COLOURS)], linewidths=0.9))
    (row, column), (h, w) = offset, coverage.shape
    extent = (column - 0.5, column + w - 0.5, row + h - 0.5, row - 0.5)
    shown = np.ma.masked_equal(coverage, 0)
    image = right.imshow(
        shown, cmap=f"{DENSITY}_r", vmin=0, vmax=max(coverage.max(), 1), extent=extent, interpolation="nearest"
    )
    of_all = f"{len(chosen):,} of " if len(chosen) < len(masks) else ""
    _dress(left, extent, image_size, f"{of_all}{counted(len(masks), 'neuron')}")
    _dress(right, extent, image_size, f"{percent([float((coverage > 0).mean())])[0]} of the frame is read")
    left.set_ylabel("row (pixels)", fontsize=SMALL)
    bar = figure.colorbar(image, ax=[left, right], shrink=0.8, pad=0.02, ticks=MaxNLocator(5, integer=True))
    dress_colour_bar(bar, "neurons that read the pixel")
    if len(readers) < len(masks):
        note = f"without a mask: {len(masks) - len(readers):,} of {counted(len(masks), 'neuron')}"
        figure.supxlabel(note, x=0.99, ha="right", fontsize=SMALL)
    return figure


def read_pixels(mask: np.ndarray, level: float) -> np.ndarray:
    """Where a mask (h, w) has at least `level` of its largest magnitude: bool (h, w); nowhere if it is zero.

    >>> read_pixels(np.array([[0.0, -2.0, 0.9, 1.0]]), 0.5)
    array([[False,  True, False,  True]])
    """
    magnitude = np.abs(mask)
    return (magnitude >= level * magnitude.max()) & (magnitude > 0)


def _figure_size(height: int, width: int) -> tuple[float, float]:
    """Inches, for two panels in the image's own proportions beside a colour bar."""
    panel = (WIDTH - 1.4) / 2
    return WIDTH, float(np.clip(panel * height / width + 0.9, 1.9, 6.0))


def _dress(axes: Axes, extent: tuple[float, float, float, float], image_size: tuple[int, int], title: str) -> None:
    left, right, low, top = extent
    frame = Rectangle((left, top), right - left, low - top, fill=False, linestyle="--", color=GREY, linewidth=0.7)
    axes.add_patch(frame)
    height, width = image_size
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    dress(axes, x="column (pixels)", title=title, frame=True, size=SMALL)
