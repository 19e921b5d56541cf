"""The options that the baselines share: how each is checked, and the published strengths in our units."""

import operator
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from whatwhere.baselines.crops import LOCATIONS
from whatwhere.baselines.families import NONLINEARITIES
from whatwhere.checks import check_choice, check_positive
from whatwhere.errors import OptionError
from whatwhere.losses import LOSSES
from whatwhere.standardisation import MODES

PAPER_RIDGE = tuple(float(strength) for strength in np.geomspace(10, 20_000, 10))
"""The paper's ridge penalties, of a *sum* over images of squared errors: see `ridge_strengths`.

The paper's curve of Figure 3 is met without an offset (`offset=False`); the number of values is not published.
"""
PAPER_LASSO = tuple(float(strength) for strength in np.geomspace(1e-5, 0.3, 10))
"""The paper's lasso penalties, of half the *mean* squared error of responses in their own units.

Ours are for responses of unit variance: divide these by the responses' standard deviation.
"""
STA_SMOOTHING = 2.0


def ridge_strengths(n_images: int, penalties: Sequence[float] = PAPER_RIDGE) -> list[float]:
    """Penalties of a sum over `n_images` training images, as strengths per image: penalty / n_images.

    |y - X w|^2 + penalty |w|^2 has the minimum of |y - X w|^2 / n_images + strength |w|^2. The paper's stimuli have
    pixels of unit variance, as ours have once standardised; its split leaves 80 % of D for training.

    >>> [round(strength, 3) for strength in ridge_strengths(819, [10, 20_000])]  # D = 1024
    [0.012, 24.42]
    """
    check_positive("n_images", n_images)
    return [penalty / n_images for penalty in penalties]


def check_strengths(strengths: Any) -> list[float]:
    """One strength or several, as a list; raises `OptionError` unless all are above 0."""
    return _numbers("strengths", strengths, at_least_0=False)


def _check_penalty(name: str) -> Callable[[Any], list[float]]:
    """One strength or several of a penalty that may be none, 0."""
    return lambda strengths: _numbers(name, strengths, at_least_0=True)


def _numbers(name: str, values: Any, *, at_least_0: bool) -> list[float]:
    """One number or several, as a list; raises `OptionError` unless all are finite and above 0, or 0."""
    try:
        found = [float(value) for value in np.atleast_1d(np.asarray(values))]
    except (TypeError, ValueError):
        bound = "of 0 or more" if at_least_0 else "above 0"
        raise OptionError(f"{name} must be numbers {bound}, got {values!r}.") from None
    if not found:
        least = " strength, [0] for none of this penalty." if at_least_0 else "."
        raise OptionError(f"{name} is empty: give at least one{least}")
    for value in found:
        if not at_least_0:
            check_positive(name, value)
        elif not 0 <= value < float("inf"):
            raise OptionError(f"{name} must be 0 or more, got {value}.")
    return found


def check_fraction(fraction: Any) -> float:
    """The validation fraction; raises `OptionError` unless it lies between 0 and 1."""
    if not (isinstance(fraction, Real) and 0 < float(fraction) < 1):
        raise OptionError(f"validation_fraction must lie between 0 and 1, got {fraction!r}: 0.2 is usual.")
    return float(fraction)


def check_crop(crop: Any) -> list[int] | None:
    """[height, width] of the window, from one number or two; None for the whole image."""
    if crop is None:
        return None
    try:
        sizes = [operator.index(size) for size in (crop if np.ndim(crop) else (crop, crop))]
    except TypeError:
        sizes = []
    if len(sizes) != 2 or min(sizes) < 1 or isinstance(crop, bool):
        raise OptionError(
            f"crop must be None, a number of pixels or (height, width), whole and at least 1, got {crop!r}."
        )
    return sizes


def check_folds(folds: Any) -> int | None:
    """The number of folds; None for the validation part."""
    if folds is None:
        return None
    if isinstance(folds, bool) or not hasattr(folds, "__index__") or operator.index(folds) < 2:
        raise OptionError(f"folds must be None or a whole number of at least 2, got {folds!r}: 5 is usual.")
    return operator.index(folds)


def check_smoothing(smoothing: Any) -> float:
    """The width of the Gaussian that smooths the squared average, pixels; 0 for none."""
    if not (isinstance(smoothing, Real) and 0 <= float(smoothing) < float("inf")):
        raise OptionError(f"sta_smoothing must be a number of pixels, 0 or more, got {smoothing!r}.")
    return float(smoothing)


def _yes_or_no(name: str) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise OptionError(f"{name} must be True or False, got {value!r}.")
        return bool(value)

    return check


CHECKS: dict[str, Callable[[Any], Any]] = {
    "strengths": check_strengths,
    "smoothness": _check_penalty("smoothness"),
    "sparsity": _check_penalty("sparsity"),
    "crop": check_crop,
    "locations": lambda value: check_choice("locations", value, LOCATIONS),
    "sta_smoothing": check_smoothing,
    "standardize": lambda value: check_choice("standardisation", value, MODES),
    "validation_fraction": check_fraction,
    "folds": check_folds,
    "offset": _yes_or_no("offset"),
    "refit": _yes_or_no("refit"),
    "per_neuron": _yes_or_no("per_neuron"),
    "nonlinearity": lambda value: check_choice("nonlinearity", value, NONLINEARITIES),
    "loss": lambda value: check_choice("loss", value, LOSSES),
}
"""How each option is checked; each gives back the plain value that files hold."""


def check_window_options(crop: list[int] | None, locations: str, sta_smoothing: float) -> None:
    """Raises `OptionError` for an option of the window that would be ignored."""
    if crop is None and locations != "average":
        raise OptionError(f"locations (={locations!r}) has nothing to act on without crop: give a crop, or leave it.")
    if sta_smoothing != STA_SMOOTHING and (crop is None or locations != "average"):
        raise OptionError(
            f"sta_smoothing (={sta_smoothing}) has nothing to act on without a crop around the average: leave it at"
            f" {STA_SMOOTHING}."
        )
