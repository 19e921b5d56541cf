"""Points solved one after the other, or several at a time in processes of their own, of which any may die."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeAlias

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from whatwhere.estimators.resume import cpu_threads
from whatwhere.experiments.points import Ending, Failure, Point
from whatwhere.process_memory import keep_freed_memory

Solve: TypeAlias = Callable[[Point], Ending]
"""Fits one point; for several workers a function that can be pickled, of a module that can be imported."""

DIED = "its process was killed, or died: too little memory is the usual reason, fewer workers the remedy"


def solve_all(points: Sequence[Point], solve: Solve, n_workers: int) -> Generator[tuple[Point, Ending], None, None]:
    """Each point with its outcome, or why it has none, as they end.

    One worker is this process; more are processes made afresh ("spawn"). Each uses one thread of the CPU, so that
    cores are not oversubscribed and the numbers do not depend on how many workers there are. What a point raises is
    its failure, and the others go on. Where a process dies, the points that were under way are solved again one at a
    time, so that the one that killed it is known: it fails, and the others go on. Ctrl-C, or closing the generator,
    ends the processes at once.
    """
    if n_workers == 1:
        with cpu_threads(1), threadpool_limits(1):
            for point in points:
                yield point, attempt(solve, point)
        return
    waiting, suspects = deque(points), list[Point]()
    while waiting:
        suspects += yield from _until_broken(waiting, solve, n_workers)
    for point in suspects:
        if (yield from _until_broken(deque([point]), solve, 1)):
            yield point, Failure(DIED)


def attempt(solve: Solve, point: Point) -> Ending:
    """What `solve` returns, or what it raises as a failure; Ctrl-C goes through."""
    try:
        return solve(point)
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    return Failure(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _until_broken(
    waiting: deque[Point], solve: Solve, n_workers: int
) -> Generator[tuple[Point, Ending], None, list[Point]]:
    """Solves what waits, in one pool; returns what was under way when a process of it died."""
    lost: list[Point] = []
    running: dict[Future[Ending], Point] = {}
    with _pool(n_workers) as pool:
        while (waiting or running) and not lost:
            while waiting and len(running) < n_workers and not lost:
                point = waiting.popleft()
                try:
                    running[pool.submit(attempt, solve, point)] = point
                except BrokenProcessPool:  # a process died since the last look
                    lost.append(point)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                point = running.pop(future)
                try:
                    ending = future.result()
                except BrokenProcessPool:
                    lost.append(point)
                    continue
                except Exception as error:  # an outcome that could not be sent back
                    ending = _failure(error)
                yield point, ending
    return [*lost, *running.values()]


@contextmanager
def _pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end with the block, at once where it is left early."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(n_workers, context, _begin)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """In a new process: one thread, and what it frees it keeps for its next point; Ctrl-C is the parent's to handle."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy's and SciPy's libraries
