"""`whatwhere insilico`: what it writes, what it says, and what it refuses before anything is read."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("insilico"), np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 17), dtype=np.uint8)
    recording = ww.Recording(images, rng.poisson(images[:, 5, 6:9] / 60))
    ww.save(recording, folder / "session.h5")
    options = {"core": {"kernel_sizes": [5], "n_maps": 2}, "training": {"max_steps": 6, "check_every": 3}}
    ww.make_model("factorized", options).fit(recording).save(folder / "run")
    ww.Ridge(strengths=[1.0]).fit(recording).save(folder / "filters")
    return folder


@pytest.fixture
def run(command: Callable[..., Outcome], folder: Path) -> Callable[..., Outcome]:
    """Runs `whatwhere` in the folder; returns exit code, output and errors."""
    return partial(command, folder)


def test_fields_and_gratings_are_what_is_always_done(run: Callable[..., Outcome], folder: Path) -> None:
    for model in ("run", "filters"):
        code, out, err = run("insilico", model, "--out", f"asked-{model}")
        assert (code, err) == (0, "")
        assert "linearised receptive fields of 3 neurons\ngratings for 3 neurons\n" in out
        written = sorted(path.name for path in (folder / f"asked-{model}").iterdir())
        assert written == ["curves.npz", "fields.npz", "fields.png", "orientation.png", "tuning.csv"]
        assert all(f"asked-{model}/{name}" in out for name in written)
        assert len(pd.read_csv(folder / f"asked-{model}" / "tuning.csv")) == 3


def test_another_recording_than_was_fitted_is_said_to_be(run: Callable[..., Outcome], folder: Path) -> None:
    fitted = ww.load(folder / "session.h5")
    ww.save(ww.Recording(fitted.images, fitted.responses[::-1], name="other"), folder / "other.h5")
    for name, told in (("session.h5", False), ("other.h5", True)):
        code, out, _ = run("insilico", "filters", "--out", f"of-{name}", "--recording", name, "--no-gratings")
        assert code == 0
        said = "note: other is not what the model was fitted to, or not all of it" in " ".join(out.split())
        assert said == ("note:" in out) == told


def test_all_experiments_on_some_neurons_with_the_recordings_images(run: Callable[..., Outcome], folder: Path) -> None:
    code, out, _ = run(
        *("insilico", "run", "--out", "all", "--recording", "session.h5", "--sizes", "--mei", "--neurons", "2"),
        *("--pixel-range", "0", "255", "--smoothness", "0.5", "--memory", "0.01"),
    )
    assert code == 0
    assert "most exciting images of 2 neurons" in out
    assert {"size.png", "most_exciting.png", "most_exciting.npz"} <= {path.name for path in (folder / "all").iterdir()}
    with np.load(folder / "all" / "most_exciting.npz") as kept:
        assert kept["images"].shape == (2, 1, 12, 17)
        assert kept["images"].min() >= 0
        assert kept["images"].max() <= 255
    table = pd.read_csv(folder / "all" / "tuning.csv")
    assert {"orientation", "preferred_radius", "most_exciting_response", "best_image_response"} <= set(table.columns)
    assert run("insilico", "run", "--out", "all", "--no-fields")[0] == 4
    assert run("insilico", "run", "--out", "all", "--no-fields", "--overwrite")[0] == 0
    assert sorted(path.name for path in (folder / "all").iterdir()) == ["curves.npz", "orientation.png", "tuning.csv"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--no-fields", "--no-gratings"], 2, "no experiment is asked for"),
        (["--no-gratings", "--sizes"], 2, "sizes are tested with the gratings"),
        (["--smoothness", "2"], 2, "smoothness: of most exciting images, which are not asked for: add --mei."),
        (["--seed", "0"], 2, "--seed has nothing to act on without --neurons or --mei: leave it out."),
        (["--format", "npz"], 2, "is of a recording, and none is given"),
        (["--mei", "--pixel-range", "2", "1"], 2, "the highest of pixel_range must be a number above 2, got 1"),
        (["--mei", "--pixel-range", "0", "1"], 2, "is not within pixel_range"),
        (["--memory", "0"], 2, "memory_gib must be above 0"),
        (["--recording", "absent.npz"], 3, "absent.npz"),
    ],
)
def test_what_does_not_fit_is_said(
    run: Callable[..., Outcome], folder: Path, arguments: list[str], code: int, message: str
) -> None:
    found, _, err = run("insilico", "run", "--out", "refused", *arguments)
    assert found == code
    assert message in " ".join(err.split())
    assert not (folder / "refused").exists()
