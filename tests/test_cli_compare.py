"""`whatwhere compare` with seeds and numbers of images: what it says, draws, refuses, and takes up again."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import whatwhere as ww
from whatwhere import cli

SMALL = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "penalties": {"product_l1": 0.01},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}
ASKED = (
    "compare",
    "session.npz",
    "--config",
    "small.yaml",
    "--models",
    "factorized,ridge",
    "--set",
    "ridge.strengths=1",
)
Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli-compare")
    rng = np.random.default_rng(0)
    shown = np.repeat(np.arange(9), 3)
    held_out = ww.HeldOut(rng.normal(size=(9, 12, 17)), rng.poisson(2, (27, 4)), shown)
    images = rng.normal(size=(80, 12, 17)).astype(np.float32)
    ww.save(ww.Recording(images, rng.poisson(2, (80, 4)), test=held_out), folder / "session.npz")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture
def run(command: Callable[..., Outcome], folder: Path) -> Callable[..., Outcome]:
    return partial(command, folder)


def test_seeds_and_images_are_shown_drawn_and_taken_up_again(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, err = run(*ASKED, "--out", "curve", "--seeds", "2", "--images", "30, 50, all")
    assert (code, err) == (0, "")
    assert re.search(r"^ model +correlation .* seeds +sd over seeds", out, re.MULTILINE)
    assert re.search(r"^ factorized +-?0\.\d{3} \[.* 2 +0\.\d{3} *$", out, re.MULTILINE)
    assert re.search(r"^ factorized-ensemble +-?0\.\d{3} \[", out, re.MULTILINE)
    assert re.search(r"factorized - ridge: [+-]0\.\d{3} \[.*\] in correlation, paired over 4 neurons", out)
    for name in ("factorized", "ridge"):
        assert re.search(rf"twice the images \(160\) would give [+-]0\.\d{{3}} \[.*\] for {name}: \w+", out)
    assert "factorized 30 images seed 1: 24 images to fit, 6 to validate" in out
    folder = folder / "curve"
    for figure in ("scatter.png", "learning_curve.png"):
        assert f"curve/{figure}" in out
        assert (folder / figure).read_bytes()[:4] == b"\x89PNG"
    assert list(pd.read_csv(folder / "curve.csv")["n_images"].unique()) == [30, 50, 80]
    assert len(pd.read_csv(folder / "extrapolation.csv")) == 2
    kept = {name: (folder / name).read_text() for name in ("results.csv", "curve.csv", "neurons.csv", "metrics.json")}
    code, again, _ = run(*ASKED, "--out", "curve", "--seeds", "2", "--images", "30,50,all", "--resume")
    assert code == 0
    assert "images to fit" not in again, "nothing is fitted again"
    assert again[again.index("mean [95 %") :] == out[out.index("mean [95 %") :]
    assert {name: (folder / name).read_text() for name in kept} == kept
    assert run(*ASKED, "--out", "curve", "--overwrite")[0] == 0
    assert not (folder / "curve.csv").exists()
    assert not (folder / "images-30" / "ridge" / "model.safetensors").exists()
    assert list(json.loads((folder / "metrics.json").read_text())) == ["factorized", "ridge"]


def test_an_interrupt_says_what_is_kept(
    run: Callable[..., Outcome], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ww.Ridge, "fit", press)
        assert run(*ASKED, "--out", "interrupted")[0] == 130
    assert (folder / "interrupted" / "factorized" / "model.safetensors").exists()
    code, out, _ = run(*ASKED, "--out", "interrupted", "--resume")
    assert code == 0
    assert "factorized: 64 images" not in out
    assert "ridge: 64 images to fit" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "30,x"], "--images is '30,x': expected whole numbers with commas between"),
        (["--images", "30,81"], "images holds 81, but the recording has 80 to train and validate with"),
        (["--images", "30,30"], "images holds 30 more than once"),
        (["--images", "all,all"], "images holds 80 more than once"),
        (["--seeds", "0"], "seeds must be a whole number of at least 1, how many of them, got 0"),
    ],
)
def test_numbers_that_are_not_there_are_refused(
    arguments: list[str], message: str, run: Callable[..., Outcome], folder: Path
) -> None:
    code, out, err = run(*ASKED, "--out", "refused", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (folder / "refused").exists()


def test_the_help_tells_of_seeds_and_images() -> None:
    result = CliRunner().invoke(cli.app, ["compare", "--help"], env={"COLUMNS": "200"})
    text = "".join(result.output.split())
    for words in ("--seeds", "--images", "twice the images would give", "differences.csv has every pair", "or all"):
        assert words.replace(" ", "") in text, words
