"""The experiments on grids of seconds: what they measure is what it should be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from whatwhere.config import PenaltyOptions
from whatwhere.errors import OptionError
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.experiment import Grid
from whatwhere.experiments.fig1 import FIG1, Fig1Options, pooled
from whatwhere.experiments.fig1 import solve as solve_fig1
from whatwhere.experiments.fig3 import (
    FIG3,
    MODELS,
    PAPER_STRENGTHS,
    Fig3Options,
    calibrated,
    mask_strengths,
    searched,
    simulated,
)
from whatwhere.experiments.fig3 import solve as solve_fig3
from whatwhere.experiments.fig4 import FIG4, Fig4Options, recovered
from whatwhere.experiments.fig4 import solve as solve_fig4
from whatwhere.experiments.grid import read_grid
from whatwhere.experiments.networks import PathFit, fit_path
from whatwhere.experiments.paper_numbers import FIGURE_3B, IMAGES, figure_3b
from whatwhere.experiments.points import Point
from whatwhere.metrics import fev
from whatwhere.presets import preset_options
from whatwhere.simulation import simulate, simulate_population

TINY = Fig3Options(image_size=(21, 26), n_test_images=200, most_strengths=1)


def test_presets_are_the_grids_that_were_published() -> None:
    points = FIG3.points(FIG3.grid("quick"))
    assert len(points) == (len(MODELS) - 1) * 4 * 3
    assert "posterior-constant" not in {point.model for point in points}
    assert {point.n_images for point in points} == {256, 1024, 4096}
    paper = FIG3.grid("paper")
    assert paper.images == (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384) == IMAGES
    assert (paper.neurons, len(paper.seeds)) == ((1, 10, 100, 1000), 20)
    assert searched(FIG3.presets["paper"].options, 64) == sorted(PAPER_STRENGTHS, reverse=True)
    assert {point.n_neurons for point in FIG1.points(FIG1.grid("quick", models=["one"]))} == {1}
    assert FIG4.points(FIG4.grid("quick", models=["three-types"], neurons=[7]))[0].n_neurons == 21
    assert list(EXPERIMENTS) == ["fig1", "fig3", "fig4", "fig5b", "fig5c", "fig5d", "fig5e", "scale", "types"]


def test_a_part_of_a_grid_has_each_point_once() -> None:
    grid = FIG3.grid("quick", models=["cnn", "ridge"], neurons=[2, 2], images=[64], seeds=[5, 1])
    assert grid == Grid(("cnn", "ridge"), (2, 2), (64,), (5, 1))
    assert FIG3.points(grid) == [Point(model, 2, 64, seed) for model in ("cnn", "ridge") for seed in (5, 1)]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"models": ["cnm"]}, "unknown model 'cnm'.*Did you mean 'cnn'"),
        ({"models": []}, "models is empty: give at least one"),
        ({"neurons": [0]}, "neurons must be a whole number of at least 1, got 0"),
        ({"images": [7]}, "images must be a whole number of at least 8, got 7"),
        ({"seeds": [-1]}, "seeds must be a whole number of at least 0, got -1"),
    ],
)
def test_what_a_grid_cannot_have(part: dict[str, list], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FIG3.grid("quick", **part)
    with pytest.raises(OptionError, match=r"unknown preset 'quik'.*Did you mean 'quick'"):
        FIG3.grid("quik")


def test_the_papers_curves_are_those_of_its_figure() -> None:
    assert all(len(curve) == len(IMAGES) for curve in FIGURE_3B.values())
    assert (figure_3b("ols", 5, 4096), figure_3b("cnn", 1000, 64), figure_3b("cnn", 1000, 65)) == (0.38, 0.02, None)
    assert figure_3b("posterior", 10, 64) is None


# Figure 1


def test_pooling_moves_each_field_to_the_middle() -> None:
    recording, population = simulated(TINY, Point("shared", 4, 9, 2))
    together = pooled(recording, population)
    assert (together.n_images, together.n_neurons, together.image_shape) == (36, 1, (1, 17, 17))
    rates = together.read_images().reshape(36, -1) @ population.kernels[0].reshape(-1)  # one kernel for all
    np.testing.assert_allclose(rates.reshape(4, 9), recording.truth.rates.T, atol=1e-6)
    np.testing.assert_array_equal(together.responses.reshape(4, 9), recording.responses.T)
    rows, held = together.split(seed=0)
    assert not set(together.image_ids[rows]) & set(together.image_ids[held])


def test_one_neuron_alone_is_the_same_shared_or_not() -> None:
    options = Fig1Options(image_size=(21, 26), n_test_images=100)
    one, shared, independent = (solve_fig1(options, Point(model, 1, 120, 3)) for model in FIG1.models)
    assert one.fev == pytest.approx(shared.fev, abs=1e-5) == pytest.approx(independent.fev, abs=1e-5)
    assert one.strength == shared.strength


def test_sharing_is_worth_as_many_images_as_there_are_neurons(tmp_path) -> None:
    options = Fig1Options(image_size=(44, 48), n_test_images=200)
    for models, n_images in ((["shared", "independent"], 200), (["one", "independent"], 2000)):
        FIG1.run(tmp_path, models=models, images=[n_images], seeds=range(4), options=options, workers=1, resume=True)
    results = read_grid(tmp_path)
    shared, alone = results.curve("shared", 10, "fev")[0], results.curve("one", 1, "fev")[0]
    few, many = results.curve("independent", 10, "fev")
    assert shared.median == pytest.approx(alone.median, abs=0.06)
    assert many.median == pytest.approx(alone.median, abs=0.06)
    assert few.median < shared.median - 0.3


# Figure 3


def test_strengths_mean_what_equation_4_means(rng: np.random.Generator) -> None:
    responses, predictions = rng.standard_normal((2, 60, 3))
    responses /= responses.std(0) / 0.34
    masks, strength = rng.standard_normal((3, 20)), 0.0464
    recording, _ = simulated(TINY, Point("cnn", 3, 60, 0))
    recording = replace(recording, responses=responses, truth=None)
    ours = mask_strengths([strength], recording)[0]
    paper = ((responses - predictions) ** 2).sum(1).mean() + strength * np.abs(masks).sum()
    s = responses.std(0)
    averaged = ((responses / s - predictions / s) ** 2).mean() + ours * np.abs(masks / s[:, None]).sum(1).mean()
    assert averaged * 3 * 0.34**2 == pytest.approx(paper, rel=1e-4)


def test_searched_strengths_are_the_papers_around_the_usual_one() -> None:
    for n_images in IMAGES:
        found = searched(Fig3Options(), n_images)
        assert len(found) == 3
        assert found == sorted(found, reverse=True)
        assert set(found) <= set(PAPER_STRENGTHS)
    assert searched(Fig3Options(), 64)[1] == pytest.approx(0.215, abs=1e-3)
    assert searched(Fig3Options(), 16384)[1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("model", ["ols", "ridge"])
def test_linear_models_are_those_on_the_true_window_without_an_offset(model: str) -> None:
    point = Point(model, 3, 500, 1)
    found = solve_fig3(TINY, point)
    recording, population = simulated(TINY, point)
    rows, held = recording.split(seed=1)
    images, test, predictions = recording.images[rows, 0], recording.test.images[:, 0], []
    for (row, column), response in zip(population.positions, recording.responses[rows].T, strict=True):
        window = np.s_[:, row : row + 17, column : column + 17]
        pixels = images[window].reshape(len(rows), -1).astype(float)
        pixels -= pixels.mean(0)
        gram = pixels.T @ pixels
        if model == "ridge":
            gram += found.strength * (pixels**2).mean() * np.eye(len(gram))
        filters = np.linalg.solve(gram, pixels.T @ (response - response.mean()))
        predictions.append(test[window].reshape(len(test), -1) @ filters)
    assert found.fev == pytest.approx(fev(np.stack(predictions, 1), recording.test.rates).mean(), abs=2e-3)
    assert found.n_validation == len(held) == 100
    if model == "ridge":
        assert any(found.strength == pytest.approx(strength) for strength in np.geomspace(10, 20_000, 10))


def test_lasso_searches_the_papers_strengths() -> None:
    found = solve_fig3(TINY, Point("lasso", 2, 400, 0))
    assert any(found.strength == pytest.approx(strength) for strength in np.geomspace(1e-5, 0.3, 10))
    assert found.arrays["kernel"].shape == (1, 17, 17)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_with_the_kernel_given_masks_alone_are_found(n_channels: int) -> None:
    point, options = Point("true-kernel", 12, 600, 0), replace(TINY, n_channels=n_channels)
    given = solve_fig3(options, point)
    assert given.arrays["true_kernel"].shape == ((17, 17) if n_channels == 1 else (3, 17, 17))
    assert given.fev > 0.85
    assert given.measured["location_error"] == 0
    assert given.measured["hit_rate"] == 1
    assert "kernel" not in given.arrays
    assert given.n_validation == 120
    assert given.strength == searched(TINY, 600)[0]
    np.testing.assert_array_equal(given.arrays["true_locations"], simulated(TINY, point)[1].locations)


def test_the_network_finds_the_kernel_and_the_places() -> None:
    found = solve_fig3(TINY, Point("cnn", 30, 1000, 0))
    assert found.fev > 0.7
    assert found.measured["kernel_correlation"] > 0.9
    assert found.measured["hit_rate"] > 0.9
    assert (found.arrays["kernel"][0] * found.arrays["true_kernel"]).sum() > 0  # with the sign that it is read with


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_posterior_finds_the_kernel_and_the_places_of_few_images(n_channels: int) -> None:
    found = solve_fig3(replace(TINY, n_channels=n_channels), Point("posterior", 30, 300, 0))
    assert found.fev > 0.85
    assert found.measured["kernel_correlation"] > 0.9
    assert found.measured["hit_rate"] > 0.9
    assert found.arrays["kernel"].shape == (n_channels, 17, 17)
    assert (found.arrays["kernel"] * found.arrays["true_kernel"]).sum() > 0  # with the sign that it is read with


def test_the_noise_model_is_worth_images() -> None:
    right, constant = (solve_fig3(TINY, Point(model, 30, 100, 1)) for model in ("posterior", "posterior-constant"))
    assert right.fev > constant.fev + 0.05


def test_two_places_under_the_true_kernel_are_judged_where_they_are() -> None:
    found = solve_fig3(TINY, Point("posterior-true-kernel", 2, 200, 0))  # too few to remove an offset
    assert found.fev > 0.9
    assert (found.measured["location_error"], found.measured["hit_rate"]) == (0, 1)
    assert found.arrays["coverage"][:, 4].tolist() == [2] * 4
    true = found.arrays["reliability"][:, 3] * found.arrays["reliability"][:, 6]
    assert np.nansum(true[-3:]) == 2  # both stated to be where they are with more than 0.7
    assert "kernel" not in found.arrays


def test_stated_locations_are_judged_at_their_places_in_the_map(rng: np.random.Generator) -> None:
    recording, population = simulated(TINY, Point("cnn", 200, 8, 0))
    posterior = np.full((200, 5, 10), 0.2 / 49)
    looked_at = np.where(rng.random(200)[:, None] < 0.8, population.positions, [0, 9])  # four in five are right
    posterior[np.arange(200), *looked_at.T] = 0.8
    measured, arrays = calibrated(posterior, recording, (8.0, 8.0))
    assert measured["coverage"] == pytest.approx(0.9, abs=0.06)
    assert measured["coverage_low"] < measured["coverage"] < measured["coverage_high"]
    assert measured["region_size"] == pytest.approx(1 + 49 / 2, abs=1)
    assert arrays["coverage"][:, 0].tolist() == [0.5, 0.8, 0.9, 0.95]
    sure = arrays["reliability"][arrays["reliability"][:, 6] == 200][-1]
    assert sure[2] == pytest.approx(0.8)
    assert sure[3] == pytest.approx(0.8, abs=0.1)


# Figure 4


def fitted_by_hand(order: list[int], signs: np.ndarray) -> tuple[PathFit, object]:
    """A network that was given the truth: each type's mean kernel, places and types, but for order and signs."""
    population = simulate_population(9, size_factors=(0.4, 0.8, 1.6), image_size=(22, 27), seed=1)
    recording = simulate(population, 60, n_test_images=20, seed=1)
    base = preset_options("factorized", "simulation")
    options = replace(
        base, core=replace(base.core, n_maps=3), training=replace(base.training, batch_size=16, max_steps=0)
    )
    fit = fit_path(recording, options, [PenaltyOptions(mask_l1=0.1, feature_l1=0.02)], seed=0)
    means = np.stack([population.kernels[population.types == kind].mean(0) for kind in range(3)])
    channel = np.argsort(order)[population.types]
    with torch.no_grad():
        kernels = means[order][:, None] * signs[:, None, None, None]
        fit.model.core.layers[0].convolution.weight.copy_(torch.from_numpy(kernels))
        fit.model.readout.mask.zero_()
        for neuron, (row, column) in enumerate(population.positions):
            fit.model.readout.mask[neuron, row, column] = -0.5 if neuron == 4 else 0.5
        weights = np.full((9, 3), 0.1)
        weights[np.arange(9), channel] = 0.9
        weights *= signs
        weights[4] *= -1
        fit.model.readout.weights.copy_(torch.from_numpy(weights))
    return fit, population


def test_the_truth_is_recovered_whatever_order_and_signs() -> None:
    fit, population = fitted_by_hand([2, 0, 1], np.array([-1.0, 1.0, -1.0]))
    measured, arrays = recovered(fit, population)
    assert measured["type_accuracy"] == 1
    assert measured["kernel_correlation"] == pytest.approx(1, abs=1e-6)
    assert measured["kernel_overlap"] < 0.97
    assert measured["location_error"] == 0
    assert measured["hit_rate"] == 1
    assert measured["weight_share"] == pytest.approx(0.9 / 1.1)
    np.testing.assert_allclose(arrays["kernels"], arrays["type_means"], atol=1e-7)
    assert (arrays["feature_weights"].argmax(1) == population.types).all()
    assert (arrays["feature_weights"] > 0).all()


def test_a_wrong_kernel_and_a_wrong_type_are_seen() -> None:
    fit, population = fitted_by_hand([0, 1, 2], np.ones(3))
    with torch.no_grad():
        fit.model.core.layers[0].convolution.weight[1] = fit.model.core.layers[0].convolution.weight[2]
        fit.model.readout.weights[0] = torch.tensor([0.0, 0.1, 0.9])
    measured, _ = recovered(fit, population)
    assert measured["type_accuracy"] == pytest.approx(8 / 9)
    assert measured["kernel_correlation"] < measured["kernel_overlap"] + 1e-6


def test_fig4_fits_a_kernel_for_each_type() -> None:
    options = Fig4Options(image_size=(21, 26), n_test_images=50, max_steps=10)
    found = solve_fig4(options, Point("three-types", 12, 100, 0))
    assert found.arrays["kernels"].shape == found.arrays["type_means"].shape == (3, 1, 17, 17)
    assert found.arrays["examples"].shape == (3, 3, 1, 17, 17)
    assert found.arrays["feature_weights"].shape == (12, 3)
    assert found.arrays["types"].tolist() == [0, 1, 2] * 4
    assert found.n_validation == 20
    assert -1 < found.fev < 1
