"""Points solved one after the other, or several at a time in processes of their own, of which any may die."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import TypeAlias

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from whatwhere.estimators.resume import cpu_threads
from whatwhere.experiments.points import Ending, Failure, Point
from whatwhere.workers import LocalExecutor, WorkerDiedError, failure_text

Solve: TypeAlias = Callable[[Point], Ending]
"""Fits one point; for several workers a function that can be pickled, of a module that can be imported."""


def solve_all(points: Sequence[Point], solve: Solve, n_workers: int) -> Generator[tuple[Point, Ending], None, None]:
    """Each point with its outcome, or why it has none, as they end.

    One worker is this process; more are processes made afresh ("spawn"). Each uses one thread of the CPU, so that
    cores are not oversubscribed and the numbers do not depend on how many workers there are. What a point raises is
    its failure, and the others go on. Where a process dies, its point is solved once more, after the others; if that
    process dies too, the point fails. Ctrl-C, or closing the generator, ends the processes at once.
    """
    if n_workers == 1:
        with cpu_threads(1), threadpool_limits(1):
            for point in points:
                yield point, attempt(solve, point)
        return
    suspects: set[Point] = set()
    with LocalExecutor(n_workers) as executor:
        running = {executor.submit(attempt, solve, point): point for point in points}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                point = running.pop(future)
                try:
                    ending = future.result()
                except WorkerDiedError as error:
                    if point not in suspects:
                        suspects.add(point)
                        running[executor.submit(attempt, solve, point)] = point
                        continue
                    ending = Failure(str(error))
                except Exception as error:  # an outcome that could not be sent back
                    ending = Failure(failure_text(error))
                yield point, ending


def attempt(solve: Solve, point: Point) -> Ending:
    """What `solve` returns, or what it raises as a failure; Ctrl-C goes through."""
    try:
        return solve(point)
    except Exception as error:
        return Failure(failure_text(error))
