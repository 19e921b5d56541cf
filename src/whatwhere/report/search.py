"""What a search found: which axes matter, the loss along each, and how the best fell with the points tried."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from whatwhere.report.style import COLOURS, GREY, SMALL, WIDTH, dress, new_figure, padded_limits, save_figures
from whatwhere.search import SearchResult, Space
from whatwhere.search.space import Range
from whatwhere.search.study import DONE, PRUNED

_PANEL = 2.4  # inches, of a slice
_COLUMNS = 3
_MOST_WORDS = 14  # characters of a value on an axis
_JITTER = 0.12
IMPORTANCE_FILE, SLICES_FILE, COURSE_FILE = "importance.png", "slices.png", "course.png"
_LOSS = "validation loss"


def draw_search(result: SearchResult, space: Space, folder: Path) -> list[Path]:
    """Writes the three figures into a folder; those of fewer points than they need are left out, and removed."""
    figures = {
        IMPORTANCE_FILE: importance_figure(result.importance) if result.importance else None,
        SLICES_FILE: slices_figure(result.table, space) if ended(result.table).shape[0] else None,
        COURSE_FILE: course_figure(result.table) if ended(result.table).shape[0] > 1 else None,
    }
    return save_figures(folder, figures)


def ended(table: pd.DataFrame) -> pd.DataFrame:
    """The points that have a loss: fitted to their end, or given up."""
    found = table[table["state"].isin([DONE, PRUNED])]
    return found[pd.to_numeric(found["validation_loss"], errors="coerce").notna()]


def importance_figure(importance: Mapping[str, float]) -> Figure:
    """The share of the losses' variance that each axis explains, the largest on top."""
    names = list(importance)[::-1]
    figure = new_figure(WIDTH * 0.7, 0.7 + 0.3 * len(names))
    axes = figure.add_subplot()
    values = [importance[name] for name in names]
    bars = axes.barh(names, values, color=COLOURS[0], height=0.6)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=SMALL)
    axes.set_xlim(0, 1.12 * max(*values, 1e-9))
    dress(axes, x="share of the loss's variance (fANOVA)")
    return figure


def slices_figure(table: pd.DataFrame, space: Space) -> Figure:
    """One panel an axis: the loss of every point at its value there; those given up hollow, the best a star."""
    points, names = ended(table), list(space.axes)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(max(WIDTH * columns / _COLUMNS, 3.0), 0.3 + _PANEL * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for number, (axes, name) in enumerate(zip(panels, names, strict=False)):
        _slice(axes, points, name, space)
        dress(axes, x=name, y=_LOSS if number % columns == 0 else "")
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    return figure


def _slice(axes: Axes, points: pd.DataFrame, name: str, space: Space) -> None:
    axis = space.axes[name]
    if isinstance(axis, Range):
        at = points[name].astype(float).to_numpy()
        if axis.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        words = points[name].astype(str)
        known = list(dict.fromkeys(_in_order(words)))
        spread = np.random.default_rng(0).uniform(-_JITTER, _JITTER, len(words))
        at = words.map(known.index).to_numpy() + (spread if len(words) > len(known) else 0)
        axes.set_xticks(range(len(known)), [_short(word) for word in known])
        axes.set_xlim(-0.5, len(known) - 0.5)
    losses, done = points["validation_loss"].astype(float).to_numpy(), (points["state"] == DONE).to_numpy()
    _points(axes, at, losses, done)
    if done.any():
        best = int(np.flatnonzero(done)[losses[done].argmin()])
        axes.plot(at[best], losses[best], "*", markersize=11, color=COLOURS[1], label="best")
    axes.set_ylim(*padded_limits(losses, 0.06))


def _points(axes: Axes, at: np.ndarray, losses: np.ndarray, done: np.ndarray) -> None:
    if not done.all():
        up = (at[~done], losses[~done])
        axes.plot(*up, "o", markersize=4, markerfacecolor="none", color=GREY, label="given up")
    if done.any():
        axes.plot(at[done], losses[done], "o", markersize=4, color=COLOURS[0], label="fitted")


def _in_order(words: pd.Series) -> list[str]:
    """Numbers by size, other values by name."""
    try:
        return sorted(words, key=float)
    except ValueError:
        return sorted(words)


def _short(word: str) -> str:
    return word if len(word) <= _MOST_WORDS else f"{word[: _MOST_WORDS - 1]}…"


def course_figure(table: pd.DataFrame) -> Figure:
    """The loss of each point in the order of their numbers, and the best until then."""
    points = ended(table)
    numbers, losses = points["number"].to_numpy() + 1, points["validation_loss"].astype(float).to_numpy()
    done = (points["state"] == DONE).to_numpy()
    figure = new_figure(WIDTH * 0.7, 2.8)
    axes = figure.add_subplot()
    _points(axes, numbers, losses, done)
    best = np.minimum.accumulate(np.where(done, losses, np.inf))
    axes.step(numbers[np.isfinite(best)], best[np.isfinite(best)], where="post", color=COLOURS[1], label="best so far")
    axes.set_ylim(*padded_limits(losses, 0.06))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(axes, x="point", y=_LOSS)
    axes.legend(fontsize=SMALL, frameon=False)
    return figure
