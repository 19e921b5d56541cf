"""The command line: what each verb does and says, its exit codes, and that no mistake of a user gives a traceback."""

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

import whatwhere as ww
from whatwhere import cli
from whatwhere.cli import console
from whatwhere.cli.options import gather, options_help, parse_assignment
from whatwhere.cost import Plan
from whatwhere.errors import FormatError, OptionError
from whatwhere.schedule import Check, Progress

SMALL = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}
Outcome = tuple[int, str, str]


def recording(seed: int = 0, test: bool = True) -> ww.Recording:
    rng = np.random.default_rng(seed)
    shown = np.repeat(np.arange(9), 3)
    held_out = ww.HeldOut(rng.normal(size=(9, 12, 17)), rng.poisson(2, (27, 4)), shown)
    images = rng.normal(size=(80, 12, 17)).astype(np.float32)
    return ww.Recording(images, rng.poisson(2, (80, 4)), test=held_out if test else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    ww.save(recording(), folder / "session.npz")
    ww.save(recording(test=False), folder / "training-only.npz")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture
def run(command: Callable[..., Outcome], folder: Path) -> Callable[..., Outcome]:
    """Runs `whatwhere` in the folder; returns exit code, output and errors."""
    return partial(command, folder)


def test_fit_shows_plan_progress_and_scores_and_writes_the_run(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, err = run("fit", "session.npz", "--out", "run", "--config", "small.yaml")
    assert (code, err) == (0, "")
    assert re.search(
        r"factorized: 64 images to fit, 16 to validate, \d+ parameters, 2 strengths; about [\d.]+ Ki?B", out
    )
    assert re.search(r"of memory, \d+ ms a step, \d+ s at the least, \d+ s at the most\.", out)
    assert re.search(r"factorized \[2\] step 6 +done +loss 0?\.?\d", out)
    assert re.search(r"correlation +-?0\.\d{3} \[-?[01]\.\d{3}, -?[01]\.\d{3}\]", out)
    assert "no fev: fev needs noise-free rates" in out
    assert out.endswith("written to run\n")
    assert "nan" not in out
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert {"mean", "low", "high"} <= set(metrics["feve"])

    code, out, err = run("evaluate", "run", "session.npz", "--out", "judged")
    assert code == 0
    assert json.loads((folder / "judged" / "metrics.json").read_text()) == metrics
    code, _, err = run("evaluate", "run", "session.npz", "--out", "judged")
    assert (code, "judged holds scores already: use --overwrite" in err) == (4, True)
    kept = {path.name for path in (folder / "run").iterdir()}
    (folder / "run" / "scores.csv").unlink()
    assert run("evaluate", "run", "session.npz", "--out", "run", "--overwrite")[0] == 0
    assert {path.name for path in (folder / "run").iterdir()} == kept  # its model above all
    code, _, err = run("evaluate", "run", "session.npz", "--out", "other", "--overwrite")
    assert code == 0
    (folder / "other" / "model.safetensors").touch()
    code, _, err = run("evaluate", "run", "session.npz", "--out", "other", "--overwrite")
    assert (code, "other holds another run, which has scores of its own" in err) == (4, True)

    np.save(folder / "images.npy", recording().images[:3])
    code, out, err = run("predict", "run", "images.npy", "--out", "responses.npy")
    assert (code, out) == (0, "3 images, 4 neurons: responses.npy\n")
    expected = ww.load_model(folder / "run").predict(recording().images[:3])
    np.testing.assert_array_equal(np.load(folder / "responses.npy"), expected)
    assert run("predict", "run", "images.npy", "--out", "responses.npy")[0] == 4
    assert run("predict", "run", "images.npy", "--out", "responses.npy", "--overwrite")[0] == 0

    code, out, err = run("fit", "session.npz", "--out", "run", "--config", "small.yaml")
    assert code == 4
    assert err.startswith("error: RunError: run holds a run already: use --resume to go on with it, --overwrite")
    code, out, err = run("fit", "session.npz", "--out", "run", "--config", "small.yaml", "--resume")
    assert (code, err) == (0, "")
    assert "step" not in out, "a finished run is only read"
    assert run("fit", "session.npz", "--out", "run", "--config", "small.yaml", "--resume", "--seed", "1")[0] == 4
    assert "no run to resume" not in out
    assert run("fit", "session.npz", "--out", "run", "--model", "ridge", "--overwrite")[0] == 0
    code, out, err = run("fit", "session.npz", "--out", "new", "--model", "ridge", "--resume")
    assert code == 0
    assert "note: new holds no run to resume: this one begins anew" in out
    assert ww.load_model(folder / "run").name == "ridge"


def test_compare_prints_a_table_and_writes_what_differs(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, err = run(
        *("compare", "session.npz", "--models", "ridge, factorized", "--out", "both", "--config", "small.yaml"),
        *("--neurons", "3", "--set", "ridge.strengths=[1, 10]", "--set", "factorized.penalties.product_l1=1e-2"),
    )
    assert (code, err) == (0, "")
    for name in ("ridge", "factorized"):
        assert re.search(rf"^ {name} +-?0\.\d{{3}} \[", out, re.MULTILINE)
        assert (folder / "both" / name / "model.safetensors").exists()
        assert ww.load_model(folder / "both" / name).shapes_.n_neurons == 3
    assert re.search(r"ridge - factorized: [+-]0\.\d{3} \[.*\] in correlation, paired over 3 neurons \(Wilcoxon p", out)
    assert list(json.loads((folder / "both" / "metrics.json").read_text())) == ["ridge", "factorized"]
    assert (folder / "both" / "differences.csv").exists()
    assert ww.load_model(folder / "both" / "factorized").asked()["options"]["penalties"]["product_l1"] == 0.01
    assert list(ww.load_model(folder / "both" / "ridge").history_["strength"]) == [1, 10]


def test_a_recording_without_held_out_part_is_said_to_give_no_scores(run: Callable[..., Outcome]) -> None:
    for verb in (("fit",), ("compare", "--models", "factorized")):
        out = f"unscored-{verb[0]}"
        code, text, _ = run(*verb, "training-only.npz", "--out", out, "--config", "small.yaml")
        assert code == 0
        assert "the recording has no held-out part of two images or more: no scores." in text
    code, _, err = run("evaluate", "unscored-fit", "training-only.npz")
    assert code == 3
    assert "has no held-out part to score on" in err


def test_data_info_and_convert(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, _ = run("data", "convert", "session.npz", "session.h5")
    assert (code, out) == (0, "80 images, 4 neurons: session.h5\n")
    np.testing.assert_array_equal(ww.load(folder / "session.h5").responses, recording().responses)
    assert run("data", "convert", "session.npz", "session.h5")[0] == 3
    assert run("data", "convert", "session.npz", "session.h5", "--overwrite")[0] == 0
    code, out, _ = run("data", "info", "session.h5", "session.npz")
    assert code == 0
    assert "session.h5: hdf5" in out
    assert "n_neurons: 4" in out
    code, out, _ = run("data", "convert", "session.h5", "tree", "--to", "filetree")
    assert (code, out) == (0, "80 images, 4 neurons: tree\n")
    assert ww.load(folder / "tree").fingerprint() == ww.load(folder / "session.npz").fingerprint()
    code, out, _ = run("data", "info", "tree")
    assert "tree: filetree" in out
    assert "data/images  1" in out
    assert run("data", "convert", "session.h5", "session.nwb", "--set-target", "seconds=0.5")[0] == 0
    code, out, _ = run("data", "info", "session.nwb", "--set", "held_out=none")
    assert code == 0
    assert "presentations  107 intervals: start_time, stop_time, image_index, tier" in out
    assert "n_images: 107" in out
    code, out, _ = run("data", "convert", "session.nwb", "again.h5", "--set", "responses=responses")
    assert (code, out.splitlines()[-1]) == (0, "80 images, 4 neurons: again.h5")
    np.testing.assert_array_equal(ww.load(folder / "again.h5").responses, recording().responses)
    (folder / "broken.npz").write_bytes(b"PK")
    code, out, _ = run("data", "info", "session.h5", "broken.npz")
    assert code == 3
    assert "cannot be loaded: broken.npz is not a whole .npz file" in out


def test_predict_writes_what_the_suffix_says(run: Callable[..., Outcome], folder: Path) -> None:
    arguments = ["--model", "ridge", "--set", "ridge.strengths=[1.0]"]
    assert run("fit", "session.npz", "--out", "predicted", *arguments)[0] == 0
    code, out, err = run("predict", "predicted", "session.npz", "--of", "test", "--out", "predictions.csv")
    assert (code, out) == (0, "9 images, 4 neurons: predictions.csv\n"), err
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert (len(lines), lines[0]) == (10, "0,1,2,3")
    found = np.array([line.split(",") for line in lines[1:]], dtype=float)
    test = recording().test
    assert test is not None
    np.testing.assert_allclose(found, ww.load_model(folder / "predicted").predict(test.images), rtol=1e-5)
    code, _, err = run("predict", "predicted", "session.npz", "--out", "predictions.mat")
    assert code == 3
    assert "predictions are written to one of .npy, .npz, .h5, .hdf5, .csv" in err


MISTAKES = {
    "unknown verb": (["fitt", "session.npz"], 2, "No such command 'fitt'"),
    "unknown flag": (["fit", "session.npz", "--out", "x", "--neuron", "3"], 2, "No such option: --neuron"),
    "flag of the wrong type": (["fit", "session.npz", "--out", "x", "--seed", "a"], 2, "Invalid value for '--seed'"),
    "no output": (["fit", "session.npz"], 2, "Missing option '--out'"),
    "unknown model": (["fit", "session.npz", "--out", "x", "--model", "factorised"], 2, "Did you mean 'factorized'?"),
    "unknown models": (["compare", "session.npz", "--out", "x", "--models", "rigde"], 2, "Did you mean 'ridge'?"),
    "model twice": (
        ["compare", "session.npz", "--out", "x", "--models", "ridge,ridge"],
        2,
        "each can be compared once",
    ),
    "unknown concern": (["fit", "session.npz", "--out", "x", "--set", "cor.n_maps=2"], 2, "Did you mean 'core'?"),
    "unknown key": (["fit", "session.npz", "--out", "x", "--set", "core.n_map=2"], 2, "Did you mean 'n_maps'?"),
    "key without value": (["fit", "session.npz", "--out", "x", "--set", "core.n_maps"], 2, "concern.option=value"),
    "value of no YAML": (["fit", "session.npz", "--out", "x", "--set", "core.n_maps=[1"], 2, "cannot be read as YAML"),
    "value out of range": (["fit", "session.npz", "--out", "x", "--set", "core.n_maps=0"], 2, "core.n_maps"),
    "value of another type": (["fit", "session.npz", "--out", "x", "--set", "core=2"], 2, "core must hold options"),
    "unknown preset": (
        ["fit", "session.npz", "--out", "x", "--preset", "recordings"],
        2,
        "'recording', 'simulation' or 'nonlinear'",
    ),
    "negative neurons": (["fit", "session.npz", "--out", "x", "--neurons", "0"], 2, "neurons"),
    "contradiction": (
        ["fit", "session.npz", "--out", "x", "--set", "readout.nonlinearity=identity"],
        2,
        "the poisson loss needs predictions of 0 or more",
    ),
    "options ridge has not": (
        ["fit", "session.npz", "--out", "x", "--model", "ridge", "--set", "core.n_maps=2"],
        2,
        "ridge has none of them",
    ),
    "ridge's strengths": (
        ["fit", "session.npz", "--out", "x", "--model", "ridge", "--set", "ridge.strengths=[a]"],
        2,
        "strengths must be numbers above 0",
    ),
    "no such device": (["fit", "session.npz", "--out", "x", "--device", "tpu"], 2, "device 'tpu' cannot be used"),
    "overwrite and resume": (["fit", "session.npz", "--out", "x", "--overwrite", "--resume"], 2, "exclude each other"),
    "missing recording": (["fit", "nowhere.h5", "--out", "x"], 3, "nowhere.h5 does not exist"),
    "more neurons than there are": (["fit", "session.npz", "--out", "x", "--neurons", "9"], 3, "expected 1 to 4"),
    "missing config": (["fit", "session.npz", "--out", "x", "--config", "no.yaml"], 3, "no.yaml cannot be read"),
    "config of another kind": (["fit", "session.npz", "--out", "x", "--config", "list.yaml"], 3, "expected a mapping"),
    "config of no YAML": (["fit", "session.npz", "--out", "x", "--config", "session.npz"], 3, "cannot be read as YAML"),
    "config with unknown keys": (
        ["fit", "session.npz", "--out", "x", "--config", "bad.yaml"],
        2,
        "Did you mean 'seed'?",
    ),
    "missing run": (["evaluate", "nowhere", "session.npz"], 3, "nowhere does not exist: expected a run's folder"),
    "no run": (["evaluate", "list.yaml", "session.npz"], 3, "truncated or no safetensors file"),
    "missing images": (["predict", "nowhere", "a.npy", "--out", "b.npy"], 3, "nowhere does not exist"),
    "unknown format": (["data", "info", "session.npz", "--format", "npy"], 2, "Did you mean 'npz'?"),
    "unknown suffix": (["data", "convert", "session.npz", "session.txt"], 3, "expected one of"),
    "unknown target format": (
        ["data", "convert", "nowhere.h5", "tree2", "--to", "filtree"],
        2,
        "Did you mean 'filetree'?",
    ),
    "a folder not named": (["data", "convert", "nowhere.h5", "tree2"], 3, "for a folder the format 'filetree'"),
    "options of a reader": (["data", "info", "session.npz", "--set", "delay=1"], 2, "npz is read without options"),
    "options of a writer": (
        ["data", "convert", "nowhere.h5", "x.nwb", "--set-target", "second=1"],
        2,
        "Did you mean 'seconds'?",
    ),
    "compressed tree": (
        ["data", "convert", "nowhere.h5", "tree2", "--to", "filetree", "--compress"],
        2,
        "cannot be compressed",
    ),
    "unknown data set": (["data", "fetch", "antolik2015"], 2, "Did you mean 'antolik2016'?"),
    "a file as folder": (["fit", "session.npz", "--out", "list.yaml"], 4, "list.yaml is a file: choose a folder"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_its_exit_code_and_a_message(
    arguments: list[str], code: int, message: str, run: Callable[..., Outcome], folder: Path
) -> None:
    (folder / "list.yaml").write_text("[1, 2]")
    (folder / "bad.yaml").write_text("sed: 3")
    got, out, err = run(*arguments)
    assert (got, out) == (code, ""), err
    assert message in err
    assert not (folder / "x").exists() or not list((folder / "x").iterdir())


def test_training_that_fails_has_its_own_code(run: Callable[..., Outcome], folder: Path) -> None:
    arguments = ["--config", "small.yaml", "--set", "training.learning_rate=1e30"]
    code, _, err = run("fit", "session.npz", "--out", "nan", *arguments)
    assert code == 5
    assert "error: TrainingError: the loss is not finite at step" in err
    assert "Try a learning_rate below 1e+30" in err


def test_an_interrupt_outside_training_ends_quietly(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("whatwhere.formats.load", press)
    assert run("fit", "session.npz", "--out", "never")[0] == 130


# --------------------------------------------------------------------------------------------------------- options


def test_the_file_comes_first_then_assignments_then_flags(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(
        "seed: 1\nneurons: 7\ncore: {n_maps: 2, kernel_sizes: [5]}\nfactorized: {training: {patience: 1}}"
    )
    options, values = gather(config, ["seed=2", "core.n_maps=3", "training.learning_rate=1e-3"], {"seed": None})
    assert (options.seed, options.neurons) == (2, 7)
    assert values == {
        "core": {"n_maps": 3, "kernel_sizes": [5]},
        "factorized": {"training": {"patience": 1}},
        "training": {"learning_rate": 0.001},
    }
    assert gather(config, ["seed=2"], {"seed": 3})[0].seed == 3
    assert gather(config, [], {})[0].seed == 1
    assert gather(None, [], {})[0].seed == 0


def test_later_assignments_win_and_values_are_yaml() -> None:
    assert gather(None, ["core.n_maps=3", "core.n_maps=4"], {})[1] == {"core": {"n_maps": 4}}
    assert parse_assignment("core.batch_norm=false") == {"core": {"batch_norm": False}}
    assert parse_assignment("training.learning_rate=3e-4") == {"training": {"learning_rate": 3e-4}}
    assert parse_assignment("preprocessing.standardize=pixel") == {"preprocessing": {"standardize": "pixel"}}


def test_a_file_with_unknown_keys_is_refused_with_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("trainin: {}")
    with pytest.raises(OptionError, match=r"unknown option 'trainin'.* Did you mean 'training'\?"):
        gather(config, [], {})
    config.write_text("{")
    with pytest.raises(FormatError, match=r"options\.yaml cannot be read as YAML"):
        gather(config, [], {})


def test_the_presets_values_reach_the_model(run: Callable[..., Outcome], folder: Path) -> None:
    arguments = ["--preset", "simulation", "--config", "small.yaml", "--set", "training.batch_size=10", "--seed", "4"]
    assert run("fit", "session.npz", "--out", "preset", *arguments)[0] == 0
    asked = ww.load_model(folder / "preset").asked()
    assert asked["seed"] == 4
    assert (asked["options"]["training"]["loss"], asked["options"]["training"]["batch_size"]) == ("squared", 10)
    assert asked["options"]["core"]["n_maps"] == 2


# ------------------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            [],
            [
                "fit",
                "compare",
                "evaluate",
                "predict",
                "simulate",
                "demo",
                "data",
                "Exit codes: 0 well, 2 wrong options",
            ],
        ),
        (["fit"], ["--model", "ridge", "--resume", "--overwrite", "core.n_maps=16", "training.learning_rate=0.003"]),
        (["compare"], ["--models", "factorized,fixed-mask", "--set", "fixed-mask.penalties.feature_l1=0.01"]),
        (["evaluate"], ["--out", "metrics.json"]),
        (["predict"], ["--out", "(n_images, n_neurons)"]),
        (["demo"], ["--seed", "demo"]),
        (["fit"], ["report.html to explore", "recording, simulation, nonlinear (default recording)"]),
        (["report"], ["--recording", "report.html", "--overwrite", "whatwhere types", "whatwhere insilico"]),
        (["types"], ["types.csv", "--refits", "whatwhere report"]),
        (["insilico"], ["tuning.csv", "--mei", "whatwhere report", "--nonfinite", "experiments not asked for again"]),
        (["data"], ["info", "convert", "fetch"]),
        (["data", "info"], ["--format", "npz", "--set held_out=auto of nwb"]),
        (["data", "convert"], ["--compress", "--nonfinite", "--set held_out=auto", "--set-target seconds=1.0 of nwb"]),
        (["search"], ["HDF5, npz or NWB file", "one of recording, simulation, nonlinear", "cuda:1"]),
        (["fit-shared"], ["core.n_maps=16", "training.learning_rate=0.003"]),
        (["transfer"], ["what is not given is as the fitted model has it", "training.learning_rate", "readout.noise"]),
        (["data", "fetch"], ["antolik2016"]),
    ],
)
def test_help_teaches(arguments: list[str], words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = "".join(result.output.split())
    for word in words:
        assert word.replace(" ", "") in text, word


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "info"], ["--set-target", "seconds=1.0"]),
        (["fit-shared"], ["ridge.strengths", "ols.", "lnp.sparsity"]),
        (["transfer"], ["ridge.strengths", "core.n_maps", "training.learning_rate="]),
    ],
)
def test_help_offers_nothing_that_is_refused(arguments: list[str], words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for word in words:
        assert word not in result.output, word


def test_every_option_is_in_the_help_with_its_meaning() -> None:
    text = options_help()
    for concern, values in {
        "core": ww.CoreOptions,
        "readout": ww.ReadoutOptions,
        "penalties": ww.PenaltyOptions,
        "training": ww.TrainingOptions,
        "preprocessing": ww.PreprocessingOptions,
    }.items():
        for name in values.__dataclass_fields__:
            assert re.search(rf"^  {concern}\.{name}=.+  \w+", text, re.MULTILINE), name


def test_the_help_gives_the_defaults_that_recordings_really_have() -> None:
    text = options_help()
    assert (
        "penalties.mask_l1=[0.03, 0.06] (fixed-mask: 0.0; fully-connected: 0.0; gaussian: 0.0; posterior: 0.0)" in text
    )
    assert "training.learning_rate=0.003 (fully-connected: 0.0002)" in text
    for name in ("strengths", "standardize", "validation_fraction"):
        assert f"ridge.{name}=" in text


def test_evaluate_takes_nan_and_replaces_scores_when_told(run: Callable[..., Outcome], folder: Path) -> None:
    assert run("fit", "session.npz", "--out", "fitted-to-judge", "--config", "small.yaml")[0] == 0
    broken = recording()
    responses = broken.responses.copy()
    responses[3, 1] = np.nan
    np.savez(
        folder / "broken.npz",
        images=broken.images,
        responses=responses,
        test_images=broken.test.images,
        test_responses=broken.test.responses,
        test_image_index=broken.test.image_index,
    )
    assert run("evaluate", "fitted-to-judge", "broken.npz")[0] == 3
    assert run("evaluate", "fitted-to-judge", "broken.npz", "--nonfinite", "rows", "--out", "rejudged")[0] == 0
    assert run("evaluate", "fitted-to-judge", "session.npz", "--out", "rejudged")[0] == 4
    assert run("evaluate", "fitted-to-judge", "session.npz", "--out", "rejudged", "--overwrite")[0] == 0


def test_no_arguments_show_the_help(run: Callable[..., Outcome]) -> None:
    code, out, err = run()
    assert code in (0, 2)
    assert "compare" in out + err


# --------------------------------------------------------------------------------------------------- what is shown


def progress(step: int, left: float = 30.0) -> Progress:
    return Progress(Check(step, 1e-3, math.nan if step == 0 else 0.5, 0.4, 1.0), 0.3, 5, 100, left, 1)


def shown(monkeypatch: pytest.MonkeyPatch, events: list[Plan | Progress], terminal: bool) -> str:
    file = io.StringIO()
    monkeypatch.setattr(
        console, "out", Console(file=file, force_terminal=terminal, color_system=None, highlight=False, soft_wrap=True)
    )
    observe = console.observer("ridge", told={"known"})
    for event in events:
        observe(event)
    return file.getvalue()


def test_progress_is_few_lasting_lines_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(10, 2, 3000, 2, 5_000_000, 0.02, 90, 7300, ("known", "new"))
    text = shown(
        monkeypatch, [plan, progress(0), *(progress(step) for step in range(5, 100, 5)), progress(100, 0)], False
    )
    assert text.splitlines() == [
        "ridge: 10 images to fit, 2 to validate, 3,000 parameters, 2 strengths; about 4.8 MiB of memory, 20 ms a step,"
        " 1 min 30 s at the least, 2 h 1 min at the most.",
        "  note: new",
        "  ridge [2] step 0  validation 0.4000 (best 0.3000 at 5)",
        "  ridge [2] step 100  done  loss 0.5000  validation 0.4000 (best 0.3000 at 5)  rate 1.0e-03",
    ]
    assert "\x1b" not in text


def test_progress_stays_in_its_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, [progress(5), progress(10), progress(100, 0), progress(0)], True)
    first, *others = text.split("\x1b[1A\x1b[2K")  # up to the line before and erase it
    assert len(others) == 2
    assert "at least 30 s left" in first
    assert others[-1].count("\n") == 2  # what has ended stays, and the next fit has a line of its own
    assert text.endswith("\n")  # so does whatever comes after it, an error too


def test_the_program_itself(folder: Path) -> None:
    """The installed script, once: its exit code, and standard output and error apart."""
    program = Path(sys.executable).parent / "whatwhere"
    done = subprocess.run(
        [program, "fit", "nowhere.h5", "--out", "x"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: FormatError: nowhere.h5 does not exist. Check the spelling")
    assert len(done.stderr.splitlines()) == 1
