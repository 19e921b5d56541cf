"""Cell types found in a recording: their map, barcodes, number and confidence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from whatwhere.celltypes import CellTypes, RunTypes, Stability
from whatwhere.errors import InputError
from whatwhere.report.barcode import draw_weights
from whatwhere.report.style import (
    COLOURS,
    GREY,
    MOST_IN_LEGEND,
    SMALL,
    WIDTH,
    counted,
    dress,
    new_figure,
    save_figures,
    type_look,
)
from whatwhere.runs import TYPES_FIGURES

_ROWS = 600
"""Rows of barcodes that a picture can show: of more neurons evenly spaced ones are drawn."""

_TICKS = 24


def draw_types(found: RunTypes) -> list[Path]:
    """Writes the figures of a run's types as PNG; returns the files. Those with nothing to show are left out."""
    types, stability = found.types, found.stability
    has_curve = bool(len(types.bic)) or (stability is not None and bool(len(stability.curve)))
    figures = {
        "types-map.png": type_map(types),
        "types-barcodes.png": type_barcodes(types) if types.n_types else None,
        "types-choice.png": number_of_types(types.bic, types.n_types, stability) if has_curve else None,
        "types-confidence.png": type_confidence(types) if types.n_types else None,
    }
    return save_figures(found.folder, {name: figures[name] for name in TYPES_FIGURES})


def type_map(types: CellTypes) -> Figure:
    """Every neuron on its two maps: the first principal components of the barcodes, and t-SNE where there is one.

    Colours and markers are types; crosses are neurons in no cluster. Silent neurons have no place.
    """
    maps = {"principal component": types.pca, **({} if types.tsne is None else {"t-SNE": types.tsne})}
    figure = new_figure(WIDTH if len(maps) > 1 else 0.62 * WIDTH, 3.4)
    for axes, (name, places) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        _draw_map(axes, places, types.labels)
        axes.set_aspect("equal", "datalim")
        dress(axes, x=f"{name} 1", y=f"{name} 2")
        axes.locator_params(nbins=5)
    handles, names = figure.axes[0].get_legend_handles_labels()
    if len(names) <= MOST_IN_LEGEND:
        figure.legend(
            *(handles, names), loc="outside lower center", ncols=min(4, len(names)), fontsize=SMALL, frameon=False
        )
    return figure


def _draw_map(axes: Axes, places: np.ndarray, labels: np.ndarray) -> None:
    size = float(np.clip(3000 / len(labels), 3, 14))
    noise = (labels < 0) & np.isfinite(places[:, 0])
    if noise.any():
        axes.scatter(
            places[noise, 0],
            places[noise, 1],
            s=size,
            marker="x",
            color="0.6",
            linewidths=0.6,
            label=f"no type ({noise.sum():,})",
        )
    for number in range(int(labels.max(initial=-1)) + 1):
        of_type = labels == number
        look = type_look(number)
        label = f"type {number} ({of_type.sum():,})"
        axes.scatter(
            places[of_type, 0], places[of_type, 1], s=size, linewidths=0.2, edgecolors="white", label=label, **look
        )


def type_barcodes(types: CellTypes) -> Figure:
    """Every typed neuron's barcode as one row, types apart, as they were clustered: of length one, with their signs.

    Of very many neurons evenly spaced ones of each type are drawn. Raises `InputError` where no neuron has a type.
    """
    typed = np.flatnonzero(types.labels >= 0)
    if not len(typed):
        raise InputError("no neuron has a type: there are no barcodes to sort.")
    every = -(-len(typed) // _ROWS)
    shown = np.concatenate([typed[types.labels[typed] == number][::every] for number in range(types.n_types)])
    width = float(np.clip(3.0 + 0.2 * types.barcodes.shape[1], 3.6, WIDTH))
    figure = new_figure(width, float(np.clip(1.4 + 0.03 * len(shown), 2.4, 5.5)))
    names = [f"{number} ({count:,})" for number, count in enumerate(types.counts)]
    part: SubFigure = figure.add_subfigure(figure.add_gridspec(1, 1)[0])
    label = "type (neurons)" if every == 1 else f"type (neurons); 1 of {every} drawn"
    draw_weights(
        part, types.barcodes[shown], types.labels[shown], names, feature="feature map", neurons=label, bar="barcode"
    )
    axes = part.axes[0]
    axes.tick_params(axis="y", length=0)
    n_features = types.barcodes.shape[1]
    if n_features > _TICKS:
        axes.set_xticks(range(0, n_features, -(-n_features // _TICKS)))
    if types.n_types > 20:
        axes.set_yticks([])
    return figure


def number_of_types(bic: pd.DataFrame, n_types: int, stability: Stability | None = None) -> Figure:
    """What speaks for each number of types: the BIC above its lowest, and how refits agree, each where there is one.

    - `bic`: columns n_types and bic; `n_types`: the number taken, a vertical line; `stability`: of refits; its points
      are means over pairs of fits, bars the lowest and highest pair

    Raises `InputError` where there is neither.
    """
    curve = pd.DataFrame() if stability is None else stability.curve
    if not len(bic) and not len(curve):
        raise InputError("neither BIC nor stability by number of types: there is nothing to draw.")
    parts = [name for name, table in (("bic", bic), ("ari", curve)) if len(table)]
    figure = new_figure(WIDTH if len(parts) > 1 else 0.55 * WIDTH, 2.8)
    for axes, name in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        axes.axvline(n_types, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        if name == "bic":
            _draw_bic(axes, bic)
        else:
            _draw_agreement(axes, curve)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.axes[0].set_title(f"dotted: {counted(n_types, 'type')}, as taken", fontsize=SMALL, loc="left")
    return figure


def _draw_bic(axes: Axes, bic: pd.DataFrame) -> None:
    above = bic["bic"] - bic["bic"].min()
    axes.plot(bic["n_types"], above, "o-", color=COLOURS[0], linewidth=1.3, markersize=4)
    dress(axes, x="number of types", y="BIC above its lowest")


def _draw_agreement(axes: Axes, curve: pd.DataFrame) -> None:
    bars = np.array([curve["ari"] - curve["low"], curve["high"] - curve["ari"]]).clip(min=0)
    look: dict[str, Any] = {"color": COLOURS[1], "marker": "s", "linewidth": 1.3, "markersize": 4, "elinewidth": 0.7}
    axes.errorbar(curve["n_types"], curve["ari"], bars if bars.any() else None, **look)
    axes.set_ylim(min(0.0, float(curve["low"].min())) - 0.03, 1.03)
    dress(axes, x="number of types", y="adjusted Rand index of fits")


def type_confidence(types: CellTypes) -> Figure:
    """How sure each neuron's type is: a dot for each neuron, a row for each type, in it the least sure first.

    Raises `InputError` where no neuron has a type.
    """
    if not types.n_types:
        raise InputError("no neuron has a type: there is no confidence to draw.")
    figure = new_figure(0.62 * WIDTH, float(np.clip(1.0 + 0.35 * types.n_types, 1.8, 5.5)))
    axes = figure.add_subplot()
    for number, count in enumerate(types.counts):
        values = np.sort(types.confidence[types.labels == number])
        rows = number - 0.35 + 0.7 * (np.arange(count) + 0.5) / count
        axes.scatter(values, rows, s=8, linewidths=0, **type_look(number), clip_on=False)
    names = [f"{number} ({count:,})" for number, count in enumerate(types.counts)]
    axes.set_yticks(range(types.n_types), names)
    axes.set_ylim(types.n_types - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    dress(axes, x="confidence", y="type (neurons)")
    return figure
