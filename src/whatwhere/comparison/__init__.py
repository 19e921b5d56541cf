"""Models compared on one recording: one split, the held-out part at the end, seeds, learning curves."""

from whatwhere.comparison.comparing import Comparison, compare
from whatwhere.comparison.extrapolation import Outlook, extrapolate, fit_power_law
from whatwhere.comparison.tables import ensemble_name

__all__ = ["Comparison", "Outlook", "compare", "ensemble_name", "extrapolate", "fit_power_law"]
