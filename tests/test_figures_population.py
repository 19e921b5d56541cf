"""Figures of a population, by the numbers of their artists: coverage, credible regions, kernels by use, ceilings."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

import whatwhere as ww
from whatwhere.errors import InputError, OptionError
from whatwhere.location_posterior import credible_regions
from whatwhere.metrics import correlation_with_average, noise_ceiling
from whatwhere.report import (
    kernels_by_use,
    location_regions,
    mask_coverage,
    predicted_against_observed,
    region_size_against_score,
)
from whatwhere.report.kernel_use import feature_use, kernel_use
from whatwhere.report.location_regions import region_sizes
from whatwhere.report.outlines import outline

SIZE, OFFSET = (20, 32), (2.0, 5.5)


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


def lines_of(axes: Axes) -> list[np.ndarray]:
    return [np.array(item.get_segments()) for item in axes.collections if isinstance(item, LineCollection)]


def bumps(n_neurons: int, widths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normal bumps (n_neurons, 14, 22), each sums to one."""
    rows, columns = np.mgrid[:14, :22]
    at = rng.uniform((2, 2), (12, 20), (n_neurons, 2))
    squares = (rows - at[:, :1, None]) ** 2 + (columns - at[:, 1:, None]) ** 2
    values = np.exp(-squares / (2 * np.broadcast_to(widths, n_neurons)[:, None, None] ** 2))
    return values / values.sum(axis=(1, 2), keepdims=True)


def test_an_outline_runs_once_around_a_region_and_its_holes() -> None:
    ring = np.ones((3, 4), bool)
    ring[1, 1] = False
    edges = outline(ring, (10.0, 20.0))
    assert len(edges) == 2 * (3 + 4) + 4
    assert len(np.unique(edges.reshape(-1, 4), axis=0)) == len(edges)
    np.testing.assert_allclose(np.abs(edges[:, 1] - edges[:, 0]).sum(1), 1)  # each is an edge of one pixel
    assert (edges[..., 0].min(), edges[..., 0].max()) == (19.5, 23.5)
    assert (edges[..., 1].min(), edges[..., 1].max()) == (9.5, 12.5)
    assert len(outline(np.zeros((2, 2), bool))) == 0


def test_coverage_counts_the_neurons_that_read_each_pixel() -> None:
    masks = np.zeros((3, 14, 22))
    masks[0, 3, 4:7] = [1.0, -2.0, 0.9]  # 0.9 is under half of the largest
    masks[1, 3, 5] = 1e-3  # a mask's scale means nothing
    figure = mask_coverage(masks, OFFSET, SIZE)
    left, right, bar = figure.axes
    shown = np.ma.filled(np.ma.asarray(right.images[0].get_array()), 0)
    expected = np.zeros((14, 22))
    expected[3, 4:6] = [1, 2]
    np.testing.assert_array_equal(shown, expected)
    assert right.images[0].get_extent() == [5.0, 27.0, 15.5, 1.5]
    assert right.images[0].get_clim() == (0, 2)
    for axes in (left, right):
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 31.5), (19.5, -0.5))  # row 0 on top
        assert axes.get_aspect() == 1
    first, second = lines_of(left)
    np.testing.assert_array_equal(first, outline(masks[0] ** 2 >= 1, OFFSET))
    assert (second[..., 0].min(), second[..., 1].max()) == (10.0, 5.5)
    assert left.get_title() == "2 of 3 neurons"
    assert right.get_title() == "1 % of the frame is read"
    assert figure.get_supxlabel() == "without a mask: 1 of 3 neurons"
    assert bar.get_ylabel() == "neurons that read the pixel"


@pytest.mark.parametrize("n_neurons", [1, 3, 1000])
def test_coverage_of_any_number_of_neurons(n_neurons: int, rng: np.random.Generator) -> None:
    masks = bumps(n_neurons, rng.uniform(0.3, 2, n_neurons), rng)
    figure = mask_coverage(masks, (0, 0), (14, 22))
    assert len(lines_of(figure.axes[0])) == min(n_neurons, 60)
    peaks = masks.max(axis=(1, 2), keepdims=True)
    shown = np.ma.filled(np.ma.asarray(figure.axes[1].images[0].get_array()), 0)
    np.testing.assert_array_equal(shown, (masks >= 0.5 * peaks).sum(0))
    assert_nothing_is_cut_off(figure)
    assert_nothing_is_cut_off(mask_coverage(np.zeros((n_neurons, 30, 4)), (0, 0), (30, 4)))


def test_coverage_complains_of_what_does_not_fit() -> None:
    with pytest.raises(OptionError, match=r"level must be above 0 and at most 1, got 0: 0\.5 is the width at half"):
        mask_coverage(np.ones((1, 2, 3)), (0, 0), (2, 3), level=0)
    with pytest.raises(InputError, match="masks has 2 dimensions"):
        mask_coverage(np.ones((2, 3)), (0, 0), (2, 3))
    with pytest.raises(InputError, match="masks holds 1 value that is not finite: neuron 1"):
        mask_coverage(np.array([[[1.0]], [[np.nan]]]), (0, 0), (2, 3))


def test_regions_are_those_of_the_posterior_and_the_mean_is_its_own(rng: np.random.Generator) -> None:
    posterior = bumps(6, np.array([2.0, 0.2, 1.5, 0.5, 1.0, 3.0]), rng)
    true = rng.uniform(4, 12, (6, 2))
    figure = location_regions(posterior, OFFSET, SIZE, neurons=[4, 1], names=list("abcdef"), true_locations=true)
    for axes, neuron, name in zip(figure.axes, (4, 1), "eb", strict=False):
        regions = [credible_regions(posterior[[neuron]], level)[0] for level in (0.5, 0.9)]
        for drawn, region in zip(lines_of(axes), regions, strict=True):
            np.testing.assert_array_equal(drawn, outline(region, OFFSET))
        mean, ring = axes.lines
        rows, columns = (np.tensordot(posterior[neuron], grid) for grid in np.mgrid[:14, :22].astype(float))
        np.testing.assert_allclose([mean.get_xdata()[0], mean.get_ydata()[0]], [columns + 5.5, rows + 2])
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (true[neuron, 1], true[neuron, 0])
        sizes = [region.sum() for region in regions]
        assert axes.get_title() == f"neuron {name}\n50 %: {sizes[0]} px\n90 %: {sizes[1]} px"
        image = axes.images[0]
        np.testing.assert_allclose(image.get_array(), posterior[neuron] / posterior[neuron].max())
        assert image.get_extent() == [5.0, 27.0, 15.5, 1.5]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # row 0 on top
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "50 % region",
        "90 % region",
        "mean",
        "true location",
    ]


def test_by_default_the_surest_the_middle_and_the_least_sure_neuron_are_shown(rng: np.random.Generator) -> None:
    posterior = bumps(5, np.array([1.0, 3.0, 0.2, 2.0, 0.6]), rng)
    assert np.argsort(region_sizes(posterior)).tolist() == [2, 4, 0, 3, 1]
    titles = [axes.get_title().split("\n")[0] for axes in location_regions(posterior, OFFSET, SIZE).axes[:3]]
    assert titles == ["neuron 2", "neuron 0", "neuron 1"]


@pytest.mark.parametrize(("n_neurons", "n_panels"), [(1, 1), (3, 3), (1000, 3)])
def test_regions_of_any_number_of_neurons(n_neurons: int, n_panels: int, rng: np.random.Generator) -> None:
    posterior = bumps(n_neurons, rng.uniform(0.2, 3, n_neurons), rng).astype(np.float32)
    figure = location_regions(posterior, OFFSET, SIZE)
    assert len(figure.axes) == n_panels + 1  # and the colour bar
    assert_nothing_is_cut_off(figure)
    flat = np.full((n_neurons, 30, 4), 1 / 120)
    assert_nothing_is_cut_off(location_regions(flat, (0, 0), (30, 4), neurons=np.zeros(7, int)))


def test_regions_complain_of_what_does_not_fit() -> None:
    posterior = np.full((2, 3, 4), 1 / 12)
    with pytest.raises(InputError, match=r"posterior is no probability for neuron 1: its sum is 12, .* not masks_"):
        location_regions(np.stack([posterior[0], np.ones((3, 4))]), (0, 0), (3, 4))
    with pytest.raises(InputError, match="neurons holds 2, -1, out of range: expected positions of neurons, 0 to 1"):
        location_regions(posterior, (0, 0), (3, 4), neurons=[2, 0, -1])
    with pytest.raises(InputError, match="neurons holds 17 positions: expected 1 to 16"):
        location_regions(posterior, (0, 0), (3, 4), neurons=[0] * 17)
    with pytest.raises(InputError, match=r"true_locations has shape \(3, 2\): expected \(2, 2\)"):
        location_regions(posterior, (0, 0), (3, 4), true_locations=np.zeros((3, 2)))
    with pytest.raises(InputError, match="scores hold 1 infinite values"):
        region_size_against_score(posterior, [0.5, np.inf])


def test_sizes_of_regions_stand_against_scores_and_unscored_neurons_are_counted(rng: np.random.Generator) -> None:
    posterior = bumps(50, np.linspace(0.2, 3, 50), rng)
    scores = -region_sizes(posterior, 0.5).astype(float)
    scores[7] = np.nan
    figure = region_size_against_score(posterior, scores, level=0.5, label="FEV")
    axes = figure.axes[0]
    dots = axes.lines[0]
    kept = np.arange(50) != 7
    np.testing.assert_array_equal(dots.get_xdata(), credible_regions(posterior, 0.5).sum((1, 2))[kept])
    np.testing.assert_array_equal(dots.get_ydata(), scores[kept])
    assert axes.get_title() == "49 neurons, rank correlation -1.00\nwithout a score: 1 of 50 neurons"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("size of the 50 % region (pixels of the map)", "FEV")
    assert_nothing_is_cut_off(figure)
    for n_neurons in (1, 3):
        assert_nothing_is_cut_off(region_size_against_score(posterior[:n_neurons], np.full(n_neurons, np.nan)))


def test_use_counts_every_neuron_once_whatever_its_scale() -> None:
    weights = np.array([[1.0, 1, 0], [0, -30, 10], [0, 0, 0]])
    np.testing.assert_allclose(feature_use(weights), [0.25, 0.625, 0.125])
    np.testing.assert_allclose(feature_use(weights * [[7], [-0.1], [3]]), feature_use(weights))
    np.testing.assert_array_equal(feature_use(np.zeros((2, 3))), [0, 0, 0])


def fitted(rng: np.random.Generator, **core: object) -> ww.FixedMaskCNN:
    images = rng.standard_normal((40, 2, 12, 15)).astype(np.float32)
    model = ww.FixedMaskCNN(core=core, penalties={"feature_l1": 0.0}, training={"max_steps": 2, "check_every": 1})
    return model.fit(images, rng.poisson(1, (40, 3)))


def test_kernels_are_sorted_by_use_and_named_by_number(rng: np.random.Generator) -> None:
    model = fitted(rng, kernel_sizes=[5], n_maps=4)
    weights = model.model_.readout.weights.data
    weights[:] = 0.0
    weights[0, 2], weights[1, 2], weights[1, 0], weights[2, 3] = 5.0, 1.0, -3.0, 0.1
    np.testing.assert_allclose(kernel_use(model), np.array([0.75, 0, 1.25, 1]) / 3)
    figure = kernels_by_use(model, most=3)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["2 (42 %)", "3 (33 %)", "0 (25 %)"]
    shown = np.asarray(panels[0].images[0].get_array())
    np.testing.assert_array_equal(shown[:, :5], model.kernels_[2, 0])  # the first channel stands on the left
    with pytest.raises(OptionError, match="most must be at least 1, got 0"):
        kernels_by_use(model, most=0)


def test_use_is_handed_down_through_later_layers(rng: np.random.Generator) -> None:
    model = fitted(rng, kernel_sizes=[5, 3], n_maps=[3, 2])
    later = model.model_.core.layers[1].convolution.weight.data  # (2, 3, 3, 3)
    later[:] = 0.0
    later[0, 0, 1, 1], later[0, 2, 0, :2] = 3.0, 1.0 / np.sqrt(2)  # norms 3 and 1: shares 3/4 and 1/4
    later[1, 1, 2, 2] = -0.2
    model.model_.readout.weights.data[:] = 1.0
    np.testing.assert_allclose(kernel_use(model), [0.375, 0.5, 0.125], atol=1e-5)
    separable = fitted(rng, kernel_sizes=[5, 3], n_maps=[3, 2], separable=True)
    assert len(kernel_use(separable)) == len(separable.kernels_) == 2  # a kernel for each channel of the images
    assert kernel_use(separable).sum() == pytest.approx(1)


def responses_to_repeats(n_neurons: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = rng.permutation(np.repeat(np.arange(30), rng.integers(1, 9, 30)))
    rates = np.exp(rng.normal(0, 0.7, (30, n_neurons)))
    return rates, rng.poisson(rates[index]).astype(float), index


def test_each_image_stands_at_its_prediction_with_its_mean_and_standard_error(rng: np.random.Generator) -> None:
    rates, trials, index = responses_to_repeats(4, rng)
    figure = predicted_against_observed(rates, trials, index, neurons=[3], names=list("abcd"))
    population, panel = figure.axes
    points, _, (bars,) = panel.containers[0]
    np.testing.assert_array_equal(points.get_xdata(), rates[:, 3])
    means = [trials[index == image, 3].mean() for image in range(30)]
    np.testing.assert_allclose(points.get_ydata(), means)
    lengths = [np.ptp(segment[:, 1]) / 2 for segment in bars.get_segments()]
    counts = np.bincount(index)
    errors = [
        trials[index == image, 3].std(ddof=1) / counts[image] ** 0.5 if counts[image] > 1 else 0 for image in range(30)
    ]
    np.testing.assert_allclose(lengths, errors, atol=1e-12)
    found, ceilings = correlation_with_average(rates, trials, index), noise_ceiling(trials, index)
    assert panel.get_title() == f"neuron d\ncorrelation {found[3]:.2f}\nceiling {ceilings[3]:.2f}"
    dots = population.lines[1]
    np.testing.assert_array_equal(dots.get_xdata(), ceilings)
    np.testing.assert_array_equal(dots.get_ydata(), found)
    assert population.get_title() == f"4 neurons\nmedian {np.median(found / ceilings):.2f} of the ceiling"
    assert panel.get_xlim() == panel.get_ylim()


def test_images_that_were_not_shown_are_left_out_and_neurons_without_a_ceiling_counted(
    rng: np.random.Generator,
) -> None:
    rates, trials, index = responses_to_repeats(5, rng)
    trials[:, 1] = 2.0
    figure = predicted_against_observed(np.vstack([rates, rates[:2]]), trials, index)
    assert figure.get_supxlabel() == "without a ceiling: 1 of 5 neurons"
    panels = figure.axes[1:]
    assert [len(panel.containers[0][0].get_xdata()) for panel in panels] == [30, 30, 30]
    found = correlation_with_average(rates, trials, index)[[0, 2, 3, 4]]
    names = [panel.get_title().split(":")[0] for panel in panels]
    assert names == ["best", "median", "worst"]
    scores = [f"correlation {value:.2f}" for value in (found.max(), np.sort(found)[1], found.min())]
    assert [panel.get_title().split("\n")[1] for panel in panels] == scores
    title = predicted_against_observed(rates, trials, index, neurons=[1]).axes[1].get_title()
    assert title == "neuron 1\ncorrelation 0.00\nceiling none"


@pytest.mark.parametrize("n_neurons", [1, 3, 1000])
def test_predictions_beside_ceilings_of_any_number_of_neurons(n_neurons: int, rng: np.random.Generator) -> None:
    rates, trials, index = responses_to_repeats(n_neurons, rng)
    assert_nothing_is_cut_off(predicted_against_observed(rates, trials, index))
    constant = predicted_against_observed(np.ones_like(rates), np.ones_like(trials), index)
    assert len(constant.axes) == min(n_neurons, 3) + 1
    assert_nothing_is_cut_off(constant)


def test_predictions_beside_ceilings_complain_of_what_does_not_fit(rng: np.random.Generator) -> None:
    rates, trials, index = responses_to_repeats(3, rng)
    with pytest.raises(InputError, match="neurons holds 5 positions: expected 1 to 4, a panel for each"):
        predicted_against_observed(rates, trials, index, neurons=[0, 1, 2, 0, 1])
    with pytest.raises(InputError, match="names has 2 rows but responses has 3: one row per neuron"):
        predicted_against_observed(rates, trials, index, names=["a", "b"])
    with pytest.raises(InputError, match="noise_ceiling needs"):
        predicted_against_observed(rates, rates, np.arange(30))
