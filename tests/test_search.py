"""Searches: every point once, whoever dies; the same points for any number of workers; the test part touched once."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere.errors import InputError, OptionError, RunError
from whatwhere.estimators import Estimator
from whatwhere.search import (
    Failed,
    Fitted,
    Pruned,
    RecordingFile,
    SearchOptions,
    SearchPlan,
    SearchProgress,
    SearchResult,
    dask_pool,
    folder_lock,
    local_pool,
    make_space,
    search,
)
from whatwhere.search.folder_lock import alone_in
from whatwhere.search.point import Task, fit_point
from whatwhere.search.pools import LocalPool
from whatwhere.search.searching import _plain
from whatwhere.search.study import Study
from whatwhere.simulation import gabor_population, simulate

QUICK = {"core": {"kernel_sizes": [5]}, "training": {"max_steps": 60, "check_every": 10, "batch_size": 32}}
SHORT = {"core": {"n_maps": 2}, "training": QUICK["training"]}
COMMON = {"seed": 0, "device": "cpu", "threads": 1}
STRENGTHS = {"penalties.product_l1": [0.01, 0.1, 0.03], "core.n_maps": [1, 2]}


class Here(Executor):
    """Calls at once, in this process."""

    def __init__(self) -> None:
        self.n_calls = 0

    def submit(self, function: Any, /, *args: Any, **keywords: Any) -> Future[Any]:
        self.n_calls += 1
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def recording() -> ww.Recording:
    population = gabor_population(5, image_size=(18, 22), nonlinearity="relu", seed=0)
    return simulate(population, 120, n_repeats=3, stimuli="white-noise", noise="poisson", mean_rate=0.5, seed=0)


@pytest.fixture(scope="module")
def source(recording: ww.Recording, tmp_path_factory: pytest.TempPathFactory) -> RecordingFile:
    return RecordingFile(str(ww.save(recording, tmp_path_factory.mktemp("data") / "session.h5")))


def run(source: Any, folder: Path, space: Any = None, options: SearchOptions | None = None, **how: Any) -> SearchResult:
    space = make_space("factorized", STRENGTHS, QUICK) if space is None else space
    pool = LocalPool(how.pop("executor", None) or Here(), 1)
    return search(source, space, folder, pool, options, seed=0, device="cpu", threads=1, **how)


def test_every_point_is_fitted_as_a_fit_of_its_own_would_be(
    source: RecordingFile, recording: ww.Recording, tmp_path: Path
) -> None:
    events: list[Any] = []
    result = run(source, tmp_path / "out", observer=events.append)
    assert (result.table["state"] == "done").all()
    assert len(result.table) == 6
    written = pd.read_csv(tmp_path / "out/results.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(result.table, written, check_dtype=False)
    for row in result.table.iloc[[0, 4]].to_dict("records"):
        values = {**QUICK, "penalties": {"product_l1": row["penalties.product_l1"]}}
        values["core"] = {**QUICK["core"], "n_maps": int(row["core.n_maps"])}
        alone = ww.FactorizedCNN(**values, seed=0, device="cpu", threads=1).fit(recording)
        assert row["validation_loss"] == alone.candidates_["validation_loss"].min()
        kept = ww.load_model(tmp_path / "out/points" / row["key"])
        np.testing.assert_array_equal(kept.predict(recording.test.images), alone.predict(recording.test.images))
    best = result.table.loc[result.table["validation_loss"].idxmin()]
    assert result.best is not None
    assert result.best.model.asked()["options"]["penalties"]["product_l1"] == best["penalties.product_l1"]
    metrics = json.loads((tmp_path / "out/best/metrics.json").read_text())
    assert metrics["correlation"]["mean"] == pytest.approx(result.best.scores.summary["correlation"]["mean"])
    assert not list((tmp_path / "out/points").glob("*/metrics.json"))  # the test part is for the best alone
    assert set(result.importance) == set(STRENGTHS)
    assert sum(result.importance.values()) == pytest.approx(1)
    plan, *progress = [event for event in events if isinstance(event, SearchPlan | SearchProgress)]
    assert plan == SearchPlan(n_points=6, n_done=0, n_workers=1)
    assert [event.n_done for event in progress] == [1, 2, 3, 4, 5, 6]
    assert progress[-1].best == best["validation_loss"]
    assert progress[-1].best_point == {name: best[name] for name in STRENGTHS}
    assert progress[-1].seconds_left == 0


def test_a_second_call_fits_nothing_again(source: RecordingFile, tmp_path: Path) -> None:
    first = run(source, tmp_path / "out")
    with pytest.raises(RunError, match="holds a search already: use --resume"):
        run(source, tmp_path / "out")
    again = Here()
    second = run(source, tmp_path / "out", resume=True, executor=again)
    assert again.n_calls == 0
    pd.testing.assert_frame_equal(first.table, second.table)
    other = make_space("factorized", {**STRENGTHS, "core.n_maps": [1, 2, 3]}, QUICK)
    with pytest.raises(RunError, match=r"begun with something else: space.core.n_maps"):
        run(source, tmp_path / "out", other, resume=True)
    anew = Here()
    run(source, tmp_path / "out", overwrite=True, executor=anew)
    assert anew.n_calls == 6


def test_a_point_that_fails_is_told_and_tried_again(source: RecordingFile, tmp_path: Path) -> None:
    axes = {"core.kernel_sizes": [[5], [99]], "penalties.product_l1": [0.03]}
    events: list[Any] = []
    result = run(source, tmp_path / "out", make_space("factorized", axes, SHORT), observer=events.append)
    assert result.table["state"].tolist() == ["done", "failed"]
    assert "kernel of layer 1 (99 x 99 pixels) is larger" in result.table["reason"][1]
    assert np.isnan(float(result.table["validation_loss"][1]))
    ended = [event for event in events if isinstance(event, SearchProgress)]
    assert [type(event.ending) for event in ended] == [Fitted, Failed]
    assert ended[-1].n_failed == 1
    again = Here()
    result = run(source, tmp_path / "out", make_space("factorized", axes, SHORT), resume=True, executor=again)
    assert again.n_calls == 1
    assert sorted(result.table["state"]) == ["done", "failed"]
    assert len(result.table) == 2


def test_points_of_one_architecture_start_from_each_other(
    source: RecordingFile, recording: ww.Recording, tmp_path: Path
) -> None:
    options = SearchOptions(warm_start=True)
    result = run(source, tmp_path / "out", options=options)
    models = {}
    for row in result.table.to_dict("records"):
        models[row["core.n_maps"], row["penalties.product_l1"]] = ww.load_model(tmp_path / "out/points" / row["key"])
    values = {**QUICK, "core": {**QUICK["core"], "n_maps": 2}, "penalties": {"product_l1": 0.03}}
    by_hand = ww.FactorizedCNN(**values, seed=0, device="cpu", threads=1).fit(recording, start=models[2, 0.1])
    np.testing.assert_array_equal(by_hand.predict(recording.images), models[2, 0.03].predict(recording.images))
    cold = ww.FactorizedCNN(**values, seed=0, device="cpu", threads=1).fit(recording)
    assert not np.array_equal(by_hand.predict(recording.images), cold.predict(recording.images))
    first = by_hand.history_["validation_loss"][0]  # begins where the stronger penalty ended
    assert first == pytest.approx(models[2, 0.1].history_["validation_loss"].min(), rel=1e-5)


def test_a_fit_starts_only_from_what_fits(recording: ww.Recording) -> None:
    small = ww.FactorizedCNN(**QUICK, threads=1).fit(recording)
    more = {**QUICK, "core": {**QUICK["core"], "n_maps": 3}}
    with pytest.raises(OptionError, match="start has other options of core, n_maps"):
        ww.FactorizedCNN(**more, threads=1).fit(recording, start=small)
    with pytest.raises(OptionError, match="start is a ridge model: expected another factorized"):
        ww.FactorizedCNN(**QUICK, threads=1).fit(recording, start=ww.Ridge().fit(recording))


def test_pruning_gives_up_what_is_worse_than_most(source: RecordingFile, tmp_path: Path) -> None:
    axes = {"penalties.product_l1": [0.03, 0.04, 0.05, 0.06, 30.0, 40.0]}
    space = make_space("factorized", axes, {**QUICK, "training": {**QUICK["training"], "max_steps": 100}})
    events: list[Any] = []
    result = run(
        source, tmp_path / "out", space, SearchOptions(pruner="median", prune_after=20), observer=events.append
    )
    strong = result.table["penalties.product_l1"] > 1
    assert (result.table["state"][strong] == "pruned").all()
    assert (result.table["state"][~strong] == "done").sum() >= 3
    assert (result.table["steps"][strong] < 100).all()
    assert (result.table["steps"][strong] >= 20).all()
    assert (result.table["validation_loss"][strong].astype(float) > 0).all()
    assert any(isinstance(event, SearchProgress) and isinstance(event.ending, Pruned) for event in events)
    assert result.best is not None
    for key in result.table["key"][strong]:
        assert not (tmp_path / "out/points" / key).exists()
    again = Here()
    run(source, tmp_path / "out", space, SearchOptions(pruner="median", prune_after=20), resume=True, executor=again)
    assert again.n_calls == 0  # to be given up is an end, too


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_draw_as_many_points_as_asked_and_then_more(
    source: RecordingFile, tmp_path: Path, sampler: str
) -> None:
    axes = {"penalties.product_l1": {"low": 0.01, "high": 1.0, "log": True}, "core.n_maps": {"low": 1, "high": 3}}
    space = make_space("factorized", axes, QUICK)
    result = run(source, tmp_path / "out", space, SearchOptions(sampler=sampler, n_trials=3))
    assert len(result.table) == 3
    assert result.table["core.n_maps"].between(1, 3).all()
    assert result.table["penalties.product_l1"].between(0.01, 1).all()
    more = Here()
    result = run(
        source, tmp_path / "out", space, SearchOptions(sampler=sampler, n_trials=5), resume=True, executor=more
    )
    assert more.n_calls == 2
    assert result.table["key"].nunique() == 5


def test_a_point_drawn_twice_is_fitted_once(source: RecordingFile, tmp_path: Path) -> None:
    calls = Here()
    space = make_space("ridge", {"strengths": [1.0, 10.0]})
    options = SearchOptions(sampler="random", n_trials=12)
    result = search(source, space, tmp_path / "out", LocalPool(calls, 1), options, seed=0)
    assert calls.n_calls == len(result.table) == 2
    ridge = {strength: ww.Ridge([strength]).fit(source.load()) for strength in (1.0, 10.0)}
    for row in result.table.to_dict("records"):
        assert row["validation_loss"] == ridge[row["strengths"]].history_["validation_loss"][0]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("factorized", {"sampler": "gird"}, r"unknown sampler 'gird'.*Did you mean 'grid'"),
        ("factorized", {"n_trials": 4}, r"n_trials \(=4\) is for random and tpe"),
        ("factorized", {"sampler": "tpe"}, "needs a number of points, n_trials: got None"),
        ("factorized", {"sampler": "tpe", "n_trials": 3, "warm_start": True}, "warm_start is for grids"),
        ("factorized", {"pruner": "median", "warm_start": True}, "warm_start and a pruner exclude each other"),
        ("factorized", {"pruner": "median", "prune_after": 0}, "prune_after must be at least 1 step, got 0"),
        ("factorized", {"prune_after": 9}, r"prune_after \(=9\) has nothing to act on without a pruner"),
        ("factorized", {"storage": "nosql://x"}, "the storage 'nosql://x' cannot be opened"),
        ("ridge", {"pruner": "median"}, "a pruner has nothing to act on: ridge is solved, not trained"),
        ("ols", {}, "unknown option of ols 'strengths'"),
    ],
)
def test_options_that_cannot_be_are_refused(
    source: RecordingFile, tmp_path: Path, model: str, options: dict[str, Any], message: str
) -> None:
    axes = STRENGTHS if model == "factorized" else {"strengths": [1.0, 2.0]}
    with pytest.raises(OptionError, match=message):
        run(
            source,
            tmp_path / "out",
            make_space(model, axes, QUICK if model == "factorized" else {}),
            SearchOptions(**options),
        )


def test_an_option_that_no_point_has_is_told_before_anything_is_done(source: RecordingFile, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown option of core 'n_map'.*'n_maps'"):
        run(source, tmp_path / "out", make_space("factorized", {"core.n_map": [1]}, QUICK))
    assert not (tmp_path / "out").exists()


def test_several_strengths_a_point_cannot_be_pruned(source: RecordingFile, tmp_path: Path) -> None:
    space = make_space("factorized", {"core.n_maps": [1]}, QUICK)  # the preset has two strengths
    result = run(source, tmp_path / "out", space, SearchOptions(pruner="median"))
    assert "a point fits 2 strengths, and only one can be given up" in result.table["reason"][0]


def begun(source: RecordingFile, space: Any, address: str) -> Study:
    """The study as a search of these begins it, on another machine, without fitting anything."""
    asked = {**space.plain(), "preset": "recording", **_plain(SearchOptions(storage=address)), "seed": 0}
    study = Study(address, "search", space, sampler="grid", asked={**asked, "data": source.load().fingerprint()})
    study.me = "another-machine:1:0.0"
    study.begin(space.grid())
    return study


def test_two_searches_on_one_storage_share_the_points(source: RecordingFile, tmp_path: Path) -> None:
    """The second one begins while the first has a point under way, finds the others, and waits for that one."""
    space, address = make_space("factorized", STRENGTHS, QUICK), f"journal:{tmp_path / 'journal.log'}"
    first = begun(source, space, address)
    held = first.ask()
    assert held is not None

    class Last(Here):
        def submit(self, *args: Any, **keywords: Any) -> Future[Any]:
            if self.n_calls == 4:  # the best, whose model is on another disk
                first.tell(held, Fitted(0.0, 1.0, 10, "converged"))
            return super().submit(*args, **keywords)

    calls = Last()
    result = run(source, tmp_path / "second", space, SearchOptions(storage=address), executor=calls)
    assert calls.n_calls == 5
    assert (result.table["state"] == "done").all()
    assert first.ask() is None
    assert result.best is not None
    assert result.best.model.asked()["options"]["penalties"]["product_l1"] == held.point["penalties.product_l1"]


def test_points_of_a_search_that_is_gone_are_taken_up(source: RecordingFile, tmp_path: Path) -> None:
    space, address = make_space("factorized", STRENGTHS, QUICK), f"journal:{tmp_path / 'journal.log'}"
    gone = begun(source, space, address)
    assert gone.ask() is not None
    gone.study.set_user_attr("alive another-machine:1:0.0", time.time() - 3600)
    calls = Here()
    result = run(source, tmp_path / "out", space, SearchOptions(storage=address), executor=calls)
    assert calls.n_calls == 6
    assert (result.table["state"] == "done").all()
    assert len(result.table) == 6


def test_a_study_that_was_begun_with_something_else_is_refused(source: RecordingFile, tmp_path: Path) -> None:
    """Of one name in one storage: its losses would be those of other data or options."""
    space, address = make_space("ridge", {"strengths": [1.0, 10.0]}), f"sqlite:///{tmp_path / 's.db'}"
    of_ridge = {"seed": 0}
    here = LocalPool(Here(), 1)
    search(source, space, tmp_path / "one", here, SearchOptions(storage=address), **of_ridge)
    data = source.load()
    path = ww.save(ww.Recording(data.images, data.responses * 2, test=data.test), tmp_path / "other.h5")
    other, options = RecordingFile(str(path)), SearchOptions(storage=address)
    with pytest.raises(RunError, match=r"the study 'search' in sqlite.* was begun with something else: data"):
        search(other, space, tmp_path / "two", here, options, **of_ridge)
    found = search(other, space, tmp_path / "two", here, options, overwrite=True, **of_ridge)  # of the study, too
    alone = ww.Ridge([1.0]).fit(other.load()).history_["validation_loss"][0]
    assert found.table["validation_loss"][0] == pytest.approx(alone)
    with pytest.raises(RunError, match="begun with something else: storage"):
        search(other, space, tmp_path / "two", here, SearchOptions(), resume=True, **of_ridge)


def test_a_point_that_ended_and_was_not_told_is_only_read_again(source: RecordingFile, tmp_path: Path) -> None:
    values, place = {**QUICK, "penalties": {"product_l1": 0.1}}, tmp_path / "point"
    task = Task("factorized", values, "recording", COMMON, str(place), source.load().fingerprint())
    first = fit_point(source, task)
    assert isinstance(first, Fitted)
    written = (place / "model.safetensors").stat().st_mtime_ns
    second = fit_point(source, task)
    assert isinstance(second, Fitted)
    assert (second.loss, second.steps, second.stopped) == (first.loss, first.steps, first.stopped)
    assert (place / "model.safetensors").stat().st_mtime_ns == written
    assert not list(place.glob(".in-use"))
    for changes, reason in (
        ({"values": {**values, "core": {"kernel_sizes": [3]}}}, "begun with something else"),
        ({"data": "another", "folder": str(tmp_path / "q")}, "does not hold what it held when the search was begun"),
        ({"version": "0.0.1"}, "this worker has whatwhere"),
    ):
        failed = fit_point(source, replace(task, **changes))
        assert isinstance(failed, Failed)
        assert reason in failed.reason


def test_one_process_at_a_time_in_a_folder(tmp_path: Path) -> None:
    lock = tmp_path / ".in-use"
    with alone_in(tmp_path):
        assert not folder_lock._taken(lock)
        lock.write_text(f"{platform.node()} 999999999")  # a process that is no more
        assert not folder_lock._taken(lock)
        assert not lock.exists()
        lock.write_text("another-machine 1")
        assert not folder_lock._taken(lock)
        assert lock.exists()
        os.utime(lock, (0, 0))
        assert not folder_lock._taken(lock)
        assert not lock.exists()
        assert folder_lock._taken(lock)
    assert not lock.exists()


def test_the_test_part_is_read_once_and_last(
    source: RecordingFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    calls, evaluate = Here(), Estimator.evaluate

    def watched(self: Estimator, *args: Any, **keywords: Any) -> Any:
        read.append(calls.n_calls)
        return evaluate(self, *args, **keywords)

    monkeypatch.setattr(Estimator, "evaluate", watched)
    run(source, tmp_path / "out", executor=calls)
    assert read == [6]


def test_of_two_searchers_that_end_at_once_one_judges(
    source: RecordingFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = source.load()
    responses = whole.responses.copy()
    responses[:, 2] = 3  # a neuron that never varies, which a note tells
    recording = replace(whole, responses=responses)
    space, folder = make_space("ridge", {"strengths": [1.0, 10.0]}), tmp_path / "out"
    n_read, evaluate, released = [0], Estimator.evaluate, threading.Event()

    def watched(self: Estimator, *args: Any, **keywords: Any) -> Any:
        n_read[0] += 1
        released.wait(3)
        return evaluate(self, *args, **keywords)

    monkeypatch.setattr(Estimator, "evaluate", watched)
    monkeypatch.setattr(folder_lock, "_SECONDS_TO_WAIT", 0.05)
    search(recording, space, folder, LocalPool(Here(), 1), seed=0)
    shutil.rmtree(folder / "best")
    n_read[0] = 0
    with ThreadPoolExecutor(3) as threads:
        arguments = (recording, space, folder, LocalPool(Here(), 1))
        calls = [threads.submit(search, *arguments, resume=True, seed=0) for _ in range(3)]
        ended = [call.result() for call in calls]
    assert n_read == [1]
    kept = json.loads((folder / "best/metrics.json").read_text())
    for result in ended:
        assert result.best is not None
        assert result.best.scores is not None
        assert result.best.scores.summary == kept
    notes = json.loads((folder / "best/data.json").read_text())["notes"]
    assert notes == ["1 of 5 neurons never vary (kept, scored 0): 2"]
    (folder / "best" / "point.json").write_text('{"key": "another"}')
    search(recording, space, folder, LocalPool(Here(), 1), resume=True, seed=0)
    assert n_read == [2]


def test_a_recording_in_memory_is_sent_to_a_process_once(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
import whatwhere as ww
from whatwhere.search import local_pool, make_space, search

class Sent(np.ndarray):
    def __reduce__(self):
        print("sent")
        return np.asarray(self).__reduce__()

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    recording = ww.Recording(rng.normal(size=(60, 1, 5, 6)).astype(np.float32), rng.poisson(2, (60, 3)))
    object.__setattr__(recording, "images", recording.images.view(Sent))
    space = make_space("ridge", {"strengths": [1.0, 10.0, 100.0]})
    with local_pool(1, 1) as pool:
        print(sorted(search(recording, space, sys.argv[1], pool, seed=0).table["state"]))
"""
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout.splitlines() == ["sent", "['done', 'done', 'done']"], ended.stderr


def test_who_holds_a_folder_may_empty_it(tmp_path: Path) -> None:
    folder, lock = tmp_path / "point", tmp_path / "point" / ".in-use"
    with alone_in(folder):
        (folder / "checkpoints").mkdir()
        for name in ("history.csv", "checkpoints/fit.json"):
            (folder / name).write_text("")
        folder_lock.empty(folder)
        assert list(folder.iterdir()) == [lock]
        assert not folder_lock._taken(lock)
    folder.rmdir()
    assert not folder_lock._taken(lock)  # it was removed while another process waited: made again, to be taken
    assert folder_lock._taken(lock)


def test_hyperband_gives_up_points_too(source: RecordingFile, tmp_path: Path) -> None:
    axes = {"penalties.product_l1": [0.03, 0.04, 0.05, 0.06, 0.07, 30.0, 40.0, 50.0, 60.0]}
    space = make_space("factorized", axes, {**QUICK, "training": {**QUICK["training"], "max_steps": 90}})
    result = run(source, tmp_path / "out", space, SearchOptions(pruner="hyperband", prune_after=10))
    assert set(result.table["state"]) == {"done", "pruned"}
    assert (result.table["steps"][result.table["state"] == "pruned"] < 90).all()


def test_what_fits_no_point_is_refused_and_what_fits_some_is_not(source: RecordingFile, tmp_path: Path) -> None:
    axes = {"core.kernel_sizes": [[99], [5]], "penalties.product_l1": [np.float64(0.03)]}
    result = run(source, tmp_path / "out", make_space("factorized", axes, SHORT))
    assert result.table["state"].tolist() == ["failed", "done"]
    none = make_space("factorized", {"core.kernel_sizes": [[99], [77]]}, SHORT)
    with pytest.raises(InputError, match="kernel of layer 1"):
        run(source, tmp_path / "none", none)
    twice = make_space("factorized", {"core.n_maps": [1]}, SHORT)
    with pytest.raises(OptionError, match=r"core.n_maps is an axis of the space and among the options"):
        run(source, tmp_path / "twice", twice)
    with pytest.raises(OptionError, match="workers must be at least 1, got 0"), local_pool(0):
        pass


PROGRAM = """
import json
import sys
from whatwhere.search import RecordingFile, SearchOptions, local_pool, make_space, search

if __name__ == "__main__":
    source, folder, n_workers, space = sys.argv[1:]
    with local_pool(int(n_workers), 1) as pool:
        result = search(RecordingFile(source), make_space("factorized", *json.loads(space)), folder, pool,
                        resume=True, seed=0, device="cpu")
    print(len(result.table))
"""


def test_killed_search_and_killed_worker_end_with_the_same_points(source: RecordingFile, tmp_path: Path) -> None:
    """The whole program killed in mid-search, then a worker of the next one: the table is that of a quiet search."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    axes, options = {"penalties.product_l1": [0.01, 0.02, 0.03, 0.05], "core.n_maps": [1, 2]}, _many_steps()
    options |= {"core": {"kernel_sizes": [5]}, "readout": {"nonlinearity": "softplus"}}

    def start(folder: str, workers: int) -> subprocess.Popen[str]:
        given = [source.path, str(tmp_path / folder), str(workers), json.dumps([axes, options])]
        command = [sys.executable, str(file), *given]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    program = start("killed", 1)
    _wait_for(lambda: _n_done(tmp_path / "killed") >= 2 and _under_way(tmp_path / "killed"), program)
    program.kill()
    program.communicate()
    assert _n_done(tmp_path / "killed") < 8
    program = start("killed", 2)
    n_before = _n_done(tmp_path / "killed")
    _wait_for(lambda: _n_done(tmp_path / "killed") > n_before and _under_way(tmp_path / "killed"), program)
    os.kill(_children(program.pid)[0], signal.SIGKILL)
    out, err = program.communicate(timeout=300)
    assert program.returncode == 0, err
    assert out.strip() == "8"
    quiet = run(source, tmp_path / "quiet", make_space("factorized", axes, options))
    columns = ["key", "state", "validation_loss", "steps", *axes]
    tables = (pd.read_csv(tmp_path / "killed/results.csv"), quiet.table)
    pd.testing.assert_frame_equal(
        *(table[columns].sort_values("key").reset_index(drop=True) for table in tables), check_dtype=False
    )


def _many_steps() -> dict[str, Any]:
    """So many that a point is under way for a while."""
    training = {"max_steps": 500, "check_every": 50, "patience": 30, "batch_size": 32, "checkpoint_seconds": 0.1}
    return {"training": training}


def _n_done(folder: Path) -> int:
    table = folder / "results.csv"
    return int((pd.read_csv(table)["state"] == "done").sum()) if table.exists() else 0


def _under_way(folder: Path) -> bool:
    return any(folder.glob("points/*/checkpoints/*.safetensors"))


def _children(process: int) -> list[int]:
    """The workers of a process, from Linux's /proc; multiprocessing's tracker of resources is none."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_text()
        except (OSError, IndexError):
            continue
        if parent == process and "spawn_main" in command:
            found.append(int(stat.parent.name))
    return found


def _wait_for(condition: Any, program: subprocess.Popen[str], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


CLUSTER = """
import sys
from pathlib import Path
from whatwhere import load
from whatwhere.search import RecordingFile, dask_pool, make_space, search

if __name__ == "__main__":
    source, folder, address = sys.argv[1:]
    options = {"core": {"n_maps": 2},
               "training": {"max_steps": 500, "check_every": 50, "patience": 30, "batch_size": 32,
                            "checkpoint_seconds": 0.1}}
    axes = {"penalties.product_l1": [0.01, 0.02, 0.03, 0.05], "core.kernel_sizes": [[5], [99]]}
    with dask_pool(address) as pool:
        assert all(pool.client.run(lambda dask_worker: "whatwhere-memory" in dask_worker.plugins).values())
        search(load(source), make_space("factorized", axes, options), folder, pool, resume=True, seed=0, device="cpu",
               threads=1)
"""


def test_a_worker_of_a_cluster_is_lost_and_its_point_goes_to_another(
    source: RecordingFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("whatwhere.search.pools._SECONDS_TO_CONNECT", 1.0)
    file, address = tmp_path / "program.py", tmp_path / "scheduler.json"
    file.write_text(CLUSTER)
    module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    scheduler = subprocess.Popen(
        [*module, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address)],
        stderr=subprocess.DEVNULL,
    )
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(address), "--no-nanny"]
    command += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]
    workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        _wait_for(address.exists, scheduler)
        where = json.loads(address.read_text())["address"]
        with (
            pytest.raises(OptionError, match=r"no Dask scheduler answers at '127\.0\.0\.1:9'"),
            dask_pool("127.0.0.1:9"),
        ):
            pass
        program = subprocess.Popen(
            [sys.executable, str(file), source.path, str(tmp_path / "out"), where], stderr=subprocess.PIPE, text=True
        )
        _wait_for(lambda: _n_done(tmp_path / "out") >= 1 and _under_way(tmp_path / "out"), program)
        workers[0].kill()
        _, err = program.communicate(timeout=300)
        assert program.returncode == 0, err
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert len(table) == table["key"].nunique() == 8
    assert (table["state"] == "done").sum() == 4
    failed = table[table["state"] == "failed"]
    assert failed["core.kernel_sizes"].unique().tolist() == ["[99]"]
    assert failed["reason"].str.contains("larger than the map").all()
    axes = {"penalties.product_l1": [0.01, 0.02, 0.03, 0.05], "core.kernel_sizes": [[5], [99]]}
    quiet = run(source, tmp_path / "here", make_space("factorized", axes, {"core": {"n_maps": 2}, **_many_steps()}))
    columns = ["key", "state", "validation_loss", "steps"]
    pd.testing.assert_frame_equal(
        *(one[columns].sort_values("key").reset_index(drop=True) for one in (table, quiet.table)), check_dtype=False
    )
