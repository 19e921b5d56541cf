"""Whether a stated uncertainty is right: what was stated against what was found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.errors import InputError
from whatwhere.report.style import COLOURS, GREY, SMALL, WIDTH, dress, new_figure
from whatwhere.simulation.recovery import Coverage


def reliability(curve: pd.DataFrame, coverages: Sequence[Coverage] = ()) -> Figure:
    """Left the reliability curve, right the coverage of credible regions; on the diagonal both are as stated.

    Bars are 95 % intervals. Both axes of the left part are logarithmic: most locations of a map are improbable. Where
    none of a bin's statements is true, a hollow triangle marks the upper end of its interval.

    - `curve`: from `simulation.recovery.reliability_curve`
    - `coverages`: from `simulation.recovery.credible_coverage`, one a level; the right part is left out without any

    Raises `InputError` where the curve holds no statement.
    """
    stated = curve[(curve["n"] > 0) & (curve["stated"] > 0)]
    if not len(stated):
        raise InputError("the curve holds no statement of a probability above 0: there is nothing to draw.")
    figure = new_figure(WIDTH if coverages else 0.55 * WIDTH, 3.3)
    axes = figure.subplots(1, 2 if coverages else 1, squeeze=False)[0]
    _draw_reliability(axes[0], stated)
    if coverages:
        _draw_coverage(axes[1], sorted(coverages, key=lambda one: one.level))
    return figure


def _draw_reliability(axes: Axes, curve: pd.DataFrame) -> None:
    x, y = curve["stated"].to_numpy(), curve["found"].to_numpy()
    low, high = curve["low"].to_numpy(), curve["high"].to_numpy()
    seen = y > 0
    floor = 0.5 * min(float(x.min()), float(y[seen].min()) if seen.any() else 1.0)
    axes.plot([floor, 1], [floor, 1], color=GREY, linewidth=0.8, linestyle="--", label="as stated")
    bars = np.stack([y - np.maximum(low, floor / 2), high - y])[:, seen].clip(min=0)
    axes.errorbar(
        x[seen], y[seen], bars, fmt="o", color=COLOURS[0], markersize=4, linewidth=0, elinewidth=1.0, label="found"
    )
    if not seen.all():
        axes.plot(
            *(x[~seen], high[~seen]), "v", markerfacecolor="none", color=COLOURS[0], markersize=5, label="none, at most"
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlim=(floor, 1.3), ylim=(floor, 1.3))
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left")
    dress(axes, x="probability stated", y="share found true")


def _draw_coverage(axes: Axes, coverages: Sequence[Coverage]) -> None:
    levels, shares = (np.array([getattr(one, name) for one in coverages]) for name in ("level", "share"))
    bars = np.array([[one.share - one.low, one.high - one.share] for one in coverages]).T
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    axes.errorbar(levels, shares, bars, fmt="s", color=COLOURS[1], markersize=4, linewidth=0, elinewidth=1.0)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    dress(axes, x="level of the credible region", y="share of neurons inside")
