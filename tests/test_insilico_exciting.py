"""Most exciting images against closed forms: a filter, an eigenvector, and every other image of the same contrast."""

from typing import Any

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.errors import OptionError
from whatwhere.insilico import ImageStatistics, MostExcitingOptions, most_exciting_images
from whatwhere.location_posterior import blur
from whatwhere.simulation import LinearPopulation, complex_population, gabor, gabor_population

SIZE = (20, 26)
GREY = ImageStatistics(np.full((1, *SIZE), 128.0), 30.0)


def simple(nonlinearity: str = "relu") -> LinearPopulation:
    return gabor_population(3, image_size=SIZE, kernel_size=11, nonlinearity=nonlinearity, seed=1)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("nonlinearity", ["identity", "relu"])
def test_of_a_linear_nonlinear_neuron_it_is_the_blurred_filter(nonlinearity: str) -> None:
    population = simple(nonlinearity)
    for smoothness in (0.0, 1.0):
        options = MostExcitingOptions(contrast=0.5, smoothness=smoothness)
        found = most_exciting_images(population, options, statistics=GREY)
        blurred = blur(torch.from_numpy(population.receptive_fields()), smoothness).numpy()
        for image, filter_, blurred_one in zip(found.images, population.receptive_fields(), blurred, strict=True):
            assert correlation(image, blurred_one) > 0.999
            assert correlation(image, filter_) > 0.95
            assert image.mean() == pytest.approx(128, abs=1e-3)
            assert image.std() == pytest.approx(15, rel=1e-3)
        np.testing.assert_allclose(found.contrasts, 15, rtol=1e-3)
        np.testing.assert_allclose(
            found.responses, population.rates(found.images)[np.arange(3), np.arange(3)], rtol=1e-4
        )
        assert found.converged.all()


def test_of_a_complex_cell_no_other_image_of_the_contrast_excites_more() -> None:
    population = complex_population(2, image_size=SIZE, kernel_size=11, seed=1)
    found = most_exciting_images(population, MostExcitingOptions(smoothness=0.0, n_starts=1), neurons=[1])
    pair = np.stack([part.receptive_fields()[1].ravel() for part in (population.even, population.odd)])
    pair -= pair.mean(1, keepdims=True)  # images keep their mean
    largest = np.linalg.eigvalsh(pair @ pair.T)[-1] * np.prod(SIZE)  # of a norm of sqrt(n_pixels): contrast 1
    own = pair @ found.images[0].ravel().astype(float)
    assert (own @ own) == pytest.approx(largest, rel=1e-3)
    assert found.neurons.tolist() == [1]


def test_two_channels_share_the_contrast_as_the_filter_does() -> None:
    kernel = np.stack([gabor(9, frequency=0.2), -0.5 * gabor(9, frequency=0.2)])[None]
    population = LinearPopulation(kernel, np.array([[3, 5]]), np.zeros(1, int), SIZE)
    mean = np.stack([np.full(SIZE, 10.0), np.full(SIZE, 20.0)])
    found = most_exciting_images(
        population, MostExcitingOptions(smoothness=0.0), statistics=ImageStatistics(mean, 2.0)
    ).images[0]
    np.testing.assert_allclose(found.mean((1, 2)), [10, 20], rtol=1e-5)
    assert found[1].std() / found[0].std() == pytest.approx(0.5, rel=1e-3)
    assert np.sqrt((found - mean) ** 2.0).mean() < np.sqrt(((found - mean) ** 2.0).mean()) == pytest.approx(2, rel=1e-3)


def test_pixels_stay_within_the_range_and_the_image_is_still_the_best() -> None:
    population = simple()
    free = most_exciting_images(population, statistics=GREY)
    assert free.images.max() > 255  # a small field takes all the contrast
    options = MostExcitingOptions(pixel_range=(0, 255))
    found = most_exciting_images(population, options, statistics=GREY)
    assert found.images.min() >= 0
    assert found.images.max() <= 255
    assert (found.contrasts <= 30 * 1.001).all()
    cut = np.clip(free.images, 0, 255)
    assert (found.responses > population.rates(cut)[np.arange(3), np.arange(3)]).all()
    with pytest.raises(OptionError, match=r"grey, 128 to 128 by channel, is not within pixel_range \(0, 1\)"):
        most_exciting_images(population, MostExcitingOptions(pixel_range=(0, 1)), statistics=GREY)


def test_a_neurons_image_is_the_same_whatever_is_asked_beside_it() -> None:
    population = complex_population(5, image_size=SIZE, kernel_size=11, seed=1)
    found = most_exciting_images(population)
    told: list[tuple[int, int]] = []
    again = most_exciting_images(
        population, neurons=[4, 2], memory_gib=1e-6, told=lambda done, of: told.append((done, of))
    )
    np.testing.assert_allclose(again.images, found.images[[4, 2]], atol=2e-3)
    assert told == [(1, 2), (2, 2)]
    other = most_exciting_images(population, MostExcitingOptions(seed=1))  # another phase, as good
    assert np.abs(other.images - found.images).max() > 0.5
    np.testing.assert_allclose(other.responses, found.responses, rtol=0.05)


def test_a_neuron_that_no_pixel_moves_gets_grey_and_is_not_said_to_have_converged() -> None:
    silent = LinearPopulation(np.zeros((1, 5, 5)), np.array([[2, 2]]), np.zeros(1, int), SIZE)
    found = most_exciting_images(silent, statistics=GREY)
    np.testing.assert_allclose(found.images, 128)
    assert found.converged.tolist() == [False]
    assert found.contrasts.tolist() == [0]
    assert most_exciting_images(simple(), MostExcitingOptions(steps=1)).steps.max() == 1


def test_options_out_of_range_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"contrast": 0}, r"contrast must be a number above 0"),
        ({"smoothness": -1}, r"smoothness must be a number at least 0"),
        ({"pixel_range": (3, 3)}, r"the highest of pixel_range must be a number above 3, got 3"),
        ({"n_starts": 0}, r"n_starts must be a whole number of at least 1"),
        ({"seed": -1}, r"seed must be a whole number of at least 0"),
    ]
    for options, message in wrong:
        with pytest.raises(OptionError, match=message):
            MostExcitingOptions(**options)


@pytest.mark.parametrize("kind", ["factorized", "gaussian"])
def test_a_networks_neurons_prefer_them_to_every_training_image_and_to_noise(kind: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(10, 3, (300, 1, 14, 17)).astype(np.float32)
    kernels = np.stack([gabor(7, frequency=0.2, orientation=angle) for angle in (0.0, 1.0, 2.0)])
    population = LinearPopulation(kernels, np.array([[1, 2], [5, 8], [6, 3]]), np.arange(3), (14, 17), "relu")
    options = {"core": {"kernel_sizes": [7, 3], "n_maps": [8, 4]}, "training": {"max_steps": 150, "batch_size": 32}}
    model = ww.make_model(kind, options).fit(images, population.rates((images - 10) / 3))
    statistics = ImageStatistics.of(images)
    found = most_exciting_images(model, MostExcitingOptions(smoothness=0.5), statistics=statistics)
    assert found.contrasts.max() < 1.001 * statistics.contrast
    noise = rng.normal(size=(500, 1, 14, 17))
    noise *= statistics.contrast / noise.std((1, 2, 3), keepdims=True)
    best = np.maximum(model.predict(images).max(0), model.predict(statistics.grey + noise).max(0))
    assert (found.responses > 1.2 * best).all()
    assert found.converged.mean() > 0.5
