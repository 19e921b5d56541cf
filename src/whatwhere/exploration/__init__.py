"""What a report shows of fitted models, as plain arrays and tables: nothing here draws."""

from whatwhere.exploration.collecting import explore_models, explore_runs
from whatwhere.exploration.explored import Cropped, Difference, Explored, ExploredRun, Posterior
from whatwhere.exploration.extras import Extras
from whatwhere.exploration.folders import check_runs

__all__ = [
    "Cropped",
    "Difference",
    "Explored",
    "ExploredRun",
    "Extras",
    "Posterior",
    "check_runs",
    "explore_models",
    "explore_runs",
]
