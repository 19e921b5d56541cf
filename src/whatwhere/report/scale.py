"""The page of `scale`: time of an epoch and memory, for thousands of neurons and images that stay on disk."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whatwhere.config import WHOLE_EVERY
from whatwhere.experiments.grid import GridResults
from whatwhere.report.page import Section
from whatwhere.report.reproduction_parts import Reproduction
from whatwhere.report.style import COLOURS, SMALL, WIDTH, dress, new_figure

_GIB = 2**30
_FLOAT = 4  # bytes


def report_scale(results: GridResults) -> Reproduction:
    """Seconds per epoch of whole and of sparse masks, and what memory was taken."""
    options = results.asked
    text = (
        "Units of VGG-19, as many types as its layer is asked for, in a file that is larger than the memory given to"
        f" images, {options['memory_gib']:g} GiB: they are read as they are needed.",
        f"Not a whole epoch was timed but {options['n_steps']} steps after as many to begin with; the seconds are those"
        f" of an epoch whose steps are all alike. Sparse: of {WHOLE_EVERY} steps one is of whole masks, the others of"
        f" the pixels that masks hold, {options['support']} x {options['support']} each.",
        "FEV is that of a whole fit." if options["whole"] else "FEV is that of those few steps: no fit, a start.",
    )
    caption = (
        "Left: an epoch, by the steps timed. Right: the file, its responses, which are held in memory (32 bits each),"
        " and the most that the process had in memory at once, from simulation to the last step."
    )
    return Reproduction(
        "Scale: thousands of neurons, and more images than memory",
        {"scale": (time_and_memory(results), caption)},
        [Section("What is shown", text)],
        [Section("What was measured", table=_table(results))],
    )


def time_and_memory(results: GridResults) -> Figure:
    """Bars for each point: seconds per epoch on the left, GiB on the right."""
    points = results.done.reset_index(drop=True)
    figure = new_figure(WIDTH, 1.4 + 0.9 * len(points))
    times, memory = figure.subplots(1, 2)
    of_times = {"whole masks": points["seconds_per_epoch"], "sparse masks": points["seconds_per_epoch_sparse"]}
    responses = points["n_neurons"] * points["n_images"] * _FLOAT / _GIB
    of_memory = {"file": points["file_gib"], "responses": responses, "peak of the process": points["peak_gib"]}
    names = [f"{row.n_neurons:,} neurons\n{row.n_images:,} images" for row in points.itertuples()]
    _bars(times, of_times, names, "seconds per epoch")
    _bars(memory, of_memory, [""] * len(names), "GiB")
    return figure


def _bars(axes: Axes, values: dict[str, "pd.Series[float]"], names: list[str], label: str) -> None:
    """A group of bars for each name, one of each kind of value, with its number beside."""
    height = 0.8 / len(values)
    for number, (kind, numbers) in enumerate(values.items()):
        places = [place + (number - (len(values) - 1) / 2) * height for place in range(len(names))]
        drawn = axes.barh(places, numbers, 0.9 * height, color=COLOURS[number], label=kind)
        axes.bar_label(
            drawn, [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in numbers], fontsize=SMALL, padding=2
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    dress(axes, x=label)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(values))


def _table(results: GridResults) -> pd.DataFrame:
    columns = {
        "n_neurons": "neurons",
        "n_types": "types",
        "n_images": "images",
        "seconds_per_epoch": "s per epoch",
        "seconds_per_epoch_sparse": "sparse",
        "steps_timed": "steps timed",
        "threads": "threads",
        "start_seconds": "s before the first step",
        "simulation_seconds": "s to simulate",
        "file_gib": "file, GiB",
        "peak_gib": "peak, GiB",
        "fev": "FEV",
    }
    table = results.done[list(columns)].astype({"n_types": int, "steps_timed": int, "threads": int})
    table.insert(5, "ratio", table["seconds_per_epoch_sparse"] / table["seconds_per_epoch"])
    return table.rename(columns=columns)
