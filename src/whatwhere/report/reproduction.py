"""What an experiment leaves in its folder: figures, and a page that sets the paper's numbers beside the measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from whatwhere.errors import RunError
from whatwhere.experiments.fig1 import ONE, SHARED
from whatwhere.experiments.fig4 import TYPES
from whatwhere.experiments.grid import GridResults, read_grid
from whatwhere.experiments.paper_numbers import FIGURE_1, FIGURE_4, figure_3b
from whatwhere.report import figure1 as one
from whatwhere.report import figure3 as three
from whatwhere.report.figure4 import cell_types
from whatwhere.report.figure_types import report_types
from whatwhere.report.page import Section, write_page
from whatwhere.report.reproduction5 import report_fig5, report_fig5e
from whatwhere.report.reproduction_parts import (
    PAGE_FILE,
    Reproduction,
    all_points,
    calibrations,
    failures,
    heading,
    listed,
)
from whatwhere.report.scale import report_scale
from whatwhere.report.style import save_figures

NEAR = 0.05  # of FEV: what counts as the paper's number
SETTINGS = (
    "Stimuli, population, noise and split are the paper's: white noise, one kernel shifted, N(r, sqrt|r|), mean |r| of"
    " 0.1, a fifth of the images for validation; no fit is repeated on all images unless the table says so"
    " (n_validation: all)."
)


def write_reproduction(folder: Path) -> list[Path]:
    """Draws the figures of the experiment that a folder holds and writes its page; returns the files.

    Raises `RunError` where no point of it has an outcome yet.
    """
    results = read_grid(folder)
    if not len(results.done):
        raise RunError(f"{folder} holds no point that has an outcome: there is nothing to draw.")
    report = REPORTS[results.asked["experiment"]](results)
    files = save_figures(folder, {f"{name}.png": figure for name, (figure, _) in report.figures.items()})
    drawn = [
        Section(heading(name), figure=figure, caption=caption) for name, (figure, caption) in report.figures.items()
    ]
    sections = [*report.before, *drawn, *report.after, *failures(results), all_points(results)]
    return [*files, write_page(folder / PAGE_FILE, report.title, sections)]


def report_fig1(results: GridResults) -> Reproduction:
    """The thought experiment: with as many responses the shared model is as good as the one neuron's."""
    shifts = _shifts(results)
    caption = (
        "Left: FEV against the number of images; medians over seeds, bars the range. Right: the same against the number"
        " of responses that each model is fitted to."
    )
    text = (
        f"The paper's figure is a thought experiment without numbers: {FIGURE_1}. Here it is measured, with ridge"
        " regression on the 17 x 17 pixels around each neuron, whose place is known.",
        "In the table the shared model with D images stands beside one neuron with n D, and n independent models with D"
        " beside one neuron with D, as far as both were measured: the claim is that the differences are 0.",
    )
    return Reproduction(
        "Figure 1: sharing one model is worth as many times the data as there are neurons",
        {"figure1": (one.thought_experiment(results), caption)},
        [Section("What is shown", text)],
        [Section("The paper's claim and what was measured", table=shifts)],
    )


def _shifts(results: GridResults) -> pd.DataFrame:
    """FEV of models of several neurons beside that of one neuron with as many responses."""
    alone = {point.n_images: point.median for point in results.curve(ONE, 1, "fev")}
    rows = []
    for model, n_neurons in one.curves(results):
        for point in results.curve(model, n_neurons, "fev") if model != ONE else []:
            wanted = point.n_images * (n_neurons if model == SHARED else 1)
            near = [n_images for n_images in alone if abs(n_images - wanted) <= 0.02 * wanted]
            rows += [
                {
                    "model": f"{model}, {n_neurons} neurons",
                    "images": point.n_images,
                    "FEV": point.median,
                    "one neuron, images": n_images,
                    "its FEV": alone[n_images],
                    "difference": point.median - alone[n_images],
                }
                for n_images in near[:1]
            ]
    return pd.DataFrame(rows)


def report_fig3(results: GridResults) -> Reproduction:
    """FEV beside the paper's curves."""
    beside = _beside_the_paper(results)
    known = beside.dropna(subset=["paper"])
    below = known[known["difference"] < -NEAR]
    count = (
        f"{len(known)} of the measured points are in the paper's figure: {len(known) - len(below)} within {NEAR} of it"
        f" or above, {len(below)} below. Its curves were read off with an error of about 0.01."
    )
    caption = (
        "A: the largest population measured, some of its receptive fields (colours) and all places (dots). B: medians"
        " over seeds, bars the range, clipped at 0. C: learned kernels of the first seed, each on a scale of its own."
    )
    options = results.asked
    strengths = options["most_strengths"] or len(options["strengths"])
    started = ", each fit starting where the stronger one ended" if options["warm_start"] else ""
    differs = [
        f"Seeds: {listed(results, 'seed')}; the paper has 20 repetitions. Test images: {options['n_test_images']:,};"
        " the paper has 10,000.",
        f"Strengths of the mask's penalty: {strengths} of the paper's ten at each point{started}.",
        "The masks start at the peak of the smoothed squared average, not of the smoothed average, which the surround"
        " cancels; how large, is learned from the data, not from 30 repeats.",
        "Responses are divided by their standard deviation for the network's fit (strengths in the table are the"
        " paper's own, for responses as they are). The network has an offset for each neuron, the linear models have"
        " none.",
    ]
    return Reproduction(
        "Figure 3: feature sharing in a homogeneous linear population",
        {"figure3": (three.homogeneous_population(results), caption), **calibrations(results)},
        [Section("What is shown", [SETTINGS, count])],
        [
            Section("The paper's numbers and those measured", [_verdict(below)], table=beside),
            Section("What differs from the paper", items=differs),
        ],
    )


def _beside_the_paper(results: GridResults) -> pd.DataFrame:
    rows = []
    for model, n_neurons in three.curves(results):
        for point in results.curve(model, n_neurons):
            paper = figure_3b(model, n_neurons, point.n_images)
            rows.append(
                {
                    "model": three.label(model, n_neurons),
                    "images": point.n_images,
                    "paper": np.nan if paper is None else paper,
                    "measured": point.median,
                    "lowest": point.low,
                    "highest": point.high,
                    "seeds": point.n_seeds,
                }
            )
    table = pd.DataFrame(rows)
    table["difference"] = table["measured"] - table["paper"]
    return table


def _verdict(below: pd.DataFrame) -> str:
    if not len(below):
        return f"No measured point lies more than {NEAR} below the paper's."
    rows = below[["model", "images", "difference"]].to_numpy()
    named = "; ".join(f"{model}, {images:,} images: {difference:+.2f}" for model, images, difference in rows)
    return f"More than {NEAR} below the paper's: {named}."


def report_fig4(results: GridResults) -> Reproduction:
    """Types and kernels found, for every population measured."""
    columns = {
        "model": "population",
        "n_neurons": "neurons",
        "n_images": "images",
        "seed": "seed",
        "type_accuracy": "right type",
        "kernel_correlation": "worst kernel",
        "kernel_overlap": "types' overlap",
        "weight_share": "weight of largest",
        "hit_rate": "within 1 pixel",
        "fev": "FEV",
    }
    table = results.done[list(columns)].rename(columns=columns)
    figures = {}
    for model in [name for name in TYPES if name in set(results.done["model"])]:
        point = next(point for point in results.points() if point.model == model)
        caption = (
            f"{model}: {point.n_neurons:,} neurons, sizes {', '.join(f'{factor:.2g}' for factor in TYPES[model])},"
            f" {point.n_images:,} images, seed {point.seed}. A: three neurons of each type. B: learned kernels and the"
            " types' means. C: every neuron's feature weights. D: true (rings) and found (dots) places."
        )
        figures[f"figure4-{model}"] = (cell_types(results, point), caption)
    text = (
        f"The paper: {FIGURE_4} (500 neurons of each type, 8,192 images, size factors 0.6 and 1). The others are not in"
        " the paper: types that overlap more, and three to five types.",
        "Right type: the share of neurons whose largest weight is their type's kernel. Worst kernel: similarity, up to"
        " shift and sign, of the kernel that fits its type's mean worst. Types' overlap: the same of the two types'"
        " means that are most alike, so no kernel tells these apart unless it is closer. Weight of largest: its share"
        " of the sum of a neuron's weights, 1 where a neuron reads one kernel alone.",
    )
    options = results.asked
    start = "Kernels, places and feature weights start from types that the neurons' averages fall into (k-means)."
    differs = [
        *([start] if options["typed_start"] else []),
        f"Images of {options['image_size'][0]} x {options['image_size'][1]} pixels; the paper has 48 x 48.",
        f"Learning rate {options['learning_rate']:g} for the paper's 0.001, and the first {options['patience_from']:,}"
        " steps do not count as without progress.",
        f"Feature weights of a neuron have norm 1; penalties {options['mask_l1']:g} on masks and"
        f" {options['feature_l1']:g} on feature weights, for responses of unit variance. The paper's are 0.01 and 0.04"
        " for responses and weights of any scale.",
    ]
    return Reproduction(
        "Figure 4: cell types, found by the kernels that neurons choose",
        figures,
        [Section("What is shown", text), Section("The paper's result and what was measured", table=table)],
        [Section("What differs from the paper", items=differs)],
    )


REPORTS: dict[str, Callable[[GridResults], Reproduction]] = {
    "fig1": report_fig1,
    "fig3": report_fig3,
    "fig4": report_fig4,
    "fig5": report_fig5,
    "fig5e": report_fig5e,
    "scale": report_scale,
    "types": report_types,
}
"""By the experiment's name."""
