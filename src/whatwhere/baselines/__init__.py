"""Simple alternatives that every model is judged against, with the same interface."""

from whatwhere.baselines.glm import GLM
from whatwhere.baselines.lasso import Lasso
from whatwhere.baselines.lnp import LNP
from whatwhere.baselines.ols import OLS
from whatwhere.baselines.options import PAPER_LASSO, PAPER_RIDGE, ridge_strengths
from whatwhere.baselines.ridge import Ridge

__all__ = ["GLM", "LNP", "OLS", "PAPER_LASSO", "PAPER_RIDGE", "Lasso", "Ridge", "ridge_strengths"]
