"""Checks of the numbers that a simulation is asked for."""

from numbers import Integral, Real
from typing import Any

import numpy as np

from whatwhere.errors import OptionError


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises `OptionError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def check_size(name: str, size: Any) -> tuple[int, int]:
    """(height, width), both whole and at least 1; else raises `OptionError`."""
    try:
        height, width = size
    except (TypeError, ValueError):
        raise OptionError(f"{name} must be (height, width) in pixels, for example (36, 64), got {size!r}.") from None
    check_count("height", height)
    check_count("width", width)
    return height, width


def check_numbers(name: str, values: Any, **bounds: float) -> None:
    """Raises `OptionError` unless `values` are one or more numbers within the bounds of `check_number`."""
    if isinstance(values, str) or not np.iterable(values):
        raise OptionError(f"{name} must be one or more numbers, for example (0.6, 1.0), got {values!r}.")
    found = list(values)
    if not found:
        raise OptionError(f"{name} is empty: expected at least one value.")
    for value in found:
        check_number(f"each of {name}", value, **bounds)


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
