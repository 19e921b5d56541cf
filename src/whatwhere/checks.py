"""Checks of shape, range and choice, all with one form of message: what is wrong, expected, got, remedy."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from whatwhere.errors import InputError, OptionError

MOST_NAMED = 5


def some_of(values: Iterable[Any], most: int = MOST_NAMED) -> str:
    """The first few values, and how many more there are.

    >>> some_of([3, 5, 7, 9], most=2)
    '3, 5 and 2 more'
    """
    named = [str(value) for value in values]
    rest = len(named) - most
    return ", ".join(named[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known name, or an empty string.

    >>> did_you_mean("factorised", ["factorized", "ridge"])
    " Did you mean 'factorized'?"
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_choice(what: str, value: str, known: Iterable[str]) -> str:
    """`value`, if it is one of the `known` names; raises `OptionError` naming them all and the nearest."""
    known = list(known)
    if value in known:
        return value
    raise OptionError(
        f"unknown {what} {value!r}: expected one of {', '.join(map(repr, known))}." + did_you_mean(str(value), known)
    )


def check_keys(what: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raises `OptionError` for the first key that is not known, naming the nearest."""
    known = list(known)
    for key in keys:
        if key not in known:
            raise OptionError(
                f"unknown {what} {key!r}: known are {', '.join(map(repr, known))}." + did_you_mean(str(key), known)
            )


def check_ndim(name: str, array: Any, axes: Sequence[str]) -> None:
    """Raises `InputError` unless `array` has one dimension for each of the named `axes`."""
    shape = np.shape(array) if not hasattr(array, "shape") else tuple(array.shape)
    if len(shape) != len(axes):
        raise InputError(
            f"{name} has {len(shape)} dimensions, shape {shape}: expected {len(axes)}, ({', '.join(axes)}). Reshape"
            " it, height before width."
        )


def check_same_rows(name: str, n_rows: int, other: str, n_other: int, each: str = "image") -> None:
    """Raises `InputError` unless both have the same number of rows."""
    if n_rows != n_other:
        raise InputError(
            f"{name} has {n_rows:,} rows but {other} has {n_other:,}: one row per {each} is needed. Leave out what"
            " has no partner."
        )


def check_numeric(name: str, array: Any) -> None:
    """Raises `InputError` unless `array` holds booleans, integers or real floating-point numbers."""
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "buif":
        raise InputError(
            f"{name} has dtype {dtype}: expected real numbers. Convert it, for example with astype(float)."
        )


def check_positive(name: str, value: float) -> None:
    """Raises `OptionError` unless `value` is finite and above zero."""
    if not (np.isfinite(value) and value > 0):
        raise OptionError(f"{name} must be above 0, got {value}.")


def check_finite(name: str, values: np.ndarray, columns: Sequence[Any] | None = None, *, row: str = "row") -> None:
    """Raises `InputError` naming the first values that are NaN or infinite.

    `columns` are the names of the second axis, and then the values are named by neuron and row; without, by
    row alone.
    """
    good = np.isfinite(values)
    if good.all():
        return
    n_bad = int(good.size - np.count_nonzero(good))
    if columns is None:
        rows = np.flatnonzero(~good.reshape(len(good), -1).all(axis=1))
        where = f"{row} {some_of(rows)}"
    else:
        where = some_of(f"neuron {columns[j]} in {row} {i}" for i, j in np.argwhere(~good))
    raise InputError(
        f"{name} holds {n_bad:,} {'value that is' if n_bad == 1 else 'values that are'} not finite: {where}. Mend"
        " them, or leave them out with nonfinite='rows' or nonfinite='neurons'."
    )


def check_positions(name: str, which: Any, n: int, each: str) -> np.ndarray:
    """`which` (integer positions, or one boolean each) as positions in 0..n-1; else raises `InputError`.

    >>> check_positions("rows", [True, False, True], 3, "image")
    array([0, 2])
    """
    positions = np.asarray(which)
    if positions.ndim != 1 or positions.size == 0 or positions.dtype.kind not in "biu":
        raise InputError(
            f"{name} has shape {positions.shape} and dtype {positions.dtype}: expected at least one integer position,"
            f" or one boolean per {each} (n = {n:,})."
        )
    if positions.dtype.kind == "b":
        if len(positions) != n:
            raise InputError(f"{name} holds {len(positions):,} booleans: expected one per {each}, {n:,}.")
        positions = np.flatnonzero(positions)
        if not len(positions):
            raise InputError(f"{name} selects no {each}: at least one boolean must be true.")
    bad = positions[(positions < 0) | (positions >= n)]
    if len(bad):
        raise InputError(f"{name} holds {some_of(bad)}, out of range: expected positions of {each}s, 0 to {n - 1:,}.")
    return positions.astype(np.intp)
