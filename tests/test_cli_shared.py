"""`whatwhere fit-shared` and `transfer`: their runs, and what they say of mistakes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from two_recordings import core, same, simulated, two

import whatwhere as ww

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def recordings() -> dict[str, ww.Recording]:
    return two()


# ------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def folder(recordings: dict[str, ww.Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for key, recording in recordings.items():
        ww.save(recording, folder / f"{key}.npz")
    (folder / "other").mkdir()
    ww.save(simulated(50, seed=7, n_neurons=3), folder / "other" / "a.npz")
    (folder / "options.yaml").write_text(
        "core: {kernel_sizes: [5], n_maps: 2}\ntraining: {max_steps: 6, check_every: 3}\n"
    )
    return folder


def test_the_verbs_fit_transfer_and_leave_ordinary_runs(command: Callable[..., Outcome], folder: Path) -> None:
    run = partial(command, folder)
    code, out, err = run("fit-shared", "a.npz", "b.npz", "--out", "run", "--config", "options.yaml")
    assert (code, err) == (0, "")
    assert "factorized: 200 images to fit, 50 to validate" in out
    assert "note: a step takes 72 images of each, all that b has to train on, not batch_size=128" in out
    assert "all neurons:" in out
    assert out.endswith("written to run\n")
    expected = json.loads((folder / "run" / "b" / "metrics.json").read_text())
    assert run("evaluate", "run/b", "b.npz", "--out", "judged")[0] == 0
    assert json.loads((folder / "judged" / "metrics.json").read_text()) == expected
    assert run("predict", "run/b", "b.npz", "--of", "test", "--out", "responses.npy")[0] == 0
    assert np.load(folder / "responses.npy").shape == (12, 4)
    code, out, err = run("evaluate", "run", "b.npz")
    assert code == 3
    assert "run holds models of several recordings" in err

    code, out, err = run("transfer", "run", "other/a.npz", "--out", "frozen")
    assert (code, err) == (0, "")
    assert same(core(ww.load_model(folder / "frozen")), core(ww.load_model(folder / "run" / "a")))  # type: ignore[arg-type]
    assert run("transfer", "run/b", "other/a.npz", "--out", "trained", "--core", "trained")[0] == 0
    assert not same(core(ww.load_model(folder / "trained")), core(ww.load_model(folder / "run" / "a")))  # type: ignore[arg-type]
    code, out, err = run("transfer", "run", "other/a.npz", "--out", "frozen", "--core", "trained", "--resume")
    assert code == 4
    assert "given_core.frozen (True, now False)" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["fit-shared", "a.npz", "other/a.npz", "--out", "x"],
            2,
            "are named 'a': give them names, NAME=PATH",
        ),
        (["fit-shared", "a.npz", "--model", "ridge", "--out", "x"], 2, "unknown model 'ridge'"),
        (["fit-shared", "a.npz", "--set", "devices=2", "--out", "x"], 2, "devices=2 on nodes=1 are for a fit of one"),
        (["transfer", "a.npz", "b.npz", "--out", "x"], 3, "a.npz"),
        (["transfer", "ridge", "b.npz", "--out", "x"], 2, "ridge holds a ridge model, which has no core"),
        (["transfer", "ridge", "b.npz", "--core", "cold", "--out", "x"], 2, "unknown core 'cold'"),
        (["transfer", "ridge", "b.npz", "--set", "preset=simulation", "--out", "x"], 2, "preset (='simulation') has"),
    ],
)
def test_mistakes_on_the_command_line_are_told(
    arguments: list[str], code: int, message: str, command: Callable[..., Outcome], folder: Path
) -> None:
    if "ridge" in arguments and not (folder / "ridge").exists():
        assert command(folder, "fit", "a.npz", "--model", "ridge", "--out", "ridge")[0] == 0
    found, _, err = command(folder, *arguments)
    assert found == code
    assert message in err.replace("\n", " ")
    assert not (folder / "x").exists()


def test_names_on_the_command_line(command: Callable[..., Outcome], folder: Path) -> None:
    code, _, err = command(
        folder, "fit-shared", "a.npz", "second=other/a.npz", "--out", "named", "--config", "options.yaml"
    )
    assert (code, err) == (0, "")
    assert list(ww.load_shared(folder / "named")) == ["a", "second"]
