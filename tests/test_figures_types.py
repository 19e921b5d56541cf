"""Figures of cell types, by the numbers that their artists carry."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from whatwhere.celltypes import CellTypes, MatchedMaps, Stability, TypeOptions, find_types, stability_of
from whatwhere.errors import InputError
from whatwhere.experiments.cell_types import KINDS, TYPES, solve, types_found
from whatwhere.experiments.fig4 import Fig4Options
from whatwhere.experiments.grid import GridResults, read_grid
from whatwhere.experiments.points import Point
from whatwhere.report import number_of_types, type_barcodes, type_confidence, type_map
from whatwhere.report.figure_types import types_recovered
from whatwhere.report.reproduction import write_reproduction
from whatwhere.report.style import COLOURS


@pytest.fixture(scope="module")
def types() -> CellTypes:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.eye(4)[:3], [30, 20, 10], axis=0) + rng.normal(0, 0.05, (60, 4))
    codes[:30] *= -1
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return find_types(np.concatenate([np.zeros((2, 4)), codes]))


@pytest.fixture(scope="module")
def stability(types: CellTypes) -> Stability:
    maps = MatchedMaps(np.arange(4), np.ones(4), np.ones(4))
    noise = np.random.default_rng(1).normal(0, 0.1, types.barcodes.shape) * types.barcodes.any(1, keepdims=True)
    return stability_of(types, [types.barcodes + noise], [1], [maps])


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert (box.x0, box.y0) > (-0.02, -0.02)
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


def test_every_neuron_is_on_both_maps_in_the_colour_of_its_type(types: CellTypes) -> None:
    figure = type_map(types)
    assert types.tsne is not None
    for axes, places in zip(figure.axes, (types.pca, types.tsne), strict=True):
        for number, dots in enumerate(axes.collections):
            np.testing.assert_allclose(np.asarray(dots.get_offsets()), places[types.labels == number])
            np.testing.assert_allclose(dots.get_facecolor()[0][:3], to_rgb(COLOURS[number]))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["type 0 (30)", "type 1 (20)", "type 2 (10)"]
    assert_nothing_is_cut_off(figure)


def test_neurons_in_no_cluster_are_crosses(types: CellTypes) -> None:
    labels = np.where(np.isin(np.arange(62), [7, 40]), -1, types.labels)
    noise = type_map(replace(types, labels=labels)).axes[0].collections[0]
    assert noise.get_label() == "no type (2)"
    np.testing.assert_allclose(np.asarray(noise.get_offsets()), types.pca[[7, 40]])


def test_barcodes_are_rows_by_type_with_their_signs(types: CellTypes) -> None:
    figure = type_barcodes(types)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == (60, 4)
    typed = types.barcodes[types.labels >= 0]
    np.testing.assert_allclose(np.sort(shown[:30], axis=0), np.sort(typed[:30], axis=0))
    assert (shown[:30, 0] < -0.9).all()
    assert (shown[30:50, 1] > 0.9).all()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["0 (30)", "1 (20)", "2 (10)"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0", "1", "2", "3"]  # as in the arrays
    assert_nothing_is_cut_off(figure)


def test_bic_and_agreement_are_drawn_by_number(types: CellTypes, stability: Stability) -> None:
    figure = number_of_types(types.bic, types.n_types, stability)
    bic, agreement = figure.axes
    np.testing.assert_allclose(bic.lines[1].get_xydata()[:, 1], types.bic["bic"] - types.bic["bic"].min())
    np.testing.assert_allclose(agreement.lines[1].get_xydata(), stability.curve[["n_types", "ari"]])
    assert [axes.lines[0].get_xdata()[0] for axes in figure.axes] == [3, 3]
    assert_nothing_is_cut_off(figure)
    assert len(number_of_types(types.bic, 3).axes) == 1


def test_confidence_is_a_dot_for_each_neuron(types: CellTypes) -> None:
    figure = type_confidence(types)
    for number, dots in enumerate(figure.axes[0].collections):
        expected = np.sort(types.confidence[types.labels == number])
        places = np.asarray(dots.get_offsets())
        np.testing.assert_allclose(places[:, 0], expected)
        assert np.abs(places[:, 1] - number).max() < 0.5
    assert_nothing_is_cut_off(figure)


NOTHING: dict[str, tuple[Callable[[CellTypes], Figure], str]] = {
    "barcodes": (type_barcodes, "no neuron has a type: there are no barcodes to sort"),
    "confidence": (type_confidence, "no neuron has a type: there is no confidence to draw"),
    "choice": (lambda types: number_of_types(types.bic, 0), "neither BIC nor stability"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_draw_is_said(case: str) -> None:
    draw, message = NOTHING[case]
    nobody = find_types(np.eye(3), TypeOptions(method="hdbscan"))
    with pytest.raises(InputError, match=message):
        draw(nobody)


def test_types_of_simulated_barcodes_are_counted_against_the_truth() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1], 30)
    codes = np.eye(2)[true] + rng.normal(0, 0.03, (60, 2))
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    measured, arrays = types_found(codes, true, 0)
    assert (measured["ari"], measured["n_found"], measured["n_true"], measured["ari_known"]) == (1, 2, 2, 1)
    np.testing.assert_array_equal(arrays["labels"], true)
    assert types_found(codes, rng.permutation(true), 0)[0]["ari"] < 0.1


def test_the_first_population_is_figure_4s_and_others_are_more_alike() -> None:
    assert KINDS["two-types"].factors == (0.6, 1.0)
    quick, paper = TYPES.presets["quick"].grid, TYPES.presets["paper"].grid
    assert (min(paper.images), max(paper.images)) == (512, 8192)
    assert max(quick.images) == 8192
    assert TYPES.sizes("five-of-eight", [10]) == [50]
    assert TYPES.seconds(Fig4Options(), Point("five-of-eight", 50, 512, 0)) > 0


SMALL = Fig4Options(image_size=(20, 21), n_test_images=40, max_steps=4, patience_from=0)


def test_spare_kernels_are_fitted_and_signals_compared() -> None:
    found = solve(SMALL, Point("three-of-eight", 12, 100, 0))
    assert found.arrays["barcodes"].shape == (12, 8)
    np.testing.assert_allclose(np.linalg.norm(found.arrays["barcodes"], axis=1), 1)
    assert found.measured["n_true"] == 3
    assert found.arrays["kernels"].shape == (3, 1, 17, 17)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> GridResults:
    folder = tmp_path_factory.mktemp("types")
    models = ["two-types", "alike-0.8", "two-of-eight"]
    TYPES.run(folder, models=models, neurons=[6], images=[60, 100], seeds=[0, 1], options=SMALL, workers=1)
    return read_grid(folder)


def test_curves_of_the_experiment_are_those_of_its_table(grid: GridResults) -> None:
    figure = types_recovered(grid)
    by_images, by_likeness, numbers = figure.axes
    for line, model in zip(by_images.lines, ("two-types", "alike-0.8", "two-of-eight"), strict=False):
        points = grid.curve(model, 12, "ari")
        np.testing.assert_allclose(line.get_xydata(), [(point.n_images, point.median) for point in points])
    most = grid.done[grid.done["n_images"] == 100]
    medians: pd.DataFrame = most.groupby("model")[["kernel_overlap", "ari"]].median()
    drawn = [line.get_xydata()[0] for line in by_likeness.lines[:3]]
    np.testing.assert_allclose(drawn, medians.loc[["two-types", "alike-0.8", "two-of-eight"]].to_numpy())
    assert medians.loc["alike-0.8", "kernel_overlap"] > medians.loc["two-types", "kernel_overlap"]
    found = [point.median for point in grid.curve("two-of-eight", 12, "n_found")]
    np.testing.assert_allclose(numbers.lines[0].get_ydata(), found)
    assert_nothing_is_cut_off(figure)
    files = write_reproduction(grid.folder)
    assert [file.name for file in files] == ["types.png", "page.html"]
    html = Path(files[-1]).read_text(encoding="utf-8")
    assert all(f"<td>{value:.3f}</td>" in html for value in grid.done["ari"])
