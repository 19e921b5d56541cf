"""`whatwhere plan`: what it says, writes and refuses."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from whatwhere import cli
from whatwhere.experiments import planning
from whatwhere.experiments.experiment import Preset
from whatwhere.experiments.grid import read_grid
from whatwhere.experiments.planning import PLAN
from whatwhere.experiments.points import Outcome, Point

Answer = tuple[int, str, str]
TINY = ("dog", "--out", "out", "--neurons", "2,30", "--images", "64,256", "--seeds", "0-1,4", "--workers", "1")


def made_up(options: planning.PlanOptions, point: Point) -> Outcome:
    """Straight in log images, so that 128 reach 0.8 with 30 neurons, and with 2 none do."""
    value = {30: 0.7, 2: 0.1}[point.n_neurons] + 0.1 * (point.n_images > 64) * 2 + point.seed / 1000
    return Outcome(value * (1 if point.model == "posterior" else 0.9), 0.5, 0.1, point.n_images // 5)


@pytest.fixture
def run(
    command: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[..., Answer]:
    """Runs `whatwhere plan` in an empty folder, its fits of few steps; returns exit code, output and errors."""
    for name, preset in PLAN.presets.items():
        options = replace(preset.options, image_size=(20, 26), n_test_images=20, max_steps=4)
        monkeypatch.setitem(PLAN.presets, name, Preset(preset.grid, options))
    return partial(command, tmp_path, "plan")


@pytest.fixture
def quick(run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The same with outcomes made up."""
    experiment = replace(PLAN, solve=made_up)
    monkeypatch.setattr("whatwhere.cli.plan.PLAN", experiment)
    return run


def test_the_answer_is_printed_and_the_files_are_written(quick: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, err = quick(*TINY, "--seconds-per-image", "1.5")
    assert (code, err) == (0, "")
    assert re.match(r"plan: 24 points, in this process: very roughly \d+ \w+", out)
    lines = [line.split() for line in out.splitlines()]
    assert ["posterior", "30", "128", "125", "to", "128", "3.2"] in lines
    assert ["posterior", "2", ">", "256", "best", "FEV", "0.30"] in lines
    assert (
        "FEV 0.80 needs about 128 images (125 to 128 over 3 seeds) from 30 neurons with the posterior readout: 3.2"
        " minutes at 1.5 s an image.\n" in out
    )
    assert "the test set and its repeats are not counted." in out
    assert out.endswith("24 points in out/results.csv\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("grid.json", "points", "results.csv", "plan.csv", "plan.png", "page.html")
    }
    table = pd.read_csv(tmp_path / "out" / "plan.csv")
    assert table[table["reached"] == "yes"]["minutes"].min() == pytest.approx(128 * 1.5 / 60)
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["seed"]) == {0, 1, 4}


def test_another_target_asks_the_same_points(quick: Callable[..., Answer], tmp_path: Path) -> None:
    assert quick(*TINY)[0] == 0
    before = (tmp_path / "out" / "results.csv").read_bytes()
    code, _, err = quick(*TINY)
    assert code == 4
    assert "out holds an experiment already: use --resume to go on with it" in err
    code, out, _ = quick(*TINY, "--resume", "--target", "0.95", "--minutes-per-neuron", "0.5")
    assert code == 0
    assert "plan: 24 points, 24 of them done already" in out
    assert "FEV 0.95 is not reached on this grid with the factorized or posterior readout: the highest is 0.90" in out
    assert (tmp_path / "out" / "results.csv").read_bytes() == before
    code, _, err = quick(*TINY, "--resume", "--rate", "0.2")
    assert code == 4
    assert "mean_rate (0.1, now 0.2)" in err


def test_the_population_asked_for_is_fitted(run: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, err = run(
        *(
            "gabor",
            "--out",
            "out",
            "--neurons",
            "5",
            "--images",
            "40",
            "--seeds",
            "3",
            "--workers",
            "1",
            "--types",
            "2",
        ),
        *("--noise", "gain", "--mean-rate", "0.5", "--channels", "2", "--image-size", "19x25", "--target", "0.7"),
        *("--stimuli", "checkerboard", "--positions", "jittered-grid", "--set", "noise.variance=0.1"),
        *("--set", "stimuli.block_size=2", "--set", "population.variation=0"),
    )
    assert (code, err) == (0, ""), out
    results = read_grid(tmp_path / "out")
    assert len(results.done) == 2
    options = planning.PlanOptions(
        kind="gabor",
        n_types=2,
        positions="jittered-grid",
        stimuli="checkerboard",
        noise="gain",
        mean_rate=0.5,
        image_size=(19, 25),
        n_channels=2,
        n_test_images=20,
        further={"noise": {"variance": 0.1}, "stimuli": {"block_size": 2}, "population": {"variation": 0}},
        max_steps=4,
    )
    expected = planning.solve(options, Point("factorized", 5, 40, 3))
    row = results.done[results.done["model"] == "factorized"]
    assert row["fev"].item() == pytest.approx(expected.fev, abs=1e-6)
    assert "FEV 0.70 is not reached on this grid" in out


def test_a_failing_point_is_told_and_the_rest_is_done(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(options: planning.PlanOptions, point: Point) -> Outcome:
        if point.model == "factorized":
            raise ValueError("out of masks")
        return made_up(options, point)

    monkeypatch.setattr("whatwhere.cli.plan.PLAN", replace(PLAN, solve=broken))
    code, out, err = run(*TINY)
    assert (code, err) == (5, "")
    assert "failed: ValueError: out of masks" in out
    assert "FEV 0.80 needs about 128 images" in out
    assert "12 points in out/results.csv" in out
    assert "12 points failed; results.csv says why, and --resume tries them again." in out
    assert "Points that failed" in (tmp_path / "out" / "page.html").read_text(encoding="utf-8")


def test_an_interrupt_keeps_what_is_done(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def interrupted(options: planning.PlanOptions, point: Point) -> Outcome:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(point)
        return made_up(options, point)

    monkeypatch.setattr("whatwhere.cli.plan.PLAN", replace(PLAN, solve=interrupted))
    code, out, _ = run(*TINY)
    assert code == 130
    assert "interrupted: what is done is kept in out; go on with --resume." in out
    assert sorted(read_grid(tmp_path / "out").points()) == sorted(done)


MISTAKES = {
    "unknown kind": (["dgo"], 2, "unknown kind of population 'dgo'"),
    "unknown noise": (["dog", "--noise", "poison"], 2, "Did you mean 'poisson'?"),
    "unknown model": (["dog", "--models", "posterior,factorised"], 2, "Did you mean 'factorized'?"),
    "unknown preset": (["dog", "--preset", "quik"], 2, "Did you mean 'quick'?"),
    "target": (["dog", "--target", "80"], 2, "target must be a number above 0 and below 1, got 80"),
    "price": (["dog", "--seconds-per-image", "0"], 2, "seconds_per_image must be a number above 0, got 0"),
    "no number": (["dog", "--images", "many"], 2, "--images is 'many': expected whole numbers"),
    "too few images": (["dog", "--images", "4"], 2, "images must be a whole number of at least 8, got 4"),
    "size": (["dog", "--image-size", "48"], 2, "--image-size is '48': expected height and width"),
    "small": (["dog", "--image-size", "16x40"], 2, "kernel_size (=17) does not fit in image_size (=(16, 40))"),
    "option": (["dog", "--set", "noise.varience=1"], 2, "the noise 'paper' has no options"),
    "rate": (["dog", "--rate", "-1"], 2, "mean_rate must be a number above 0, got -1"),
    "counts": (
        ["dog", "--noise", "poisson", "--nonlinearity", "identity"],
        3,
        "Poisson counts need rates of 0 or more",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_a_message_and_leaves_nothing(
    arguments: list[str], code: int, message: str, run: Callable[..., Answer], tmp_path: Path
) -> None:
    found, said, err = run(*arguments, "--out", "x")
    assert (found, said) == (code, ""), err
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_help_teaches() -> None:
    result = CliRunner().invoke(cli.app, ["plan", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for word in ("dog, gabor, complex, mixture", "--target", "--rate", "--minutes-per-neuron", "--resume", "cheapest"):
        assert word in text, word
