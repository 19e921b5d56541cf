"""Types found in simulations: adjusted Rand index by number of images and by likeness, and the number that is found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whatwhere.experiments.cell_types import KINDS
from whatwhere.experiments.grid import GridResults
from whatwhere.report.curves import draw_curve
from whatwhere.report.page import Section
from whatwhere.report.reproduction_parts import Reproduction, listed
from whatwhere.report.style import GREY, SMALL, TEXT, WIDTH, dress, new_figure, type_look

NAMES = {
    "two-types": "two types",
    "alike-0.7": "two, more alike (0.7)",
    "alike-0.8": "two, more alike (0.8)",
    "alike-0.9": "two, more alike (0.9)",
    "three-types": "three types",
    "five-types": "five types",
    "two-of-eight": "two types, eight kernels",
    "three-of-eight": "three types, eight kernels",
    "five-of-eight": "five types, eight kernels",
}


def report_types(results: GridResults) -> Reproduction:
    """Types found, beside the truth."""
    columns = {
        "model": "population",
        "n_neurons": "neurons",
        "n_images": "images",
        "seed": "seed",
        "kernel_overlap": "types' overlap",
        "ari": "ARI",
        "n_found": "types found",
        "n_true": "types",
        "ari_known": "ARI, number given",
        "ari_hdbscan": "ARI, HDBSCAN",
        "n_hdbscan": "types, HDBSCAN",
        "confidence": "confidence",
        "type_accuracy": "right type",
        "fev": "FEV",
    }
    counts = ["n_found", "n_true", "n_hdbscan"]
    table = results.done[list(columns)].astype(dict.fromkeys(counts, int)).rename(columns=columns)
    text = (
        "Barcodes are the feature weights, each times its map's signal; neurons whose barcodes are alike are a type."
        " The number of types is that with the lowest BIC of a mixture of Gaussians.",
        "ARI: the adjusted Rand index between true types and those found, 1 where they are the same, 0 by chance."
        " Types' overlap: similarity, up to shift and sign, of the means of the two types that are most alike. Right"
        " type: the share of neurons whose largest weight is their type's kernel, as in Figure 4.",
        "Populations are Figure 4's: neurons of some types, in equal numbers, at random places. In those more alike the"
        " smaller type's variances are 0.7, 0.8 or 0.9 of the larger one's, in Figure 4 they are 0.6. With eight"
        " kernels the network is not told how many types there are.",
    )
    caption = (
        f"A: {_sizes(results)} of each type, by the number of images. B: at {results.done['n_images'].max():,} images,"
        " by how alike the two types are that are most alike. C: number of types found, dotted lines the truth. Medians"
        " over seeds, bars the range."
    )
    options = results.asked
    notes = [
        f"Seeds: {listed(results, 'seed')}. Images of {options['image_size'][0]} x {options['image_size'][1]} pixels.",
        "Kernels, places and feature weights are fitted as for Figure 4: `whatwhere reproduce fig4`.",
    ]
    return Reproduction(
        "Cell types from barcodes, where the truth is known",
        {"types": (types_recovered(results), caption)},
        [Section("What is shown", text), Section("What was measured", table=table)],
        [Section("How", items=notes)],
    )


def types_recovered(results: GridResults) -> Figure:
    """A: adjusted Rand index by number of images. B: the same by likeness. C: number of types found by images."""
    done = results.done
    models = [name for name in KINDS if name in set(done["model"])]
    told = [name for name in models if KINDS[name].is_told]
    blind = [name for name in models if name not in told] or told
    figure = new_figure(WIDTH, 3.6)
    by_images, by_likeness, numbers = figure.subplots(1, 3)
    sizes = {name: int(done.loc[done["model"] == name, "n_neurons"].max()) for name in models}
    for name in models:
        look = {**type_look(models.index(name)), "label": NAMES[name], "linestyle": "-" if name in told else "--"}
        draw_curve(by_images, results.curve(name, sizes[name], "ari"), look)
    _draw_likeness(by_likeness, done, models)
    for name in blind:
        look = {**type_look(models.index(name)), "linestyle": "-" if name in told else "--"}
        draw_curve(numbers, results.curve(name, sizes[name], "n_found"), look)
        numbers.axhline(len(KINDS[name].factors), color=GREY, linewidth=0.7, linestyle=":", zorder=0)
    _dress(by_images, numbers, sorted({int(n) for n in done["n_images"]}))
    for letter, axes in zip("ABC", (by_images, by_likeness, numbers), strict=True):
        axes.set_title(letter, fontsize=TEXT + 2, fontweight="bold", loc="left")
    figure.legend(
        *by_images.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False
    )
    return figure


def _draw_likeness(axes: Axes, done: pd.DataFrame, models: Sequence[str]) -> None:
    """One point for each population: medians over seeds at the most images."""
    most = done[done["n_images"] == done["n_images"].max()]
    for name in models:
        rows = most[most["model"] == name]
        if not len(rows):
            continue
        values = rows["ari"].to_numpy(float)
        middle = float(np.median(values))
        bars = [[middle - values.min()], [values.max() - middle]]
        overlap = float(rows["kernel_overlap"].median())
        hollow: dict[str, Any] = {} if KINDS[name].is_told else {"markerfacecolor": "white"}
        axes.errorbar(
            overlap,
            middle,
            bars if len(values) > 1 else None,
            markersize=5,
            elinewidth=0.7,
            **type_look(models.index(name)),
            **hollow,
        )
    axes.set_ylim(-0.05, 1.05)
    dress(axes, x="overlap of types' kernels", y="adjusted Rand index")


def _dress(by_images: Axes, numbers: Axes, ticks: Sequence[int]) -> None:
    for axes in (by_images, numbers):
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45)
        axes.minorticks_off()
    by_images.set_ylim(-0.05, 1.05)
    numbers.set_ylim(bottom=0)
    numbers.yaxis.set_major_locator(MaxNLocator(integer=True))
    dress(by_images, x="number of images", y="adjusted Rand index")
    dress(numbers, x="number of images", y="types found")


def _sizes(results: GridResults) -> str:
    """How many neurons of a type there are."""
    done = results.done
    each = {int(n) // len(KINDS[name].factors) for name, n in zip(done["model"], done["n_neurons"], strict=True)}
    return " or ".join(f"{n:,}" for n in sorted(each)) + " neurons"
