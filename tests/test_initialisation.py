"""Initial values: averages by a loop, peaks and amplitudes of simulated neurons, biases that hit the mean."""

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions
from whatwhere.core import map_offset, output_shape
from whatwhere.initialisation import (
    aligned_components,
    chance_scores,
    initial_bias,
    mask_peaks,
    signal_std,
    smoothed_energy,
    spike_triggered_averages,
    start_probabilities,
)

HEIGHT, WIDTH = 14, 19


def difference_of_gaussians(row: float, column: float) -> np.ndarray:
    """On-centre, off-surround, of norm one: (HEIGHT, WIDTH)."""
    i, j = np.mgrid[:HEIGHT, :WIDTH]
    square = (i - row) ** 2 + (j - column) ** 2
    field = np.exp(-square / 2) - 0.25 * np.exp(-square / 8)
    return field / np.linalg.norm(field)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(1500, 1, HEIGHT, WIDTH)).astype(np.float32)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def test_spike_triggered_average_is_the_covariance_with_each_pixel(rng: np.random.Generator) -> None:
    images, responses = rng.normal(2.0, 1.0, (1100, 2, 3, 4)), rng.poisson(1.5, (1100, 3)).astype(float)
    expected = np.zeros((3, 2, 3, 4))
    for n in range(3):
        for b in range(len(images)):
            expected[n] += (responses[b, n] - responses[:, n].mean()) * (images[b] - images.mean(0))
    got = spike_triggered_averages(tensor(images), tensor(responses))
    np.testing.assert_allclose(got.numpy(), expected / len(images), atol=2e-5)


def test_spike_triggered_average_is_blind_to_constants_in_images_and_responses(rng: np.random.Generator) -> None:
    images, responses = rng.normal(size=(50, 1, 3, 4)), rng.normal(size=(50, 2))
    got = [spike_triggered_averages(tensor(images + c), tensor(responses + 5 * c)).numpy() for c in (0.0, 3.0)]
    np.testing.assert_allclose(got[1], got[0], atol=1e-5)
    constant = spike_triggered_averages(tensor(images), tensor(np.full((50, 1), 7.0))).numpy()
    np.testing.assert_array_equal(constant, 0.0)  # a silent neuron has no average, not one of rounding errors


def test_spike_triggered_average_keeps_double_precision(rng: np.random.Generator) -> None:
    images, responses = rng.normal(size=(20, 1, 3, 4)), rng.normal(size=(20, 2))
    expected = np.einsum("bn,bcij->ncij", responses - responses.mean(0), images) / 20
    got = spike_triggered_averages(torch.from_numpy(images), torch.from_numpy(responses))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_smoothed_energy_is_the_squared_average_under_a_gaussian() -> None:
    averages = torch.zeros(2, 3, HEIGHT, WIDTH)
    averages[0, 0, 6, 9], averages[0, 2, 6, 9] = 3.0, -4.0
    np.testing.assert_array_equal(smoothed_energy(averages, 0.0)[0, 6, 9], 25.0)
    i, j = np.mgrid[:HEIGHT, :WIDTH]
    gaussian = np.exp(-((i - 6) ** 2 + (j - 9) ** 2) / (2 * 1.5**2))
    got = smoothed_energy(averages, 1.5)
    np.testing.assert_allclose(got[0], 25 * gaussian / gaussian.sum(), atol=2e-3)
    assert not got[1].any()


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_sizes": (5,), "padding": "valid"},
        {"kernel_sizes": ((3, 6),), "padding": "valid"},
        {"kernel_sizes": (5,), "padding": "same"},
        {"kernel_sizes": (5, (4, 2)), "padding": ("valid", "same")},
        {"kernel_sizes": ((4, 2), (4, 6)), "padding": "same"},
    ],
)
def test_mask_peaks_look_at_a_noiseless_average(options: dict, smoothing: float) -> None:
    core = CoreOptions(n_maps=1, **options)
    (_, h, w), (row, column) = output_shape(core, HEIGHT, WIDTH), map_offset(core)
    pixels = [(4, 5), (7, 12), (9, 9)]
    averages = np.stack([difference_of_gaussians(*pixel) for pixel in pixels])[:, None]
    peaks = mask_peaks(tensor(averages), (h, w), (row, column), smoothing).numpy()
    for peak, (i, j) in zip(peaks, pixels, strict=True):
        assert abs(peak // w + row - i) <= 0.5
        assert abs(peak % w + column - j) <= 0.5


def test_mask_peaks_are_found_for_a_noisy_neuron_in_white_noise(images: np.ndarray, rng: np.random.Generator) -> None:
    core = CoreOptions(kernel_sizes=((5, 3),), padding="valid", n_maps=1)
    (_, h, w), offset = output_shape(core, HEIGHT, WIDTH), map_offset(core)
    centres = np.array([(4, 5), (9, 14), (6, 10), (11, 3), (2, 17)])
    drive = np.stack([(images[:, 0] * difference_of_gaussians(*c)).sum((1, 2)) for c in centres], axis=1)
    responses = np.maximum(drive, 0) + rng.normal(0, 1.0, drive.shape)
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    peaks = mask_peaks(averages, (h, w), offset, 1.0).numpy()
    found = np.stack([peaks // w, peaks % w], axis=1) + np.array(offset)
    assert np.abs(found - centres).max() <= 1


def test_mask_peaks_never_fall_outside_the_map() -> None:
    core = CoreOptions(kernel_sizes=((7, 5),), padding="valid", n_maps=1)
    (_, h, w), offset = output_shape(core, HEIGHT, WIDTH), map_offset(core)
    averages = torch.zeros(5, 1, HEIGHT, WIDTH)
    for n, (i, j) in enumerate([(0, 0), (HEIGHT - 1, WIDTH - 1), (0, WIDTH - 1), (HEIGHT - 1, 0), (5, 0)]):
        averages[n, 0, i, j] = 1.0
    averages[:, 0, 5, 7] += 0.1
    peaks = mask_peaks(averages, (h, w), offset, 0.0)
    assert peaks.tolist() == [(5 - 3) * w + 7 - 2] * 5  # the strongest pixel that the map can see
    assert peaks.dtype == torch.int64
    smoothed = mask_peaks(averages, (h, w), offset, 2.0)
    assert smoothed[:4].tolist() == [0, h * w - 1, w - 1, (h - 1) * w]


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_signal_std_is_that_of_the_noise_free_part(noise: float, rng: np.random.Generator) -> None:
    images = rng.normal(size=(5000, 1, HEIGHT, WIDTH))
    centres = np.array([(4, 5), (9, 13)])
    drive = np.stack([(images[:, 0] * difference_of_gaussians(*c)).sum((1, 2)) for c in centres], axis=1)
    drive *= [3.0, 0.2]
    responses = tensor(drive + noise * drive.std(0) * rng.normal(size=drive.shape) + 5.0)
    averages = spike_triggered_averages(tensor(images), responses)
    got = signal_std(tensor(images), responses, averages, centres, reach=3).numpy()
    np.testing.assert_allclose(got, drive.std(0), rtol=0.1)


def test_signal_std_looks_only_around_the_peak_and_lies_between_its_bounds(
    images: np.ndarray, rng: np.random.Generator
) -> None:
    drive = (images[:, 0] * difference_of_gaussians(4, 5)).sum((1, 2))
    responses = tensor(np.stack([drive, drive, rng.normal(size=len(drive)), np.full(len(drive), 2.0)], axis=1))
    averages = spike_triggered_averages(tensor(images), responses)
    peaks = np.array([(4, 5), (11, 16), (5, 5), (5, 5)])  # right, wrong, noise, silent
    right, wrong, noise, silent = signal_std(tensor(images), responses, averages, peaks, reach=2).numpy()
    assert 0.8 * drive.std() < right <= drive.std() * 1.0001
    assert 0.049 * drive.std() < wrong < 0.2 * drive.std()
    assert 0.049 < noise < 0.2
    assert silent == 0.0


def output(values: np.ndarray, nonlinearity: str) -> np.ndarray:
    return {"identity": values, "relu": np.maximum(values, 0), "softplus": np.logaddexp(0, values)}[nonlinearity]


@pytest.mark.parametrize("nonlinearity", ["identity", "relu", "softplus"])
def test_initial_bias_makes_the_mean_prediction_the_mean_response(nonlinearity: str, rng: np.random.Generator) -> None:
    drive = rng.normal([0, 3, -4, 100, 0], [0.0, 0.1, 1.0, 30.0, 2.0], (200, 5))
    wanted = np.array([0.3, 0.01, 1.0, 4.0, 2000.0])
    bias = initial_bias(drive, wanted, nonlinearity)
    np.testing.assert_allclose(output(drive + bias, nonlinearity).mean(0), wanted, rtol=1e-8)


@pytest.mark.parametrize("nonlinearity", ["relu", "softplus"])
def test_a_silent_neuron_is_floored_and_its_bias_finite(nonlinearity: str, rng: np.random.Generator) -> None:
    drive = rng.normal(size=(200, 3))
    bias = initial_bias(drive, np.array([0.0, -1.0, 0.5]), nonlinearity, floor=0.002)
    assert np.isfinite(bias).all()
    np.testing.assert_allclose(output(drive + bias, nonlinearity).mean(0), [0.002, 0.002, 0.5], rtol=1e-6)


def test_chance_scores_are_standard_normal_where_nothing_depends(rng: np.random.Generator) -> None:
    images, responses = rng.normal(3, 2, (400, 2, 9, 11)), rng.gamma(2.0, 3.0, (400, 40))
    images[:, 1, 4, 5], responses[:, 7] = 2.5, 1.5  # a constant pixel, a silent neuron
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    scores = chance_scores(averages, tensor(images), tensor(responses)).numpy()
    assert not scores[7].any()
    assert not scores[:, 1, 4, 5].any()
    rest = scores[np.arange(40) != 7].reshape(39, -1)
    assert rest.std() == pytest.approx(1.0, abs=0.02)
    responses[:, 3] = images[:, 0, 2, 6]  # the pixel itself: as many deviations as sqrt(n)
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    assert chance_scores(averages, tensor(images), tensor(responses))[3, 0, 2, 6].item() == pytest.approx(20, rel=1e-4)


def test_start_probabilities_are_the_odds_written_out(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(3, 2, HEIGHT, WIDTH))
    core = CoreOptions(n_maps=1, kernel_sizes=((3, 5),), padding="valid")
    (_, h, w), offset = output_shape(core, HEIGHT, WIDTH), map_offset(core)
    places = start_probabilities(tensor(scores), (h, w), offset, 0.0).numpy()
    odds = (0.5 * (scores**2 - 1).sum(1))[:, 1:-1, 2:-2]
    expected = np.exp(odds) / np.exp(odds).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(places, expected, rtol=1e-4)
    s = 1.5
    i, j = np.mgrid[:HEIGHT, :WIDTH]
    wide = start_probabilities(tensor(scores), (h, w), offset, s).numpy()
    here, there = (3, 4), (8, 9)  # the log of their odds, from sums under two Gaussians of height about one
    under = [np.exp(-((i - a - 1) ** 2 + (j - b - 2) ** 2) / (2 * s**2)) for a, b in (here, there)]
    sums = [0.5 * ((scores[0] ** 2 - 1).sum(0) * gaussian).sum() for gaussian in under]
    assert np.log(wide[0][here] / wide[0][there]) == pytest.approx(sums[0] - sums[1], abs=0.02)
    np.testing.assert_allclose(wide.sum((1, 2)), 1.0, rtol=1e-5)


def test_start_probabilities_of_chance_favour_no_border(rng: np.random.Generator) -> None:
    scores = tensor(rng.normal(size=(3_000, 1, HEIGHT, WIDTH)))
    core = CoreOptions(n_maps=1, kernel_sizes=(3,), padding="same")
    scores[0] = 0.0  # a silent neuron
    found = start_probabilities(scores, (HEIGHT, WIDTH), map_offset(core), 2.0)
    torch.testing.assert_close(found[0], torch.full((HEIGHT, WIDTH), 1 / (HEIGHT * WIDTH)))
    places = found[1:].mean(0).numpy()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    edge = (rows < 2) | (rows >= HEIGHT - 2) | (columns < 2) | (columns >= WIDTH - 2)
    assert 0.5 < places[edge].mean() / places[~edge].mean() < 1.1


def seen(kernels: np.ndarray, which: list[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Averages without noise, and certain places: neuron n sees `kernels[which[n]]` around its place."""
    _, channels, height, width = kernels.shape
    scores, places = np.zeros((len(which), channels, *size)), np.zeros((len(which), *size))
    for n, kernel in enumerate(which):
        i, j = n % size[0], (3 * n) % size[1]
        places[n, i, j] = 1.0
        scores[n] = 0.0
        scores = np.pad(scores, ((0, 0), (0, 0), (0, height - 1), (0, width - 1))) if n == 0 else scores
        scores[n, :, i : i + height, j : j + width] = kernels[kernel]
    return scores, places


def test_aligned_components_find_the_kernels_that_neurons_share(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(2, 2, 3, 4))
    first /= np.linalg.norm(first)
    second -= (second * first).sum() * first
    second /= np.linalg.norm(second)
    kernels = np.stack([first, -first, 0.5 * second])
    scores, places = seen(kernels, [0, 0, 0, 1, 2, 2], (5, 7))
    found = aligned_components(tensor(scores), tensor(places), 2).numpy()
    assert found.shape == (2, 2, 3, 4)
    np.testing.assert_allclose(found[0], first, atol=1e-5)  # the sign of most, and the others share it
    np.testing.assert_allclose(found[1], second, atol=1e-5)
    assert len(aligned_components(tensor(scores[:1]), tensor(places[:1]), 5)) == 1, "one neuron has one"
    assert len(aligned_components(tensor(0 * scores), tensor(places), 2)) == 0, "and silent ones none"


def test_aligned_components_weigh_places_by_their_probability(rng: np.random.Generator) -> None:
    kernel = rng.normal(size=(1, 1, 3, 3))
    scores, _ = seen(kernel, [0], (5, 7))
    places = rng.dirichlet(np.ones(35), 1).reshape(1, 5, 7)
    expected = np.zeros((3, 3))
    for u in range(3):
        for v in range(3):
            expected[u, v] = (places[0] * scores[0, 0, u : u + 5, v : v + 7]).sum()
    found = aligned_components(tensor(scores), tensor(places), 1)[0, 0].numpy()
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
