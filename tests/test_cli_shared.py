"""`whatwhere fit-shared` and `transfer`: their runs, and what they say of mistakes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.estimators import CNN

CENTRES = np.array([[4, 5], [7, 12], [5, 8], [6, 3], [4, 13], [7, 7]])
Outcome = tuple[int, str, str]


def simulated(
    n_images: int = 160, seed: int = 0, n_neurons: int = 6, n_channels: int = 1, test: bool = True
) -> ww.Recording:
    """Poisson responses to the light in a patch of 3 x 3 of 12 x 17 pixels; 12 held-out images shown 4 times."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, n_channels, 12, 17)).astype(np.float32)
    shown, index = rng.normal(size=(12, n_channels, 12, 17)).astype(np.float32), np.repeat(np.arange(12), 4)

    def rates(some: np.ndarray) -> np.ndarray:
        patches = [some[:, -1, i - 1 : i + 2, j - 1 : j + 2].sum((1, 2)) for i, j in CENTRES[:n_neurons]]
        return np.logaddexp(0, np.stack(patches, 1))

    held_out = ww.HeldOut(shown, rng.poisson(rates(shown)[index]), index)
    return ww.Recording(images, rng.poisson(rates(images)), test=held_out if test else None)


def two() -> dict[str, ww.Recording]:
    return {"a": simulated(), "b": simulated(90, seed=1, n_neurons=4)}


@pytest.fixture(scope="module")
def recordings() -> dict[str, ww.Recording]:
    return two()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def core(model: CNN) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model_.core.state_dict().items()}


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
