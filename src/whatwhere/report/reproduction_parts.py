"""What pages of all experiments share: their parts, calibration of stated uncertainty, and lists of what was run."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from whatwhere.experiments.grid import GridResults
from whatwhere.experiments.points import FAILED
from whatwhere.report.calibration import reliability
from whatwhere.report.page import Section
from whatwhere.simulation.recovery import CURVE, Coverage

PAGE_FILE = "page.html"


@dataclass(frozen=True)
class Reproduction:
    """Figures by file name, each with a caption, and the sections of the page that stand around them."""

    title: str
    figures: dict[str, tuple[Figure, str]]
    before: Sequence[Section]
    after: Sequence[Section]


def calibrations(results: GridResults) -> dict[str, tuple[Figure, str]]:
    """For each model that states how sure it is: the point of its largest population with the fewest images."""
    found = {}
    for model in dict.fromkeys(results.done["model"]):
        points = [point for point in results.points() if point.model == model]
        if not points:
            continue
        point = min(points, key=lambda point: (-point.n_neurons, point.n_images, point.seed))
        kept = results.arrays(point)
        if "reliability" in kept:
            curve = pd.DataFrame(kept["reliability"], columns=list(CURVE))
            levels = [Coverage(*row) for row in kept["coverage"].tolist()]
            caption = (
                f"{model}, {point.n_neurons:,} neurons, {point.n_images:,} images, seed {point.seed}. Left: every"
                " location of every neuron is a statement; how probable it was said to be, and how often it was true."
                " Right: how many neurons lie in their credible regions. Bars are 95 % intervals."
            )
            found[f"calibration-{model}"] = (reliability(curve, levels), caption)
    return found


def heading(name: str) -> str:
    """What stands above the figure of a file's name.

    >>> heading("figure5e"), heading("figure4-two-types"), heading("calibration-posterior")
    ('Figure 5E', 'Figure 4: two types', 'Calibration: posterior')
    """
    kind, _, of = name.partition("-")
    number = kind.removeprefix("figure")
    title = kind.capitalize() if number == kind else f"Figure {number.upper()}".rstrip()
    return f"{title}: {of.replace('-', ' ')}" if of else title


def listed(results: GridResults, column: str) -> str:
    """The different values of a column, sorted, with commas between."""
    return ", ".join(str(value) for value in sorted(results.done[column].unique()))


def failures(results: GridResults) -> list[Section]:
    """The points that failed with their reasons, a section where there are any."""
    failed = results.table[results.table["status"] == FAILED]
    if not len(failed):
        return []
    columns = ["model", "n_neurons", "n_images", "seed", "reason"]
    return [Section("Points that failed", ["They are tried again with --resume."], table=failed[columns])]


def all_points(results: GridResults) -> Section:
    """The table of all points that have an outcome."""
    table = results.done.drop(columns=["status", "reason"])
    return Section("All points", ["As in results.csv. Seconds are those of the fit."], table=table)
