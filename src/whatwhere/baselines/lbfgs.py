"""Limited-memory BFGS for many problems side by side: evaluated together, each with steps and curvature of its own."""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Objective: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Values (n,) and gradients (n, n_variables) at points (n, n_variables) of the problems of these numbers (n,)."""

MEMORY = 10  # pairs of steps and changes of the gradient
_DESCENT = 1e-4  # share of the slope that a step must gain (Armijo)
_MOST_HALVINGS = 30
_GAIN_STEPS = 10
_ROUNDING = 1e-9  # of a value, or of 1: what sums over images lose


def minimise(
    objective: Objective,
    start: np.ndarray,
    *,
    tolerance: float = 1e-6,
    least_gain: float = 0.0,
    most_steps: int = 500,
) -> tuple[np.ndarray, np.ndarray]:
    """argmin f_i(x_i) for each problem i: the points (n_problems, n_variables), and which converged.

    scipy's L-BFGS-B takes one problem at a time, or all as one with a common step; here one evaluation, a matrix
    product, serves all, and each problem ends as if alone. A problem has converged where no |gradient| exceeds
    `tolerance`, or where no step lowers its value any more and none was expected to by more than rounding. With a
    `least_gain`, for objectives with kinks, at whose minima no gradient need vanish, also where no step lowers it at
    all, or ten steps by less than that share.
    Source: Nocedal & Wright 2006, algorithm 7.4, with backtracking.

    >>> centres = np.array([[1.0, -2.0], [3.0, 0.5]])
    >>> def parabolas(points, which):
    ...     error = points - centres[which]
    ...     return (error**2).sum(1), 2 * error
    >>> minimise(parabolas, np.zeros((2, 2)))[0].round(6).tolist()
    [[1.0, -2.0], [3.0, 0.5]]
    """
    ends = np.array(start, np.float64)
    converged = np.zeros(len(ends), bool)
    which, points = np.arange(len(ends)), ends.copy()
    values, gradients = objective(points, which)
    stuck, well, mark = np.zeros(len(ends), bool), np.zeros(len(ends), bool), values
    pairs: deque[tuple[np.ndarray, ...]] = deque(maxlen=MEMORY)
    for number in range(1, most_steps + 1):
        well |= np.abs(gradients).max(1) <= tolerance
        going = ~(stuck | well)
        if not going.all():
            ends[which], converged[which] = points, well
            which, points, values = which[going], points[going], values[going]
            gradients, mark, well = gradients[going], mark[going], well[going]
            pairs = deque((tuple(part[going] for part in pair) for pair in pairs), MEMORY)
        if not len(which):
            return ends, converged
        direction = _direction(gradients, pairs)
        before = points, values, gradients
        points, values, gradients = _step(objective, which, *before, direction)
        stuck = ~(values < before[1])
        hoped = np.abs(_dot(gradients, direction))[:, 0]  # where it is stuck the gradient is the one before
        well = stuck & ((least_gain > 0) | (hoped <= _ROUNDING * np.maximum(np.abs(values), 1)))
        if number % _GAIN_STEPS == 0:
            slow = mark - values < least_gain * np.abs(values)
            stuck, well, mark = stuck | slow, well | slow, values
        pairs.append(_pair(points - before[0], gradients - before[2]))
    ends[which], converged[which] = points, well | (np.abs(gradients).max(1) <= tolerance)
    return ends, converged


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The products of the rows: (n_problems, 1)."""
    return np.einsum("ij,ij->i", a, b)[:, None]


def _pair(step: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, ...]:
    """A step, the gradient's change over it, and 1 / their product; 0 leaves a pair without curvature unused."""
    product = _dot(step, change)
    usable = product > 1e-10 * np.sqrt(_dot(step, step) * _dot(change, change))
    return step, change, np.where(usable, 1 / np.where(usable, product, 1), 0)


def _direction(gradients: np.ndarray, pairs: deque[tuple[np.ndarray, ...]]) -> np.ndarray:
    """Minus the approximate inverse Hessian times the gradient (the two-loop recursion), row by row."""
    direction, weights = -gradients, []
    scale = np.ones((len(gradients), 1))
    for step, change, inverse in reversed(pairs):
        weight = inverse * _dot(step, direction)
        direction = direction - weight * change
        weights.append(weight)
    if pairs:
        _, change, inverse = pairs[-1]
        usable = inverse > 0
        scale = np.where(usable, 1 / np.where(usable, inverse * _dot(change, change), 1), 1)
    direction = scale * direction
    for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        direction = direction + (weight - inverse * _dot(change, direction)) * step
    return direction


def _step(
    objective: Objective,
    which: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    gradients: np.ndarray,
    direction: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points down the direction with their values and gradients; where no step lowers the value, the old point."""
    slope = _dot(gradients, direction)[:, 0]
    uphill = slope >= 0
    direction = np.where(uphill[:, None], -gradients, direction)
    slope = np.where(uphill, -_dot(gradients, gradients)[:, 0], slope)
    points, old, gradients = points.copy(), values, gradients.copy()
    values = values.copy()
    size = np.ones(len(points))
    waiting = np.arange(len(points))
    for _ in range(_MOST_HALVINGS):
        trial = points[waiting] + size[waiting, None] * direction[waiting]
        found, steepness = objective(trial, which[waiting])
        down = found <= old[waiting] + _DESCENT * size[waiting] * slope[waiting]
        done = waiting[down]
        points[done], values[done], gradients[done] = trial[down], found[down], steepness[down]
        waiting = waiting[~down]
        if not len(waiting):
            break
        size[waiting] *= 0.5
    return points, values, gradients
