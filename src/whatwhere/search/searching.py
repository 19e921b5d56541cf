"""A search: the points of a space, each fitted once by some worker, and the best of them judged on the test part."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from whatwhere import runs
from whatwhere.catalogue import load_model, make_model
from whatwhere.checks import check_choice
from whatwhere.comparison.fits import kept_scores
from whatwhere.errors import InputError, OptionError, RunError
from whatwhere.estimators import CNN, Estimator
from whatwhere.estimators.resume import CHECKPOINTS, note_asked
from whatwhere.files import make_folder, replacing_folder
from whatwhere.recording import Recording
from whatwhere.run_data import data_of, keep_data
from whatwhere.runs import METRICS_FILE, SEARCH_FILE, Run, scores_of, write_run
from whatwhere.search.folder_lock import alone_in
from whatwhere.search.point import Failed, RecordingFile, Source, fit_point
from whatwhere.search.pools import Pool
from whatwhere.search.pruning import PRUNERS
from whatwhere.search.searcher import POINTS, RESULTS_FILE, PointMaker, Searcher, SearchObserver, best_row
from whatwhere.search.space import Space
from whatwhere.search.storage import STUDY_FILE, sqlite_in
from whatwhere.search.study import SAMPLERS, Study
from whatwhere.search.warm_start import path_order, predecessors
from whatwhere.storage import CONFIG_FILE, write_text

PRUNE_AFTER = 300
BEST, BEST_FILE = "best", "point.json"


@dataclass(frozen=True)
class SearchOptions:
    """How a space is searched.

    - sampler: "grid", "random" or "tpe"; n_trials: points of the latter two
    - pruner: "none", "median" or "hyperband"; prune_after: steps before which no point is given up, 300
    - warm_start: of a grid, whether points that share an architecture start from each other, from strong to weak
    - storage: an address that Optuna takes, or `journal:FILE`; None for an SQLite file in the search's folder
    - name: of the study in the storage
    """

    sampler: str = "grid"
    n_trials: int | None = None
    pruner: str = "none"
    prune_after: int | None = None
    warm_start: bool = False
    storage: str | None = None
    name: str = "search"

    def __post_init__(self) -> None:
        check_choice("sampler", self.sampler, SAMPLERS)
        check_choice("pruner", self.pruner, PRUNERS)
        if self.sampler == "grid" and self.n_trials is not None:
            raise OptionError(
                f"n_trials (={self.n_trials}) is for random and tpe: a grid has as many points as it has."
            )
        if self.sampler != "grid" and (self.n_trials is None or self.n_trials < 1):
            raise OptionError(f"the sampler {self.sampler} needs a number of points, n_trials: got {self.n_trials}.")
        if self.warm_start and self.sampler != "grid":
            raise OptionError(f"warm_start is for grids, whose points are known beforehand, not for {self.sampler}.")
        if self.warm_start and self.pruner != "none":
            raise OptionError("warm_start and a pruner exclude each other: a point that is given up starts no other.")
        if self.prune_after is not None and self.pruner == "none":
            raise OptionError(f"prune_after (={self.prune_after}) has nothing to act on without a pruner: name one.")
        if self.prune_after is not None and self.prune_after < 1:
            raise OptionError(f"prune_after must be at least 1 step, got {self.prune_after}.")


@dataclass(frozen=True)
class SearchResult:
    """A row for each point, the best point's run (None where no point has an end), and each axis's importance."""

    table: pd.DataFrame
    best: Run | None
    importance: Mapping[str, float]


def search(
    source: Source,
    space: Space,
    folder: str | Path,
    pool: Pool,
    options: SearchOptions | None = None,
    *,
    preset: str = "recording",
    resume: bool = False,
    overwrite: bool = False,
    observer: SearchObserver | None = None,
    **common: Any,
) -> SearchResult:
    """Fits the points of a space and keeps each; the one with the lowest validation loss is judged on the test part.

    The loss is the one that is not penalised, on validation images alone: the held-out part is read once, at the end,
    by the best. `folder` has `results.csv`, a model for each point under `points`, and the best one's run. Killed and
    called again with `resume`, or by several machines at once on one storage, no point that has an end is fitted again;
    those under way go on from their checkpoints, those that failed are tried once more. A point that fails is kept
    with its reason.

    Raises `RunError` where the folder holds a search and neither `resume` nor `overwrite` is given, or one begun with
    something else, or work of another kind; `OptionError` for options that fit no point.
    """
    folder, options = Path(folder), options or SearchOptions()
    recording = source.load() if isinstance(source, RecordingFile) else source
    _check(space, recording, options, preset, common)
    asked = {**space.plain(), "preset": preset, **_plain(options), "seed": common.get("seed", 0)}
    asked["data"] = recording.fingerprint()
    _begin(folder, {**asked, "storage": options.storage, "name": options.name}, resume=resume, overwrite=overwrite)
    study = Study(
        options.storage or sqlite_in(folder),
        options.name,
        space,
        sampler=options.sampler,
        asked=asked,
        n_trials=options.n_trials,
        seed=int(common.get("seed", 0)),
        overwrite=overwrite,
    )
    study.begin(path_order(space) if options.warm_start else space.grid() if options.sampler == "grid" else ())
    maker = PointMaker(space, preset, common, folder, asked["data"])
    before = predecessors(space) if options.warm_start else {}
    rule = options.pruner, options.prune_after or PRUNE_AFTER
    table = Searcher(study, maker, pool, before, observer, *rule).run(source)
    return SearchResult(table, _judge_best(study, maker, recording), study.importance())


def check_folder(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raises where a search must not begin in the folder; see `runs.check_folder`."""
    runs.check_folder(folder, resume=resume, overwrite=overwrite, kind=runs.SEARCH, writes=RESULTS_FILE)


def _plain(options: SearchOptions) -> dict[str, Any]:
    """What decides the outcomes: not where they are kept, nor how many are drawn."""
    names = ("sampler", "pruner", "prune_after", "warm_start")
    return {name: getattr(options, name) for name in names}


def _check(space: Space, recording: Recording, options: SearchOptions, preset: str, common: dict[str, Any]) -> None:
    """Raises for what no point could be fitted with, before anything is done."""
    for name in space.axes:
        if _holds(space.options, name):
            raise OptionError(f"{name} is an axis of the space and among the options, too: give it once.")
    model = _first_that_fits(space, recording, options.sampler == "grid", preset, common)
    is_network = isinstance(model, CNN)
    for asked, what in ((options.pruner != "none", "a pruner"), (options.warm_start, "warm_start")):
        if asked and not is_network:
            raise OptionError(f"{what} has nothing to act on: {space.model} is solved, not trained step by step.")
    if int(common.get("devices", 1)) * int(common.get("nodes", 1)) > 1:
        raise OptionError("a search fits each point on one device: leave devices and nodes at 1, and give workers.")


def _holds(options: Mapping[str, Any], name: str) -> bool:
    """Whether nested options have a value of this dotted name."""
    found: Any = options
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return False
        found = found[key]
    return True


def _first_that_fits(
    space: Space, recording: Recording, is_grid: bool, preset: str, common: dict[str, Any]
) -> Estimator:
    """The model of the first point that can be fitted; raises what the very first one raises where none can."""
    first: InputError | None = None
    for point in space.grid() if is_grid else space.corners():
        try:
            model = make_model(space.model, space.values(point), preset=preset, **common)
            model.check(recording)
        except InputError as error:
            first = error if first is None else first
        else:
            return model
    assert first is not None  # a space has points
    raise first


def _begin(folder: Path, asked: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Notes what the search is begun with, or checks that it goes on with the same."""
    check_folder(folder, resume=resume, overwrite=overwrite)
    file = folder / SEARCH_FILE
    if overwrite:
        for name in (POINTS, BEST):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (RESULTS_FILE, SEARCH_FILE, STUDY_FILE):
            (folder / name).unlink(missing_ok=True)
    make_folder(folder / POINTS)
    note_asked(file, asked)


def _judge_best(study: Study, maker: PointMaker, recording: Recording) -> Run | None:
    """The best point's run, with its scores on the test part, kept in a folder of its own.

    Of several searchers that end at once the first judges it, and the others read what it kept. The model is fitted
    again, or to its end, where a worker of another machine kept it on a disk of its own.
    """
    best = best_row(study.table())
    if best is None:
        return None
    key, folder = str(best["key"]), maker.folder / BEST
    run = maker.run_of(key)
    with alone_in(maker.folder / POINTS):
        if _judged(folder) == key:
            return Run(load_model(folder), kept_scores(folder))
        if not (run / CONFIG_FILE).exists() or (run / CHECKPOINTS).exists():
            ending = fit_point(recording, maker.task(study.point_of(key)))
            if isinstance(ending, Failed):
                raise RunError(
                    f"the best point, {key}, was fitted elsewhere and could not be fitted here: {ending.reason}"
                )
        model = load_model(run)
        scores = scores_of(model, recording)
        with replacing_folder(folder) as temporary:
            keep_data(data_of(model, recording), temporary)
            write_run(model, scores, temporary)
            write_text(temporary / BEST_FILE, json.dumps({"key": key}) + "\n")
    return Run(model, scores)


def _judged(folder: Path) -> str | None:
    """The key of the point whose run and scores the folder holds, where it has them and that is known."""
    if not (folder / METRICS_FILE).exists():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / BEST_FILE).read_text(encoding="utf-8"))["key"])
    return None
