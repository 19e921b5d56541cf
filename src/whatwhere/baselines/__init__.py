"""Simple alternatives that every model is judged against, with the same interface."""

from whatwhere.baselines.ridge import Ridge

__all__ = ["Ridge"]
