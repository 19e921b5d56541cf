"""Figures, by the numbers that their artists carry: positions, orientation, limits and order."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from whatwhere.errors import InputError, WriteError
from whatwhere.report import (
    barcodes,
    history,
    kernels,
    masks_on_visual_field,
    predicted_against_true,
    score_distribution,
)
from whatwhere.report.barcode import barcode_order, normalized_barcodes
from whatwhere.report.style import COLOURS, save_figures
from whatwhere.schedule import Check

SIZE = (20, 32)  # height, width
OFFSET = (2.0, 5.0)
MASK_SIZE = (14, 22)


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    room = 0.02  # inches
    assert box.x0 > -room
    assert box.y0 > -room
    assert box.x1 < width + room
    assert box.y1 < height + room


def one_pixel_masks(pixels: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(pixels), *MASK_SIZE))
    masks[np.arange(len(pixels)), pixels[:, 0], pixels[:, 1]] = [3, -1, 0.5, 2][: len(pixels)]
    return masks


def field(**options: Any) -> tuple[Figure, np.ndarray]:
    pixels = np.array([[0, 0], [3, 20], [13, 1], [3, 20]])  # row, column in the mask
    locations = pixels + np.array(OFFSET)
    return masks_on_visual_field(one_pixel_masks(pixels), OFFSET, SIZE, locations, **options), locations


def dots_of(figure: Figure) -> list[PathCollection]:
    return [item for item in figure.axes[0].collections if isinstance(item, PathCollection)]


def test_field_shows_coverage_where_the_masks_are() -> None:
    figure, _ = field()
    image = figure.axes[0].images[0]
    coverage = np.asarray(image.get_array())
    assert coverage.shape == MASK_SIZE
    # each neuron counts once, whatever its mask's scale and sign
    assert coverage[0, 0] == coverage[13, 1] == 1
    assert coverage[3, 20] == 2
    assert coverage.sum() == 4
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (4.5, 26.5, 15.5, 1.5)
    assert image.origin == "upper"
    assert image.get_clim() == (0, 2)


def test_field_has_row_zero_on_top_and_square_pixels() -> None:
    axes = field()[0].axes[0]
    assert axes.get_xlim() == (-0.5, 31.5)
    assert axes.get_ylim() == (19.5, -0.5)
    assert axes.get_aspect() == 1
    reach = next(patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert (*reach.get_xy(), reach.get_width(), reach.get_height()) == (4.5, 1.5, 22, 14)


def test_field_dots_and_rings_are_at_the_locations_in_the_colour_of_their_type() -> None:
    true = np.array([[2.0, 6], [5, 25], [14, 6], [9, 9]])
    figure, locations = field(true_locations=true, types=["b", "a", "b", "a"])
    rings, dots_a, dots_b = dots_of(figure)
    np.testing.assert_array_equal(dots_a.get_offsets(), locations[[1, 3]][:, ::-1])  # x is the column
    np.testing.assert_array_equal(dots_b.get_offsets(), locations[[0, 2]][:, ::-1])
    np.testing.assert_allclose(dots_a.get_facecolor()[0, :3], to_rgb(COLOURS[0]))
    np.testing.assert_allclose(dots_b.get_facecolor()[0, :3], to_rgb(COLOURS[1]))
    np.testing.assert_array_equal(rings.get_offsets(), true[:, ::-1])
    assert len(rings.get_facecolor()) == 0
    expected = [to_rgb(COLOURS[i]) for i in (1, 0, 1, 0)]
    np.testing.assert_allclose(rings.get_edgecolor()[:, :3], expected)
    joins = next(item for item in figure.axes[0].collections if isinstance(item, LineCollection))
    for segment, here, there in zip(joins.get_segments(), locations, true, strict=True):
        np.testing.assert_array_equal(segment, [here[::-1], there[::-1]])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["type a", "type b", "true location"]


def test_field_with_one_neuron_an_empty_mask_and_with_very_many() -> None:
    figure = masks_on_visual_field(np.zeros((1, *MASK_SIZE)), OFFSET, SIZE, [[3.0, 6.0]])
    assert np.asarray(figure.axes[0].images[0].get_array()).sum() == 0
    assert_nothing_is_cut_off(figure)
    many = np.random.default_rng(0).uniform(5, 15, (1000, 2))
    figure = masks_on_visual_field(np.ones((1000, *MASK_SIZE)), OFFSET, SIZE, many, many + 1, np.arange(1000) % 20)
    assert_nothing_is_cut_off(figure)
    assert sum(len(dots.get_offsets()) for dots in dots_of(figure)) == 2000
    looks = {(tuple(d.get_facecolor()[0]), d.get_paths()[0].vertices.tobytes()) for d in dots_of(figure)[1:]}
    assert len(looks) == 20  # types differ by colour or marker
    assert "and 8 types more" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_field_complains_of_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="locations has 3 rows but masks has 4: one row per neuron is needed"):
        masks_on_visual_field(np.ones((4, 5, 6)), OFFSET, SIZE, np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"locations has shape \(2, 4\): expected \(n_neurons, 2\)"):
        masks_on_visual_field(np.ones((4, 5, 6)), OFFSET, SIZE, np.zeros((2, 4)))


def test_kernels_have_symmetric_scales_of_their_own(rng: np.random.Generator) -> None:
    weights = rng.standard_normal((5, 1, 4, 7)) * np.array([1, 10, 0.1, 3, 0]).reshape(-1, 1, 1, 1)
    figure = kernels(weights, names=list("vwxyz"), share=[0.5, 0.25, 0.249, 0.001, 0])
    panels = [axes for axes in figure.axes if axes.images]
    for panel, kernel in zip(panels, weights, strict=True):
        image = panel.images[0]
        np.testing.assert_array_equal(np.asarray(image.get_array()), kernel[0])  # rows downwards
        assert image.origin == "upper"
        limit = np.abs(kernel).max() or 1
        assert image.get_clim() == (-limit, limit)
    titles = [panel.get_title() for panel in panels]
    assert titles == ["v (50 %)", "w (25 %)", "x (25 %)", "y (<1 %)", "z (0 %)"]
    assert_nothing_is_cut_off(figure)


def test_kernels_of_several_channels_stand_side_by_side_on_one_scale() -> None:
    weights = np.arange(1, 2 * 3 * 4 * 5 + 1, dtype=float).reshape(2, 3, 4, 5)
    figure = kernels(weights)
    for panel, kernel in zip([axes for axes in figure.axes if axes.images], weights, strict=True):
        shown = np.ma.filled(np.ma.asarray(panel.images[0].get_array()), np.nan)
        assert shown.shape == (4, 5 + 1 + 5 + 1 + 5)
        for channel, start in enumerate((0, 6, 12)):
            np.testing.assert_array_equal(shown[:, start : start + 5], kernel[channel])
        assert np.isnan(shown[:, [5, 11]]).all()
        assert panel.images[0].get_clim()[1] == kernel.max()
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize("n_features", [1, 7, 48, 100])
def test_every_kernel_has_a_place_in_a_grid_of_bounded_width(n_features: int) -> None:
    figure = kernels(np.ones((n_features, 1, 13, 13)))
    panels = [axes for axes in figure.axes if axes.images]
    assert [panel.get_title() for panel in panels] == [str(i) for i in range(n_features)]
    assert figure.get_figwidth() <= 7.4
    corners = [(-round(p.y0, 6), p.x0) for p in (panel.get_position() for panel in panels)]
    assert corners == sorted(corners)  # row by row from the top, each from the left
    assert_nothing_is_cut_off(figure)


def test_barcodes_are_scaled_to_each_neurons_largest_weight() -> None:
    codes = normalized_barcodes([[2.0, -4.0, 0.0], [0, 0, 0], [3, 1.5, -3]])
    np.testing.assert_array_equal(codes, [[-0.5, 1, 0], [0, 0, 0], [1, 0.5, -1]])
    np.testing.assert_array_equal(normalized_barcodes([[-2.0, 4.0, 0.0]]), codes[:1])  # the sign is convention


def test_barcodes_are_sorted_by_type_then_feature_then_purity() -> None:
    weights = np.array([[1, 0.5], [0.1, 1], [1, 0.2], [-1, 0.9], [0, 1]])
    types = ["b", "a", "b", "b", "a"]
    assert barcode_order(weights, types).tolist() == [4, 1, 2, 0, 3]
    assert barcode_order(weights).tolist() == [2, 0, 3, 4, 1]
    figure = barcodes(weights, types)
    axes, strip = figure.axes[:2]
    image = axes.images[0]
    np.testing.assert_array_equal(np.asarray(image.get_array()), normalized_barcodes(weights)[[4, 1, 2, 0, 3]])
    assert image.get_clim() == (-1, 1)
    assert np.asarray(strip.images[0].get_array()).ravel().tolist() == [0, 0, 1, 1, 1]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["a (2)", "b (3)"]
    assert list(strip.get_yticks()) == [0.5, 3]
    assert axes.get_ylim() == strip.get_ylim() == (4.5, -0.5)  # strip and barcodes stay in line
    assert [line.get_ydata()[0] for line in axes.lines] == [1.5]


def test_barcode_colour_bar_shows_negative_values_only_where_there_are_some() -> None:
    assert barcodes([[1.0, 0.5]]).axes[1].get_ylim() == (0, 1)
    assert barcodes([[1.0, -0.5]]).axes[1].get_ylim() == (-1, 1)


@pytest.mark.parametrize(("n_neurons", "n_features", "n_types"), [(1, 1, 1), (1000, 64, 50), (30, 2, 3)])
def test_barcodes_of_any_size(n_neurons: int, n_features: int, n_types: int) -> None:
    figure = barcodes(np.ones((n_neurons, n_features)), np.arange(n_neurons) % n_types)
    assert_nothing_is_cut_off(figure)
    assert np.asarray(figure.axes[0].images[0].get_array()).shape == (n_neurons, n_features)


def test_density_has_truth_across_and_prediction_up() -> None:
    truth = np.full((10, 1), 8.0)
    truth[:2] = 0.0
    predictions = np.full((10, 1), 2.0)
    figure = predicted_against_true(predictions, truth, [0.5])
    axes = figure.axes[0]
    counts = np.ma.filled(np.ma.asarray(axes.collections[0].get_array()), 0).reshape(60, 60)
    (across,) = np.nonzero(counts.sum(axis=0))
    (up,) = np.nonzero(counts.sum(axis=1))
    edges = np.linspace(*axes.get_xlim(), 61)
    assert counts[up[0], across].tolist() == [2, 8]
    assert edges[up[0]] <= 2 <= edges[up[0] + 1]
    assert edges[across[0]] <= 0 <= edges[across[0] + 1]
    assert edges[across[1]] <= 8 <= edges[across[1] + 1]
    assert axes.get_xlim() == axes.get_ylim()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true", "predicted")


def test_density_says_how_many_pairs_lie_beyond_its_axes(rng: np.random.Generator) -> None:
    truth = rng.standard_normal((500, 20))
    predictions = truth.copy()
    predictions[0, :3] = 1e6
    axes = predicted_against_true(predictions, truth, np.ones(20)).axes[0]
    low, high = axes.get_xlim()
    inside = ((truth >= low) & (truth <= high) & (predictions >= low) & (predictions <= high)).sum()
    counts = np.ma.filled(np.ma.asarray(axes.collections[0].get_array()), 0)
    assert counts.sum() == inside
    assert high < 10
    assert axes.get_title() == f"all 20 neurons\n10,000 pairs, {10_000 - inside} beyond"


def test_best_median_and_worst_neuron_are_shown_with_their_own_responses(rng: np.random.Generator) -> None:
    predictions, truth = rng.standard_normal((2, 30, 6))
    scores = np.array([0.3, np.nan, 0.9, -0.1, 0.5, 0.4])
    figure = predicted_against_true(predictions, truth, scores)
    panels = [axes for axes in figure.axes[1:] if axes.get_title()]
    assert [p.get_title() for p in panels] == [
        "best: neuron 2\nscore 0.900",
        "median: neuron 5\nscore 0.400",
        "worst: neuron 3\nscore -0.100",
    ]
    for panel, neuron in zip(panels, (2, 5, 3), strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_xdata(), truth[:, neuron])
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), predictions[:, neuron])
        assert panel.get_xlim() == panel.get_ylim()
        assert panel.get_xlim()[0] < min(truth[:, neuron].min(), predictions[:, neuron].min())
    assert figure.get_supxlabel() == "without a score: 1 of 6 neurons"
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize("n_neurons", [1, 2, 1000])
def test_predictions_of_constants_and_of_any_number_of_neurons(n_neurons: int) -> None:
    constant = np.ones((5, n_neurons))
    for scores in (np.zeros(n_neurons), np.full(n_neurons, np.nan)):
        figure = predicted_against_true(constant, constant, scores)
        assert_nothing_is_cut_off(figure)
        n_shown = min(n_neurons, 3) * (not np.isnan(scores[0]))
        assert len(figure.axes) == n_shown + 2  # and the density with its colour bar


def test_predictions_complain_of_shapes() -> None:
    with pytest.raises(InputError, match=r"truth \(5, 3\) and scores \(2,\): expected \(n_images, n_neurons\)"):
        predicted_against_true(np.ones((5, 2)), np.ones((5, 3)), np.ones(2))


def checks() -> list[Check]:
    rates = [1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
    losses = [1.0, 0.7, 0.5, 0.45, 0.6, 0.55]
    return [
        Check(50 * i, rate, np.nan if i == 0 else loss - 0.1, loss, 1.0)
        for i, (rate, loss) in enumerate(zip(rates, losses, strict=True))
    ]


@pytest.mark.parametrize("form", [list, lambda c: [vars(x) for x in c], pd.DataFrame])
def test_history_marks_the_best_step_and_the_drops_of_the_rate(form: Any) -> None:
    figure = history(form(checks()))
    axes = figure.axes[0]
    training, validation, best, *drops = axes.lines
    assert validation.get_xdata().tolist() == [0, 50, 100, 150, 200, 250]
    assert validation.get_ydata().tolist() == [1.0, 0.7, 0.5, 0.45, 0.6, 0.55]
    np.testing.assert_allclose(training.get_ydata(), [np.nan, 0.6, 0.4, 0.35, 0.5, 0.45])
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (150, 0.45)
    assert [drop.get_xdata()[0] for drop in drops] == [150, 250]
    assert [text.get_text() for text in axes.texts] == ["rate 0.0001", "rate 1e-05"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training",
        "validation",
        "best: 0.45 at step 150",
    ]
    assert_nothing_is_cut_off(figure)


def test_history_has_a_logarithmic_axis_only_for_positive_losses_of_wide_range() -> None:
    table = pd.DataFrame(checks())
    assert history(table).axes[0].get_yscale() == "linear"
    wide = table.assign(validation_loss=table["validation_loss"] * [100, 1, 1, 1, 1, 1])
    assert history(wide).axes[0].get_yscale() == "log"
    assert history(wide.assign(training_loss=-0.1)).axes[0].get_yscale() == "linear"


def test_history_of_one_check_and_of_what_is_none() -> None:
    assert_nothing_is_cut_off(history(checks()[:1]))
    with pytest.raises(InputError, match="history has no column learning_rate: expected step, training_loss"):
        history(pd.DataFrame(checks()).drop(columns="learning_rate"))
    with pytest.raises(InputError, match="history is empty: expected at least one check"):
        history(pd.DataFrame(checks()).iloc[:0])
    with pytest.raises(InputError, match="history is empty: expected at least one check"):
        history([])


def test_scores_have_a_dot_per_neuron_and_the_best_model_on_top(rng: np.random.Generator) -> None:
    good, poor = rng.uniform(0.4, 0.9, 50), np.append(rng.uniform(0, 0.4, 30), [np.nan] * 4)
    figure = score_distribution({"good": good, "none": [np.nan], "poor": poor}, label="correlation")
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "none\nno score (n = 0, 1 left out)",
        f"poor\n{np.nanmean(poor):.3f} (n = 30, 4 left out)",
        f"good\n{good.mean():.3f} (n = 50)",
    ]
    dots = [line for line in axes.lines if line.get_marker() == "."]
    for line, values, place in zip(dots, (poor[:30], good), (1, 2), strict=True):
        np.testing.assert_array_equal(np.asarray(line.get_xdata()), values)
        assert np.abs(np.asarray(line.get_ydata()) - place).max() <= 0.35
    means = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(means[1:], [np.nanmean(poor), good.mean()])
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 2]
    np.testing.assert_allclose(medians, [np.nanmedian(poor), np.median(good)])
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    assert axes.get_xlabel().startswith("correlation")
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize("n_neurons", [1, 1000])
def test_constant_scores_of_any_number_of_neurons(n_neurons: int) -> None:
    assert_nothing_is_cut_off(score_distribution({"constant": np.zeros(n_neurons)}))


def test_scores_complain_of_no_model() -> None:
    with pytest.raises(InputError, match="scores is empty: expected at least one model"):
        score_distribution({})


def test_drawing_leaves_matplotlibs_global_state_alone() -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    history(checks())
    barcodes([[1.0]])
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_figures_are_saved_whole_and_those_that_are_none_are_removed(tmp_path: Path) -> None:
    figures = {"a.png": kernels(np.eye(3)[None, None]), "b.png": kernels(np.ones((2, 1, 3, 3)))}
    assert save_figures(tmp_path, figures) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert imread(tmp_path / "a.png")[..., :3].std() > 0.01
    assert save_figures(tmp_path, {"a.png": None, "b.png": figures["b.png"], "c.png": None}) == [tmp_path / "b.png"]
    assert [file.name for file in tmp_path.iterdir()] == ["b.png"]
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(WriteError, match=r"folder.png could not be written .*Make room or choose another place"):
        save_figures(tmp_path, {"folder.png": figures["a.png"]})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b.png", "folder.png"]
