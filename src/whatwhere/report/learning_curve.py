"""How models' scores rise with the number of images, and what more of them would give."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.comparison import Outlook
from whatwhere.errors import InputError
from whatwhere.report.style import COLOURS, SMALL, dress, new_figure, type_look

APART = 1.025  # factor between two models at one number of images, so that their bars can be told apart
COLUMNS = ("model", "n_images", "seed", "score", "low", "high")


def learning_curve(curve: pd.DataFrame, outlooks: Iterable[Outlook] = (), *, label: str = "score") -> Figure:
    """Score against the number of images, one line a model; what twice the images would give dashed, with its band.

    - `curve`: one row a fit, with columns model, n_images, seed, score, low, high. Of several seeds the line is their
      mean, the bars their mean interval, and small dots the seeds
    - `outlooks`: of the models that have one; those without an extrapolation are not extended
    - `label`: which score

    Raises `InputError` for a table without these columns, or without a score.
    """
    missing = [name for name in COLUMNS if name not in curve]
    if missing:
        raise InputError(f"curve lacks the columns {', '.join(missing)}: expected {', '.join(COLUMNS)}.")
    curve = curve.dropna(subset=["score"])
    if curve.empty:
        raise InputError("curve holds no score: expected at least one fit that was judged.")
    names = list(dict.fromkeys(curve["model"]))
    drawn = {outlook.model: outlook for outlook in outlooks if len(outlook.numbers)}
    figure = new_figure(5.6, 3.6)
    axes = figure.add_subplot()
    for number, name in enumerate(names):
        look: dict[str, Any] = {**type_look(number), "linestyle": "-" if number < len(COLOURS) else "-."}
        shift = APART ** (number - (len(names) - 1) / 2)
        _draw_points(axes, curve[curve["model"] == name], name, look, shift)
        if name in drawn:
            _draw_outlook(axes, drawn[name], look["color"], shift)
    ticks = {int(n) for n in curve["n_images"]} | {outlook.twice for outlook in drawn.values()}
    _dress(axes, sorted(ticks), label, any(len(outlook.numbers) for outlook in drawn.values()))
    figure.legend(loc="outside right upper", fontsize=SMALL, frameon=False, handlelength=2.5)
    return figure


def _draw_points(axes: Axes, rows: pd.DataFrame, name: str, look: dict[str, Any], shift: float) -> None:
    means = rows.groupby("n_images")[["score", "low", "high"]].mean().sort_index()
    numbers = means.index.to_numpy(float) * shift
    bars = np.array([means["score"] - means["low"], means["high"] - means["score"]])
    axes.errorbar(
        *(numbers, means["score"].to_numpy(), np.maximum(bars, 0)),
        **look,
        label=name,
        linewidth=1.3,
        markersize=4,
        elinewidth=0.8,
        capsize=2,
        zorder=3,
    )
    if rows["seed"].nunique() > 1:
        x = rows["n_images"].to_numpy(float) * shift
        axes.plot(x, rows["score"], ".", color=look["color"], markersize=3, alpha=0.6, markeredgewidth=0, zorder=4)


def _draw_outlook(axes: Axes, outlook: Outlook, colour: str, shift: float) -> None:
    ahead = outlook.numbers >= outlook.n_images * (1 - 1e-9)
    numbers = np.append(outlook.n_images, outlook.numbers[ahead])
    score, low, high = (
        np.append(np.interp(outlook.n_images, outlook.numbers, values), values[ahead])
        for values in (outlook.score, outlook.score_low, outlook.score_high)
    )
    axes.plot(numbers * shift, score, "--", color=colour, linewidth=1.2, zorder=2)
    if not np.isnan(low).any():
        axes.fill_between(numbers * shift, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)


def _dress(axes: Axes, ticks: Sequence[int], label: str, extends: bool) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45 if len(ticks) > 6 else 0)
    axes.minorticks_off()
    axes.locator_params(axis="y", nbins=6)
    dashed = "; dashed: a power law" if extends else ""
    dress(axes, x="number of images (training and validation)", y=label)
    axes.set_title(f"bars: 95 % over neurons{dashed}", fontsize=SMALL, loc="left")
