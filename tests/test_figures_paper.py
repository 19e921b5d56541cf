"""The figures and pages of the experiments: what they show is what was measured."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from whatwhere.errors import FormatError, InputError, RunError
from whatwhere.experiments.fig1 import FIG1, Fig1Options
from whatwhere.experiments.fig3 import FIG3, Fig3Options, calibrated, simulated
from whatwhere.experiments.fig4 import FIG4, Fig4Options
from whatwhere.experiments.grid import GridResults, read_grid, run_grid
from whatwhere.experiments.points import Outcome, Point
from whatwhere.report import cell_types, homogeneous_population, reliability, thought_experiment
from whatwhere.report.page import Section, page
from whatwhere.report.reproduction import write_reproduction
from whatwhere.simulation.recovery import Coverage, reliability_curve

ASKED = {"image_size": [20, 30], "n_test_images": 10, "strengths": [0.1], "most_strengths": 1, "warm_start": True}


def made_up(point: Point) -> Outcome:
    """A FEV that tells model, neurons, images and seed apart."""
    rng = np.random.default_rng([point.n_neurons, point.n_images, point.seed])
    value = {"ridge": 0.1, "cnn": 0.3, "true-kernel": 0.5}[point.model] + point.n_neurons / 100 + point.n_images / 4096
    kernel = {} if point.model == "true-kernel" else {"kernel": rng.standard_normal((1, 17, 17))}
    places = np.stack([rng.integers(8, 12, point.n_neurons), rng.integers(8, 22, point.n_neurons)], axis=1)
    kept = {"true_kernel": rng.standard_normal((17, 17)), "true_locations": places.astype(float)}
    return Outcome(value + 0.05 * point.seed, 1.0, 0.1, 51, arrays={**kernel, **kept})


@pytest.fixture(scope="module")
def fig3(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("fig3")
    grid = FIG3.grid(
        "quick", models=["ridge", "cnn", "true-kernel"], neurons=[1, 10], images=[256, 64], seeds=[0, 1, 2]
    )
    run_grid(FIG3.points(grid), made_up, folder, asked={"experiment": "fig3", **ASKED}, workers=1)
    return read_grid(folder)


def lines(figure: Figure) -> dict[str, np.ndarray]:
    """Each labelled curve of the figure with its points (n, 2)."""
    found = {}
    for axes in figure.findobj(lambda artist: hasattr(artist, "containers")):
        for container in axes.containers:
            found[container.get_label()] = np.asarray(container.lines[0].get_xydata())
    return found


def test_figure_3_shows_every_curve_once_with_medians_over_seeds(fig3: GridResults) -> None:
    found = lines(homogeneous_population(fig3))
    assert set(found) == {"Ridge", "CNN, 1 neuron", "CNN, 10 neurons", "true kernel, masks fitted"}
    np.testing.assert_allclose(found["CNN, 10 neurons"], [[64, 0.465625], [256, 0.5125]])  # seed 1 of 0, 1, 2
    np.testing.assert_allclose(found["Ridge"], [[64, 0.265625], [256, 0.3125]])  # of the larger population


def test_figure_3_shows_kernels_of_the_first_seed_and_the_places(fig3: GridResults) -> None:
    figure = homogeneous_population(fig3)
    images = [image.get_array() for axes in figure.findobj(lambda a: hasattr(a, "images")) for image in axes.images]
    kernels = [np.asarray(image) for image in images if image.shape == (17, 17)]
    assert len(kernels) == 2 * 3  # two numbers of images, three curves that have a kernel
    expected = fig3.arrays(Point("cnn", 10, 64, 0))["kernel"][0]
    assert any(np.allclose(kernel, expected) for kernel in kernels)
    assert any(image.shape == (20, 30) for image in images)  # panel A
    dots = [line.get_xydata() for axes in figure.findobj(lambda a: hasattr(a, "lines")) for line in axes.lines]
    places = fig3.arrays(Point("cnn", 10, 64, 0))["true_locations"]
    assert any(np.array_equal(dot, places[:, ::-1]) for dot in dots if len(dot) == 10)


def test_figure_3_without_kernels_has_no_panel_c(tmp_path: Path) -> None:
    run_grid([Point("true-kernel", 3, 64, 0)], made_up, tmp_path, asked={"experiment": "fig3", **ASKED}, workers=1)
    figure = homogeneous_population(read_grid(tmp_path))
    assert [
        text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_fontweight")) if text.get_text() in "ABC"
    ]
    assert figure.get_size_inches()[1] == pytest.approx(3.3)


def test_the_page_sets_the_papers_numbers_beside_the_measured(fig3: GridResults) -> None:
    files = write_reproduction(fig3.folder)
    assert [file.name for file in files] == ["figure3.png", "page.html"]
    html = files[1].read_text(encoding="utf-8")
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)]
    assert ["CNN, 10 neurons", "64", "0.000", "0.466", "0.416", "0.516", "3", "0.466"] in rows
    assert ["Ridge", "64", "0.040", "0.266", "0.216", "0.316", "3", "0.226"] in rows
    assert ["true kernel, masks fitted", "64", "0.170", "0.666", "0.616", "0.716", "3", "0.496"] in rows
    assert "8 of the measured points are in the paper&#x27;s figure: 8 within 0.05 of it or above, 0 below" in html
    assert "No measured point lies more than 0.05 below the paper&#x27;s." in html
    assert html.count("data:image/png;base64,") == 1
    assert not re.search(r"(src|href)\s*=\s*\"(?!data:)", html)
    assert "http" not in html


def test_the_page_names_what_falls_short_and_what_failed(tmp_path: Path) -> None:
    def poor(point: Point) -> Outcome:
        if point.seed:
            raise ValueError("a < b")
        return Outcome(0.2, 1.0, arrays=dict(made_up(point).arrays))

    points = [Point("cnn", 100, 256, seed) for seed in (0, 1)]
    run_grid(points, poor, tmp_path, asked={"experiment": "fig3", **ASKED}, workers=1)
    html = write_reproduction(tmp_path)[-1].read_text(encoding="utf-8")
    assert "More than 0.05 below the paper&#x27;s: CNN, 100 neurons, 256 images: -0.20." in html
    assert "Points that failed" in html
    assert "ValueError: a &lt; b" in html


def test_a_model_that_states_how_sure_it_is_is_judged_on_the_page(tmp_path: Path) -> None:
    recording, population = simulated(Fig3Options(image_size=(20, 26), n_test_images=5), Point("cnn", 9, 8, 0))
    posterior = np.full((9, 4, 10), 0.1 / 39)
    posterior[np.arange(9), *population.positions.T] = 0.9
    measured, arrays = calibrated(posterior, recording, (8.0, 8.0))

    def solve(point: Point) -> Outcome:
        return Outcome(0.9, 1.0, measured=measured, arrays={**made_up(point).arrays, **arrays})

    points = [Point("cnn", 9, n_images, 0) for n_images in (64, 256)]
    run_grid(points, solve, tmp_path, asked={"experiment": "fig3", **ASKED}, workers=1)
    files = write_reproduction(tmp_path)
    assert [file.name for file in files] == ["figure3.png", "calibration-cnn.png", "page.html"]
    html = files[-1].read_text(encoding="utf-8")
    assert "cnn, 9 neurons, 64 images, seed 0. Left: every location" in html
    assert f"<td>{measured['coverage_low']:.3f}</td>" in html


def test_figure_1_undoes_the_shift_on_the_right(tmp_path: Path) -> None:
    options = Fig1Options(image_size=(20, 26), n_test_images=50)
    FIG1.run(tmp_path, neurons=[5], images=[40, 200], seeds=[0, 1], options=options, workers=1)
    results = read_grid(tmp_path)
    left, right = thought_experiment(results).axes
    one, shared, independent = (container.lines[0].get_xydata() for container in left.containers)
    np.testing.assert_allclose(shared[:, 1], [point.median for point in results.curve("shared", 5)])
    assert [list(points[:, 0]) for points in (one, shared, independent)] == [[40, 200]] * 3
    moved = [list(container.lines[0].get_xydata()[:, 0]) for container in right.containers]
    assert moved == [[40, 200], [200, 1000], [40, 200]]
    files = write_reproduction(tmp_path)
    assert [file.name for file in files] == ["figure1.png", "page.html"]
    html = files[1].read_text(encoding="utf-8")
    alone, few = results.curve("one", 1, "fev")[1].median, results.curve("shared", 5, "fev")[0].median
    for text in ("shared, 5 neurons", f"<td>{few:.3f}</td>", f"<td>{alone:.3f}</td>", f"<td>{few - alone:.3f}</td>"):
        assert text in html


@pytest.fixture(scope="module")
def fig4(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("fig4")
    options = Fig4Options(image_size=(20, 27), n_test_images=20, max_steps=4)
    models = ["two-types", "three-types"]
    FIG4.run(folder, models=models, neurons=[5], images=[60], options=options, workers=1)
    return read_grid(folder)


def test_figure_4_shows_weights_kernels_and_places(fig4: GridResults) -> None:
    point = Point("two-types", 10, 60, 0)
    kept = fig4.arrays(point)
    figure = cell_types(fig4, point)
    images = [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]
    assert len(images) == 2 * 3 + 2 * 2
    for kernel in (*kept["examples"].sum(2).reshape(-1, 17, 17), *kept["kernels"].sum(1), *kept["type_means"].sum(1)):
        assert any(np.allclose(image, kernel) for image in images)
    weights, places = figure.axes[-2:]
    shown = np.concatenate([np.asarray(dots.get_offsets()) for dots in weights.collections])
    order = np.argsort(kept["types"], kind="stable")
    np.testing.assert_allclose(shown, kept["feature_weights"][order])
    assert len({to_hex(dots.get_facecolor()[0]) for dots in weights.collections}) == 2
    offsets = [np.asarray(dots.get_offsets()) for dots in places.collections[1:]]
    np.testing.assert_allclose(offsets[0], kept["found"][kept["types"] == 0][:, ::-1])
    np.testing.assert_allclose(offsets[1], kept["true_locations"][kept["types"] == 0][:, ::-1])


def test_figure_4_shows_more_than_two_types_as_rows(fig4: GridResults) -> None:
    point = Point("three-types", 15, 60, 0)
    figure = cell_types(fig4, point)
    weights = next(axes for axes in figure.axes if axes.get_xlabel() == "kernel").images[0].get_array()
    kept = fig4.arrays(point)
    assert weights.shape == (15, 3)
    assert sorted(map(tuple, np.asarray(weights))) == sorted(map(tuple, kept["feature_weights"]))
    files = write_reproduction(fig4.folder)
    assert [file.name for file in files] == ["figure4-two-types.png", "figure4-three-types.png", "page.html"]
    html = files[-1].read_text(encoding="utf-8")
    for column in ("type_accuracy", "kernel_correlation", "fev"):
        assert all(f"<td>{value:.3f}</td>" in html for value in fig4.done[column])


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="expected the folder of an experiment"):
        write_reproduction(tmp_path)

    def failing(point: Point) -> Outcome:
        raise ValueError

    run_grid([Point("cnn", 1, 64, 0)], failing, tmp_path, asked={"experiment": "fig3", **ASKED}, workers=1)
    with pytest.raises(RunError, match="holds no point that has an outcome"):
        write_reproduction(tmp_path)


def test_calibration_shows_bins_intervals_and_levels(rng: np.random.Generator) -> None:
    stated = np.array([[[0.7, 0.2, 0.1]], [[0.1, 0.85, 0.05]], [[0.3, 0.3, 0.4]]])
    curve = reliability_curve(stated, [[0, 0], [0, 1], [0, 0]], edges=[0, 0.15, 0.5, 1])
    levels = [Coverage(0.9, 0.88, 0.8, 0.94, 100, 3.0), Coverage(0.5, 0.55, 0.45, 0.65, 100, 1.0)]
    figure = reliability(curve, levels)
    left, right = figure.axes
    seen = curve[curve["found"] > 0]
    np.testing.assert_allclose(left.containers[0].lines[0].get_xydata(), seen[["stated", "found"]])
    hollow = next(line for line in left.lines if line.get_marker() == "v")
    assert hollow.get_xydata().tolist() == curve.loc[curve["found"] == 0, ["stated", "high"]].to_numpy().tolist()
    np.testing.assert_allclose(right.containers[0].lines[0].get_xydata(), [[0.5, 0.55], [0.9, 0.88]])
    bars = right.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.45, 0.65], [0.8, 0.94]])
    assert len(reliability(curve).axes) == 1
    with pytest.raises(InputError, match="the curve holds no statement"):
        reliability(curve[:0])


def test_a_page_escapes_its_texts_and_embeds_its_figures() -> None:
    figure = Figure(figsize=(1, 1))
    table = pd.DataFrame({"a & b": [1.23456, np.nan], "n": [1000, 2]})
    html = page("x < y", [Section("A & B", ["<script>"], figure, 'say "so"', ["i > j"], table), Section("empty")])
    assert "<h1>x &lt; y</h1>" in html
    assert "<script>" not in html
    assert "<p>&lt;script&gt;</p>" in html
    assert "<li>i &gt; j</li>" in html
    assert 'alt="say &quot;so&quot;"' in html
    assert "<th>a &amp; b</th>" in html
    assert "<td>1.235</td>" in html
    assert "NaN" not in html
    assert html.startswith("<!doctype html>")
