"""Accelerated proximal gradients (FISTA) for many problems side by side, which are evaluated together."""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

TOLERANCE = 3e-5
MOST_STEPS = 2000
_GROWTH = 1.6  # of a curvature that proved too small
_DECAY = 0.97  # of every curvature, each step: it was found elsewhere, and may be too large here
_MOST_TRIALS = 60
_ROUNDING = 1e-12  # of a value, or of 1: what sums over images lose


class Composite(Protocol):
    """f_i(K x), a smooth function of a linear map of the variables, for each problem i.

    As K x of a point between two others follows from theirs, a step needs K once and its transpose once.
    """

    def mapped(self, points: np.ndarray) -> np.ndarray:
        """K x of points (n, n_variables): (n, n_mapped)."""

    def values(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The values (n,) at points of which this is K x, of the problems of these numbers (n,)."""

    def gradients(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        """The gradients (n, n_variables) by the variables."""


@dataclass(frozen=True, eq=False)
class _State:
    """The problems still going: the last point and the one that the next step starts from, each with its K x."""

    which: np.ndarray
    points: np.ndarray
    mapped: np.ndarray
    ahead: np.ndarray
    ahead_mapped: np.ndarray
    curvatures: np.ndarray
    momenta: np.ndarray

    def kept(self, rows: np.ndarray) -> Self:
        return type(self)(*(part[rows] for part in vars(self).values()))


def shrunken(points: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """argmin_x |x - p|^2 / 2 + sum_j t_j |x_j|, the proximal step of a weighted L1 norm, element by element.

    >>> shrunken(np.array([-3.0, 0.5, 2.0]), np.array([1.0, 1.0, 0.0])).tolist()
    [-2.0, 0.0, 2.0]
    """
    return points - np.clip(points, -thresholds, thresholds)


def minimise(
    composite: Composite,
    weights: np.ndarray,
    metric: np.ndarray,
    start: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """argmin_x f_i(K x) + sum_j weights_j |x_j| for each problem i: the points, and which converged.

    weights: (n_variables,), 0 or more. metric: (n_problems, n_variables), above 0, the curvature of f_i along each
    variable up to a common factor, which every problem finds by backtracking; being diagonal, it leaves the proximal
    step exact. start, points: (n_problems, n_variables). A problem's momentum starts anew where it points uphill. It
    has converged where no element of its proximal gradient, the curvature times the step, exceeds `tolerance`, and
    ends as if alone.
    Sources: Beck & Teboulle 2009; O'Donoghue & Candes 2015 (restart by the gradient).
    """
    ends = np.array(start, np.float64)
    converged = np.zeros(len(ends), bool)
    mapped = composite.mapped(ends)
    ones = np.ones(len(ends))
    state = _State(np.arange(len(ends)), ends.copy(), mapped, ends.copy(), mapped, ones, ones)
    for _ in range(most_steps):
        points, mapped, curvatures = _step(composite, weights, metric, state)
        back = metric[state.which] * (state.ahead - points)  # the proximal gradient but for the curvature
        ends[state.which] = points
        residuals = curvatures * np.abs(back).max(1)  # NaN where no step could be taken
        converged[state.which] = residuals <= tolerance
        going = residuals > tolerance
        uphill = np.einsum("ij,ij->i", back, points - state.points) > 0
        state = _advanced(state, points, mapped, curvatures, uphill)
        if not going.all():
            state = state.kept(going)
        if not len(state.which):
            break
    return ends, converged


def _advanced(
    state: _State, points: np.ndarray, mapped: np.ndarray, curvatures: np.ndarray, uphill: np.ndarray
) -> _State:
    """The next state: ahead of the new points by their momentum, and at them where that points uphill."""
    momenta = (1 + np.sqrt(1 + 4 * state.momenta**2)) / 2
    momenta[uphill] = 1
    share = np.where(uphill, 0, (state.momenta - 1) / momenta)[:, None]
    ahead = points + share * (points - state.points)
    ahead_mapped = mapped + share * (mapped - state.mapped)
    return _State(state.which, points, mapped, ahead, ahead_mapped, _DECAY * curvatures, momenta)


def _step(
    composite: Composite, weights: np.ndarray, metric: np.ndarray, state: _State
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proximal steps from ahead, their K x, and curvatures so large that the quadratic model lies above f.

    Where none is large enough, for values that are not finite, the curvature is NaN and the point stays.
    """
    values = composite.values(state.ahead_mapped, state.which)
    gradients = composite.gradients(state.ahead_mapped, state.which)
    points, mapped = state.ahead.copy(), state.ahead_mapped.copy()
    curvatures = state.curvatures.copy()
    waiting = np.arange(len(points))
    for _ in range(_MOST_TRIALS):
        which, origin, slope = state.which[waiting], state.ahead[waiting], gradients[waiting]
        scale = curvatures[waiting, None] * metric[which]
        trial = shrunken(origin - slope / scale, weights / scale)
        trial_mapped = composite.mapped(trial)
        found, step = composite.values(trial_mapped, which), trial - origin
        model = values[waiting] + np.einsum("ij,ij->i", step, slope + 0.5 * scale * step)
        good = found <= model + _ROUNDING * np.maximum(np.abs(values[waiting]), 1)
        points[waiting[good]], mapped[waiting[good]] = trial[good], trial_mapped[good]
        waiting = waiting[~good]
        if not len(waiting):
            break
        curvatures[waiting] *= _GROWTH
    curvatures[waiting] = np.nan
    return points, mapped, curvatures
