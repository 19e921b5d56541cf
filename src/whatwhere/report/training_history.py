"""How the fit went: losses by step."""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from whatwhere.errors import InputError
from whatwhere.report.style import COLOURS, GREY, SMALL, dress, new_figure

NEEDED = ("step", "training_loss", "validation_loss", "learning_rate")
MANY_FOLD = 5.0  # positive losses that span more than this are drawn on a logarithmic axis


def history(history: pd.DataFrame | Sequence[Any]) -> Figure:
    """Training and validation loss by step, the best step, and where the learning rate dropped.

    `history`: the checks of a fit, as a DataFrame, dictionaries or dataclasses (`training.Check`) with
    `step`, `training_loss`, `validation_loss` and `learning_rate`. The training loss of the first check is
    NaN. Losses that are all above 0 and span more than 5-fold are drawn on a logarithmic axis.
    Raises `InputError` where there is no check or a column is missing.
    """
    table = _as_table(history)
    figure = new_figure(5.2, 3.0)
    axes = figure.add_subplot()
    few = "." if len(table) < 30 else None
    for name, colour in (("training", COLOURS[0]), ("validation", COLOURS[1])):
        axes.plot(
            table["step"],
            table[f"{name}_loss"],
            color=colour,
            linewidth=1.2,
            marker=few,
            markersize=4,
            label=name,
        )
    _mark_best(axes, table)
    _mark_drops(axes, table)
    losses = table[["training_loss", "validation_loss"]].to_numpy(float)
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() > MANY_FOLD * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        if losses.max() < 100 * losses.min():  # there is room for 2 and 5 between the powers of ten
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
    dress(axes, x="step", y="loss")
    axes.margins(x=0.02)
    figure.legend(loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def _as_table(history: pd.DataFrame | Sequence[Any]) -> pd.DataFrame:
    if not len(history):
        raise InputError("history is empty: expected at least one check. Fit the model first.")
    if not isinstance(history, pd.DataFrame):
        history = pd.DataFrame(
            [asdict(check) if is_dataclass(check) and not isinstance(check, type) else check for check in history]
        )
    missing = [name for name in NEEDED if name not in history]
    if missing:
        raise InputError(f"history has no column {', '.join(missing)}: expected {', '.join(NEEDED)}.")
    return history.astype(dict.fromkeys(NEEDED, float))


def _mark_best(axes: Axes, table: pd.DataFrame) -> None:
    steps, losses = table["step"].to_numpy(), table["validation_loss"].to_numpy()
    if np.isnan(losses).all():
        return
    best = np.nanargmin(losses)
    axes.plot(
        steps[best],
        losses[best],
        "o",
        markersize=7,
        markerfacecolor="none",
        color="black",
        label=f"best: {losses[best]:.4g} at step {steps[best]:,.0f}",
    )


def _mark_drops(axes: Axes, table: pd.DataFrame) -> None:
    """A line at the first check with each lower learning rate, and the rate beside it."""
    steps, rates = table["step"].to_numpy(), table["learning_rate"].to_numpy()
    for i in np.flatnonzero(np.diff(rates) < 0) + 1:
        axes.axvline(steps[i], color=GREY, linestyle=":", linewidth=0.9, zorder=0)
        axes.annotate(
            f"rate {rates[i]:.2g}",
            (steps[i], 1),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -2),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=SMALL,
            color=GREY,
        )
