"""The figures of a comparison, as its folder holds them."""

from pathlib import Path

from matplotlib.figure import Figure

from whatwhere.comparison import Comparison
from whatwhere.report.learning_curve import learning_curve
from whatwhere.report.score_scatter import score_scatter
from whatwhere.report.style import save_figures

LABEL = "correlation"


def comparison_figures(comparison: Comparison) -> dict[str, Figure]:
    """By file name: `scatter` of two or more models, `learning_curve` where numbers of images were asked for.

    Without scores there is none.
    """
    figures = {}
    scored = {name: comparison.neurons[name] for name in comparison.runs if name in comparison.neurons}
    if len(scored) > 1:
        figures["scatter"] = score_scatter(scored, label=LABEL)
    if comparison.curve is not None:
        figures["learning_curve"] = learning_curve(comparison.curve, comparison.outlooks, label=LABEL)
    return figures


def draw_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the figures as PNG, removes those that an earlier comparison left; returns the files."""
    figures = comparison_figures(comparison)
    return save_figures(folder, {f"{name}.png": figures.get(name) for name in ("scatter", "learning_curve")})
