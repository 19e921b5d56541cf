"""Initial values: averages by a loop, peaks and amplitudes of simulated neurons, biases that hit the mean."""

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions
from whatwhere.core import map_offset, output_shape
from whatwhere.initialisation import (
    decorrelation,
    filtered,
    initial_bias,
    mask_peaks,
    signal_std,
    smoothed_energy,
    spike_triggered_averages,
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


def correlated_images(rng: np.random.Generator, n_images: int, n_channels: int, height: int, width: int) -> np.ndarray:
    """Power that falls with frequency, as in photographs, the same everywhere (circular), channels alike."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    amplitude = 1 / (np.hypot(rows, columns) + 1 / max(height, width))
    white = np.fft.fft2(rng.normal(size=(n_images, n_channels, height, width)))
    images = np.fft.ifft2(white * amplitude).real
    return np.asarray(images + images.mean(1, keepdims=True))


def test_decorrelation_is_ridge_regression_on_stationary_images(rng: np.random.Generator) -> None:
    height, width = 4, 5
    images = correlated_images(rng, 300, 2, height, width)
    shifts = [np.roll(images, (i, j), (2, 3)).reshape(300, -1) for i in range(height) for j in range(width)]
    everywhere = np.concatenate(shifts)  # what is taken to be the same everywhere is so here
    covariance = np.cov(everywhere.T, bias=True)
    covariance /= np.trace(covariance) / len(covariance)
    averages = rng.normal(size=(3, 2, height, width))
    expected = 11 * np.linalg.solve(covariance + 10 * np.eye(len(covariance)), averages.reshape(3, -1).T).T
    everywhere = everywhere.reshape(-1, 2, height, width)
    got = filtered(torch.from_numpy(averages), decorrelation(torch.from_numpy(everywhere)))
    np.testing.assert_allclose(got.numpy().reshape(3, -1), expected, atol=1e-9)


def test_decorrelation_leaves_white_and_constant_images_alone(rng: np.random.Generator) -> None:
    averages = tensor(rng.normal(size=(3, 2, HEIGHT, WIDTH)))
    white = tensor(rng.normal(3.0, 2.0, (4000, 2, HEIGHT, WIDTH)))
    torch.testing.assert_close(filtered(averages, decorrelation(white)), averages, atol=0.02, rtol=0)
    constant = torch.full((7, 2, HEIGHT, WIDTH), 2.5)
    torch.testing.assert_close(filtered(averages, decorrelation(constant)), averages)


def test_decorrelation_shows_where_neurons_look_on_images_like_photographs(rng: np.random.Generator) -> None:
    images = correlated_images(rng, 600, 1, 24, 36)
    places = np.stack([rng.integers(3, 21, 60), rng.integers(3, 33, 60)], 1)
    i, j = np.mgrid[:24, :36]
    fields = [  # oriented, and blind to what most of the images' power is in
        np.exp(-((i - row) ** 2 + (j - column) ** 2) / 8) * np.sin(1.2 * (j - column)) for row, column in places
    ]
    drive = images.reshape(600, -1) @ np.reshape(fields, (60, -1)).T
    responses = drive / drive.std(0) + 4.0 * rng.normal(size=drive.shape)
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    near = []
    for maps in (averages, filtered(averages, decorrelation(tensor(images)))):
        peaks = mask_peaks(maps, (24, 36), (0, 0), 3.0).numpy()
        distance = np.hypot(peaks // 36 - places[:, 0], peaks % 36 - places[:, 1])
        near.append((distance <= 3).mean())
    assert near[0] < 0.75
    assert near[1] > 0.9


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
