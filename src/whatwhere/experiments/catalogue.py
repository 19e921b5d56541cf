"""Every experiment by its name."""

from whatwhere.experiments.cell_types import TYPES
from whatwhere.experiments.experiment import Experiment
from whatwhere.experiments.fig1 import FIG1
from whatwhere.experiments.fig3 import FIG3
from whatwhere.experiments.fig4 import FIG4
from whatwhere.experiments.fig5 import FIG5B, FIG5C, FIG5D, FIG5E
from whatwhere.experiments.scale import SCALE

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (FIG1, FIG3, FIG4, FIG5B, FIG5C, FIG5D, FIG5E, SCALE, TYPES)
}
