"""A plan: FEV against the number of images, the images that reach a target, and a page that says what to record."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from whatwhere.errors import RunError
from whatwhere.experiments.architectures import FACTORIZED, POSTERIOR
from whatwhere.experiments.grid import GridResults, read_grid
from whatwhere.experiments.images_needed import (
    Goal,
    Need,
    answer,
    cheapest,
    find_needs,
    in_short,
    monotone,
    plan_table,
)
from whatwhere.report.curves import draw_curve
from whatwhere.report.page import Section, write_page
from whatwhere.report.reproduction_parts import PAGE_FILE, all_points, failures
from whatwhere.report.style import GREY, SMALL, TEXT, WIDTH, counted, dress, new_figure, save_figures

FIGURE_FILE = "plan.png"
SHADES = {FACTORIZED: ("Blues", "o"), POSTERIOR: ("Reds", "D")}
"""Colours and marker of a readout."""
STAR: dict[str, Any] = {"marker": "*", "color": "black", "markersize": 9, "linestyle": "", "zorder": 5}
BESIDE = 1.06  # times the number of neurons, between readouts
HEIGHT = 3.3  # inches
MOST_TICKS = 8
TABLE = (
    'As in plan.csv. low and high: for the best and for the worst seed; -: not reached on the grid. Reached "at most":'
    " the fewest images measured are enough. highest_fev: at most_images."
)
CAPTION = (
    "Left: FEV against the number of images (training and validation), a panel a readout, a curve for each number of"
    " neurons; points are medians over seeds, bars the range, lines the medians made monotone. The dashed line is the"
    " target, the star the cheapest recording that reaches it. Right: images that reach the target, against the number"
    " of neurons; bars go from the best to the worst seed at each number of images, an arrow says that more (up) or"
    " fewer (down) than were measured are needed."
)


def planned_recording(results: GridResults, goal: Goal) -> Figure:
    """FEV by number of images and neurons, a panel a readout, and beside them the images that reach the target.

    Points are medians over seeds, bars the range, lines the medians made monotone. Right: bars from the best to the
    worst seed; a hollow marker with an arrow is the end of what was measured.
    """
    needs = find_needs(results.table, goal)
    models = [model for model in SHADES if any(need.model == model for need in needs)]
    figure = new_figure(WIDTH, HEIGHT)
    panels = figure.subplots(1, len(models) + 1, width_ratios=[1.0] * len(models) + [0.9])
    best = cheapest(needs)
    for axes, model in zip(panels, models, strict=False):
        _draw_readout(axes, results, [need for need in needs if need.model == model], goal, best)
        dress(axes, x="number of images", y="FEV" if axes is panels[0] else "", title=f"{model} readout")
        axes.title.set_color(_colour(model))
    _draw_needs(panels[-1], needs, models, best)
    dress(panels[-1], x="number of neurons", y="images needed", title=f"for FEV {goal.fev:.2f}")
    for letter, axes in zip("ABC", panels, strict=False):
        axes.set_title(letter, loc="left", fontsize=TEXT + 1, fontweight="bold")
    _add_legend(figure, needs, best)
    return figure


def _colour(model: str, size: int = 1, sizes: Sequence[int] = ()) -> Any:
    """Of a readout, or of one of its curves: the more neurons, the darker."""
    shade = 0.95 - 0.55 * (len(sizes) - 1 - sizes.index(size)) / max(1, len(sizes) - 1) if sizes else 0.75
    return matplotlib.colormaps[SHADES[model][0]](shade)


def _draw_readout(axes: Axes, results: GridResults, needs: Sequence[Need], goal: Goal, best: Need | None) -> None:
    sizes = [need.n_neurons for need in needs]
    for need in needs:
        curve = results.curve(need.model, need.n_neurons)
        colour, name = _colour(need.model, need.n_neurons, sizes), counted(need.n_neurons, "neuron")
        draw_curve(axes, curve, {"color": colour, "linestyle": "", "marker": SHADES[need.model][1], "label": name})
        line = monotone([point.median for point in curve])
        axes.plot([point.n_images for point in curve], line, color=colour, linewidth=1.3)
    axes.axhline(goal.fev, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    if best is not None and best.model == needs[0].model:
        axes.plot(best.n_images, goal.fev, **STAR)
    axes.set_xscale("log", base=2)
    _number(axes.xaxis, sorted({int(n) for n in results.done["n_images"]}), rotation=45)
    axes.set_ylim(-0.03, 1.03)


def _draw_needs(axes: Axes, needs: Sequence[Need], models: Sequence[str], best: Need | None) -> None:
    """Each readout's needs, side by side where they have the same number of neurons."""
    for place, model in enumerate(models):
        of_model = [need for need in needs if need.model == model]
        beside = BESIDE ** (place - (len(models) - 1) / 2)
        found = [need for need in of_model if need.reached]
        line = [need.n_neurons * beside for need in found], [need.n_images for need in found]
        axes.plot(*line, color=_colour(model), linewidth=1.3)
        for need in of_model:
            _draw_need(axes, need, need.n_neurons * beside)
        if best is not None and best.model == model:
            axes.plot(best.n_neurons * beside, best.n_images, **STAR)
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    _number(axes.xaxis, sorted({need.n_neurons for need in needs}))
    low, high = axes.dataLim.intervaly
    _number(axes.yaxis, octaves(low, high, min(need.fewest for need in needs)))
    axes.margins(x=0.15, y=0.15)


def octaves(low: float, high: float, first: int) -> list[int]:
    """Numbers for an axis from low to high: `first` times powers of two, from the one below to the one above.

    >>> octaves(150, 900, 64)
    [128, 256, 512, 1024]
    """
    below = math.floor(math.log2(low / first) + 1e-9)
    above = math.ceil(math.log2(high / first) - 1e-9)
    return [round(first * 2.0**power) for power in range(below, above + 1)]


def _add_legend(figure: Figure, needs: Sequence[Need], best: Need | None) -> None:
    """Below the panels, an entry for each number of neurons with the markers of all readouts."""
    by_size: dict[int, list[Line2D]] = {}
    for need in sorted(needs, key=lambda need: (need.n_neurons, need.model)):
        sizes = [other.n_neurons for other in needs if other.model == need.model]
        look = {"color": _colour(need.model, need.n_neurons, sizes), "marker": SHADES[need.model][1], "linestyle": ""}
        by_size.setdefault(need.n_neurons, []).append(Line2D([], [], markersize=4, **look))
    entries: dict[str, Any] = {counted(size, "neuron"): tuple(lines) for size, lines in by_size.items()}
    if best is not None:
        entries[f"cheapest: {in_short(best)}"] = Line2D([], [], **STAR)
    figure.legend(
        list(entries.values()),
        list(entries),
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside lower center",
        ncols=len(entries) if len(entries) <= 4 else 3,
        fontsize=SMALL,
        frameon=False,
    )


def _draw_need(axes: Axes, need: Need, x: float) -> None:
    """A marker with the range over seeds, both ending where the measurements do."""
    colour, marker = _colour(need.model), SHADES[need.model][1]
    low, high = (min(max(n, need.fewest), need.most) for n in (need.low, need.high))
    shown = min(need.n_images, need.most)
    if low < high:
        axes.plot([x, x], [low, high], color=colour, linewidth=0.8)
    hollow = need.at_most or not need.reached
    axes.plot(x, shown, marker, color=colour, markersize=4.5, markerfacecolor="white" if hollow else colour)
    if need.high > need.most:
        _draw_arrow(axes, (x, need.most), 1, colour)
    if need.low == need.fewest:
        _draw_arrow(axes, (x, need.fewest), -1, colour)


def _draw_arrow(axes: Axes, at: tuple[float, float], up: int, colour: Any) -> None:
    arrow = {"arrowstyle": "<-", "color": colour, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2}
    axes.annotate("", at, (0, 14 * up), xycoords="data", textcoords="offset points", arrowprops=arrow)


def _number(axis: Axis, numbers: Sequence[int], rotation: float = 0) -> None:
    """Ticks at these numbers alone, thinned where they would touch."""
    kept = list(numbers[:: 1 + (len(numbers) - 1) // MOST_TICKS])
    axis.set_ticks(kept, [f"{number:,}" for number in kept], rotation=rotation)
    axis.set_ticks([], minor=True)


def draw_plan(folder: str | Path, goal: Goal) -> list[Path]:
    """Reads the grid that a folder holds, and writes the figure and the page of its plan; returns the files.

    Raises `RunError` where no point has an outcome yet.
    """
    folder = Path(folder)
    results = read_grid(folder)
    if not len(results.done):
        raise RunError(f"{folder} holds no point that has an outcome: there is nothing to plan from.")
    needs = find_needs(results.table, goal)
    figure = planned_recording(results, goal)
    files = save_figures(folder, {FIGURE_FILE: figure})
    sections = [
        Section("What to record", answer(needs, goal)),
        Section("How it was found", _settings(results)),
        Section("The curves", figure=figure, caption=CAPTION),
        Section("Images that reach the target", [TABLE], table=_readable(plan_table(needs))),
        *failures(results),
        all_points(results),
    ]
    title = f"How many neurons and images for FEV {goal.fev:.2f}"
    return [*files, write_page(folder / PAGE_FILE, title, sections)]


def _settings(results: GridResults) -> list[str]:
    """What was simulated and fitted, and what that leaves open."""
    asked = results.asked
    height, width = asked["image_size"]
    types = "as many types as the kind has" if asked["n_types"] is None else counted(asked["n_types"], "type")
    further = [f"{name}.{key}={value}" for name, of in asked["further"].items() for key, value in of.items()]
    more = f" Further options: {', '.join(further)}." if further else ""
    seeds = counted(results.done["seed"].nunique(), "seed")
    return [
        f"Simulated: {asked['kind']} neurons, {types}, mean rate {asked['mean_rate']:g} an image, {asked['noise']}"
        f" noise, {asked['stimuli']} of {asked['n_channels']} x {height} x {width} pixels, {asked['positions']} places;"
        f" {seeds}, each a population, images and noise of its own.{more}",
        "A fifth of the images is set aside to choose strengths and the end of the fit; no fit is repeated on all of"
        " them. FEV is that of the noise-free rates for new images, the mean over neurons, clipped at 0.",
        "The networks know how large the receptive fields are, how many types there are and which of them are complex"
        " cells, as in the paper's simulations; a recording of real neurons needs more. Images of fewer pixels have"
        " fewer places to look for a receptive field in, and so fewer of them are needed.",
        "The images needed are where the medians over seeds, made monotone, meet the target, between numbers of images"
        " that were measured; nothing is extrapolated. The range goes from the best to the worst seed at each number"
        " of images: with few seeds it says little about rarer failures.",
    ]


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers without decimals, a dash where the target is not reached."""
    counts = ["images_needed", "low", "high"]
    shown = {name: ["-" if np.isnan(n) else f"{n:,.0f}" for n in table[name].astype(float)] for name in counts}
    return table.assign(**shown)
