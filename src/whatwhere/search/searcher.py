"""Keeps a pool of workers busy with the points of a study until there are no more."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from whatwhere.errors import RunError
from whatwhere.runs import RESULTS_FILE
from whatwhere.search.point import Ending, Failed, Source, Task, fit_point
from whatwhere.search.pools import Pool
from whatwhere.search.pruning import Judge
from whatwhere.search.space import Point, Space, key_of
from whatwhere.search.study import DONE, FAILED, PRUNED, RUNNING, Study, Trial
from whatwhere.storage import CONFIG_FILE, write_text
from whatwhere.workers import WorkerDiedError, failure_text

POINTS = "points"
_SECONDS_BETWEEN_LOOKS = 5.0
_MOST_LOSSES = 1
"""Times that a point's worker may die before the point has failed."""


@dataclass(frozen=True)
class SearchPlan:
    """What a call will do: how many points there are, how many have an end already, how many are fitted at once."""

    n_points: int
    n_done: int
    n_workers: int


@dataclass(frozen=True)
class SearchProgress:
    """A point that ended, and how far the search is.

    - best: the lowest loss so far, and best_point the point that has it; None before there is one
    - seconds_left: by what the points so far took, at this number of workers
    """

    number: int
    point: Point
    ending: Ending
    n_done: int
    n_failed: int
    n_points: int
    best: float | None
    best_point: Point | None
    seconds_left: float


@dataclass(frozen=True)
class SearchTick:
    """A sign of life between points that end: how many are under way, and the seconds since the call."""

    n_running: int
    seconds: float


SearchObserver: TypeAlias = Callable[[SearchPlan | SearchProgress | SearchTick], None]


@dataclass(frozen=True)
class PointMaker:
    """Makes the task of a point from what all points have in common: the space, and where they are kept.

    data: the recording's fingerprint.
    """

    space: Space
    preset: str
    common: Mapping[str, Any]
    folder: Path
    data: str

    def task(self, point: Point, start: str | None = None, judge: Judge | None = None) -> Task:
        """A point's task; `start`: the key of the point that it starts from; `judge`: tells when to give it up.

        Raises `RunError` where the model that it starts from is not in the folder.
        """
        before = None if start is None else self.run_of(start)
        if before is not None and not (before / CONFIG_FILE).exists():
            raise RunError(
                f"{before} has no model, from which another point is to start: a search with warm_start needs a folder"
                " that all its workers share with this process."
            )
        return Task(
            model=self.space.model,
            values=self.space.values(point),
            preset=self.preset,
            common=dict(self.common),
            folder=str(self.run_of(key_of(point))),
            data=self.data,
            start=None if before is None else str(before),
            judge=judge,
        )

    def run_of(self, key: str) -> Path:
        """The folder of a point's run."""
        return (self.folder / POINTS / key).resolve()


@dataclass
class Searcher:
    """Asks the study for points, has the pool fit them, and tells the study what came of each.

    before: for the key of a point that starts from another one, that one's key. pruner, prune_after: the rule by which
    a point is given up, and the steps before which none is.
    """

    study: Study
    maker: PointMaker
    pool: Pool
    before: Mapping[str, str]
    observer: SearchObserver | None = None
    pruner: str = "none"
    prune_after: int = 1

    running: dict[Future[Ending], Trial] = field(default_factory=dict)
    held: list[Trial] = field(default_factory=list)
    n_lost: dict[str, int] = field(default_factory=dict)
    n_ended: int = 0
    started: float = field(default_factory=time.monotonic)

    def run(self, source: Source) -> pd.DataFrame:
        """The study's table in the end, which is also written as it grows."""
        shared = self.pool.shared(source)
        if self.observer is not None:
            n_done = sum(state in (DONE, PRUNED) for state in self.study.endings().values())
            self.observer(SearchPlan(self.study.n_points(), n_done, self.pool.n_slots()))
        self._write()
        while True:
            self.study.alive()
            self._fill(shared)
            if not self.running:
                if self.study.take_up():
                    continue
                if not self.held and RUNNING not in self.study.endings().values():
                    return self._write()
                time.sleep(_SECONDS_BETWEEN_LOOKS)  # another searcher has the rest, or what these start from
                continue
            for future in wait(self.running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
                trial = self.running.pop(future)
                ending = self._ending(future, trial)
                if ending is None:
                    self._submit(shared, trial)
                    continue
                self.study.tell(trial, ending)
                self._report(trial, ending, self._write())
            if self.observer is not None and self.running:
                self.observer(SearchTick(len(self.running), time.monotonic() - self.started))

    def _fill(self, shared: Any) -> None:
        """Submits as many points as there are free workers; those whose start is not fitted yet are held."""
        n_slots = self.pool.n_slots()
        for trial in list(self.held):
            if len(self.running) < n_slots and self._is_ready(trial):
                self.held.remove(trial)
                self._submit(shared, trial)
        while len(self.running) < n_slots and (len(self.held) < n_slots or not self.running):
            next_one = self.study.ask()
            if next_one is None:
                return
            if self._is_ready(next_one):
                self._submit(shared, next_one)
            else:
                self.held.append(next_one)

    def _is_ready(self, trial: Trial) -> bool:
        before = self.before.get(trial.key)
        return before is None or self.study.endings().get(before) in (DONE, FAILED)

    def _submit(self, shared: Any, trial: Trial) -> None:
        before = self.before.get(trial.key)
        if before is not None and self.study.endings().get(before) == FAILED:
            before = None
        judge = None
        if self.pruner != "none":
            judge = Judge(self.study.address, self.study.name, trial.identifier, self.pruner, self.prune_after)
        task = self.maker.task(trial.point, before, judge)
        self.running[self.pool.executor.submit(fit_point, shared, task)] = trial

    def _ending(self, future: Future[Ending], trial: Trial) -> Ending | None:
        """How a point ended; None where its worker died and it is to be tried again."""
        try:
            return future.result()
        except WorkerDiedError as error:
            self.n_lost[trial.key] = self.n_lost.get(trial.key, 0) + 1
            return None if self.n_lost[trial.key] <= _MOST_LOSSES else Failed(str(error))
        except Exception as error:  # a scheduler that has lost too many workers to it, an answer that cannot be sent
            return Failed(failure_text(error))

    def _write(self) -> pd.DataFrame:
        table = self.study.table()
        write_text(self.maker.folder / RESULTS_FILE, table.to_csv(index=False))
        return table

    def _report(self, trial: Trial, ending: Ending, table: pd.DataFrame) -> None:
        self.n_ended += 1
        if self.observer is None:
            return
        n_done, n_failed = int(table["state"].isin([DONE, PRUNED]).sum()), int((table["state"] == FAILED).sum())
        n_points, best = self.study.n_points(), best_row(table)
        left = max(0, n_points - n_done - n_failed)
        self.observer(
            SearchProgress(
                number=trial.number,
                point=trial.point,
                ending=ending,
                n_done=n_done,
                n_failed=n_failed,
                n_points=n_points,
                best=None if best is None else float(best["validation_loss"]),
                best_point=None if best is None else self.study.point_of(str(best["key"])),
                seconds_left=(time.monotonic() - self.started) / self.n_ended * left,
            )
        )


def best_row(table: pd.DataFrame) -> pd.Series | None:
    """The point of lowest loss among those fitted to their end; None where there is none."""
    done = table[table["state"] == DONE]
    return None if done.empty else done.iloc[int(done["validation_loss"].astype(float).argmin())]
