"""Experiments with a known outcome: each a function that returns its result, or a grid of points with a table."""
