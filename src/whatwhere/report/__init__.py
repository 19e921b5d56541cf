"""Figures: pure functions from results to a `matplotlib.figure.Figure`, none of which touches pyplot.

Save one with `figure.savefig(path)`; a notebook shows it as the last line of a cell once `%matplotlib inline`
is set.
"""

from whatwhere.report.barcode import barcodes
from whatwhere.report.kernel_grid import kernels
from whatwhere.report.optimisation import loss_against_time
from whatwhere.report.prediction import predicted_against_true
from whatwhere.report.score_comparison import score_distribution
from whatwhere.report.training_history import history
from whatwhere.report.visual_field import masks_on_visual_field

__all__ = [
    "barcodes",
    "history",
    "kernels",
    "loss_against_time",
    "masks_on_visual_field",
    "predicted_against_true",
    "score_distribution",
]
