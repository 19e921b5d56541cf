"""Choosing a strength: which images are fitted and which judged, and every strength's loss for every neuron."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from whatwhere.baselines.crops import Crops
from whatwhere.baselines.families import Family
from whatwhere.errors import InputError
from whatwhere.recording import Recording
from whatwhere.standardisation import Standardisation

BATCH_NUMBERS = 2**22
"""Of all solutions of the neurons that are solved at once."""
KEPT_NUMBERS = 2**25
"""Of all solutions of all neurons, kept until the strength is chosen; if they are more, the chosen is solved again."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Filters (n_pixels, n_neurons) and offsets (n_neurons,) on centred pixels, and which neurons' solver converged."""

    filters: np.ndarray
    offset: np.ndarray
    solved: np.ndarray


class Solver(Protocol):
    """Fits any neurons that see the same pixels; made once for each distinct window."""

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        """The solution for each strength, in their order, from strong to weak; responses: (n_images, n_neurons).

        strengths: (n_strengths,), or (n_strengths, n_penalties) of several penalties.
        """


MakeSolver: TypeAlias = Callable[[np.ndarray, tuple[int, int, int]], Solver]
"""From pixels (n_images, n_pixels), float64, centred if there is an offset, and (n_channels, height, width) of them."""


def from_strong_to_weak(strengths: np.ndarray) -> np.ndarray:
    """The order that solvers take strengths in, positions (n_strengths,): of several penalties the last varies fastest.

    >>> from_strong_to_weak(np.array([1.0, 3.0, 2.0])).tolist()
    [1, 2, 0]
    >>> from_strong_to_weak(np.array([[1.0, 5.0], [3.0, 4.0], [1.0, 6.0]])).tolist()
    [1, 2, 0]
    """
    return np.lexsort(strengths.reshape(len(strengths), -1).T[::-1])[::-1]


def means(values: np.ndarray, offset: bool) -> np.ndarray:
    """The mean of each column, (n_columns,), which an offset takes up; zeros without one."""
    return values.mean(0) if offset else np.zeros(values.shape[1])


@dataclass(frozen=True, eq=False)
class Problem:
    """What one fit sees.

    images: (n_images, n_channels, height, width), standardised, float32. responses: (n_images, n_neurons), each
    neuron's divided by its `scale` (n_neurons,), float64. locations: (n_neurons, 2), None without a crop. offset:
    whether an offset is fitted.
    """

    standardisation: Standardisation
    scale: np.ndarray
    images: np.ndarray
    responses: np.ndarray
    crops: Crops
    locations: np.ndarray | None
    offset: bool


@dataclass(frozen=True, eq=False)
class Batch:
    """Some neurons of one window, the mean of its pixels, and their solutions, one a strength."""

    window: tuple[int, int]
    neurons: np.ndarray
    centre: np.ndarray
    path: Iterable[Solution]


def most_together(n_images: int, n_pixels: int, n_strengths: int) -> int:
    """How many neurons are solved at once."""
    return max(1, BATCH_NUMBERS // max(n_images, n_pixels * n_strengths))


def solve(problem: Problem, make_solver: MakeSolver, strengths: np.ndarray) -> Iterator[Batch]:
    """All neurons, batch by batch; a batch's path is solved as it is iterated."""
    for window, members in problem.crops.groups():
        pixels = problem.crops.cut(problem.images, window)
        centre = means(pixels, problem.offset)
        pixels -= centre
        solver = make_solver(pixels, (problem.images.shape[1], *problem.crops.size))
        most = most_together(len(pixels), pixels.shape[1], len(strengths))
        for neurons in np.array_split(members, -(-len(members) // most)):
            yield Batch(window, neurons, centre, solver.path(problem.responses[:, neurons], strengths))


def validation_losses(
    problem: Problem,
    held_images: np.ndarray,
    held_responses: np.ndarray,
    family: Family,
    make_solver: MakeSolver,
    strengths: np.ndarray,
) -> tuple[np.ndarray, list[Batch] | None]:
    """Mean loss on the images held out, (n_strengths, n_neurons), and all solutions, unless they are too many."""
    losses = np.empty((len(strengths), len(problem.scale)))
    n_pixels = problem.images.shape[1] * int(np.prod(problem.crops.size))
    kept: list[Batch] | None = [] if losses.size * n_pixels <= KEPT_NUMBERS else None
    window, seen = None, np.empty((0, 0))
    for batch in solve(problem, make_solver, strengths):
        if batch.window != window:
            window, seen = batch.window, problem.crops.cut(held_images, batch.window) - batch.centre
        solutions = []
        for number, solution in enumerate(batch.path):
            drive = seen @ solution.filters + solution.offset
            losses[number, batch.neurons] = family.losses(drive, held_responses[:, batch.neurons])[0].mean(0)
            if kept is not None:
                solutions.append(solution)
        if kept is not None:
            kept.append(replace(batch, path=solutions))
    return losses, kept


def validation_parts(
    recording: Recording, fraction: float, folds: int | None, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit and rows to judge: the recording's split, or each of `folds` parts of all its images held out once.

    Rows that show one image (equal `image_ids`) stay together. Raises `InputError` for more folds than images.
    """
    if folds is None:
        return [recording.split(fraction, seed)]
    ids = np.arange(recording.n_images) if recording.image_ids is None else recording.image_ids
    groups, group = np.unique(ids, return_inverse=True)
    if len(groups) < folds:
        raise InputError(
            f"folds (={folds}) needs at least as many different images, but there are {len(groups):,}: choose fewer."
        )
    fold_of_group = np.empty(len(groups), int)
    fold_of_group[np.random.default_rng(seed).permutation(len(groups))] = np.arange(len(groups)) % folds
    fold = fold_of_group[group]
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(folds)]
