"""Figures: pure functions from results to a `matplotlib.figure.Figure`, none of which touches pyplot.

Save one with `figure.savefig(path)`; a notebook shows it as the last line of a cell once `%matplotlib inline`
is set.

And the page that shows a fitted model whole: `whatwhere.report(model, recording, "report.html")`, which is
`explorer.report`.
"""

import sys
from types import ModuleType
from typing import Any

from whatwhere.report.barcode import barcodes
from whatwhere.report.calibration import reliability
from whatwhere.report.explorer import report, write_report
from whatwhere.report.figure1 import thought_experiment
from whatwhere.report.figure3 import homogeneous_population
from whatwhere.report.figure4 import cell_types
from whatwhere.report.found_types import number_of_types, type_barcodes, type_confidence, type_map
from whatwhere.report.insilico import field_grid, most_exciting_grid, orientation_tuning, size_curves
from whatwhere.report.kernel_grid import kernels
from whatwhere.report.kernel_use import kernels_by_use
from whatwhere.report.learning_curve import learning_curve
from whatwhere.report.location_regions import location_regions, region_size_against_score
from whatwhere.report.mask_coverage import mask_coverage
from whatwhere.report.noise_ceiling import predicted_against_observed
from whatwhere.report.optimisation import loss_against_time
from whatwhere.report.prediction import predicted_against_true
from whatwhere.report.score_comparison import score_distribution
from whatwhere.report.score_scatter import score_scatter
from whatwhere.report.training_history import history
from whatwhere.report.visual_field import masks_on_visual_field

__all__ = [
    "barcodes",
    "cell_types",
    "field_grid",
    "history",
    "homogeneous_population",
    "kernels",
    "kernels_by_use",
    "learning_curve",
    "location_regions",
    "loss_against_time",
    "mask_coverage",
    "masks_on_visual_field",
    "most_exciting_grid",
    "number_of_types",
    "orientation_tuning",
    "predicted_against_observed",
    "predicted_against_true",
    "region_size_against_score",
    "reliability",
    "report",
    "score_distribution",
    "score_scatter",
    "size_curves",
    "thought_experiment",
    "type_barcodes",
    "type_confidence",
    "type_map",
    "write_report",
]


class _Callable(ModuleType):
    """This module, which may be called: `whatwhere.report` names both it and what it is there for."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return report(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
