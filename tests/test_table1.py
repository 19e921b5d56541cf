"""Table 1: models compared on the scans of an Antolik folder, or on any recording, with the paper's numbers beside."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import whatwhere as ww
from whatwhere.catalogue import make_model, model_of
from whatwhere.cli import app
from whatwhere.comparison import compare
from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.experiments import table1 as module
from whatwhere.experiments.paper_numbers import TABLE_1, table_1
from whatwhere.experiments.table1 import LAYERS, MODELS, PRESETS, load_scans, paper_form, run_table1
from whatwhere.metrics import correlation_with_average, holm, paired_difference
from whatwhere.plain_options import merge
from whatwhere.report.table1 import table_figure, write_table1
from whatwhere.runs import own_values

SHORT = {
    "core": {"kernel_sizes": [3, 3], "n_maps": 2},
    "training": {"max_steps": 4, "check_every": 2, "batch_size": 16},
}
SIZES = {"region1": (40, 5), "region3": (30, 3)}  # images, neurons


@pytest.fixture(scope="module")
def antolik(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two regions in the published layout, of 9 x 9 pixels."""
    folder, rng = tmp_path_factory.mktemp("antolik"), np.random.default_rng(0)
    for region, (n_images, n_neurons) in SIZES.items():
        place = folder / "Data" / region
        place.mkdir(parents=True)
        np.save(place / "training_inputs.npy", rng.normal(size=(n_images, 81)))
        np.save(place / "training_set.npy", rng.poisson(1, (n_images, n_neurons)).astype(float))
        np.save(place / "validation_inputs.npy", rng.normal(size=(7, 81)))
        repeats = rng.poisson(1, (4, 7, n_neurons)).astype(float)
        np.save(place / "raw_validation_set.npy", repeats)
        np.save(place / "validation_set.npy", repeats.mean(0))
    return folder


def test_two_scans_give_the_table_of_their_comparisons(antolik: Path, tmp_path: Path) -> None:
    scans = load_scans(antolik)
    assert {name: (scan.n_images, scan.n_neurons) for name, scan in scans.items()} == SIZES
    models = ["ridge", "factorized"]
    table = run_table1(scans, tmp_path, models=models, values=SHORT, seed=3)
    pd.testing.assert_frame_equal(table.results, pd.read_csv(tmp_path / "results.csv"), check_dtype=False)
    assert list(table.results.columns[:6]) == ["model", "correlation", "low", "high", "scan", "paper"]
    assert list(zip(table.results["scan"], table.results["model"], strict=True)) == [
        (scan, model) for scan in ("region1", "region3", "average") for model in models
    ]
    neurons = {}
    for scan, recording in scans.items():
        values = merge({**PRESETS["quick"].values(recording)}, SHORT)
        alone = compare(recording, models, tmp_path / f"alone-{scan}", seed=3, values=_of(values, models))
        pd.testing.assert_frame_equal(alone.neurons, table.comparisons[scan].neurons)
        neurons[scan] = alone.neurons
        model = ww.load_model(tmp_path / scan / "ridge")
        test = recording.test
        assert test is not None
        scores = correlation_with_average(model.predict(test.images), test.responses, test.image_index)
        row = table.results[(table.results["scan"] == scan) & (table.results["model"] == "ridge")].iloc[0]
        assert row["correlation"] == pytest.approx(scores.mean())
    together = pd.concat(neurons.values())
    average = table.results[table.results["scan"] == "average"].set_index("model")
    for model in models:
        assert average["correlation"][model] == pytest.approx(together[model].mean())
        assert average["low"][model] < average["correlation"][model] < average["high"][model]
    assert average["n_neurons"].tolist() == [8, 8]
    last = table.differences[table.differences["scan"] == "average"].iloc[0]
    expected = paired_difference(together["ridge"].to_numpy(), together["factorized"].to_numpy())
    assert (last["mean"], last["p_value"]) == pytest.approx((expected.difference.mean, expected.p_value))
    assert last["p_holm"] == pytest.approx(holm(np.array([expected.p_value]))[0])


def _of(values: dict[str, Any], models: list[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in ("core", "training", *models)}


def test_the_papers_numbers_stand_beside(antolik: Path, tmp_path: Path) -> None:
    table = run_table1(load_scans(antolik), tmp_path, models=["factorized", "ridge"], values=SHORT)
    factorized = table.results[table.results["model"] == "factorized"].set_index("scan")["paper"]
    assert factorized[["region1", "region3"]].tolist() == [0.55, 0.49]
    assert np.isnan(factorized["average"]), "the paper's is that of three scans"
    assert table.results[table.results["model"] == "ridge"]["paper"].isna().all()
    form = paper_form(table.results)
    assert list(form.columns) == ["model", "scan 1", "scan 3", "average"]
    assert form["scan 3"][0].endswith("(paper 0.49)")
    assert "paper" not in form["scan 1"][1]
    assert all(len(numbers) == 4 for numbers in TABLE_1.values())
    for model in TABLE_1:  # the average is over neurons: 103, 55 and 102 of them
        scans = [table_1(model, f"region{number}") for number in (1, 2, 3)]
        assert np.average(scans, weights=(103, 55, 102)) == pytest.approx(table_1(model, "average"), abs=0.011)
    files = write_table1(table, tmp_path)
    assert all(file.stat().st_size for file in files)
    page = (tmp_path / "page.html").read_text()
    assert "(paper 0.55)" in page
    figure = table_figure(table.results)
    crosses = [line.get_xdata() for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(np.concatenate(crosses)[[0, 2]], [0.55, 0.49])


def test_it_resumes_without_fitting_again(antolik: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_table1(load_scans(antolik, [1]), tmp_path, models=["ridge", "lnp"], values={})
    with monkeypatch.context() as patch:
        patch.setattr(ww.Ridge, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
        again = run_table1(load_scans(antolik, [1]), tmp_path, models=["ridge", "lnp"], values={}, resume=True)
        pd.testing.assert_frame_equal(first.results, again.results)
    assert "average" not in set(first.results["scan"])


def test_any_recording_will_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    test = ww.HeldOut(rng.normal(size=(5, 1, 9, 12)), rng.poisson(1, (15, 4)), np.repeat(np.arange(5), 3))
    recording = ww.Recording(rng.normal(size=(40, 1, 9, 12)), rng.poisson(1, (40, 4)), test=test, name="mine")
    path = ww.save(recording, tmp_path / "mine.h5")
    scans = load_scans(path, neurons=2)
    (found,) = scans.values()
    assert found.n_neurons == 2
    with pytest.raises(OptionError, match=r"scans \(=\[1\]\) are those of an Antolik folder"):
        load_scans(path, [1])
    bare = ww.save(ww.Recording(recording.images, recording.responses), tmp_path / "bare.h5")
    with pytest.raises(InputError, match="no held-out part of two images or more to judge models on"):
        load_scans(bare)


def test_what_is_missing_is_said_before_anything_is_fitted(antolik: Path, tmp_path: Path) -> None:
    shutil.copytree(antolik, tmp_path / "copy")
    (tmp_path / "copy/Data/region3/training_inputs.npy").unlink()
    with pytest.raises(FormatError, match=r"region3/training_inputs.npy is missing: it belongs there, and comes with"):
        load_scans(tmp_path / "copy")
    with pytest.raises(OptionError, match=r"has no region2: it has region1, region3"):
        load_scans(antolik, [2])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_model_of_a_preset_has_options_that_fit(antolik: Path, preset: str) -> None:
    recording = next(iter(load_scans(antolik).values()))
    names, values = PRESETS[preset].models, PRESETS[preset].values(recording)
    kept = {key: value for key, value in values.items() if module._is_meant(key, names)}
    for name in names:
        make_model(name, own_values(name, names, kept))
    if preset == "quick":
        assert tuple(names) == MODELS
        for name in names:
            own = make_model(name, own_values(name, names, kept)).asked()["options"]
            if "penalties" in own:
                assert np.prod([np.size(value) for key, value in own["penalties"].items() if key != "relative"]) <= 2
            else:
                assert (
                    np.prod([np.size(own[key]) for key in ("strengths", "smoothness", "sparsity") if key in own]) <= 2
                )
    else:
        assert set(LAYERS) <= set(names)
        assert {model_of(name) for name in names} == {model_of(name) for name in MODELS}


def test_the_published_strengths_are_converted(antolik: Path) -> None:
    """Sums over neurons to means, and half a Laplacian to a whole one."""
    recording = load_scans(antolik, [1])["region1"]
    values = PRESETS["paper"].values(recording)
    penalties = values["factorized"]["penalties"]
    assert penalties["smoothness"] == pytest.approx([value / 4 / 5 for value in (0.001, 0.003, 0.01, 0.03)])
    assert penalties["group_sparsity"] == pytest.approx([0, 0.025 / 5, 0.05 / 5])
    assert values["core"]["kernel_sizes"] == [13, 3, 3]
    assert PRESETS["paper"].values(load_scans(antolik, [3])["region3"])["core"]["kernel_sizes"] == [13, 8, 8]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["reproduce", "table1", *arguments])


def test_the_command_line(antolik: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--out", str(tmp_path / "out"), "--models", "ridge,factorized@1-layer", "--neurons", "2"]
    flags += ["--set", "core.kernel_sizes=[3]", "--set", "factorized@1-layer.core.kernel_sizes=[5]"]
    flags += ["--set", "training.max_steps=4", "--set", "training.check_every=2", "--seeds", "1-2"]
    unknown = invoke("--data", str(antolik), "--scans", "1", *flags, "--device", "tpu")
    assert "tpu" in str(unknown.exception)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    done = invoke("--data", str(antolik), "--scans", "1", *flags, "--threads", "3")
    assert done.exit_code == 0, done.output
    assert 3 in threads
    table = pd.read_csv(tmp_path / "out/results.csv")
    assert table["model"].tolist() == ["ridge", "factorized@1-layer", "factorized@1-layer-ensemble"]
    assert table["paper"].tolist()[1] == 0.38
    assert ww.load_model(tmp_path / "out/region1/factorized@1-layer").asked()["options"]["core"]["kernel_sizes"] == [5]
    assert (tmp_path / "out/table1.png").exists()


def test_a_recording_with_nan_and_of_a_format_that_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    test = ww.HeldOut(rng.normal(size=(5, 1, 9, 12)), rng.poisson(1, (15, 4)), np.repeat(np.arange(5), 3))
    recording = ww.Recording(rng.normal(size=(40, 1, 9, 12)), rng.poisson(1, (40, 4)), test=test, name="mine")
    ww.save(recording, tmp_path / "mine.npz")
    arrays = dict(np.load(tmp_path / "mine.npz"))
    arrays["responses"] = arrays["responses"].astype(float)
    arrays["responses"][3, 1] = np.nan
    np.savez(tmp_path / "mine.npz", **arrays)
    flags = ["--out", str(tmp_path / "out"), "--models", "ridge", "--data", str(tmp_path / "mine.npz")]
    assert "not finite: neuron 1 in row 3" in str(invoke(*flags).exception)
    assert isinstance(invoke(*flags, "--format", "nwb").exception, FormatError)
    done = invoke(*flags, "--nonfinite", "neurons", "--format", "npz")
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "out/results.csv")["n_neurons"].tolist() == [3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "table1 needs --data"),
        (["--data", "x", "--images", "3"], "--images has nothing to act on in table1"),
        (["--data", "x", "--neurons", "3,4"], "table1 takes one number, of neurons"),
        (["--data", "x", "--seeds", "0,2"], "table1 takes seeds that follow each other"),
    ],
)
def test_flags_that_mean_nothing_here_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    done = invoke("--out", str(tmp_path / "out"), *flags)
    assert isinstance(done.exception, OptionError)
    assert message in str(done.exception)
    other = CliRunner().invoke(app, ["reproduce", "fig1", "--out", str(tmp_path / "out"), "--data", "x"])
    assert "--data has nothing to act on in fig1: it is for table1" in str(other.exception)
    for flag, value in {"threads": "1", "nonfinite": "rows", "format": "npz"}.items():
        other = CliRunner().invoke(app, ["reproduce", "fig1", "--out", str(tmp_path / "out"), f"--{flag}", value])
        assert f"--{flag} has nothing to act on in fig1: it is for table1" in str(other.exception)


@pytest.mark.data
def test_the_published_scan_with_a_stand_in_for_its_images(data_folder: Path, tmp_path: Path) -> None:
    """All of region 2 but its training images is there: with random ones of their shape the whole pipeline runs."""
    place = data_folder / "antolik2016" / "Data" / "region2"
    with pytest.raises(FormatError, match=r"region1/training_inputs.npy is missing: .* supplement S1 .* data fetch"):
        load_scans(data_folder / "antolik2016")
    shutil.copytree(place, tmp_path / "Data" / "region2")
    n_images = len(np.load(place / "training_set.npy"))
    np.save(tmp_path / "Data/region2/training_inputs.npy", np.random.default_rng(0).normal(size=(n_images, 961)))
    scans = load_scans(tmp_path)
    assert (scans["region2"].n_images, scans["region2"].n_neurons) == (1260, 55)
    few = load_scans(tmp_path, neurons=6)
    values = {"training": {"max_steps": 4, "check_every": 2}, "lnp": {"sparsity": [0.08]}}
    table = run_table1(few, tmp_path / "out", values=values, threads=1)
    assert table.results["model"].tolist() == list(MODELS)
    assert table.results["correlation"].abs().lt(0.4).all()  # the images are none that the neurons saw
