"""Simulated recordings: stimuli, populations and noise against closed forms and loops."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from whatwhere.errors import InputError, OptionError
from whatwhere.simulation import (
    LinearPopulation,
    add_noise,
    difference_of_gaussians,
    make_stimuli,
    simulate,
    simulate_population,
    white_noise,
)

SIZE = (21, 30)  # height, width


@pytest.fixture
def population() -> LinearPopulation:
    return simulate_population(60, image_size=SIZE, seed=3)


def test_white_noise_is_the_same_in_chunks_of_any_size() -> None:
    whole = white_noise(23, SIZE, seed=5)
    for step in (1, 4, 23):
        chunks = [white_noise(min(step, 23 - i), SIZE, seed=5, first=i) for i in range(0, 23, step)]
        assert np.array_equal(np.concatenate(chunks), whole)
    assert whole.shape == (23, 1, *SIZE)
    assert whole.dtype == np.float32


def test_white_noise_is_standard_normal_and_independent() -> None:
    images = white_noise(400, SIZE, seed=1).reshape(400, -1).astype(float)  # 252,000 values
    assert abs(images.mean()) < 4 / np.sqrt(images.size)
    assert abs(images.var() - 1) < 4 * np.sqrt(2 / images.size)
    for a, b in ((images[:, :-1], images[:, 1:]), (images[:-1], images[1:])):  # neighbours in space, in time
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size)
    assert not np.array_equal(white_noise(2, SIZE, seed=2), white_noise(2, SIZE, seed=1))


def test_unknown_stimulus_and_bad_counts_are_named() -> None:
    with pytest.raises(OptionError, match=r"unknown stimulus 'white-nose'.*Did you mean 'white-noise'"):
        make_stimuli("white-nose", 3, SIZE)
    with pytest.raises(OptionError, match="height must be a whole number of at least 1, got 0"):
        white_noise(3, (0, 5))


def test_kernel_is_that_of_the_paper() -> None:
    r2 = sum(g**2 for g in np.mgrid[-8:9, -8:9])
    centre, surround = (np.exp(-r2 / (2 * v)) / (2 * np.pi * v) for v in (2.0, 8.0))
    np.testing.assert_allclose(difference_of_gaussians(), centre - 2 * surround, atol=1e-15)


def test_kernel_with_size_aspect_and_tilt_has_gaussian_densities() -> None:
    covariance = 0.6 * np.array([[1.2, 0.3], [0.3, 1 / 1.2]])
    pixels = np.moveaxis(np.mgrid[:9, :9] - 4.0, 0, -1)
    centre, surround = (multivariate_normal([0, 0], v * covariance).pdf(pixels) for v in (2.0, 8.0))
    kernel = difference_of_gaussians(9, size_factor=0.6, aspect_ratio=1.2, correlation=0.3)
    np.testing.assert_allclose(kernel, centre - 2 * surround, atol=1e-15)


def test_rates_are_the_correlation_with_the_kernel_at_its_position(rng: np.random.Generator) -> None:
    kernels = rng.standard_normal((4, 5, 3))
    positions = np.array([[0, 0], [2, 4], [16, 27], [7, 1]])  # the third touches the far corner
    population = LinearPopulation(kernels, positions, np.zeros(4, int), SIZE)
    images = rng.standard_normal((6, 1, *SIZE)).astype(np.float32)
    expected = np.zeros((6, 4))
    for b, n in np.ndindex(6, 4):
        row, column = positions[n]
        for i, j in np.ndindex(5, 3):
            expected[b, n] += kernels[n, i, j] * images[b, 0, row + i, column + j]
    np.testing.assert_allclose(population.rates(images), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(population.locations, positions + np.array([2, 1]))


def test_rates_do_not_depend_on_chunks(population: LinearPopulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-6 of each rate, however small: sums of floats would differ by more than the smallest rates."""
    images = 50 * white_noise(50, SIZE)
    whole = population.rates(images)
    alone = [population.rates(images[number : number + 1]) for number in range(50)]
    np.testing.assert_allclose(np.concatenate(alone), whole, rtol=1e-6)
    monkeypatch.setattr("whatwhere.simulation.populations.NUMBERS_AT_ONCE", 7 * images[0].size)
    np.testing.assert_allclose(population.rates(images), whole, rtol=1e-6)


def test_images_on_disk_are_read_once_and_in_chunks(
    population: LinearPopulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, read = white_noise(20, SIZE), []

    class OnDisk:
        shape, dtype = images.shape, images.dtype

        def __getitem__(self, rows: slice) -> np.ndarray:
            read.append((rows.start, min(rows.stop, 20)))
            return images[rows]

    expected = population.rates(images)
    monkeypatch.setattr("whatwhere.simulation.populations.NUMBERS_AT_ONCE", 8 * images[0].size)
    np.testing.assert_allclose(population.rates(OnDisk()), expected, rtol=1e-6)  # of 60 neurons, 8 at a time
    assert read == [(0, 8), (8, 16), (16, 20)]


def test_location_is_where_the_kernel_is_heaviest() -> None:
    population = simulate_population(20, size_factors=(1.0,), variation=0, image_size=SIZE, seed=2)
    for field, location in zip(population.receptive_fields(), population.locations, strict=True):
        assert np.unravel_index(np.abs(field).argmax(), SIZE) == tuple(location)


def test_expected_rate_under_white_noise_is_the_mean_rate(population: LinearPopulation) -> None:
    norms = np.sqrt((population.kernels**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(norms * np.sqrt(2 / np.pi), 0.1, rtol=1e-12)  # E|r| of a N(0, |k|^2)
    rates = np.abs(population.rates(white_noise(4000, SIZE, seed=9)))
    standard_error = 0.1 * np.sqrt(np.pi / 2 - 1) / np.sqrt(4000)
    assert np.abs(rates.mean(axis=0) - 0.1).max() < 4 * standard_error


def test_rescaled_has_the_mean_rate_exactly_for_any_stimuli(population: LinearPopulation) -> None:
    images = 3 + 2 * white_noise(200, SIZE)
    scaled = population.rescaled(images, 0.1)
    np.testing.assert_allclose(np.abs(scaled.rates(images)).mean(axis=0, dtype=float), 0.1, rtol=1e-5)
    ratio = scaled.kernels / population.kernels
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape))
    with pytest.raises(InputError, match="the rate is 0 for all images in neuron 0, 1, 2, 3, 4 and 55 more"):
        population.rescaled(np.zeros((2, 1, *SIZE)), 0.1)


def test_positions_reach_every_place_inside_and_none_outside() -> None:
    population = simulate_population(4000, image_size=SIZE, kernel_size=17, size_factors=(1.0,), variation=0)
    places, counts = np.unique(population.positions, axis=0, return_counts=True)
    assert len(places) == (21 - 16) * (30 - 16)
    assert counts.min() > 20  # 57 expected
    assert tuple(population.positions.max(axis=0)) == (4, 13)


def test_types_are_balanced_and_differ_in_size(population: LinearPopulation) -> None:
    assert np.bincount(population.types).tolist() == [30, 30]
    energy = population.kernels**2 / (population.kernels**2).sum(axis=(1, 2), keepdims=True)
    r2 = sum(g**2 for g in np.mgrid[-8:9, -8:9])
    width = (energy * r2).sum(axis=(1, 2))
    assert width[population.types == 0].max() < width[population.types == 1].min()


def test_variation_is_of_the_shape_and_of_the_size_asked() -> None:
    same = simulate_population(6, variation=0, size_factors=(1.0,), image_size=SIZE).kernels
    np.testing.assert_array_equal(same, np.broadcast_to(same[0], same.shape))
    norm = np.sqrt((same[0] ** 2).sum())
    distances = []
    for variation in (0.02, 0.05):
        kernels = simulate_population(200, variation=variation, size_factors=(1.0,), image_size=SIZE).kernels
        distances.append(np.sqrt(((kernels - same[0]) ** 2).sum(axis=(1, 2))).mean() / norm)
        assert len(np.unique(kernels[:, 8, 8])) == 200
    assert distances[1] / distances[0] == pytest.approx(2.5, rel=0.1)


def test_every_one_of_the_five_shape_parameters_varies() -> None:
    kernels = simulate_population(300, variation=1e-4, size_factors=(1.0,), image_size=SIZE).kernels
    deviations = kernels.reshape(300, -1) - kernels.reshape(300, -1).mean(axis=0)
    strengths = np.linalg.svd(deviations, compute_uv=False)  # small, so linear in the parameters
    assert strengths[4] > 20 * strengths[5]


def test_more_neurons_leave_the_first_as_they_are(population: LinearPopulation) -> None:
    few = simulate_population(10, image_size=SIZE, seed=3)
    np.testing.assert_array_equal(few.kernels, population.kernels[:10])
    np.testing.assert_array_equal(few.positions, population.positions[:10])
    other = simulate_population(10, image_size=SIZE, seed=4)
    assert not np.array_equal(few.positions, other.positions)
    assert not np.array_equal(few.kernels, other.kernels)


def test_population_complaints() -> None:
    with pytest.raises(OptionError, match=r"kernel_size \(=17\) does not fit in image_size \(=\(16, 40\)\)"):
        simulate_population(3, image_size=(16, 40))
    with pytest.raises(InputError, match="5 x 3 pixels reach out of the image of 6 x 9 for neuron 1: place"):
        LinearPopulation(np.ones((2, 5, 3)), [[1, 6], [2, 6]], [0, 0], (6, 9))
    two = simulate_population(2, image_size=SIZE)
    with pytest.raises(InputError, match=r"expected \(n_images, 1, 21, 30\)"):
        two.rates(np.zeros((4, 1, 30, 21)))
    images = np.zeros((4, 1, *SIZE))
    images[2, 0, 3, 4] = np.nan
    with pytest.raises(InputError, match="images holds values that are not finite in 1 of the rows read: row 2"):
        two.rescaled(images, 0.1)
    with pytest.raises(InputError, match="kernels holds 1 value that is not finite: neuron 1"):
        LinearPopulation([[[1.0, 2.0]], [[np.inf, 0.0]]], [[0, 0], [1, 1]], [0, 0], SIZE)
    with pytest.raises(InputError, match=r"kernels is empty, shape \(0, 5, 3\)"):
        LinearPopulation(np.ones((0, 5, 3)), np.zeros((0, 2), int), np.zeros(0, int), SIZE)


def test_unsigned_bytes_and_lists_are_images_too(population: LinearPopulation) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 1, *SIZE), np.uint8)
    expected = population.rates(images.astype(float))
    np.testing.assert_array_equal(population.rates(images), expected)
    np.testing.assert_array_equal(population.rates(images.tolist()), expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_seeds_that_are_none_are_refused(seed: object, population: LinearPopulation) -> None:
    for build in (
        lambda: simulate_population(3, seed=seed),
        lambda: white_noise(3, SIZE, seed=seed),
        lambda: simulate(population, 3, n_test_images=2, seed=seed),
        lambda: add_noise([[1.0]], seed=seed),
    ):
        with pytest.raises(OptionError, match=f"seed must be a whole number of at least 0, got {seed!r}"):
            build()


@pytest.mark.parametrize("size", [48, (48,), (48, 48, 3), "ab", None])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    for build in (
        lambda: simulate_population(3, image_size=size),
        lambda: white_noise(3, size),
        lambda: LinearPopulation(np.ones((1, 3, 3)), [[0, 0]], [0], size),
    ):
        with pytest.raises(OptionError, match=r"image_size must be \(height, width\)|height must be a whole number"):
            build()
    with pytest.raises(OptionError, match=r"n_neurons must be a whole number of at least 1, got 3\.0"):
        simulate_population(3.0)


def test_what_cannot_be_shown_is_said_before_long_work(
    population: LinearPopulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def counted(stimulus: object, n_images: int, *rest: object, **options: object) -> np.ndarray:
        made.append(n_images)
        return make_stimuli(stimulus, n_images, *rest, **options)

    monkeypatch.setattr("whatwhere.simulation.recordings.make_stimuli", counted)
    with pytest.raises(InputError, match="Poisson counts need rates of 0 or more"):
        simulate(population, 5000, n_test_images=900, noise="poisson")
    assert made == [32]
    with pytest.raises(OptionError, match="mean_rate must be a number above 0, got -1"):
        simulate(population, 5000, n_test_images=900, mean_rate=-1)
    assert made == [32]


def test_paper_noise_has_variance_of_the_absolute_rate() -> None:
    levels = np.array([-2.0, -0.1, 0.0, 0.1, 0.5])
    n = 200_000
    noise = add_noise(np.tile(levels, (n, 1)), "paper", seed=0).astype(float) - levels.astype(np.float32)
    assert (np.abs(noise.mean(axis=0)) <= 4 * np.sqrt(np.abs(levels) / n)).all()
    np.testing.assert_allclose(noise.var(axis=0), np.abs(levels), rtol=4 * np.sqrt(2 / n), atol=1e-12)
    kurtosis = (noise[:, 0] ** 4).mean() / noise[:, 0].var() ** 2
    assert kurtosis == pytest.approx(3, abs=4 * np.sqrt(24 / n))  # normal


def test_poisson_noise_counts() -> None:
    counts = add_noise(np.full((100_000, 1), 1.5), "poisson", seed=0).astype(float)
    assert counts.mean() == pytest.approx(1.5, abs=4 * np.sqrt(1.5 / 1e5))
    assert counts.var() == pytest.approx(1.5, abs=0.04)
    assert (counts == np.round(counts)).all()
    with pytest.raises(InputError, match=r"rates holds 2 negative values of 3, the least -0\.5: Poisson"):
        add_noise([[0.2, -0.1, -0.5]], "poisson")
    with pytest.raises(OptionError, match=r"unknown noise 'poison'.*Did you mean 'poisson'"):
        add_noise([[1.0]], "poison")


def test_simulate_gives_the_truth_and_noisy_responses_to_it(population: LinearPopulation) -> None:
    recording = simulate(population, 3000, n_test_images=40, n_repeats=50, seed=2)
    rates = population.rates(recording.images)
    noise = (recording.responses - rates).astype(float)
    loud = np.abs(rates) > 0.01
    assert (noise[loud] ** 2 / np.abs(rates[loud])).mean() == pytest.approx(1, abs=0.02)
    assert abs(noise.mean()) < 4 * np.sqrt(0.1 / noise.size)
    np.testing.assert_array_equal(recording.neurons[["row", "column"]], population.locations)
    assert recording.neurons["row"].dtype == float
    np.testing.assert_array_equal(recording.neurons["type"], population.types)
    test = recording.test
    np.testing.assert_array_equal(test.rates, population.rates(test.images))
    assert test.n_repeats.tolist() == [50] * 40
    deviation = (test.mean_responses() - test.rates) / np.sqrt(np.abs(test.rates) / 50)
    assert deviation.std() == pytest.approx(1, abs=0.1)  # each repeat has noise of its own, about its own image


def test_test_images_are_not_among_the_training_images(population: LinearPopulation) -> None:
    recording = simulate(population, 100, n_test_images=100)
    both = np.concatenate([recording.images, recording.test.images]).reshape(200, -1)
    assert len(np.unique(both, axis=0)) == 200


def test_without_repeats_the_test_responses_are_the_rates(population: LinearPopulation) -> None:
    recording = simulate(population, 10, n_test_images=5)
    np.testing.assert_array_equal(recording.test.responses, recording.test.rates)
    assert "noise-free rates" in recording.notes[1]


def test_a_longer_recording_starts_with_the_shorter(population: LinearPopulation) -> None:
    short = simulate(population, 20, n_test_images=5, n_repeats=1, seed=8)
    long = simulate(population, 50, n_test_images=5, n_repeats=2, seed=8)
    np.testing.assert_array_equal(long.images[:20], short.images)
    np.testing.assert_allclose(long.responses[:20], short.responses, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(long.test.images, short.test.images)
    np.testing.assert_allclose(long.test.responses[:5], short.test.responses, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(long.test.responses[:5], long.test.responses[5:])
