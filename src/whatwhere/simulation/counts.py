"""Checks of the numbers that a simulation is asked for."""

from numbers import Real
from typing import Any

import numpy as np

from whatwhere.errors import OptionError


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises `OptionError` unless `value` is a whole number of at least `least`."""
    if not _is_number(value) or int(value) != value or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    below: float = np.inf,
    most: float = np.inf,
) -> None:
    """Raises `OptionError` unless `value` is a finite number within the bounds.

    >>> check_number("decay", 1.5, least=0, below=1)
    Traceback (most recent call last):
    ...
    whatwhere.errors.OptionError: decay must be a number at least 0 and below 1, got 1.5.
    """
    if _is_number(value) and above < value < below and least <= value <= most:
        return
    named = {"above": above, "at least": least, "below": below, "at most": most}
    bounds = " and ".join(f"{word} {bound:g}" for word, bound in named.items() if np.isfinite(bound))
    raise OptionError(f"{name} must be a number {bounds or 'that is finite'}, got {value!r}.")


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and bool(np.isfinite(float(value)))
