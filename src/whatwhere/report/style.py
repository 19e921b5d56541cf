"""How every figure looks: sizes and colours, set here once, matplotlib's global state left alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from whatwhere.files import replacing

WIDTH = 7.2  # inches, two columns of a journal
TEXT = 9.0  # points
SMALL = 7.5
DPI = 150

# Okabe and Ito 2008: told apart with any form of colour blindness. Without black, which is for lines, and
# yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # when the colours are used up
GREY = "0.4"
MOST_IN_LEGEND = 12

# Amounts: white is none. Colours are left to the types, and no grey is so dark that they are lost on it.
SEQUENTIAL = LinearSegmentedColormap.from_list("coverage", ["white", "0.45"])
DENSITY = "cividis"
DIVERGING = "RdBu_r"  # signed: white is zero, blue below, red above


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, whose parts keep out of each other's way."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figures(folder: Path, figures: Mapping[str, Figure | None]) -> list[Path]:
    """Writes figures by file name as PNG, each whole or not at all; returns the files.

    Where a figure is None, what stands there of its name is removed: it is of something else. Raises `WriteError` where
    the folder cannot be written.
    """
    files = []
    for name, figure in figures.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)
            continue
        files.append(folder / name)
        with replacing(files[-1]) as temporary:
            figure.savefig(temporary, format="png")
    return files


def dress(axes: Axes, *, x: str = "", y: str = "", title: str = "", frame: bool = False, size: float = TEXT) -> None:
    """Labels, title and ticks in the house's sizes; without `frame` only the left and lower edges."""
    axes.set_xlabel(x, fontsize=size)
    axes.set_ylabel(y, fontsize=size)
    if title:
        axes.set_title(title, fontsize=size)
    axes.tick_params(which="both", labelsize=SMALL)
    axes.tick_params(which="major", length=3)
    axes.spines[["top", "right"]].set_visible(frame)


def bare(axes: Axes) -> None:
    """No ticks: pixels of a kernel need no numbers."""
    axes.set_xticks([])
    axes.set_yticks([])


def dress_colour_bar(bar: Colorbar, label: str) -> None:
    """A colour bar's label and ticks in the house's sizes."""
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, length=3)
    bar.outline.set_linewidth(0.5)


def type_look(number: int) -> dict[str, Any]:
    """Colour and marker of the type with this number; 42 of them differ."""
    marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
    return {"color": COLOURS[number % len(COLOURS)], "marker": marker}


def numbered_types(types: Any, n_neurons: int) -> tuple[list[str], np.ndarray]:
    """The types' names, sorted, and each neuron's number among them; without types, one nameless type."""
    if types is None:
        return [""], np.zeros(n_neurons, int)
    names, numbers = np.unique(np.asarray(types), return_inverse=True)
    return [str(name) for name in names], numbers


def symmetric_limit(values: np.ndarray) -> float:
    """The largest magnitude, for a colour scale whose white is zero; 1 where all values are zero."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def padded_limits(values: np.ndarray, share: float = 0.03) -> tuple[float, float]:
    """Limits around the values with some room, also where they are all the same."""
    low, high = float(np.min(values)), float(np.max(values))
    room = share * (high - low) or 0.5 * abs(low) or 0.5
    return low - room, high + room


def counted(number: int, what: str) -> str:
    """A number of things, for labels.

    >>> counted(1, "neuron"), counted(1000, "neuron")
    ('1 neuron', '1,000 neurons')
    """
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def percent(shares: Sequence[float] | np.ndarray) -> list[str]:
    """Shares as words, for labels.

    >>> percent([0.304, 0.002, 0.0])
    ['30 %', '<1 %', '0 %']
    """
    return ["<1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %") for share in shares]
