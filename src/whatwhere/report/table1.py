"""Table 1 as a figure and a page: models on each scan, with the paper's numbers beside."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from whatwhere.experiments.paper_numbers import TABLE_1_SCANS
from whatwhere.experiments.table1 import AVERAGE, Table1, paper_form
from whatwhere.report.page import Section, write_page
from whatwhere.report.score_scatter import score_scatter
from whatwhere.report.style import COLOURS, SMALL, WIDTH, dress, new_figure, save_figures

FIGURE_FILE, PAGE_FILE = "table1.png", "page.html"
_LABEL = "correlation with the repeat-averaged response"
FIRST = "factorized"


def write_table1(table: Table1, folder: Path) -> list[Path]:
    """Writes the figure and the page; returns the files."""
    figure = table_figure(table.results)
    files = save_figures(folder, {FIGURE_FILE: figure})
    return [*files, write_page(folder / PAGE_FILE, "Table 1: models compared", _sections(table, figure))]


def table_figure(results: pd.DataFrame) -> Figure:
    """A panel a scan: each model's mean with its 95 % interval over neurons, the paper's number a cross."""
    scans = list(dict.fromkeys(results["scan"]))
    models = list(dict.fromkeys(results["model"]))[::-1]
    figure = new_figure(max(4.2, min(WIDTH, 2.4 * len(scans) + 1.2)), 0.8 + 0.3 * len(models))
    panels = figure.subplots(1, len(scans), squeeze=False, sharey=True)[0]
    for axes, scan in zip(panels, scans, strict=True):
        rows = results[results["scan"] == scan].set_index("model")
        at = [models.index(name) for name in rows.index]
        means = rows["correlation"].to_numpy(float)
        bars = np.abs(np.array([means - rows["low"].to_numpy(float), rows["high"].to_numpy(float) - means]))
        axes.errorbar(means, at, xerr=bars, fmt="o", markersize=4, color=COLOURS[0], elinewidth=1.2, label="measured")
        if rows["paper"].notna().any():
            published = rows["paper"].to_numpy(float)
            axes.plot(published, at, "x", markersize=5, color=COLOURS[1], linestyle="none", label="the paper")
        axes.set_yticks(range(len(models)), models)
        axes.set_ylim(-0.6, len(models) - 0.4)
        axes.grid(axis="x", linewidth=0.4, alpha=0.5)
        dress(axes, x="correlation", title=_title(scan))
    if results["paper"].notna().any():
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALL)
    return figure


def _title(scan: str) -> str:
    if scan == AVERAGE:
        return "average over neurons"
    return f"scan {TABLE_1_SCANS.index(scan) + 1}" if scan in TABLE_1_SCANS else scan


def _sections(table: Table1, figure: Figure) -> list[Section]:
    sections = [
        Section(
            "Correlation with the repeat-averaged response",
            [
                "Every model is fitted to the same training images and chooses its strengths on the same validation"
                " images; the test images are looked at once, at the end. Brackets: 95 % interval over neurons."
            ],
            figure=figure,
            caption=f"Mean over neurons of the {_LABEL}, with its 95 % interval.",
            table=paper_form(table.results),
        ),
        Section("Differences, paired over neurons", _words(table.differences), table=_shown(table.differences)),
    ]
    for scan, comparison in table.comparisons.items():
        neurons = comparison.neurons
        names = [name for name in comparison.runs if name in neurons]
        if len(names) > 1:
            first = FIRST if FIRST in names else names[0]
            scores = {name: neurons[name] for name in (first, *(other for other in names if other != first))}
            caption = f"Each dot is a neuron: {_LABEL} of {first} upwards, of the other model across."
            sections.append(Section(f"Neuron by neuron, {_title(scan)}", figure=score_scatter(scores), caption=caption))
    sections.append(Section("All columns", table=table.results))
    return sections


def _words(differences: pd.DataFrame) -> list[str]:
    """What the corrected tests say, in a sentence."""
    clear = differences[(differences["p_holm"] < 0.05) & (differences["low"] * differences["high"] > 0)]
    return [
        f"{len(clear)} of {len(differences)} pairs differ by their interval and by Wilcoxon's test corrected for the"
        " number of pairs (Holm, 0.05)."
    ]


def _shown(differences: pd.DataFrame) -> pd.DataFrame:
    return differences[["scan", "model", "minus", "mean", "low", "high", "n", "p_holm"]]
