"""A grid of points: solved in parallel, each kept as it is done, so that a second call does only what is missing."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from whatwhere import runs
from whatwhere.errors import FormatError
from whatwhere.estimators.resume import note_asked
from whatwhere.experiments.points import (
    DONE,
    POINTS,
    Failure,
    Outcome,
    Point,
    is_done,
    read_arrays,
    results_table,
    write_point,
)
from whatwhere.experiments.workers import Solve, solve_all
from whatwhere.files import make_folder
from whatwhere.runs import GRID_FILE, RESULTS_FILE
from whatwhere.simulation.counts import check_count
from whatwhere.storage import write_text


@dataclass(frozen=True)
class GridPlan:
    """What a call will do: how many points, how many of them are done already, and about how long it takes."""

    n_points: int
    n_done: int
    n_workers: int
    seconds: float


@dataclass(frozen=True)
class GridProgress:
    """A point that ended: how, and how far the grid is.

    - `fev`: None for a point that failed, `reason` then says why
    - `n_done`: of the `n_points` asked for, those that have an outcome, from earlier calls too
    - `seconds_left`: by what the points so far took, against what they were expected to
    """

    point: Point
    fev: float | None
    reason: str
    n_done: int
    n_failed: int
    n_points: int
    seconds_left: float


GridObserver: TypeAlias = Callable[[GridPlan | GridProgress], None]


def run_grid(
    points: Sequence[Point],
    solve: Solve,
    folder: Path,
    *,
    asked: dict[str, Any],
    cost: Callable[[Point], float] = lambda point: 1.0,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    observer: GridObserver | None = None,
) -> pd.DataFrame:
    """Solves the points that the folder lacks, keeps each, and returns (and writes) the table of all that it holds.

    - `solve`: from a point to its outcome; what it raises is that point's failure, kept with its reason, and the
      others go on. With several workers it must be a function of a module, or a partial of one
    - `asked`: plain values that decide the outcomes, beside the points themselves
    - `cost`: seconds that a point is expected to take; the dearest are begun first
    - `workers`: processes of one thread each; None: one for each core; 1: no process but this. The outcomes are the
      same for any number. Where there are several, a script needs `if __name__ == "__main__":` around the call
    - `resume`: go on with the grid that the folder holds; points that failed are tried again

    Where it is interrupted, by Ctrl-C or an error, what is done is kept and in the table. Raises `RunError` where the
    folder holds a grid and neither `resume` nor `overwrite` is given, or one begun with something else than `asked`, or
    work of another kind; `WriteError` where the folder cannot be written.
    """
    n_workers = (os.cpu_count() or 1) if workers is None else workers
    check_count("workers", n_workers)
    check_folder(folder, resume=resume, overwrite=overwrite)
    _begin(folder, asked, overwrite)
    missing = sorted((point for point in points if not is_done(folder, point)), key=cost, reverse=True)
    n_workers = max(1, min(n_workers, len(missing)))
    clock = _Clock([cost(point) for point in missing], n_workers)
    n_done, n_failed = len(points) - len(missing), 0
    if observer is not None:
        observer(GridPlan(len(points), n_done, n_workers, clock.seconds_left()))
    try:
        with closing(solve_all(missing, solve, n_workers)) as endings:
            for point, ending in endings:
                kept = _keep(folder, point, ending)
                n_done, n_failed = n_done + isinstance(kept, Outcome), n_failed + isinstance(kept, Failure)
                clock.ended(cost(point))
                if observer is not None:
                    fev, reason = (None, kept.reason) if isinstance(kept, Failure) else (kept.fev, "")
                    left = clock.seconds_left()
                    observer(GridProgress(point, fev, reason, n_done, n_failed, len(points), left))
    finally:
        table = results_table(folder)
        write_text(folder / RESULTS_FILE, table.to_csv(index=False))
    return table


class CurvePoint(NamedTuple):
    """Median and range over seeds of one number at one number of images."""

    n_images: int
    median: float
    low: float
    high: float
    n_seeds: int


@dataclass(frozen=True, eq=False)
class GridResults:
    """What a folder holds of a grid: the table of all its points, and what they were solved with.

    asked: `experiment` and its options, as plain values.
    """

    folder: Path
    table: pd.DataFrame
    asked: dict[str, Any]

    @property
    def done(self) -> pd.DataFrame:
        """The rows of the points that have an outcome."""
        return self.table[self.table["status"] == DONE]

    def points(self) -> list[Point]:
        """The points that have an outcome."""
        columns = self.done[["model", "n_neurons", "n_images", "seed"]]
        return [Point(str(row[0]), *map(int, row[1:])) for row in columns.itertuples(index=False)]

    def arrays(self, point: Point) -> dict[str, np.ndarray]:
        """What was kept of a point for the figures."""
        return read_arrays(self.folder, point)

    def curve(self, model: str, n_neurons: int, column: str = "fev_clipped") -> list[CurvePoint]:
        """Median and range over seeds, by number of images, ascending."""
        rows = self.done
        rows = rows[(rows["model"] == model) & (rows["n_neurons"] == n_neurons)]
        points = []
        for n_images in sorted({int(n) for n in rows["n_images"]}):
            values = rows.loc[rows["n_images"] == n_images, column].to_numpy(float)
            points.append(
                CurvePoint(n_images, float(np.median(values)), float(values.min()), float(values.max()), len(values))
            )
        return points


def read_grid(folder: str | Path) -> GridResults:
    """What a folder holds of a grid; raises `FormatError` where it holds none, or files that cannot be read."""
    file = Path(folder) / GRID_FILE
    try:
        asked = dict(json.loads(file.read_text(encoding="utf-8"))["asked"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} cannot be read ({error!r}): expected the folder of an experiment.") from error
    return GridResults(Path(folder), results_table(Path(folder)), asked)


def check_folder(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raises where a grid must not begin in the folder; see `runs.check_folder`."""
    runs.check_folder(folder, resume=resume, overwrite=overwrite, kind=runs.EXPERIMENT, writes=RESULTS_FILE)


def _begin(folder: Path, asked: dict[str, Any], overwrite: bool) -> None:
    """Notes what the grid is begun with, or checks that it goes on with the same."""
    file = folder / GRID_FILE
    if overwrite:
        shutil.rmtree(folder / POINTS, ignore_errors=True)
        for name in (RESULTS_FILE, GRID_FILE):
            (folder / name).unlink(missing_ok=True)
    make_folder(folder / POINTS)
    note_asked(file, asked)


def _keep(folder: Path, point: Point, ending: Outcome | Failure) -> Outcome | Failure:
    """Writes how a point ended; an outcome that cannot be kept, since it is not finite, is a failure."""
    try:
        write_point(folder, point, ending)
    except ValueError as error:
        ending = Failure(str(error))
        write_point(folder, point, ending)
    return ending


class _Clock:
    """How long the rest takes: the expected seconds of what is left, times how wrong they were so far."""

    def __init__(self, costs: Sequence[float], n_workers: int) -> None:
        self.n_workers, self.left, self.longest = n_workers, sum(costs), max(costs, default=0.0)
        self.done, self.started = 0.0, time.monotonic()

    def ended(self, cost: float) -> None:
        """A point of this cost has ended."""
        self.done, self.left = self.done + cost, self.left - cost

    def seconds_left(self) -> float:
        """At first by the costs alone."""
        if not self.done:
            return max(self.left / self.n_workers, self.longest)
        return (time.monotonic() - self.started) * self.left / self.done
