"""What experiments on a fitted model found: fields and most exciting images, tuning for orientation and for size."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whatwhere.checks import check_ndim, check_positions
from whatwhere.insilico import GratingTuning, LinearFields, MostExciting, SizeTuning
from whatwhere.insilico.studies import Study
from whatwhere.report.style import (
    COLOURS,
    DIVERGING,
    GREY,
    SMALL,
    WIDTH,
    bare,
    counted,
    dress,
    new_figure,
    save_figures,
    symmetric_limit,
)
from whatwhere.rows import spaced
from whatwhere.runs import STUDY_FIGURES

FIELDS_FIGURE, EXCITING_FIGURE, GRATINGS_FIGURE, SIZES_FIGURE = STUDY_FIGURES
MOST_SHOWN = 32  # images in a grid
MOST_CURVES = 8
_COLUMNS = 8
_BINS = 18  # of half a turn
_BORDER = 0.5  # of phase invariance, between simple and complex cells


def draw_study(found: Study, folder: Path) -> list[Path]:
    """Draws what a study found into its folder; figures of an earlier one that this one lacks are removed."""
    figures = {
        FIELDS_FIGURE: None if found.fields is None else field_grid(found.fields),
        EXCITING_FIGURE: None if found.most_exciting is None else most_exciting_grid(found.most_exciting),
        GRATINGS_FIGURE: None if found.gratings is None else orientation_tuning(found.gratings),
        SIZES_FIGURE: None if found.sizes is None else size_curves(found.sizes),
    }
    return save_figures(folder, figures)


def field_grid(fields: LinearFields, neurons: Any = None) -> Figure:
    """Linearised receptive fields, each on a symmetric colour scale of its own: white is zero, red excites.

    neurons: rows of `fields`; None: at most 32, evenly. Several channels stand side by side, the first on the left.
    """
    which = _rows(neurons, len(fields.values), MOST_SHOWN)
    images = fields.values[which].astype(float)
    limits = [symmetric_limit(image) for image in images]
    ranges = [(-limit, limit) for limit in limits]
    return _grid(images, [fields.names[row] for row in which], ranges, DIVERGING)


def most_exciting_grid(found: MostExciting, neurons: Any = None) -> Figure:
    """Most exciting images in shades of grey, each on a scale of its own, its mean in the middle.

    neurons: rows of `found`; None: at most 32, evenly. Titles are identifiers; an asterisk says that the search did not
    converge. Several channels stand side by side, the first on the left.
    """
    which = _rows(neurons, len(found.images), MOST_SHOWN)
    titles = [found.names[row] + ("" if found.converged[row] else " *") for row in which]
    images = found.images[which].astype(float)
    limits = [symmetric_limit(image - image.mean()) for image in images]
    ranges = [(image.mean() - limit, image.mean() + limit) for image, limit in zip(images, limits, strict=True)]
    return _grid(images, titles, ranges, "gray")


def _grid(images: np.ndarray, titles: list[str], ranges: list[tuple[float, float]], colours: Any) -> Figure:
    """Images (n, n_channels, height, width) in rows of at most eight."""
    check_ndim("images", images, ("n_neurons", "n_channels", "height", "width"))
    n_channels, height, width = images.shape[1:]
    shown = n_channels * (width + 1) - 1
    most = int(np.clip(_COLUMNS * 1.6 * height / shown, 1, _COLUMNS))  # wide images: fewer beside each other
    n_columns = min(most, len(images))
    n_rows = -(-len(images) // n_columns)
    cell = WIDTH / max(n_columns, 4)  # inches
    figure = new_figure(cell * n_columns, (cell * min(height / shown, 2.0) + 0.2) * n_rows)
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, image, title, (low, high) in zip(panels, images, titles, ranges, strict=False):
        gap = np.full((height, 1), np.nan)
        beside = np.concatenate([part for channel in image for part in (channel, gap)][:-1], axis=1)
        axes.imshow(beside, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(title, fontsize=SMALL, pad=2)
        axes.spines[:].set_linewidth(0.4)
        bare(axes)
    for axes in panels[len(images) :]:
        axes.set_visible(False)
    return figure


def orientation_tuning(tuning: GratingTuning, neurons: Any = None) -> Figure:
    """Left tuning curves of some neurons, in the middle what all prefer, right simple against complex cells.

    Curves are responses above grey at each neuron's best frequency, each divided by its largest, the preferred
    orientation marked; a petal lies as the stripes do. In the middle a histogram of preferred orientations, right
    phase invariance with the border of simple and complex cells, both of all neurons that gratings drive.

    neurons: rows of `tuning`, whose curves are drawn; None: at most 8, evenly among those that gratings drive.
    """
    driven = np.flatnonzero(tuning.peak > 0)
    if neurons is None:
        which = driven[spaced(len(driven), MOST_CURVES)] if len(driven) else driven
    else:
        which = check_positions("neurons", neurons, len(tuning.neurons), "neuron")
    figure = new_figure(WIDTH, 2.4)
    grid = figure.add_gridspec(1, 3, width_ratios=[1.15, 1.15, 1.0])
    curves, preferred = (figure.add_subplot(grid[0, place], projection="polar") for place in (0, 1))
    _draw_curves(curves, tuning, which)
    _draw_preferred(preferred, tuning, driven)
    _draw_invariance(figure.add_subplot(grid[0, 2]), tuning, driven)
    return figure


def _circle(axes: Any, title: str) -> None:
    """Twice half a turn, with degrees at its edge; orientation 0, stripes that lie, on the right and on the left."""
    axes.set_thetagrids(range(0, 360, 45), [f"{angle % 180}°" for angle in range(0, 360, 45)])
    axes.set_title(title, fontsize=SMALL + 1)
    axes.tick_params(labelsize=SMALL, pad=1)
    axes.grid(linewidth=0.4)


def _draw_curves(axes: Any, tuning: GratingTuning, which: np.ndarray) -> None:
    angles = np.concatenate([tuning.orientations, tuning.orientations + np.pi, [2 * np.pi]])
    for number, row in enumerate(which):
        curve = tuning.orientation_curves[row]
        colour = COLOURS[number % len(COLOURS)]
        scaled = np.concatenate([curve, curve, curve[:1]]) / (curve.max() or 1.0)
        axes.plot(angles, scaled, color=colour, linewidth=1.1, linestyle="-" if number < len(COLOURS) else "--")
        for turn in (0, np.pi):
            axes.plot([tuning.orientation[row] + turn], [1.0], "o", color=colour, markersize=3, clip_on=False)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0.5, 1.0], ["", ""])
    _circle(axes, f"response / largest\nof {counted(len(which), 'neuron')} by orientation")


def _draw_preferred(axes: Any, tuning: GratingTuning, driven: np.ndarray) -> None:
    edges = np.linspace(0, np.pi, _BINS + 1)
    counts, _ = np.histogram(tuning.orientation[driven], edges)
    for turn in (0, np.pi):
        look: dict[str, Any] = {"color": COLOURS[0], "edgecolor": "white", "linewidth": 0.4}
        axes.bar(edges[:-1] + turn, counts, width=np.pi / _BINS, align="edge", **look)
    top = max(int(counts.max()), 1)
    axes.set_ylim(0, top)
    axes.set_yticks([top], [""])
    _circle(axes, f"preferred orientation,\n{counted(len(driven), 'neuron')}; edge: {top}")


def _draw_invariance(axes: Axes, tuning: GratingTuning, driven: np.ndarray) -> None:
    values = tuning.phase_invariance[driven]
    axes.hist(values, np.linspace(0, 1, 21).tolist(), color=COLOURS[1], edgecolor="white", linewidth=0.4)
    axes.axvline(_BORDER, color=GREY, linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    n_complex = int((values > _BORDER).sum())
    title = f"{len(values) - n_complex:,} simple | {n_complex:,} complex"
    dress(axes, x="phase invariance", y="neurons", title=title, size=SMALL + 1)


def size_curves(tuning: SizeTuning, neurons: Any = None) -> Figure:
    """Left size tuning curves of some neurons and the median of all, right suppression against preferred radius.

    Curves are responses above grey, each divided by its largest. neurons: rows of `tuning`; None: at most 8, evenly
    among those that respond.
    """
    driven = np.flatnonzero(tuning.response.max(1) > 0)
    if neurons is None:
        which = driven[spaced(len(driven), MOST_CURVES)] if len(driven) else driven
    else:
        which = check_positions("neurons", neurons, len(tuning.neurons), "neuron")
    scaled = tuning.response / np.where(tuning.response.max(1) > 0, tuning.response.max(1), 1.0)[:, None]
    figure = new_figure(WIDTH, 2.8)
    curves, scatter = figure.subplots(1, 2)
    for row in which:
        curves.plot(tuning.radii, scaled[row], color=COLOURS[4], linewidth=0.9, marker="o", markersize=2)
    if len(driven):
        curves.plot(tuning.radii, np.median(scaled[driven], 0), color="black", linewidth=1.6, label="median of all")
        curves.legend(fontsize=SMALL, frameon=False, loc="lower right")
    _radius_axis(curves, tuning.radii)
    curves.set_ylim(0, 1.05)
    dress(curves, x="radius of the grating (pixels)", y="response / largest", title=counted(len(which), "neuron"))
    spread = np.random.default_rng(0).uniform(-0.03, 0.03, len(driven))  # equal ones side by side
    at = tuning.preferred_radius[driven] * np.exp(spread)
    faint = float(np.clip(150 / max(len(driven), 1), 0.2, 0.7))
    scatter.plot(at, tuning.suppression[driven], ".", color=COLOURS[0], alpha=faint, markeredgewidth=0, markersize=6)
    _radius_axis(scatter, tuning.radii)
    scatter.set_ylim(-0.03, 1.03)
    dress(scatter, x="preferred radius (pixels)", y="suppression index", title=counted(len(driven), "neuron"))
    return figure


def _radius_axis(axes: Axes, radii: np.ndarray) -> None:
    """Logarithmic, with a few radii as ticks."""
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = radii[spaced(len(radii), 5)]
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.set_xlim(radii[0] / 1.1, radii[-1] * 1.1)


def _rows(neurons: Any, n_neurons: int, most: int) -> np.ndarray:
    return spaced(n_neurons, most) if neurons is None else check_positions("neurons", neurons, n_neurons, "neuron")
