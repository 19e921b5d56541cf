"""The figure and the page of a plan: what they show is what was measured."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from whatwhere.errors import FormatError, RunError
from whatwhere.experiments.grid import GridResults, read_grid, run_grid
from whatwhere.experiments.images_needed import Goal, find_needs, write_needs
from whatwhere.experiments.planning import PLAN, PlanOptions
from whatwhere.experiments.points import Outcome, Point
from whatwhere.report.plan import draw_plan, planned_recording

OPTIONS = PlanOptions(kind="gabor", n_types=3, image_size=(20, 30), further={"population": {"variation": 0.0}})
ASKED = {"experiment": "plan", **vars(OPTIONS)}
IMAGES = (64, 256, 1024)
CURVES = {
    ("factorized", 10): (0.1, 0.4, 0.6),
    ("factorized", 100): (0.2, 0.5, 0.9),
    ("posterior", 10): (0.3, 0.7, 0.65),
    ("posterior", 100): (0.6, 0.9, 0.95),
}


def made_up(point: Point) -> Outcome:
    """The curve, 0.05 less with seed 0 and more with seed 2."""
    middle = CURVES[point.model, point.n_neurons][IMAGES.index(point.n_images)]
    return Outcome(middle + 0.05 * (point.seed - 1), 1.0, 0.1, 13)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("plan")
    grid = PLAN.grid("quick", neurons=[10, 100], images=IMAGES, seeds=[0, 1, 2])
    run_grid(PLAN.points(grid), made_up, folder, asked=ASKED, workers=1)
    return read_grid(folder)


def panels(figure: Figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes}


def markers(axes: Axes, marker: str) -> list[list[float]]:
    """Places of single markers of that kind, those of the legend left out."""
    points = [line.get_xydata() for line in axes.lines if line.get_marker() == marker]
    return [np.asarray(at)[0].tolist() for at in points if len(at) == 1]


def test_curves_are_medians_with_the_range_over_seeds(results: GridResults) -> None:
    shown = panels(planned_recording(results, Goal(0.8)))
    assert list(shown) == ["factorized readout", "posterior readout", "for FEV 0.80"]
    for readout in ("factorized", "posterior"):
        for container in shown[f"{readout} readout"].containers:
            n_neurons = int(container.get_label().split()[0])
            points = np.asarray(container.lines[0].get_xydata())
            np.testing.assert_allclose(points, list(zip(IMAGES, CURVES[readout, n_neurons], strict=True)))
            bars = np.array([bar[:, 1] for bar in container.lines[2][0].get_segments()])
            np.testing.assert_allclose(bars[:, 1] - bars[:, 0], 0.1)
    lines = [np.asarray(line.get_ydata()) for line in shown["posterior readout"].lines if line.get_linestyle() == "-"]
    assert any(np.allclose(line, [0.3, 0.675, 0.675]) for line in lines if len(line) == 3)  # made monotone
    targets = [line for line in shown["factorized readout"].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in targets] == [0.8]


def test_the_cheapest_recording_is_marked_once_in_each_place(results: GridResults) -> None:
    figure = planned_recording(results, Goal(0.8))
    shown = panels(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["10 neurons", "100 neurons", "cheapest: 162 images from 100 neurons"]
    expected = math.ceil(64 * 4 ** (2 / 3))  # 0.6, 0.9
    assert markers(shown["posterior readout"], "*") == [[expected, 0.8]]
    assert markers(shown["factorized readout"], "*") == []
    ((x, y),) = markers(shown["for FEV 0.80"], "*")
    assert (x, y) == (pytest.approx(100, rel=0.05), expected)


def test_needs_have_their_range_and_ends_of_the_grid_are_hollow(results: GridResults) -> None:
    axes = panels(planned_recording(results, Goal(0.58)))["for FEV 0.58"]
    needs = {(need.model, need.n_neurons): need for need in find_needs(results.table, Goal(0.58))}
    filled = {line.get_markerfacecolor() != "white": [] for line in axes.lines}
    for line in axes.lines:
        if line.get_marker() in "oD" and len(line.get_xydata()) == 1:
            filled[line.get_markerfacecolor() != "white"].append(line.get_ydata()[0])
    assert filled[False] == [needs["posterior", 100].n_images] == [64]
    assert sorted(filled[True]) == sorted(need.n_images for need in needs.values() if not need.at_most)
    bars = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2 and line.get_linewidth() == 0.8]
    ranges = [[need.low, min(need.high, 1024)] for need in needs.values()]
    assert sorted(map(list, bars)) == sorted(ranges)
    ends = [arrow.xyann for arrow in axes.texts]
    assert sorted(y for _, y in ends) == [-14, 14]  # at most 64; a seed of ten neurons that needs more than 1,024


def test_a_target_that_is_not_reached_has_no_star(results: GridResults) -> None:
    shown = panels(planned_recording(results, Goal(0.99)))
    assert not any(markers(axes, "*") for axes in shown.values())
    hollow = [line for line in shown["for FEV 0.99"].lines if line.get_markerfacecolor() == "white"]
    assert [line.get_ydata()[0] for line in hollow] == [1024] * 4


def test_one_readout_one_size_and_one_number_of_images_can_be_drawn(tmp_path: Path) -> None:
    run_grid([Point("posterior", 10, 256, 0)], made_up, tmp_path, asked=ASKED, workers=1)
    figure = planned_recording(read_grid(tmp_path), Goal(0.8))
    assert list(panels(figure)) == ["posterior readout", "for FEV 0.80"]
    figure.savefig(tmp_path / "one.png")
    assert imread(tmp_path / "one.png")[..., :3].std() > 0.01


def test_the_files_agree(results: GridResults) -> None:
    needs = find_needs(results.table, Goal(0.8, 3.0))
    files = [write_needs(needs, results.folder), *draw_plan(results.folder, Goal(0.8, seconds_per_image=3.0))]
    assert [file.name for file in files] == ["plan.csv", "plan.png", "page.html"]
    table = pd.read_csv(files[0])
    assert table["images_needed"].fillna(np.inf).tolist() == [need.n_images for need in needs]
    assert table["minutes"].dropna().tolist() == [need.minutes for need in needs if need.reached]
    assert imread(files[1])[..., :3].std() > 0.01
    html = files[2].read_text(encoding="utf-8")
    for text in (
        "FEV 0.80 needs about 162 images (128 to 200 over 3 seeds) from 100 neurons with the posterior readout:"
        " 8.1 minutes at 3 s an image.",
        "with the factorized readout: 36 minutes at 3 s an image",
        "gabor neurons, 3 types, mean rate 0.1 an image, paper noise, white-noise of 1 x 20 x 30 pixels",
        "3 seeds, each a population",
        "Further options: population.variation=0.0.",
        "the test set and its repeats are not counted",
    ):
        assert text in html, text
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)]
    assert ["posterior", "100", "162"] in [row[:3] for row in rows]
    assert ["factorized", "10", "-", "-", "-", "", "no", "0.600"] in [row[:8] for row in rows]
    assert sum(len(row) > 8 and row[2] in ("64", "256", "1024") for row in rows) == 36  # all points
    assert "http" not in html
    assert html.count("data:image/png;base64,") == 1


def test_another_goal_replaces_the_plan_and_leaves_the_points(results: GridResults) -> None:
    before = (results.folder / "results.csv").read_bytes()
    for fev in (0.9, 0.3):
        draw_plan(results.folder, Goal(fev))
        table = pd.read_csv(write_needs(find_needs(results.table, Goal(fev)), results.folder))
    assert table["reached"].tolist() == ["yes", "yes", "at most", "at most"]
    assert (results.folder / "results.csv").read_bytes() == before


def test_points_that_failed_are_on_the_page(tmp_path: Path) -> None:
    def poor(point: Point) -> Outcome:
        if point.seed:
            raise ValueError("a < b")
        return made_up(point)

    run_grid([Point("posterior", 10, 256, seed) for seed in (0, 1)], poor, tmp_path, asked=ASKED, workers=1)
    html = draw_plan(tmp_path, Goal())[-1].read_text(encoding="utf-8")
    assert "ValueError: a &lt; b" in html
    assert "1 seed, each a population" in html


def test_nothing_is_planned_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected the folder of an experiment"):
        draw_plan(tmp_path, Goal())

    def failing(point: Point) -> Outcome:
        raise ValueError

    run_grid([Point("posterior", 10, 256, 0)], failing, tmp_path, asked=ASKED, workers=1)
    with pytest.raises(RunError, match="holds no point that has an outcome: there is nothing to plan from"):
        draw_plan(tmp_path, Goal())
