"""Kernels and places that explain each other, found from averages alone."""

import numpy as np
import pytest
import torch

from whatwhere.alignment import aligned_components, chance_scores, matched, shared_kernels, start_probabilities
from whatwhere.config import CoreOptions
from whatwhere.core import map_offset, output_shape
from whatwhere.initialisation import spike_triggered_averages

HEIGHT, WIDTH = 14, 19


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def test_chance_scores_are_standard_normal_where_nothing_depends(rng: np.random.Generator) -> None:
    images, responses = rng.normal(3, 2, (400, 2, 9, 11)), rng.gamma(2.0, 3.0, (400, 40))
    images[:, 1, 4, 5], responses[:, 7] = 2.5, 1.5  # a constant pixel, a silent neuron
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    deviations = tensor(images.std(0))
    scores = chance_scores(averages, deviations, tensor(responses)).numpy()
    assert not scores[7].any()
    assert not scores[:, 1, 4, 5].any()
    rest = scores[np.arange(40) != 7].reshape(39, -1)
    assert rest.std() == pytest.approx(1.0, abs=0.02)
    responses[:, 3] = images[:, 0, 2, 6]  # the pixel itself: as many deviations as sqrt(n)
    averages = spike_triggered_averages(tensor(images), tensor(responses))
    assert chance_scores(averages, deviations, tensor(responses))[3, 0, 2, 6].item() == pytest.approx(20, rel=1e-4)


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


def test_matched_is_the_projection_written_out(rng: np.random.Generator) -> None:
    kernels = np.linalg.qr(rng.normal(size=(24, 2)))[0].T.reshape(2, 2, 3, 4)
    scores = rng.normal(size=(3, 2, 7, 10))
    odds = np.zeros((3, 5, 7))
    for n in range(3):
        for i in range(5):
            for j in range(7):
                window = scores[n, :, i : i + 3, j : j + 4]
                odds[n, i, j] = 0.5 * sum((kernel * window).sum() ** 2 for kernel in kernels)
    places, evidence = matched(tensor(scores), tensor(kernels))
    expected = np.exp(odds) / np.exp(odds).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(places.numpy(), expected, rtol=1e-4)
    assert evidence == pytest.approx(np.log(np.exp(odds).sum((1, 2))).sum(), rel=1e-5)


def noisy_averages(
    rng: np.random.Generator, kernels: np.ndarray, n_neurons: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Chance plus `strength` times one of the kernels at a random place: the scores, and the places (n_neurons, 2)."""
    _, channels, height, width = kernels.shape
    scores = rng.normal(size=(n_neurons, channels, 26, 31))
    places = np.stack([rng.integers(26 - height + 1, size=n_neurons), rng.integers(31 - width + 1, size=n_neurons)], 1)
    for n, (i, j) in enumerate(places):
        sign = rng.choice([-1.0, 1.0])
        scores[n, :, i : i + height, j : j + width] += sign * strength * kernels[n % len(kernels)]
    return scores, places


def smooth_kernels(size: int) -> np.ndarray:
    """A centre with its surround and a pair of flanks, of norm one and orthogonal, in two channels of opposite sign."""
    i, j = np.mgrid[:size, :size] - (size - 1) / 2
    square = (i**2 + j**2) / (0.15 * size) ** 2
    centre = np.exp(-square / 2) - 0.25 * np.exp(-square / 8)
    flanks = i * np.exp(-square / 4)
    kernels = np.stack([np.stack([kernel, -0.6 * kernel]) for kernel in (centre, flanks)])
    return np.asarray(kernels / np.linalg.norm(kernels.reshape(2, -1), axis=1)[:, None, None, None])


@pytest.mark.parametrize("seed", range(3))
def test_shared_kernels_are_found_where_no_neuron_shows_its_own(seed: int) -> None:
    rng, kernels = np.random.default_rng(seed), smooth_kernels(11)
    scores, places = noisy_averages(rng, kernels[:1], 300, strength=5.5)
    alone = start_probabilities(tensor(scores), (16, 21), (5, 5), 2.0).flatten(1).argmax(1).numpy()
    found, where = shared_kernels(tensor(scores), (11, 11), 2.0, 1)
    together = where.flatten(1).argmax(1).numpy()
    true = places[:, 0] * 21 + places[:, 1]
    assert (alone == true).mean() < 0.3
    assert (together == true).mean() > 0.6
    assert abs((found.numpy() * kernels[0]).sum()) > 0.9


def test_shared_kernels_span_those_of_all_types() -> None:
    rng, kernels = np.random.default_rng(0), smooth_kernels(11)
    scores, _ = noisy_averages(rng, kernels, 200, strength=9.0)
    found, _ = shared_kernels(tensor(scores), (11, 11), 2.0, 2)
    flat = found.flatten(1).numpy()
    np.testing.assert_allclose(flat @ flat.T, np.eye(2), atol=1e-5)
    held = np.linalg.norm(flat @ kernels.reshape(2, -1).T, axis=0)  # the part of each true kernel in their span
    assert held.min() > 0.85


def test_silent_neurons_share_no_kernel() -> None:
    found, places = shared_kernels(torch.zeros(3, 2, 12, 15), (5, 5), 2.0, 1)
    assert found.shape == (0, 2, 5, 5)
    torch.testing.assert_close(places, torch.full((3, 8, 11), 1 / 88))
