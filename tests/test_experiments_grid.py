"""A grid of points: kept as they are done, whoever dies meanwhile, and only the missing ones done again."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from whatwhere.errors import FormatError, InputError, OptionError, RunError
from whatwhere.experiments.grid import GridPlan, GridProgress, read_grid, run_grid
from whatwhere.experiments.points import ALL, Failure, Outcome, Point, is_done, read_arrays, write_point
from whatwhere.workers import DIED

SOLVERS = """
import os, signal
from pathlib import Path
import numpy as np
from whatwhere.experiments.points import Outcome

def solve(point):
    rng = np.random.default_rng([point.n_neurons, point.n_images, point.seed])
    fev = 1 - 10 * rng.random() / point.n_images - (point.model == "bad") * 3
    return Outcome(fev, 0.25, 0.1, point.n_images // 5, {"hit_rate": rng.random()}, {"kernel": rng.random((2, 3))})

def fragile(point):
    if point.model == "bomb" or (point.model == "once" and first_time()):
        os.kill(os.getpid(), signal.SIGKILL)
    if point.model == "broken":
        raise ValueError("no such kernel:\\n  7")
    return solve(point)

def first_time():
    flag = Path(__file__).parent / "flag"
    first = not flag.exists()
    flag.touch()
    return first

def odd(point):
    return Outcome(float("nan") if point.seed else 0.5, 0.1)
"""
GRID = [Point(model, n, d, seed) for model in ("good", "bad") for n in (1, 3) for d in (20, 40) for seed in (0, 1)]
ASKED = {"experiment": "test", "image_size": (5, 7), "strength": 0.1}


@pytest.fixture
def solvers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that processes made afresh can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "grid_solvers.py").write_text(SOLVERS)
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("grid_solvers", None)
    import grid_solvers

    return grid_solvers


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_point_is_a_row_and_keeps_its_arrays(tmp_path: Path, solvers: ModuleType) -> None:
    out = tmp_path / "out"
    table = run_grid(GRID, solvers.solve, out, asked=ASKED, workers=1)
    pd.testing.assert_frame_equal(table, pd.read_csv(out / "results.csv"), check_dtype=False)
    assert list(table.columns[:9]) == [
        *("model", "n_neurons", "n_images", "seed", "fev", "fev_clipped", "seconds", "strength", "n_validation")
    ]
    keys = table[["model", "n_neurons", "n_images", "seed"]].apply(tuple, axis=1).tolist()
    assert keys == [(p.model, p.n_neurons, p.n_images, p.seed) for p in sorted(GRID)]
    for row, point in zip(table.itertuples(), sorted(GRID), strict=True):
        expected = solvers.solve(point)
        assert (row.fev, row.hit_rate) == (expected.fev, expected.measured["hit_rate"])
        assert row.fev_clipped == max(expected.fev, 0)
        assert row.n_validation == point.n_images // 5
        np.testing.assert_array_equal(read_arrays(out, point)["kernel"], expected.arrays["kernel"])
    assert (table["fev_clipped"] == 0).any()
    assert set(table["status"]) == {"done"}


def test_a_second_call_does_only_what_is_missing_to_the_same_end(tmp_path: Path, solvers: ModuleType) -> None:
    out, done = tmp_path / "out", []
    run_grid(GRID, solvers.solve, out, asked=ASKED, workers=1)
    before = files(out)
    lost = [GRID[3], GRID[8]]
    for point in lost:
        (out / "points" / f"{point.name}.json").unlink()
    (out / "points" / f"{lost[0].name}.npz").unlink()

    def counted(point: Point) -> Outcome:
        done.append(point)
        return solvers.solve(point)

    run_grid(GRID, counted, out, asked=ASKED, workers=1, resume=True)
    assert sorted(done) == sorted(lost)
    assert files(out) == before


def test_more_points_join_those_that_are_there(tmp_path: Path, solvers: ModuleType) -> None:
    out = tmp_path / "out"
    run_grid(GRID[:4], solvers.solve, out, asked=ASKED, workers=1)
    table = run_grid(GRID[4:6], solvers.solve, out, asked=ASKED, workers=1, resume=True)
    assert len(table) == 6


def test_a_failing_point_is_kept_with_its_reason_and_tried_again(tmp_path: Path, solvers: ModuleType) -> None:
    out, points = tmp_path / "out", [*GRID[:2], Point("broken", 1, 20, 0)]
    table = run_grid(points, solvers.fragile, out, asked=ASKED, workers=1)
    assert table["status"].tolist() == ["failed", "done", "done"]
    assert table["reason"][0] == "ValueError: no such kernel: 7"
    assert table["fev"].isna().tolist() == [True, False, False]
    assert not is_done(out, points[2])
    assert len(read_grid(out).done) == 2
    table = run_grid(points, solvers.solve, out, asked=ASKED, workers=1, resume=True)
    assert table["status"].tolist() == ["done"] * 3


def test_an_outcome_that_is_not_finite_is_a_failure(tmp_path: Path, solvers: ModuleType) -> None:
    points = [Point("m", 1, 20, 0), Point("m", 1, 20, 1)]
    table = run_grid(points, solvers.odd, tmp_path / "out", asked=ASKED, workers=1)
    assert table["status"].tolist() == ["done", "failed"]
    assert table["reason"][1] == "m-n1-d20-s1: fev is not finite, nothing to put into a table."


def test_a_killed_process_loses_no_point_but_one_that_kills_it_again(tmp_path: Path, solvers: ModuleType) -> None:
    points = [Point("once", 1, 20, 0), *GRID[:4], Point("bomb", 1, 20, 0), Point("broken", 1, 20, 0)]
    table = run_grid(points, solvers.fragile, tmp_path / "two", asked=ASKED, workers=2)
    failed = table[table["status"] == "failed"]
    assert failed["model"].tolist() == ["bomb", "broken"]
    assert failed["reason"].tolist() == [DIED, "ValueError: no such kernel: 7"]
    assert Path(solvers.__file__).with_name("flag").exists()
    survivors = [point for point in points if point.model != "bomb"]
    one = run_grid(survivors, solvers.fragile, tmp_path / "one", asked=ASKED, workers=1)  # in this process: the same
    pd.testing.assert_frame_equal(table[table["model"] != "bomb"].reset_index(drop=True), one)


def test_what_is_done_before_an_interrupt_is_kept(tmp_path: Path, solvers: ModuleType) -> None:
    out, done = tmp_path / "out", []

    def interrupted(point: Point) -> Outcome:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(point)
        return solvers.solve(point)

    with pytest.raises(KeyboardInterrupt):
        run_grid(GRID, interrupted, out, asked=ASKED, workers=1)
    assert len(pd.read_csv(out / "results.csv")) == 3
    assert sorted(read_grid(out).points()) == sorted(done)
    assert len(run_grid(GRID, solvers.solve, out, asked=ASKED, workers=1, resume=True)) == len(GRID)


def test_a_folder_begun_with_something_else_is_refused(tmp_path: Path, solvers: ModuleType) -> None:
    out = tmp_path / "out"
    run_grid(GRID[:1], solvers.solve, out, asked=ASKED, workers=1)
    before = files(out)
    other = {**ASKED, "strength": 0.2}
    with pytest.raises(RunError, match=r"begun with something else: strength \(0.1, now 0.2\)"):
        run_grid(GRID, solvers.solve, out, asked=other, workers=1, resume=True)
    with pytest.raises(RunError, match="holds an experiment already: use --resume"):
        run_grid(GRID, solvers.solve, out, asked=ASKED, workers=1)
    with pytest.raises(OptionError, match="overwrite and resume exclude each other"):
        run_grid(GRID, solvers.solve, out, asked=ASKED, workers=1, resume=True, overwrite=True)
    with pytest.raises(RunError, match=r"results.csv is a file: choose a folder"):
        run_grid(GRID, solvers.solve, out / "results.csv", asked=ASKED, workers=1)
    assert files(out) == before
    (out / "notes.txt").write_text("mine")
    table = run_grid(GRID[1:2], solvers.solve, out, asked=other, workers=1, overwrite=True)
    assert len(table) == 1
    assert (out / "notes.txt").read_text() == "mine"
    assert read_grid(out).asked["strength"] == 0.2


def test_damaged_files_are_named(tmp_path: Path, solvers: ModuleType) -> None:
    out = tmp_path / "out"
    run_grid(GRID[:1], solvers.solve, out, asked=ASKED, workers=1)
    (out / "points" / f"{GRID[0].name}.npz").write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"s0.npz cannot be read"):
        read_arrays(out, GRID[0])
    (out / "points" / f"{GRID[0].name}.json").write_text("{")
    with pytest.raises(FormatError, match=r"s0.json cannot be read .* delete it, and run again"):
        run_grid(GRID[:1], solvers.solve, out, asked=ASKED, workers=1, resume=True)
    (out / "grid.json").write_text("[]")
    with pytest.raises(FormatError, match=r"grid.json cannot be read .* begin anew with --overwrite"):
        run_grid(GRID[:1], solvers.solve, out, asked=ASKED, workers=1, resume=True)
    with pytest.raises(FormatError, match="expected the folder of an experiment"):
        read_grid(tmp_path)


def test_the_dearest_points_are_begun_first_and_progress_counts(tmp_path: Path, solvers: ModuleType) -> None:
    events: list[GridPlan | GridProgress] = []
    out, points = tmp_path / "out", [*GRID[:6], Point("broken", 1, 20, 0)]
    run_grid(points[:2], solvers.fragile, out, asked=ASKED, workers=1)
    run_grid(
        *(points, solvers.fragile, out),
        asked=ASKED,
        cost=lambda point: point.n_images * point.n_neurons,
        workers=1,
        resume=True,
        observer=events.append,
    )
    plan, *progress = events
    assert plan == GridPlan(n_points=7, n_done=2, n_workers=1, seconds=40 + 40 + 60 + 60 + 20)
    assert [one.point.n_images * one.point.n_neurons for one in progress] == [60, 60, 40, 40, 20]
    assert [one.n_done + one.n_failed for one in progress] == [3, 4, 5, 6, 7]
    assert progress[-1].seconds_left == 0
    assert [one.reason for one in progress if one.fev is None] == ["ValueError: no such kernel: 7"]


def test_a_curve_is_median_and_range_over_seeds(tmp_path: Path) -> None:
    def solve(point: Point) -> Outcome:
        return Outcome({0: -0.5, 1: 0.2, 2: 0.9}[point.seed] * point.n_images / 20, 1.0, None, ALL)

    points = [Point("m", 2, d, seed) for d in (20, 10) for seed in range(3)]
    table = run_grid([*points, Point("m", 3, 10, 0)], solve, tmp_path / "out", asked=ASKED, workers=1)
    curve = read_grid(tmp_path / "out").curve("m", 2)
    assert [point.n_images for point in curve] == [10, 20]
    assert curve[1] == (20, 0.2, 0.0, 0.9, 3)
    assert read_grid(tmp_path / "out").curve("m", 2, "fev")[0].low == -0.25
    assert set(table["n_validation"]) == {"all"}
    assert table["strength"].isna().all()


def test_files_of_a_point_are_whole(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    point = Point("m", 1, 20, 0)
    with pytest.raises(InputError, match="hit_rate is not finite"):
        write_point(tmp_path, point, Outcome(0.5, 1.0, measured={"hit_rate": np.inf}, arrays={"a": np.ones(2)}))
    assert not list((tmp_path / "points").iterdir())
    write_point(tmp_path, point, Failure("why"))
    row = json.loads((tmp_path / "points" / "m-n1-d20-s0.json").read_text())
    assert row["reason"] == "why"
    assert not is_done(tmp_path, point)
