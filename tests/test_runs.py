"""Runs in folders: what is written, and what is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import predicting, runs
from whatwhere.comparison import Comparison, compare
from whatwhere.errors import FormatError, InputError, OptionError, RunError, WriteError
from whatwhere.experiments.grid import run_grid
from whatwhere.experiments.points import Outcome, Point
from whatwhere.experiments.table1 import run_table1
from whatwhere.predicting import predict_file
from whatwhere.search import local_pool, make_space, search

VALUES = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}
OWN = {"factorized": {"penalties": {"product_l1": 0.01}}, "ridge": {"strengths": [1.0, 10.0]}}
NAMES = ["ridge", "factorized"]


def recording(test: bool = True) -> ww.Recording:
    rng = np.random.default_rng(0)
    images, shown = rng.normal(size=(80, 1, 12, 17)).astype(np.float32), np.repeat(np.arange(9), 3)
    held_out = ww.HeldOut(rng.normal(size=(9, 1, 12, 17)), rng.poisson(2, (27, 4)), shown)
    neurons = pd.DataFrame(index=["n7", "n3", "n5", "n1"])
    return ww.Recording(images, rng.poisson(2, (80, 4)), test=held_out if test else None, neurons=neurons)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("compared")
    return compare(recording(), NAMES, folder, values={**VALUES, **OWN}, seed=3), folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_written_with_its_scores(tmp_path: Path) -> None:
    run = runs.fit_run(ww.make_model("factorized", VALUES), recording(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "candidates.csv",
        "config.yaml",
        "data.json",
        "heldout.npz",
        "history.csv",
        "metrics.json",
        "model.safetensors",
        "scores.csv",
    ]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert run.scores is not None
    assert metrics == run.scores.summary
    assert {"correlation", "feve", "single_trial_correlation", "oracle"} <= set(metrics)
    assert {"mean", "low", "high"} <= set(metrics["correlation"])
    assert metrics["correlation"]["low"] <= metrics["correlation"]["mean"] <= metrics["correlation"]["high"]
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table["neuron"]) == ["n7", "n3", "n5", "n1"]
    assert table["correlation"].mean() == pytest.approx(metrics["correlation"]["mean"])
    np.testing.assert_array_equal(table[["row", "column"]], run.model.locations_)  # type: ignore[attr-defined]
    assert list(pd.read_csv(tmp_path / "candidates.csv")["mask_l1"]) == [0.03, 0.06]


def test_a_recording_without_held_out_part_is_fitted_and_not_scored(tmp_path: Path) -> None:
    run = runs.fit_run(ww.make_model("factorized", VALUES), recording(test=False), tmp_path)
    assert run.scores is None
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}
    assert not (tmp_path / "scores.csv").exists()
    assert ww.load_model(tmp_path).predict(np.zeros((1, 12, 17))).shape == (1, 4)


def test_a_folder_that_holds_a_run_is_refused_unless_asked(tmp_path: Path) -> None:
    runs.open_folder(tmp_path / "new" / "run")
    assert (tmp_path / "new" / "run").is_dir()
    runs.fit_run(ww.Ridge(), recording(), tmp_path)
    before = content(tmp_path)
    with pytest.raises(
        RunError, match=r"holds a run already: use --resume to go on with it, --overwrite to replace it"
    ):
        runs.open_folder(tmp_path)
    with pytest.raises(OptionError, match="overwrite and resume exclude each other"):
        runs.open_folder(tmp_path, overwrite=True, resume=True)
    runs.open_folder(tmp_path, resume=True)
    assert content(tmp_path) == before
    with pytest.raises(RunError, match=r"metrics\.json is a file: choose a folder for a run"):
        runs.open_folder(tmp_path / "metrics.json")
    with pytest.raises(WriteError, match=r"metrics\.json/run cannot be made \(Not a directory\)"):
        runs.open_folder(tmp_path / "metrics.json" / "run")


@pytest.mark.parametrize("name", ["model.safetensors", "metrics.json", "differences.csv", "checkpoints"])
def test_any_part_of_a_run_counts_as_one(name: str, tmp_path: Path) -> None:
    assert not runs.is_run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert not runs.is_run(tmp_path)
    (tmp_path / name).mkdir() if name == "checkpoints" else (tmp_path / name).write_text("")
    assert runs.is_run(tmp_path)


def begin_run(folder: Path, **how: bool) -> None:
    runs.fit_run(ww.Ridge([1.0]), recording(), folder, **how)


def begin_comparison(folder: Path, **how: bool) -> None:
    compare(recording(), ["ridge", "ols"], folder, **how)


def begin_table(folder: Path, **how: bool) -> None:
    run_table1({"scan1": recording()}, folder, models=["ridge", "ols"], **how)


def begin_search(folder: Path, **how: bool) -> None:
    pytest.importorskip("optuna")
    with local_pool(1, 1) as pool:
        search(recording(), make_space("ridge", {"strengths": [1.0]}), folder, pool, **how)


def begin_experiment(folder: Path, **how: bool) -> None:
    point = Point("ridge", 1, 20, 0)
    run_grid([point], lambda point: Outcome(0.5, 0.1), folder, asked={"experiment": "fig1"}, workers=1, **how)


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}], ids=["", "resume", "overwrite"])
def test_work_of_one_kind_never_replaces_that_of_another(how: dict[str, bool], tmp_path: Path) -> None:
    begin = {
        "a run": (begin_run, begin_comparison),
        "a table of several scans": (begin_table,),
        "a search": (begin_search,),
        "an experiment": (begin_experiment,),
    }
    begin_comparison(tmp_path / "a run")
    begin_table(tmp_path / "a table of several scans")
    begin_experiment(tmp_path / "an experiment")
    (tmp_path / "a search").mkdir()
    for name in ("search.json", "results.csv"):
        (tmp_path / "a search" / name).write_text("{}")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "results.csv").write_text("mine")
    before = content(tmp_path)
    for kind in begin:
        assert runs.kind_of(tmp_path / kind) == kind
        for other, functions in begin.items():
            for function in functions:
                if other != kind:
                    with pytest.raises(RunError, match=f"holds {kind}, which {other} must not be mixed with: choose"):
                        function(tmp_path / kind, **how)
                if function is not begin_run:  # it writes no such table
                    with pytest.raises(RunError, match=f"results.csv exists, and not as part of {other}: choose"):
                        function(tmp_path / "mine", **how)
    assert content(tmp_path) == before


def test_overwriting_removes_our_files_and_no_others(tmp_path: Path) -> None:
    compare(recording(), NAMES, tmp_path, values={**VALUES, **OWN})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".model.safetensors.123.tmp").write_text("left by a kill")
    mine = ("notes.txt", "factorized/figure.png", "other/metrics.json", ".hidden.tmp")
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    runs.open_folder(tmp_path, overwrite=True)
    assert content(tmp_path) == dict.fromkeys(mine, b"mine")


def test_a_models_own_values_go_over_the_shared_ones() -> None:
    values = {"core": {"n_maps": 2, "kernel_sizes": [5]}, "factorized": {"core": {"n_maps": 9}}, "ridge": {}}
    names = ["factorized", "fixed-mask", "ridge"]
    assert runs.own_values("factorized", names, values) == {"core": {"n_maps": 9, "kernel_sizes": [5]}}
    assert runs.own_values("fixed-mask", names, values) == {"core": {"n_maps": 2, "kernel_sizes": [5]}}
    assert runs.own_values("ridge", names, values) == {}


def test_neurons_are_found_by_their_identifiers(compared: tuple[Comparison, Path]) -> None:
    model = compared[0].runs["factorized"].model
    shuffled = recording().select_neurons([2, 0, 3, 1])
    found, expected = (model.evaluate(data).neurons for data in (shuffled, recording()))
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    with pytest.raises(InputError, match="recording lacks 2 of the 4 neurons that the model was fitted to: n3, n1"):
        model.evaluate(recording().select_neurons([0, 2]))


def test_predictions_are_written_for_a_file_of_images(compared: tuple[Comparison, Path], tmp_path: Path) -> None:
    model, images = compared[0].runs["factorized"].model, recording().images[:5]
    np.save(tmp_path / "images.npy", images)
    out = tmp_path / "responses.npy"
    assert predict_file(model, tmp_path / "images.npy", out) == (5, 4)
    np.testing.assert_array_equal(np.load(out), model.predict(images))
    with pytest.raises(RunError, match=r"responses\.npy exists already: use --overwrite to replace it"):
        predict_file(model, tmp_path / "images.npy", out)
    predict_file(model, tmp_path / "images.npy", out, overwrite=True)
    with pytest.raises(RunError, match="none does not exist: make it first"):
        predict_file(model, tmp_path / "images.npy", tmp_path / "none" / "x.npy")
    with pytest.raises(FormatError, match=r"nothing\.npy does not exist"):
        predict_file(model, tmp_path / "nothing.npy", tmp_path / "x.npy")


def read_predictions(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """The responses and identifiers in a file of predictions, by other libraries' readers."""
    if path.suffix == ".npy":
        return np.load(path), None
    if path.suffix == ".npz":
        with np.load(path) as file:
            assert file.files == ["responses", "identifiers"]
            return file["responses"], list(file["identifiers"])
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table.to_numpy(), list(table.columns)
    with h5py.File(path) as file:
        return file["responses"][:], list(file["identifiers"].asstr()[:])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".csv"])
@pytest.mark.parametrize("name", ["factorized", "ridge"])
def test_predictions_come_in_chunks_with_their_neurons(
    compared: tuple[Comparison, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    name: str,
) -> None:
    model, data = compared[0].runs[name].model, recording()
    images = data.images[:23]
    np.save(tmp_path / "images.npy", images)
    monkeypatch.setattr(predicting, "CHUNK_BYTES", 5 * images[0].size * 4)  # five images
    asked: list[int] = []
    predict = type(model).predict
    monkeypatch.setattr(type(model), "predict", lambda self, some: asked.append(len(some)) or predict(self, some))
    out = tmp_path / f"predictions{suffix}"
    assert predict_file(model, tmp_path / "images.npy", out) == (23, 4)
    assert asked == [5, 5, 5, 5, 3]
    found, identifiers = read_predictions(out)
    np.testing.assert_allclose(found, predict(model, images), rtol=1e-5, atol=1e-6)
    assert identifiers == (None if suffix == ".npy" else ["n7", "n3", "n5", "n1"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images.npy", out.name]


def test_predictions_of_a_recordings_images(compared: tuple[Comparison, Path], tmp_path: Path) -> None:
    model, data = compared[0].runs["ridge"].model, recording()
    path = ww.save(data, tmp_path / "session.h5")
    assert data.test is not None
    for of, images in (("test", data.test.images), ("training", data.images)):
        assert predict_file(model, path, tmp_path / f"{of}.npy", of=of) == (len(images), 4)
        np.testing.assert_allclose(np.load(tmp_path / f"{of}.npy"), model.predict(images), rtol=1e-5, atol=1e-6)
    out = tmp_path / "out.npy"
    with pytest.raises(OptionError, match=r"unknown of 'tests': .*'test', 'training'.* Did you mean 'test'"):
        predict_file(model, path, out, of="tests")
    with pytest.raises(FormatError, match=r"session\.h5 is no \.npy of images\. .*--of test or training"):
        predict_file(model, path, out)
    with pytest.raises(OptionError, match="format 'hdf5' is that of a recording"):
        predict_file(model, tmp_path / "test.npy", out, format="hdf5")
    ww.save(ww.Recording(data.images, data.responses), tmp_path / "untested.npz")
    with pytest.raises(InputError, match=r"untested\.npz has no test set: predict its training images"):
        predict_file(model, tmp_path / "untested.npz", out, of="test")
    with pytest.raises(FormatError, match=r"out\.mat ends in '\.mat': .* one of \.npy, \.npz, \.h5, \.hdf5, \.csv"):
        predict_file(model, tmp_path / "nothing.npy", tmp_path / "out.mat")


def test_images_that_cannot_be_predicted_are_named(
    compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = compared[0].runs["ridge"].model, np.array(recording().images[:9], dtype=np.float32)
    monkeypatch.setattr(predicting, "CHUNK_BYTES", 1)
    images[7] = np.nan
    np.save(tmp_path / "nan.npy", images)
    with pytest.raises(InputError, match=r"not finite in 1 of the rows read: row 7"):
        predict_file(model, tmp_path / "nan.npy", tmp_path / "out.csv")
    np.save(tmp_path / "wide.npy", images[..., :-1])
    with pytest.raises(InputError, match="shape"):
        predict_file(model, tmp_path / "wide.npy", tmp_path / "out.csv")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-4])
    with pytest.raises(FormatError, match=r"cut\.npy is not a whole \.npy array"):
        predict_file(model, tmp_path / "cut.npy", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_run_is_not_removed_for_one_that_cannot_be_fitted(tmp_path: Path) -> None:
    runs.fit_run(ww.make_model("factorized", VALUES), recording(), tmp_path)
    before = content(tmp_path)
    large = ww.make_model("factorized", {**VALUES, "core": {"kernel_sizes": [99]}})
    with pytest.raises(InputError, match="kernel of layer 1"):
        runs.fit_run(large, recording(), tmp_path, overwrite=True)
    assert content(tmp_path) == before
    with pytest.raises(InputError, match="kernel of layer 1"):
        compare(recording(), ["ridge", "factorized"], tmp_path / "new", values={"core": {"kernel_sizes": [99]}})
    assert not (tmp_path / "new").exists(), "the first model was not fitted before the second was looked at"


def test_a_single_held_out_image_gives_no_scores_and_keeps_the_fit(tmp_path: Path) -> None:
    whole = recording()
    one = ww.HeldOut(np.zeros((1, 12, 17)), np.ones((5, 4)), np.zeros(5, int))
    frozen = ww.Recording(whole.images, whole.responses, test=one, neurons=whole.neurons)
    run = runs.fit_run(ww.make_model("factorized", VALUES), frozen, tmp_path)
    assert run.scores is None
    assert ww.load_model(tmp_path).predict(np.zeros((1, 12, 17))).shape == (1, 4)


def test_what_was_fitted_is_kept_where_the_scores_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError("no scores today")

    with monkeypatch.context() as patch:
        patch.setattr(ww.FactorizedCNN, "evaluate", fail)
        with pytest.raises(InputError, match="no scores today"):
            runs.fit_run(ww.make_model("factorized", VALUES), recording(), tmp_path)
    kept = ww.load_model(tmp_path).predict(np.ones((2, 12, 17)))
    run = runs.fit_run(ww.make_model("factorized", VALUES), recording(), tmp_path, resume=True)
    np.testing.assert_array_equal(run.model.predict(np.ones((2, 12, 17))), kept)
    assert run.scores is not None


def test_what_was_found_of_an_earlier_model_goes_with_it(tmp_path: Path) -> None:
    """And files of a user's own stay, also where types left refits by seed."""
    model = ww.Ridge(strengths=[1.0])
    runs.fit_run(model, recording(), tmp_path / "run")
    for name in ("types.json", "types.csv", "types-map.png", "tuning.csv", "fields.npz", "fields.png"):
        (tmp_path / "run" / name).touch()
    for name in ("results.csv", "size.csv"):
        (tmp_path / "run" / name).write_text("my own")
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path / "run" / "seed-1")
    runs.fit_run(ww.Ridge(strengths=[2.0]), recording(), tmp_path / "run", overwrite=True)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"results.csv", "size.csv", "model.safetensors"} <= left
    assert not left & {"types.json", "types.csv", "types-map.png", "tuning.csv", "fields.npz", "fields.png"}


@pytest.mark.parametrize("again", ["overwrite", "resume"])
def test_what_other_programs_found_of_an_earlier_model_goes_with_it(tmp_path: Path, again: str) -> None:
    """A report would show it of the next one; where no model was, the file is of the one that is to come."""
    found = ("types.csv", "fields.npz", "most_exciting.npz")
    for name in found:
        (tmp_path / name).touch()
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path)
    assert set(found) <= {path.name for path in tmp_path.iterdir()}
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path, resume=True)  # it had ended, and is the same
    assert set(found) <= {path.name for path in tmp_path.iterdir()}
    if again == "resume":
        (tmp_path / "checkpoints").mkdir()  # it had been interrupted
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path, **{again: True})
    assert not set(found) & {path.name for path in tmp_path.iterdir()}


def test_figures_of_a_users_own_stay_where_nothing_was_found(tmp_path: Path) -> None:
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path)
    (tmp_path / "fields.png").touch()
    runs.fit_run(ww.Ridge(strengths=[2.0]), recording(), tmp_path, overwrite=True)
    assert (tmp_path / "fields.png").exists()
