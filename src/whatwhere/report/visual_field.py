"""Where the neurons look: masks and locations on the visual field."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from whatwhere.checks import check_ndim, check_same_rows
from whatwhere.errors import InputError
from whatwhere.report.style import (
    GREY,
    MOST_IN_LEGEND,
    SEQUENTIAL,
    SMALL,
    dress,
    dress_colour_bar,
    new_figure,
    numbered_types,
    type_look,
)


def masks_on_visual_field(
    masks: Any,
    offset: tuple[float, float],
    image_size: tuple[int, int],
    locations: Any,
    true_locations: Any = None,
    types: Any = None,
) -> Figure:
    """How the masks cover the visual field, and where each neuron looks.

    The grey image is the coverage, sum_n |m_n| / |m_n|_1: how many neurons look at each pixel. Dots are the
    locations, coloured by type; rings are the true ones, where known, joined to the dots by lines. The dashed
    frame is how far the masks reach. Row 0 is on top, in pixels of the image.

    - `masks` (n_neurons, h, w); `offset`: row and column in the image of the masks' first pixel
      (`core.map_offset`)
    - `image_size` (height, width), pixels
    - `locations`, `true_locations` (n_neurons, 2): row and column in the image
    - `types` (n_neurons,): names or numbers

    Raises `InputError` where shapes do not fit.
    """
    masks, locations = np.asarray(masks), _as_locations("locations", locations)
    check_ndim("masks", masks, ("n_neurons", "mask height", "mask width"))
    check_same_rows("locations", len(locations), "masks", len(masks), each="neuron")
    names, numbers = numbered_types(types, len(masks))
    check_same_rows("types", len(numbers), "masks", len(masks), each="neuron")
    height, width = image_size
    handles = _handles(names if types is not None else [], true_locations is not None)
    figure = new_figure(*_figure_size(height, width))
    if handles:
        most = max(2, int(figure.get_figwidth() / 1.3))
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(len(handles), most),
            fontsize=SMALL,
            frameon=False,
        )
    axes = figure.add_subplot()
    image = _draw_coverage(axes, masks, offset)
    dress_colour_bar(figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02), "coverage (neurons per pixel)")
    size = float(np.clip(3600 / len(masks), 7, 40))  # squared points
    if true_locations is not None:
        true = _as_locations("true_locations", true_locations)
        check_same_rows("true_locations", len(true), "masks", len(masks), each="neuron")
        _draw_truth(axes, locations, true, numbers, size)
    for number, name in enumerate(names):
        rows, columns = locations[numbers == number].T
        axes.scatter(
            columns,
            rows,
            s=size,
            linewidths=0.3,
            edgecolors="white",
            zorder=4,
            label=name,
            **type_look(number),
        )
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    dress(axes, x="column (pixels)", y="row (pixels)", frame=True)
    return figure


def _as_locations(name: str, locations: Any) -> np.ndarray:
    values = np.asarray(locations, float)
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(f"{name} has shape {values.shape}: expected (n_neurons, 2), row and column in pixels.")
    return values


def _figure_size(height: int, width: int) -> tuple[float, float]:
    """Inches, for the image's own proportions beside a colour bar and under a line of legend."""
    scale = min(5.2 / width, 4.6 / height)
    return max(3.4, scale * width + 1.3), max(2.4, scale * height + 0.7)


def _draw_coverage(axes: Axes, masks: np.ndarray, offset: tuple[float, float]) -> Any:
    coverage: np.ndarray = np.zeros(masks.shape[1:])  # (h, w)
    for mask in masks:
        magnitude = np.abs(mask, dtype=float)
        coverage += magnitude / (magnitude.sum() or 1.0)
    (row, column), (height, width) = offset, coverage.shape
    extent = (column - 0.5, column + width - 0.5, row + height - 0.5, row - 0.5)
    frame = Rectangle((extent[0], extent[3]), width, height, fill=False, linestyle="--", color=GREY, linewidth=0.7)
    axes.add_patch(frame)
    top = float(coverage.max()) or 1.0
    return axes.imshow(coverage, cmap=SEQUENTIAL, vmin=0, vmax=top, extent=extent, interpolation="nearest")


def _draw_truth(axes: Axes, found: np.ndarray, true: np.ndarray, numbers: np.ndarray, size: float) -> None:
    joins = np.stack([found, true], axis=1)[:, :, ::-1]  # (n_neurons, 2 ends, x and y)
    axes.add_collection(LineCollection(list(joins), colors="black", linewidths=0.6, zorder=2))
    colours = [type_look(number)["color"] for number in numbers]
    axes.scatter(true[:, 1], true[:, 0], s=2.5 * size, facecolors="none", edgecolors=colours, linewidths=0.8, zorder=3)


def _handles(names: list[str], with_truth: bool) -> list[Line2D]:
    """The legend: a dot a type, at most a dozen, and a ring."""
    dot: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    handles = [Line2D([], [], label=f"type {name}", **dot, **type_look(i)) for i, name in enumerate(names)]
    if len(handles) > MOST_IN_LEGEND:
        rest = len(handles) - MOST_IN_LEGEND
        handles = [
            *handles[:MOST_IN_LEGEND],
            Line2D([], [], linestyle="none", label=f"and {rest} types more"),
        ]
    if with_truth:
        ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black"}
        handles.append(Line2D([], [], label="true location", linestyle="none", markersize=7, **ring))
    return handles
