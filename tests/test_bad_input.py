"""What cannot be used, each refused with its own words before any work starts; and what looks odd and works.

Everything goes through the program as a user meets it: files in, an exit code and one message out.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import whatwhere as ww
from whatwhere import cli

N_IMAGES = 60
SMALL = [f"--set={option}" for option in ("core.kernel_sizes=[5]", "core.n_maps=2", "training.max_steps=4")]
Arrays = dict[str, np.ndarray]
Outcome = tuple[int, str, str]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "images": rng.normal(size=(N_IMAGES, 12, 17)).astype(np.float32),
        "responses": rng.poisson(2, (N_IMAGES, 3)).astype(np.float32),
        "test_images": rng.normal(size=(8, 12, 17)).astype(np.float32),
        "test_responses": rng.poisson(2, (24, 3)).astype(np.float32),
        "test_image_index": np.repeat(np.arange(8), 3),
        "identifiers": np.array(["a", "b", "c"]),
    }


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`whatwhere fit` on arrays or a path; where `works` is false, it fails the test that any step is made."""

    def call(data: Arrays | Path, *arguments: str, works: bool = False, out: str = "run") -> Outcome:
        if isinstance(data, dict):
            np.savez(tmp_path / "session.npz", **data)
            data = tmp_path / "session.npz"
        monkeypatch.setattr(
            sys, "argv", ["whatwhere", "fit", str(data), "--out", str(tmp_path / out), *SMALL, *arguments]
        )
        code = 0
        with monkeypatch.context() as patch:
            if not works:
                patch.setattr("whatwhere.training.Trainer.step", lambda run: pytest.fail("it went to work"))
                patch.setattr("whatwhere.estimators.cnn.initialize", lambda *a: pytest.fail("it went to work"))
            try:
                cli.main()
            except SystemExit as exit_:
                code = int(exit_.code or 0)
        out_text, err = capsys.readouterr()
        assert "Traceback" not in out_text + err
        if not works:
            assert not list((tmp_path / out).glob("*")), "a refused fit leaves nothing behind"
            assert len(err.strip().splitlines()) == 1
        return code, out_text, err

    return call


def with_value(name: str, where: tuple[int, ...], value: float) -> Arrays:
    changed = arrays()
    changed[name][where] = value
    return changed


REFUSED = {
    "more images than responses": (
        lambda: arrays() | {"responses": arrays()["responses"][:-1]},
        "responses has 59 rows but images has 60: one row per image is needed",
    ),
    "more test trials than indices": (
        lambda: arrays() | {"test_image_index": np.repeat(np.arange(8), 2)},
        "test responses has 24 rows but image_index has 16: one row per trial is needed",
    ),
    "NaN in a response": (
        lambda: with_value("responses", (7, 1), np.nan),
        r"responses holds 1 value that is not finite: neuron b in row 7\. .*nonfinite",
    ),
    "infinite values in responses": (
        lambda: with_value("responses", (slice(3, 5), 2), np.inf),
        "responses holds 2 values that are not finite: neuron c in row 3, neuron c in row 4",
    ),
    "NaN in a test response": (
        lambda: with_value("test_responses", (5, 0), np.nan),
        "test responses holds 1 value that is not finite: neuron (0|a) in trial 5",
    ),
    "NaN in an image": (
        lambda: with_value("images", (9, 2, 3), np.nan),
        r"images holds values that are not finite in 1 of the rows read: row 9\. Mend them",
    ),
    "negative responses": (
        lambda: with_value("responses", (4, 2), -0.5),
        r"negative value.*, but the Poisson loss needs rates of 0 or more: neuron c in row 4 \(-0\.5\)",
    ),
    "no neurons": (
        lambda: arrays() | {"responses": np.zeros((N_IMAGES, 0))},
        r"responses is empty, shape \(60, 0\): expected at least one row and one neuron",
    ),
    "no images": (
        lambda: {"images": np.zeros((0, 12, 17)), "responses": np.zeros((0, 3))},
        r"(images|responses) is empty, shape \(0, ",
    ),
    "one image": (
        lambda: {"images": np.zeros((1, 12, 17)), "responses": np.ones((1, 3))},
        "1 rows that show 1 image: a split needs at least 2",
    ),
    "images of two dimensions": (
        lambda: {"images": np.zeros((60, 204)), "responses": np.ones((60, 3))},
        r"images has 2 dimensions, shape \(60, 204\): expected 4, \(n_images, n_channels, height, width\)",
    ),
    "responses of three dimensions": (
        lambda: arrays() | {"responses": np.zeros((60, 3, 2))},
        r"responses has 3 dimensions, shape \(60, 3, 2\): expected 2",
    ),
    "text for responses": (
        lambda: arrays() | {"responses": np.full((60, 3), "many")},
        "responses has dtype <U4: expected real numbers",
    ),
    "test images of another size": (
        lambda: arrays() | {"test_images": np.zeros((8, 17, 12))},
        r"test images have shape \(1, 17, 12\) but images \(1, 12, 17\)",
    ),
    "an identifier twice": (
        lambda: arrays() | {"identifiers": np.array(["a", "b", "a"])},
        "'a' more than once",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_unusable_data_is_refused_before_any_work(
    data: Callable[[], Arrays], message: str, fit: Callable[..., Outcome]
) -> None:
    code, _, err = fit(data())
    assert code == 3
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("core.kernel_sizes=[13]", "kernel of layer 1 (13 x 13 pixels) is larger than the map that it meets (12 x 17)"),
        (
            "core.kernel_sizes=[[5, 18]]",
            "kernel of layer 1 (5 x 18 pixels) is larger than the map that it meets (12 x 17)",
        ),
        ("core.kernel_sizes=[9, 5]", "kernel of layer 2 (5 x 5 pixels) is larger than the map that it meets (4 x 9)"),
    ],
)
def test_a_kernel_larger_than_the_image_is_refused(option: str, message: str, fit: Callable[..., Outcome]) -> None:
    code, _, err = fit(arrays(), "--set", option)
    assert code == 3
    assert message in err


FILES = {
    "missing": (lambda path: None, "does not exist. Check the spelling"),
    "empty": (lambda path: path.write_bytes(b""), "is empty: it was not written to its end"),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 99), "is not a whole .npz file: it may be truncated"),
    "a folder": (lambda path: path.mkdir(), "is of no known format. Known are"),
}


@pytest.mark.parametrize(("write", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_none_is_refused(
    write: Callable[[Path], object], message: str, fit: Callable[..., Outcome], tmp_path: Path
) -> None:
    write(tmp_path / "data.npz")
    code, _, err = fit(tmp_path / "data.npz")
    assert code == 3
    assert "data.npz " in err
    assert message in err


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_a_truncated_file_is_refused(suffix: str, fit: Callable[..., Outcome], tmp_path: Path) -> None:
    whole = arrays()
    path = tmp_path / f"data.{suffix}"
    ww.save(ww.Recording(whole["images"], whole["responses"]), path)
    path.write_bytes(path.read_bytes()[:-500])
    code, _, err = fit(path)
    assert code == 3
    assert "truncated" in err


# ------------------------------------------------------------------------------------ what looks odd, and works


def metrics(folder: Path) -> dict:
    return json.loads((folder / "run" / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("nonfinite", "note", "n_neurons"),
    [
        ("rows", "note: left out 2 of 60 images that hold values that are not finite", 3),
        ("neurons", "note: left out 1 of 3 neurons that hold values that are not finite: b", 2),
    ],
)
def test_values_that_are_not_finite_are_left_out_on_demand(
    nonfinite: str, note: str, n_neurons: int, fit: Callable[..., Outcome], tmp_path: Path
) -> None:
    code, out, err = fit(with_value("responses", (slice(7, 9), 1), np.nan), "--nonfinite", nonfinite, works=True)
    assert code == 0, err
    assert out.count(note) == 1
    assert ww.load_model(tmp_path / "run").shapes_.n_neurons == n_neurons
    assert metrics(tmp_path)["correlation"]["n_neurons"] == n_neurons


def test_rounding_dust_becomes_zero_with_a_note(fit: Callable[..., Outcome]) -> None:
    code, out, err = fit(with_value("responses", (4, 2), -1e-8), works=True)
    assert code == 0, err
    assert out.count("note: 1 response negative by rounding (above -1e-06 deviations) set to 0") == 1


def test_negative_responses_work_with_the_squared_error(fit: Callable[..., Outcome]) -> None:
    options = ["--set", "training.loss=squared", "--set", "readout.nonlinearity=identity"]
    code, _, err = fit(with_value("responses", (4, 2), -0.5), *options, works=True)
    assert code == 0, err


def test_constant_neurons_are_kept_and_told(fit: Callable[..., Outcome], tmp_path: Path) -> None:
    constant = arrays()
    constant["responses"][:, 1] = constant["test_responses"][:, 1] = 0.1
    code, out, err = fit(constant, works=True)
    assert code == 0, err
    assert "note: 1 of 3 neurons never vary (kept, scored 0): b" in out
    assert metrics(tmp_path)["correlation"]["n_constant"] == 1
    assert metrics(tmp_path)["correlation"]["n_neurons"] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {key: data[key][:9] for key in ("images", "responses")},
        lambda data: (
            {**data, "responses": data["responses"][:, :1], "test_responses": data["test_responses"][:, :1]}
            | {"identifiers": data["identifiers"][:1]}
        ),
        lambda data: (
            data | {key: (data[key] * 40 + 100).clip(0, 255).astype(np.uint8) for key in ("images", "test_images")}
        ),
        lambda data: data | {key: data[key].astype(np.int64) for key in ("responses", "test_responses")},
        lambda data: data | {key: np.stack([data[key]] * 3, 1) for key in ("images", "test_images")},
        lambda data: {key: data[key] for key in ("images", "responses")},
    ],
    ids=["fewer images than a batch", "one neuron", "bytes", "integers", "three channels", "no held-out part"],
)
def test_odd_data_works(change: Callable[[Arrays], Arrays], fit: Callable[..., Outcome], tmp_path: Path) -> None:
    data = change(arrays())
    code, out, err = fit(data, works=True)
    assert (code, err) == (0, "")
    assert ww.load_model(tmp_path / "run").predict(data["images"]).shape == data["responses"].shape
    if "test_images" in data:
        assert -1 <= metrics(tmp_path)["correlation"]["mean"] <= 1
    else:
        assert "the recording has no held-out part of two images or more: no scores." in out
        assert metrics(tmp_path) == {}
