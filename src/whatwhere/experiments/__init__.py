"""Experiments with a known outcome: each a function that returns its result."""
