"""`whatwhere types`: what it says, writes, draws and refuses, and that refits are taken up again."""

import json
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import whatwhere as ww
from whatwhere.celltypes import find_types, model_barcodes, types_of_run
from whatwhere.celltypes.options import TypeOptions
from whatwhere.errors import InputError, OptionError, WriteError
from whatwhere.estimators import CNN
from whatwhere.runs import fit_run

SMALL = {
    "core": {"kernel_sizes": [5], "n_maps": 3},
    "penalties": {"feature_l1": 0.01},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}
Outcome = tuple[int, str, str]
FILES = {"types.csv", "types.json", "types-map.png", "types-barcodes.png", "types-choice.png", "types-confidence.png"}


@pytest.fixture(scope="module")
def session() -> ww.Recording:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(80, 12, 17)).astype(np.float32)
    names = pd.DataFrame(index=[f"cell {number}" for number in range(24)])
    return ww.Recording(images, rng.poisson(2, (80, 24)), neurons=names)


@pytest.fixture
def folder(tmp_path: Path, session: ww.Recording) -> Path:
    ww.save(session, tmp_path / "session.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    fit_run(ww.make_model("gaussian", SMALL), session, tmp_path / "run")
    return tmp_path


@pytest.fixture
def run(command: Callable[..., Outcome], folder: Path) -> Callable[..., Outcome]:
    return partial(command, folder, "types")


def test_types_are_written_shown_and_drawn(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, err = run("run")
    assert (code, err) == (0, "")
    model = ww.load_model(folder / "run")
    expected = find_types(model_barcodes(model))
    table = pd.read_csv(folder / "run" / "types.csv")
    assert list(table["neuron"]) == [f"cell {number}" for number in range(24)]
    np.testing.assert_array_equal(table["type"], expected.labels)
    np.testing.assert_allclose(table["confidence"], expected.confidence)
    np.testing.assert_allclose(table[["pca_1", "pca_2"]], expected.pca)
    np.testing.assert_allclose(table[["tsne_1", "tsne_2"]], expected.tsne)
    kept = json.loads((folder / "run" / "types.json").read_text())
    assert kept["n_types"] == expected.n_types
    assert [row["bic"] for row in kept["bic"]] == pytest.approx(list(expected.bic["bic"]))
    assert sum(row["neurons"] for row in kept["types"]) == kept["neurons"]["typed"] == 24
    assert kept["options"]["metric"] == "weights"
    for number, count in enumerate(expected.counts):
        assert re.search(rf"^ {number} +{count} +[01]\.\d{{3}} *$", out, re.MULTILINE)
    assert f"BIC: lowest at {expected.n_types} of 1 to 12 types" in out
    for name in sorted(FILES - {"types.csv", "types.json"}):
        assert f"  run/{name}" in out
        assert (folder / "run" / name).read_bytes()[:4] == b"\x89PNG"
    code, _, err = run("run")
    assert code == 4
    refused = "use --overwrite to replace them (refits stay), or another folder"
    assert f"run holds types already, types.json: {refused}" in " ".join(err.split())
    (folder / "run" / "types.json").unlink()
    (folder / "run" / "types.csv").write_text("of another program")
    code, _, err = run("run")
    assert code == 4
    assert f"run holds types already, types.csv: {refused}" in " ".join(err.split())
    assert (folder / "run" / "types.csv").read_text() == "of another program"
    assert run("run", "--overwrite", "--n-types", "2")[0] == 0
    assert json.loads((folder / "run" / "types.json").read_text())["options"]["n_types"] == 2


def test_notes_of_the_recording_are_told_in_their_order(
    run: Callable[..., Outcome], folder: Path, session: ww.Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tuple(f"{word} was left out" for word in ("one", "two", "three", "four", "five", "six", "seven"))
    monkeypatch.setattr("whatwhere.formats.load", lambda *given, **more: replace(session, notes=notes))
    code, out, _ = run("run", "--recording", "session.npz", "--n-types", "2")
    assert code == 0
    assert [line for line in out.splitlines() if "was left out" in line] == [f"  note: {note}" for note in notes]


def test_a_new_fit_removes_the_types_of_the_old_one(
    run: Callable[..., Outcome], folder: Path, session: ww.Recording
) -> None:
    assert run("run", "--recording", "session.npz", "--refits", "1")[0] == 0
    assert {path.name for path in (folder / "run").iterdir()} >= FILES
    fit_run(ww.make_model("gaussian", SMALL), session, folder / "run", overwrite=True)
    assert not FILES & {path.name for path in (folder / "run").iterdir()}
    assert not (folder / "run" / "seed-1" / "model.safetensors").exists()


def test_refits_are_kept_and_taken_up_again(run: Callable[..., Outcome], folder: Path) -> None:
    asked = ("run", "--recording", "session.npz", "--out", "types", "--refits")
    code, out, err = run(*asked, "1")
    assert (code, err) == (0, "")
    assert "gaussian seed 1: 64 images to fit, 16 to validate" in out
    assert re.search(r"refit with seed 1: adjusted Rand index -?\d\.\d{3} over 24 neurons; \d+ types by itself", out)
    kept = json.loads((folder / "types" / "types.json").read_text())["stability"]
    assert (kept["n_types"], kept["curve"]) == (None, []), "barcodes are as good as the same after so few steps"
    assert "fits cannot be compared by number of types: that takes six neurons" in out + err
    first = (folder / "types" / "seed-1" / "model.safetensors").read_bytes()
    code, out, _ = run(*asked, "2", "--overwrite")
    assert code == 0
    assert "gaussian seed 1: 64 images" not in out, "nothing is fitted again"
    assert "gaussian seed 2: 64 images" in out
    assert (folder / "types" / "seed-1" / "model.safetensors").read_bytes() == first
    kept = json.loads((folder / "types" / "types.json").read_text())
    assert kept["options"]["metric"] == "signal"
    assert [row["seed"] for row in kept["stability"]["refits"]] == [1, 2]
    assert not (folder / "run" / "types.json").exists()
    assert yaml.safe_load((folder / "types" / "seed-2" / "config.yaml").read_text())["seed"] == 2


def test_a_refit_that_was_interrupted_goes_on_to_the_same_end(folder: Path, session: ww.Recording) -> None:
    def stop(label: str) -> Callable[[object], None]:
        def observe(event: object) -> None:
            if getattr(getattr(event, "check", None), "step", 0) == 3 and label == "gaussian seed 2":
                signal.raise_signal(signal.SIGINT)

        return observe

    found = types_of_run(folder / "run", folder / "once", session, refits=2)
    stopped = types_of_run(folder / "run", folder / "twice", session, refits=2, observe=stop)
    assert stopped.interrupted
    assert not (folder / "twice" / "types.json").exists()
    again = types_of_run(folder / "run", folder / "twice", session, refits=2)
    assert found.stability is not None
    assert again.stability is not None
    pd.testing.assert_frame_equal(again.stability.refits, found.stability.refits)
    pd.testing.assert_frame_equal(again.stability.curve, found.stability.curve)


def test_a_comparison_holds_the_refits_of_its_models(command: Callable[..., Outcome], folder: Path) -> None:
    compare = ("compare", "session.npz", "--models", "gaussian,ridge", "--set", "ridge.strengths=1", "--seeds", "2")
    assert command(folder, *compare, "--config", "small.yaml", "--out", "comparison")[0] == 0
    code, out, _ = command(folder, "types", "comparison/gaussian", "--recording", "session.npz", "--refits", "1")
    assert code == 0
    assert "images to fit" not in out
    assert "refit with seed 1" in out


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no recording": (["run", "--refits", "1"], 2, "refits need the recording that the run was fitted to"),
    "signal": (["run", "--metric", "signal"], 2, "metric 'signal' needs the correlations of feature maps"),
    "method": (["run", "--method", "kmeans"], 2, "method: "),
    "idle": (["run", "--method", "hdbscan", "--n-types", "3"], 2, "n_types (=3) has nothing to act on"),
    "threads": (["run", "--threads", "1"], 2, "--threads has nothing to act on without --refits"),
    "format": (["run", "--format", "npz"], 2, "format (='npz') is of a recording, and none is given: add --recording"),
    "no run": (["nowhere"], 3, "nowhere does not exist"),
    "too many": (["run", "--n-types", "25"], 3, "n_types is 25, but 24 neurons have feature weights"),
    "file": (["run", "--out", "small.yaml"], 4, "small.yaml is a file: choose a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said_and_nothing_written(run: Callable[..., Outcome], folder: Path, case: str) -> None:
    arguments, expected, message = REFUSED[case]
    code, _, err = run(*arguments)
    assert code == expected
    assert message in err
    assert not (folder / "run" / "types.json").exists()


def test_models_without_feature_weights_are_refused(
    command: Callable[..., Outcome], folder: Path, session: ww.Recording
) -> None:
    ww.Ridge(1.0).fit(session).save(folder / "ridge")
    code, _, err = command(folder, "types", "ridge")
    assert code == 3
    assert "a ridge model has no barcodes: fit one of factorized, fixed-mask, gaussian, posterior" in err


@pytest.mark.parametrize("refits", [0, 1])
@pytest.mark.parametrize("metric", ["weights", "signal"])
def test_another_recording_than_was_fitted_is_refused(
    folder: Path, session: ww.Recording, refits: int, metric: Literal["weights", "signal"]
) -> None:
    options = TypeOptions(metric=metric)
    other = ww.Recording(session.images[::-1], session.responses, neurons=session.neurons)
    with pytest.raises(InputError, match="is not the recording that the model was fitted to"):
        types_of_run(folder / "run", recording=other, refits=refits, options=options)
    fewer = session.select_neurons(range(20))
    with pytest.raises(InputError, match="lacks 4 of the 24 neurons that the model was fitted to"):
        types_of_run(folder / "run", recording=fewer, refits=refits, options=options)
    assert not (folder / "run" / "types.json").exists()


def test_refits_without_batch_normalisation_are_measured_on_the_recording(
    tmp_path: Path, session: ww.Recording
) -> None:
    core = {"kernel_sizes": [5], "n_maps": 3, "batch_norm": False}
    values = {**SMALL, "core": core, "penalties": {"product_l1": 0.0}}
    fit_run(ww.make_model("factorized", values), session, tmp_path / "run")
    options = TypeOptions(metric="weights", max_types=3)
    found = types_of_run(tmp_path / "run", recording=session, refits=1, options=options)
    again = model_barcodes(ww.load_model(tmp_path / "run" / "seed-1"), session)
    assert found.stability is not None
    heard = found.types.barcodes.any(1) & again.any(1)
    assert found.stability.refits["n_neurons"][0] == heard.sum()


def rewrite_weights(run: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Gives a kept model other feature weights."""
    model = ww.load_model(run)
    assert isinstance(model, CNN)
    with torch.no_grad():
        weights = model.model_.readout.get_parameter("weights")
        weights.copy_(change(weights))
    model.save(run)


def test_the_number_in_which_fits_agree_best_is_said(run: Callable[..., Outcome], folder: Path) -> None:
    asked = ("run", "--recording", "session.npz", "--metric", "weights", "--out", "types", "--refits", "1")
    assert run(*asked)[0] == 0
    generator = torch.Generator().manual_seed(0)
    for kept_run in (folder / "run", folder / "types" / "seed-1"):
        rewrite_weights(kept_run, lambda weights: torch.randn(weights.shape, generator=generator))
    code, out, _ = run(*asked, "--overwrite")
    assert code == 0
    kept = json.loads((folder / "types" / "types.json").read_text())["stability"]
    best = max(kept["curve"], key=lambda row: (row["ari"], row["n_types"]))
    assert 2 <= best["n_types"] <= 24 // 3
    assert (kept["n_types"], kept["ari"], kept["left_out"]) == (best["n_types"], best["ari"], [])
    assert f"fits agree best in {best['n_types']} types: adjusted Rand index {best['ari']:.3f}\n" in out


def test_a_silent_refit_is_left_out_and_said(run: Callable[..., Outcome], folder: Path) -> None:
    asked = ("run", "--recording", "session.npz", "--metric", "weights", "--out", "types", "--refits", "2")
    assert run(*asked)[0] == 0
    rewrite_weights(folder / "types" / "seed-1", torch.zeros_like)
    code, out, err = run(*asked, "--overwrite")
    assert code == 0
    assert "the refit with seed 1 is left out: none of its neurons has feature weights" in out + err
    assert "refit with seed 1: adjusted" not in out
    assert "refit with seed 2: adjusted" in out
    kept = json.loads((folder / "types" / "types.json").read_text())["stability"]
    assert kept["left_out"] == [1]
    assert kept["refits"][0]["ari"] is None


def test_a_number_of_refits_below_one_is_refused(folder: Path, session: ww.Recording) -> None:
    with pytest.raises(OptionError, match="refits must be at least 1, got -1"):
        types_of_run(folder / "run", recording=session, refits=-1)
    assert not (folder / "run" / "types.json").exists()


def test_a_folder_that_cannot_be_made_is_named_before_refits(folder: Path, session: ww.Recording) -> None:
    with pytest.raises(WriteError, match=r"small.yaml/types cannot be made \(Not a directory\): choose another folder"):
        types_of_run(folder / "run", folder / "small.yaml" / "types", session, refits=1)


def test_neurons_drawn_for_a_fit_are_found_in_the_whole_recording(tmp_path: Path, session: ww.Recording) -> None:
    some = session.select_neurons(10, seed=3)
    fit_run(ww.make_model("gaussian", SMALL), some, tmp_path / "run")
    found = types_of_run(tmp_path / "run", recording=session, refits=1, options=TypeOptions(max_types=3))
    assert found.neurons == [str(neuron) for neuron in some.neurons.index]
    assert found.stability is not None


@pytest.mark.parametrize("n_neurons", [1, 3])
def test_a_handful_of_neurons(tmp_path: Path, session: ww.Recording, n_neurons: int) -> None:
    from whatwhere.report.found_types import draw_types

    some = session.select_neurons(range(n_neurons))
    fit_run(ww.make_model("gaussian", SMALL), some, tmp_path / "run")
    found = types_of_run(tmp_path / "run", recording=some, refits=1)
    table = pd.read_csv(tmp_path / "run" / "types.csv")
    assert table["tsne_1"].isna().all()
    assert len(draw_types(found)) >= 3
    kept = json.loads((tmp_path / "run" / "types.json").read_text())
    assert kept["stability"]["refits"][0]["ari"] is None or n_neurons > 1
