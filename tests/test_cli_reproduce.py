"""`whatwhere reproduce`: what it says, writes and refuses, and that an interrupt loses nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from whatwhere import cli
from whatwhere.experiments import fig1
from whatwhere.experiments.grid import read_grid

Outcome = tuple[int, str, str]
TINY = ("fig1", "--out", "out", "--neurons", "3", "--images", "60,120", "--seeds", "0-1,4", "--workers", "1")


@pytest.fixture
def run(command: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs `whatwhere reproduce` in an empty folder; returns exit code, output and errors."""
    return partial(command, tmp_path, "reproduce")


def test_table_figure_and_page_are_written_and_agree(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, err = run(*TINY)
    assert (code, err) == (0, "")
    assert re.match(r"fig1: 18 points, in this process: very roughly \d+ s\.\n", out)
    assert re.search(r"  18 of 18: \w+, \d neurons?, \d+ images, seed \d: FEV -?\d\.\d{3}\n", out)
    assert out.endswith("18 points in out/results.csv\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("grid.json", "points", "results.csv", "figure1.png", "page.html")
    }
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert table.groupby("model")["n_neurons"].unique().map(list).to_dict() == {
        "independent": [3],
        "one": [1],
        "shared": [3],
    }
    assert set(table["seed"]) == {0, 1, 4}
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert all(f"<td>{value:.3f}</td>" in page for value in table["fev"])
    assert imread(tmp_path / "out" / "figure1.png")[..., :3].std() > 0.01
    expected = fig1.solve(fig1.Fig1Options(), fig1.Point("shared", 3, 60, 4))
    row = table[(table["model"] == "shared") & (table["n_images"] == 60) & (table["seed"] == 4)]
    assert row["fev"].item() == pytest.approx(expected.fev, abs=1e-9)


def test_resuming_does_the_missing_points_alone(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run(*TINY)[0] == 0
    before = pd.read_csv(tmp_path / "out" / "results.csv")
    code, _, err = run(*TINY)
    assert code == 4
    assert "out holds an experiment already: use --resume to go on with it" in err
    lost = tmp_path / "out" / "points" / "one-n1-d60-s4.json"
    lost.unlink()
    code, out, _ = run(*TINY, "--resume")
    assert code == 0
    assert "fig1: 18 points, 17 of them done already" in out
    assert lost.exists()
    columns = ["model", "n_neurons", "n_images", "seed", "fev", "strength", "n_validation"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "results.csv")[columns], before[columns])
    code, _, err = run(*TINY, "--resume", "--preset", "paper")
    assert code == 4
    assert "n_test_images (1000, now 10000)" in err
    code, out, _ = run(*TINY[:-2], "--workers", "1", "--overwrite", "--models", "one")
    assert "6 points in out/results.csv" in out


SMALL = ("fig1", "--out", "out", "--models", "one", "--neurons", "3", "--images", "60", "--workers", "1")


def test_an_option_of_the_experiment_is_set_and_kept(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, err = run(*SMALL, "--set", "image_size=[21,26]", "--set", "n_test_images=50")
    assert (code, err) == (0, ""), out
    asked = read_grid(tmp_path / "out").asked
    assert asked == {"experiment": "fig1", "image_size": [21, 26], "n_test_images": 50}
    code, out, err = run(*SMALL, "--resume")
    assert code == 4
    assert "image_size" in err, "other images are another experiment"


def test_a_failing_point_is_told_and_the_rest_is_done(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("out of kernels")

    monkeypatch.setattr(fig1, "pooled", broken)
    code, out, err = run(*TINY)
    assert (code, err) == (5, "")
    assert "failed: ValueError: out of kernels" in out
    assert "6 points failed; results.csv says why, and --resume tries them again." in out
    assert "12 points in out/results.csv" in out
    assert "Points that failed" in (tmp_path / "out" / "page.html").read_text(encoding="utf-8")


MISTAKES = {
    "unknown experiment": (["fig2"], "unknown experiment 'fig2'"),
    "unknown preset": (["fig3", "--preset", "quik"], "Did you mean 'quick'?"),
    "unknown model": (["fig3", "--models", "cnn,rigde"], "Did you mean 'ridge'?"),
    "no number": (["fig3", "--neurons", "ten"], "--neurons is 'ten': expected whole numbers with commas between"),
    "negative": (["fig3", "--seeds", "-1"], "--seeds is '-1': expected whole numbers"),
    "empty range": (["fig3", "--seeds", "3-1"], "seeds is empty: give at least one"),
    "no neurons": (["fig4", "--neurons", "0"], "neurons must be a whole number of at least 1, got 0"),
    "unknown option": (["fig3", "--set", "image_sise=[21,26]"], "Did you mean 'image_size'?"),
    "no size": (["fig4", "--set", "image_size=[21,0]"], "image_size: Input should be greater than or equal to 1"),
    "no workers": (["fig1", "--workers", "0"], "workers must be a whole number of at least 1, got 0"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_a_message_and_leaves_nothing(
    arguments: list[str], message: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    code, said, err = run(*arguments, "--out", "x")
    assert (code, said) == (2, ""), err
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_help_teaches() -> None:
    result = CliRunner().invoke(cli.app, ["reproduce", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for word in ("fig1, fig3, fig4", "--preset", "paper: the whole grid", "--resume", "0-4 stands for", "of each type"):
        assert word in text, word


def test_ctrl_c_keeps_what_is_done_and_ends_the_processes(tmp_path: Path) -> None:
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # nohup ignores it
    code = f"{heeding}; from whatwhere.cli import main; main()"
    command = [sys.executable, "-c", code, "reproduce", "fig1", "--out", "out"]
    command += ["--neurons", "2", "--images", "400", "--seeds", "0-400", "--workers", "2"]
    program = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    points, deadline = tmp_path / "out" / "points", time.monotonic() + 120
    while len(list(points.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does, the workers too
    out, _ = program.communicate(timeout=60)
    assert program.returncode == 130, out
    assert "interrupted: what is done is kept in out; go on with --resume." in out
    kept = read_grid(tmp_path / "out")
    assert 3 <= len(kept.done) < 1203
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == len(list(points.glob("*.json"))) == len(kept.table)
    while not gone(program.pid) and time.monotonic() < deadline + 30:
        time.sleep(0.05)
    assert gone(program.pid)


def gone(group: int) -> bool:
    """Whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
