"""`whatwhere search` as a user runs it: the table, the best, the figures, and flags that mean nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import whatwhere as ww
from whatwhere.simulation import gabor_population, simulate

SPACE = """
model: factorized
options:
  training: {max_steps: 20, check_every: 10, batch_size: 32}
space:
  core.kernel_sizes: [[5], [99]]
  penalties.product_l1: {low: 0.01, high: 0.1, log: true, n: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    population = gabor_population(4, image_size=(18, 22), nonlinearity="relu", seed=0)
    recording = simulate(population, 80, n_repeats=3, stimuli="white-noise", noise="poisson", mean_rate=0.5, seed=0)
    ww.save(recording, folder / "session.h5")
    (folder / "space.yaml").write_text(SPACE)
    return folder


def arguments(*more: str) -> list[str]:
    given = ["--space", "space.yaml", "--out", "out", "--neurons", "3", "--set", "core.n_maps=2"]
    return ["search", "session.h5", *given, *more]


def search(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from whatwhere.cli import main; main()", *arguments(*more)]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_a_search_tells_its_points_and_keeps_them(folder: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    done = search(folder, "--workers", "2")
    assert done.returncode == 5, done.stderr  # two points failed, and that is said
    assert "search: 4 points, 2 at a time." in done.stdout
    assert "4 of 4" in done.stdout
    assert "failed: InputError: the kernel of layer 1 (99 x 99 pixels) is larger" in done.stdout
    assert "the best one, on the held-out part" in done.stdout
    assert "2 done, 2 failed" in done.stdout or "2 failed, 2 done" in done.stdout
    table = pd.read_csv(folder / "out" / "results.csv")
    assert table["state"].value_counts().to_dict() == {"done": 2, "failed": 2}
    best = ww.load_model(folder / "out" / "best")
    assert best.shapes_.n_neurons == 3
    assert best.asked()["options"]["core"]["n_maps"] == 2
    for name in ("importance.png", "slices.png", "course.png"):
        assert (folder / "out" / name).stat().st_size > 0
    code, _, err = command(folder, *arguments())
    assert code == 4
    assert "holds a search already: use --resume" in err
    _, out, _ = command(folder, *arguments("--workers", "1", "--resume"))
    assert "4 points, 2 of them done already, 1 at a time." in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sampler", "tpe"], "the sampler tpe needs a number of points, n_trials: got None"),
        (["--points", "3"], "n_trials (=3) is for random and tpe"),
        (["--prune-after", "7"], "prune_after (=7) has nothing to act on without a pruner"),
        (["--pruner", "medium"], "Did you mean 'median'"),
        (["--scheduler", "tcp://x:1", "--workers", "2"], "a scheduler has its own"),
        (["--workers", "0"], "workers must be at least 1, got 0"),
        (["--set", "devices=2"], "leave devices and nodes at 1"),
        (["--set", "core.kernel_sizes=[5]"], "core.kernel_sizes is an axis of the space and among the options"),
        (["--set", "core.n_map=2"], "unknown option of core 'n_map'"),
    ],
)
def test_what_cannot_be_is_said(
    folder: Path, command: Callable[..., tuple[int, str, str]], flags: list[str], message: str, tmp_path: Path
) -> None:
    space, recording = str(folder / "space.yaml"), str(folder / "session.h5")
    code, _, err = command(tmp_path, "search", recording, "--space", space, "--out", "new", *flags)
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "new").exists()
