"""Several recordings in one fit, and transfer of their core: numbers, files, refusals, what it is for."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from sklearn.exceptions import NotFittedError
from two_recordings import PROXIMAL, TRAINING, StoppedError, make, same, simulated, stop_at, two

import whatwhere as ww
from whatwhere.config import OptionError
from whatwhere.errors import FormatError, InputError, RunError
from whatwhere.estimators import CNN
from whatwhere.estimators.shared import KINDS
from whatwhere.estimators.shared_folder import check_names
from whatwhere.metrics import pooled_table, score_table
from whatwhere.runs import CHECKPOINTS
from whatwhere.shared_runs import fit_shared_run
from whatwhere.simulation import simulate, simulate_population

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def recordings() -> dict[str, ww.Recording]:
    return two()


@pytest.fixture(scope="module")
def fitted(recordings: dict[str, ww.Recording]) -> ww.SharedCoreCNN:
    return make(training={**TRAINING, "max_steps": 60}).fit(recordings)


# ------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "simulation", "core": {"kernel_sizes": (5,)}, "penalties": None, "training": {"max_steps": 12}},
        {"preset": "nonlinear", "core": {"kernel_sizes": (3, 3), "n_maps": (4, 3)}, "penalties": None},
        {"readout": {"start": "types"}, "training": {**TRAINING, "refit": True}},
    ],
    ids=["recording", "simulation", "nonlinear", "types"],
)
def test_one_recording_alone_is_fitted_as_ever(name: str, options: dict, recordings: dict[str, ww.Recording]) -> None:
    asked = make(name, seed=3, **options)
    expected = asked.template().fit(recordings["a"])
    shared = asked.fit({"a": recordings["a"]})
    assert same(shared["a"].tensors(), expected.tensors())
    pd.testing.assert_frame_equal(
        shared.history_.drop(columns="seconds"), expected.history_.drop(columns="seconds"), check_exact=True
    )


@pytest.mark.parametrize("name", KINDS)
def test_each_model_is_an_ordinary_one_that_has_the_core_of_all(name: str, recordings: dict[str, ww.Recording]) -> None:
    shared = make(name).fit(recordings)
    assert list(shared) == ["a", "b"]
    assert len(shared) == 2
    first, second = shared["a"], shared["b"]
    assert type(first) is KINDS[name]
    assert first.model_.core is second.model_.core
    assert second.masks_.shape == (4, 8, 13)
    assert second.locations_.shape == (4, 2)
    assert second.predict(recordings["b"].images).shape == (90, 4)
    assert second.score(recordings["b"].test) > 0
    rows, _ = recordings["b"].split(0.2, 0)
    np.testing.assert_allclose(second.mean_responses_, recordings["b"].responses[rows].mean(0), rtol=1e-6)
    np.testing.assert_allclose(second.standardisation_.mean, recordings["b"].images[rows].mean(), atol=1e-6)
    np.testing.assert_allclose(second.response_scale_, recordings["b"].responses[rows].std(0), rtol=1e-5)
    assert shared.stopped_ == "max_steps"


def test_strengths_are_chosen_by_the_loss_over_all_neurons(recordings: dict[str, ww.Recording]) -> None:
    shared = make(penalties={"product_l1": (0.01, 3.0)}).fit(recordings)
    assert list(shared.candidates_["product_l1"]) == [0.01, 3.0]
    best = shared.candidates_["validation_loss"].argmin()
    alone = make(penalties={"product_l1": (0.01, 3.0)[best]}).fit(recordings)
    assert same(shared["b"].tensors(), alone["b"].tensors())
    losses = []
    for key, recording in recordings.items():
        _, rows = recording.split(0.2, 0)
        predicted = shared[key].predict(recording.images[rows]) / shared[key].response_scale_
        wanted = recording.responses[rows] / shared[key].response_scale_
        losses.append((predicted - wanted * np.log(predicted + 1e-5)).mean())
    assert (6 * losses[0] + 4 * losses[1]) / 10 == pytest.approx(shared.candidates_["validation_loss"].min(), rel=1e-5)


def test_images_on_disk_are_read_as_they_are_needed(recordings: dict[str, ww.Recording], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        stored = {}
        for key, recording in recordings.items():
            file[key] = np.array(recording.images)
            stored[key] = ww.Recording(file[key], np.array(recording.responses))
        streamed = make(training={**TRAINING, "memory_gib": 1e-4}).fit(stored)
        assert [note[:40] for note in streamed.notes_[:2]] == [
            "a: training images would take 0.0 GiB, m",
            "b: training images would take 0.0 GiB, m",
        ]
        assert np.isfinite(streamed.history_["validation_loss"]).all()
        assert streamed["a"].predict(recordings["a"].images[:3]).shape == (3, 6)


def test_real_cases_neurons_alone_names_that_repeat_and_no_test_set() -> None:
    one = simulated(60, seed=2, n_neurons=1, test=False)
    named = simulated(50, seed=3, n_neurons=3)
    labels = pd.DataFrame(index=["x", "0", "1"])
    constant = np.array(named.responses)
    constant[:, 1] = 2.0
    other = ww.Recording((np.array(named.images) * 9 + 128).astype(np.uint8), constant, neurons=labels, test=named.test)
    shared = make().fit({"one": one, "named": other})
    assert shared["one"].neurons_ == ["0"]
    assert shared["named"].neurons_ == ["x", "0", "1"]
    assert "named: 1 of 3 neurons never vary (kept, scored 0): 1" not in shared.notes_
    assert "named: 1 of 3 neurons never vary (kept, scored 0): 0" in shared.notes_
    assert np.isfinite(shared["named"].predict(other.images)).all()
    assert list(shared.tables({"one": one, "named": other})) == ["named"]
    with pytest.raises(InputError, match="none of the recordings has a held-out part"):
        shared.evaluate({"one": one})


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda given: [given["a"]], InputError, "fit got no recordings by name: expected a mapping"),
        (lambda given: {}, InputError, "fit got no recordings by name"),
        (lambda given: {**given, "A": given["b"]}, OptionError, "two recordings are named 'a' and 'A'"),
        (lambda given: {"a/b": given["a"]}, OptionError, "'a/b' cannot name a recording: expected letters"),
        (lambda given: {"checkpoints": given["a"]}, OptionError, "'checkpoints' cannot name a recording: a run has"),
        (lambda given: {"a": given["a"].images}, InputError, "a: expected a Recording, got"),
        (
            lambda given: {**given, "c": ww.Recording(np.ones((9, 12, 16)) * np.arange(16), np.ones((9, 2)))},
            InputError,
            r"images of 'c' have the shape \(1, 12, 16\), those of 'a' \(1, 12, 17\)",
        ),
        (
            lambda given: {**given, "c": simulated(30, n_channels=2)},
            InputError,
            r"images of 'c' have the shape \(2, 12, 17\)",
        ),
        (
            lambda given: {**given, "c": ww.Recording(given["a"].images, np.array(given["a"].responses) - 3)},
            InputError,
            "c: responses holds .* negative values, but the Poisson loss needs rates",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    change: Callable, error: type, message: str, recordings: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("whatwhere.estimators.shared.prepare", lambda *a: pytest.fail("it went to work"))
    with pytest.raises(error, match=message):
        make().fit(change(recordings), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_models_without_a_core_and_unknown_names_are_refused(fitted: ww.SharedCoreCNN, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown model 'ridge'"):
        ww.SharedCoreCNN("ridge").template()
    with pytest.raises(NotFittedError, match="call fit first"):
        make()["a"]
    with pytest.raises(InputError, match="there is no recording 'c': expected one of 'a', 'b'"):
        fitted["c"]
    with pytest.raises(OptionError, match="a ridge model has no core"):
        ww.transferred(ww.Ridge())
    check_names(["scan-1", "2024_05+a=b", "x.y"])


# ------------------------------------------------------------------------------------------------- files


def test_saved_and_loaded_they_predict_the_same_and_share_their_core(
    fitted: ww.SharedCoreCNN, recordings: dict[str, ww.Recording], tmp_path: Path
) -> None:
    fitted.save(tmp_path / "run")
    again = ww.load_shared(tmp_path / "run")
    assert list(again) == ["a", "b"]
    assert again["a"].model_.core is again["b"].model_.core
    assert again.get_params()["model"] == "factorized"
    assert again.notes_ == tuple(f"{key}: {note}" for key in again for note in again[key].notes_)
    with pytest.raises(AttributeError, match="candidates_"):  # the docstring says so
        _ = again.candidates_
    for key, recording in recordings.items():
        assert np.array_equal(again[key].predict(recording.images), fitted[key].predict(recording.images))
        alone = ww.load_model(tmp_path / "run" / key)
        assert same(alone.tensors(), fitted[key].tensors())
        assert alone.asked() == fitted[key].asked()
    with pytest.raises(FormatError, match="holds models of several recordings: name the folder of one"):
        ww.load_model(tmp_path / "run")
    with pytest.raises(FormatError, match=r"shared\.json does not exist.* It holds the model of one recording"):
        ww.load_shared(tmp_path / "run" / "a")


def test_models_that_do_not_have_one_core_are_not_loaded_as_if(
    fitted: ww.SharedCoreCNN, recordings: dict[str, ww.Recording], tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    make(seed=5).fit({"b": recordings["b"]})["b"].save(tmp_path / "b")
    with pytest.raises(FormatError, match="the models of 'a' and 'b' do not have one core"):
        ww.load_shared(tmp_path)
    for text in ("", "{}", '{"format": "other", "version": 1, "recordings": ["a"]}', '{"recordings": ["../a"]}'):
        (tmp_path / "shared.json").write_text(text)
        with pytest.raises(FormatError, match=r"shared\.json (cannot be read|is of format 'other')"):
            ww.load_shared(tmp_path)


def test_a_run_has_a_folder_for_each_and_scores_over_all(recordings: dict[str, ww.Recording], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = fit_shared_run(make(), recordings, folder)
    tables = {key: run.model[key].evaluate(recording) for key, recording in recordings.items()}
    metrics = json.loads((folder / "metrics.json").read_text())
    values = np.concatenate([table.neurons["correlation"] for table in tables.values()])
    assert metrics["correlation"]["mean"] == pytest.approx(values.mean())
    assert metrics["correlation"]["n_neurons"] == 10
    assert metrics["correlation"]["low_images"] is None
    scores = pd.read_csv(folder / "scores.csv")
    assert list(scores["recording"]) == ["a"] * 6 + ["b"] * 4
    np.testing.assert_allclose(scores["correlation"], values)
    for key, table in tables.items():
        own = json.loads((folder / key / "metrics.json").read_text())
        assert own["feve"]["mean"] == pytest.approx(table.summary["feve"]["mean"])
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = fit_shared_run(make(), recordings, folder, resume=True)
    assert again.pooled is not None
    assert again.pooled.summary == run.pooled.summary  # type: ignore[union-attr]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(RunError, match="holds a run already"):
        fit_shared_run(make(), recordings, folder)
    with pytest.raises(RunError, match=r"seed \(0, now 1\)"):
        fit_shared_run(make(seed=1), recordings, folder, resume=True)
    with pytest.raises(RunError, match=r"begun with something else: recordings\.b \(\w{8}\.\.\., now None\)"):
        fit_shared_run(make(), {"a": recordings["a"]}, folder, resume=True)
    fit_shared_run(make(), {"c": recordings["a"]}, folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.iterdir())) == ["c"]


def test_a_run_that_goes_on_keeps_its_names_and_loses_what_was_found_of_the_model_before(
    recordings: dict[str, ww.Recording], tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        fit_shared_run(make(), recordings, tmp_path, observer=stop_at(10, 0))
    before = (tmp_path / "shared.json").read_bytes()
    for other in ({"a": recordings["a"], "c": recordings["b"]}, dict(reversed(recordings.items()))):
        names = ", ".join(other)
        with pytest.raises(RunError, match=f"begun with the recordings a, b, now {names}: resume it with"):
            fit_shared_run(make(), other, tmp_path, resume=True)
        assert (tmp_path / "shared.json").read_bytes() == before
    (tmp_path / "b").mkdir(exist_ok=True)
    for name in ("types.json", "types.csv", "types-map.png", "mine.png"):
        (tmp_path / "b" / name).write_text("of the model before")
    run = fit_shared_run(make(), recordings, tmp_path, resume=True)
    assert sorted(path.name for path in (tmp_path / "b").glob("*types*")) == []
    assert (tmp_path / "b" / "mine.png").exists()
    loaded = ww.load_shared(tmp_path)
    assert same(loaded["b"].tensors(), run.model["b"].tensors())


def test_a_damaged_list_of_recordings_does_not_stand_in_the_way_of_overwriting(
    recordings: dict[str, ww.Recording], tmp_path: Path
) -> None:
    fit_shared_run(make(), recordings, tmp_path)
    (tmp_path / "shared.json").write_text("{")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    fit_shared_run(make(), {"c": recordings["a"]}, tmp_path, overwrite=True)
    folders = {path.name: sorted(file.name for file in path.iterdir()) for path in tmp_path.iterdir() if path.is_dir()}
    assert list(ww.load_shared(tmp_path)) == ["c"]
    assert (folders["a"], folders["b"], folders["mine"]) == ([], [], ["notes.txt"])


def test_scores_over_all_neurons_are_of_every_recording_that_has_them() -> None:
    rates = [[0.0], [1.0], [2.0]]
    known = score_table([[0.0], [1.0], [4.0]], rates=rates)
    unknown = score_table([[0.0], [1.0], [2.0]], rates)
    pooled = pooled_table({"known": known, "unknown": unknown})
    assert pooled.summary["fev"]["mean"] == known.summary["fev"]["mean"]
    assert (pooled.summary["fev"]["n_neurons"], pooled.summary["fev"]["n_left_out"]) == (1, 1)
    assert "fev" not in pooled.absent
    assert pooled.absent["oracle"] in (known.absent["oracle"], unknown.absent["oracle"])
    assert list(pooled.neurons["recording"]) == ["known", "unknown"]


# ------------------------------------------------------------------------------------------------- resumption


@pytest.mark.parametrize(
    ("name", "options", "stop"),
    [
        ("factorized", {"penalties": {"product_l1": (0.03, 0.3)}}, (10, 1)),
        ("factorized", {"penalties": {"product_l1": 5.0}, "training": PROXIMAL}, (75, 0)),
        ("posterior", {"readout": {"locate_from": 4, "locate_every": 3}}, (10, 0)),
        ("gaussian", {}, (15, 0)),
    ],
    ids=["strengths", "active sets", "places", "draws"],
)
def test_a_stopped_fit_resumes_to_the_very_same_numbers(
    name: str, options: dict, stop: tuple[int, int], recordings: dict[str, ww.Recording], tmp_path: Path
) -> None:
    undisturbed = make(name, **options).fit(recordings)
    with pytest.raises(StoppedError):
        make(name, **options).fit(recordings, folder=tmp_path, observer=stop_at(*stop))
    resumed = make(name, **options).fit(recordings, folder=tmp_path, resume=True)
    for key in recordings:
        assert same(resumed[key].tensors(), undisturbed[key].tensors())
    columns = ["candidate", "step", "training_loss", "validation_loss"]
    pd.testing.assert_frame_equal(resumed.history_[columns], undisturbed.history_[columns], check_exact=True)
    if options.get("training", {}).get("proximal"):
        names = load_file(next((tmp_path / CHECKPOINTS).glob("*.safetensors")))
        assert {"now/active/pattern", "now/active/pattern/1"} <= names.keys(), "both were sparse"


def test_ctrl_c_keeps_the_best_and_the_fit_goes_on(
    recordings: dict[str, ww.Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = fit_shared_run(make(), recordings, tmp_path / "undisturbed")
    calls = iter([False] * 12)

    @contextmanager
    def pressed() -> Iterator[Callable[[], bool]]:
        yield lambda: next(calls, True)

    with monkeypatch.context() as patch:
        patch.setattr("whatwhere.estimators.candidates.interruptible", pressed)
        run = fit_shared_run(make(), recordings, tmp_path / "run")
    assert run.model.stopped_ == "interrupted"
    assert ww.load_model(tmp_path / "run" / "b").stopped_ == "interrupted"
    resumed = fit_shared_run(make(), recordings, tmp_path / "run", resume=True)
    assert same(resumed.model["b"].tensors(), undisturbed.model["b"].tensors())
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


def test_a_killed_run_resumes_to_the_very_same_bytes(recordings: dict[str, ww.Recording], tmp_path: Path) -> None:
    for key, recording in recordings.items():
        ww.save(recording, tmp_path / f"{key}.npz")
    (tmp_path / "options.yaml").write_text(
        "core: {kernel_sizes: [5, 3], n_maps: 3}\n"
        "training: {batch_size: 16, max_steps: 60, check_every: 5, checkpoint_seconds: 0}\n"
    )
    code = "from whatwhere.cli import main; main()"
    command = [sys.executable, "-c", code, "fit-shared", "a.npz", "b.npz", "--config", "options.yaml", "--out"]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    assert subprocess.run([*command, "whole"], check=False, timeout=240, **quiet).returncode == 0  # type: ignore[call-overload]
    process = subprocess.Popen([*command, "run"], **quiet)  # type: ignore[call-overload]
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / CHECKPOINTS / "candidate-001.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    ended = subprocess.run([*command, "run", "--resume"], check=False, timeout=240, **quiet)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stderr
    for name in ("a/model.safetensors", "b/model.safetensors", "metrics.json", "candidates.csv", "scores.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


# ------------------------------------------------------------------------------------------------- what it is for


def short(seed: int, n_images: int = 300, n_neurons: int = 4) -> ww.Recording:
    """Neurons of one type at places of their own, seen through images of their own."""
    population = simulate_population(
        n_neurons, size_factors=(0.4,), variation=0.0, image_size=(16, 20), kernel_size=7, seed=seed
    )
    return simulate(population, n_images, n_test_images=300, seed=100 + seed)


def fev(model: CNN, recording: ww.Recording) -> float:
    return float(np.nanmean(model.evaluate(recording).neurons["fev"]))


FEW = {"batch_size": 32, "check_every": 10, "learning_rate": 1e-2, "max_steps": 600}


@pytest.mark.parametrize("seed", [0, 1])
def test_short_recordings_of_one_cell_type_are_explained_better_together(seed: int) -> None:
    asked = ww.SharedCoreCNN("gaussian", "simulation", {"kernel_sizes": (7,)}, training=FEW, seed=seed)
    recordings = {"a": short(10 * seed), "b": short(10 * seed + 1)}
    together = asked.fit(recordings)
    for key, recording in recordings.items():
        assert fev(together[key], recording) > fev(asked.template().fit(recording), recording) + 0.03
