"""Networks fitted along a path: the same fit as the estimator's, each starting where it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from whatwhere.config import ModelOptions, PenaltyOptions
from whatwhere.estimators import FactorizedCNN
from whatwhere.estimators.resume import cpu_threads
from whatwhere.experiments.networks import fit_path
from whatwhere.presets import preset_options
from whatwhere.recording import Recording
from whatwhere.simulation import simulate, simulate_population


def network(n_maps: int = 1, **training: float) -> ModelOptions:
    base = preset_options("factorized", "simulation")
    core = replace(base.core, kernel_sizes=(7,), n_maps=n_maps)
    schedule = {"batch_size": 32, "check_every": 5, "patience": 2, **training}
    return replace(base, core=core, training=replace(base.training, **schedule))


@pytest.fixture(scope="module")
def recording() -> Recording:
    population = simulate_population(5, image_size=(12, 15), kernel_size=7, n_channels=2, mean_rate=2.0, seed=3)
    return simulate(population, 90, n_test_images=20, seed=3)


@pytest.mark.parametrize("n_maps", [1, 2])
def test_one_strength_is_the_estimators_own_fit(recording: Recording, n_maps: int) -> None:
    options = network(n_maps, max_steps=30)
    penalties = PenaltyOptions(mask_l1=0.02, feature_l1=0.01 * (n_maps - 1))
    with cpu_threads(1):
        fit = fit_path(recording, options, [penalties], seed=4)
    model = FactorizedCNN("simulation", **{**vars(options), "penalties": penalties}, seed=4, threads=1, device="cpu")
    model.fit(recording)
    images = recording.test.read_images()
    assert fit.predict(images).std() > 0.01
    np.testing.assert_array_equal(np.abs(fit.kernels()), np.abs(model.kernels_))
    np.testing.assert_allclose(fit.predict(images), model.predict(images), atol=1e-6)
    assert fit.losses["validation_loss"][0] == model.candidates_["validation_loss"][0]
    assert fit.losses["steps"].tolist() == model.candidates_["steps"].tolist()


def test_a_warm_start_begins_where_the_last_fit_ended(recording: Recording) -> None:
    options, path = network(max_steps=20), [PenaltyOptions(mask_l1=0.02)] * 2
    cold = fit_path(recording, options, path, seed=0, warm_start=False, patient=True)
    assert cold.losses["validation_loss"].nunique() == 1  # all alike
    assert cold.best == 0
    warm = fit_path(recording, options, path, seed=0)
    losses = warm.losses["validation_loss"]
    assert losses[0] == cold.losses["validation_loss"][0]
    assert losses[1] < losses[0] - 0.01  # twenty steps more
    assert warm.best == 1
    assert warm.losses["mask_l1"].tolist() == [0.02] * 2


def test_the_path_ends_with_the_first_fit_that_is_no_better_and_keeps_the_best(recording: Recording) -> None:
    options = network(max_steps=20)
    path = [PenaltyOptions(mask_l1=strength) for strength in (0.02, 30.0, 0.01)]
    fit = fit_path(recording, options, path, seed=0, warm_start=False)
    assert len(fit.losses) == 2
    assert fit.best == 0
    alone = fit_path(recording, options, path[:1], seed=0)
    images = recording.test.read_images()
    np.testing.assert_array_equal(fit.predict(images), alone.predict(images))
    assert len(fit_path(recording, options, path, seed=0, warm_start=False, patient=True).losses) == 3


def test_maps_that_are_given_are_read_as_they_are(recording: Recording) -> None:
    options = network(2, max_steps=20)
    options = replace(options, core=replace(options.core, kernel_sizes=(1,)))
    fit = fit_path(recording, options, [PenaltyOptions(mask_l1=0.02)], seed=0, given_maps=True)
    np.testing.assert_array_equal(fit.kernels()[:, :, 0, 0] ** 2, np.eye(2))  # never learned
    images = recording.test.read_images()
    scale = recording.read_images(recording.split(seed=0)[0]).std(axis=(0, 2, 3))
    maps = images / scale[None, :, None, None]
    effective = (
        fit.model.readout.masks().numpy()[:, None] * fit.model.readout.feature_weights().numpy()[:, :, None, None]
    )
    by_hand = np.einsum("bchw,nchw->bn", maps, effective)
    expected = fit.predict(images) / fit.prepared.response_scale
    np.testing.assert_allclose(by_hand - by_hand.mean(0), expected - expected.mean(0), atol=2e-2)


def test_signs_that_cancel_do_not_show(recording: Recording) -> None:
    fit = fit_path(recording, network(2, max_steps=20), [PenaltyOptions(mask_l1=0.02, feature_l1=0.01)], seed=0)
    kernels, weights = fit.kernels(), fit.feature_weights()
    assert (weights.sum(0) >= 0).all()
    with torch.no_grad():
        fit.model.core.layers[0].convolution.weight[1] *= -1
        fit.model.readout.weights[:, 1] *= -1
        fit.model.readout.mask[2] *= -1
        fit.model.readout.weights[2] *= -1
    np.testing.assert_allclose(fit.kernels(), kernels, atol=1e-7)
    np.testing.assert_allclose(fit.feature_weights(), weights, atol=1e-7)
