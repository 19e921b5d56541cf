"""Noise: moments against closed forms, and the same trial in chunks of any size."""

import numpy as np
import pytest

from whatwhere.errors import InputError, OptionError
from whatwhere.simulation import (
    NOISES,
    CalciumNoise,
    GainNoise,
    PaperNoise,
    PoissonNoise,
    add_noise,
    make_noise,
    simulate,
    simulate_population,
)


def close(samples: np.ndarray, expected: float) -> bool:
    """Whether the mean of independent samples is what is expected, within 4.5 of its standard errors."""
    return bool(abs(samples.mean() - expected) < 4.5 * samples.std() / np.sqrt(samples.size))


@pytest.mark.parametrize("name", NOISES)
def test_a_trial_is_the_same_in_chunks_of_any_size(name: str, rng: np.random.Generator) -> None:
    rates = rng.gamma(2.0, 1.0, (23, 5)).astype(np.float32)
    whole = add_noise(rates, name, seed=4)
    assert whole.dtype == np.float32
    for step in (1, 4, 23):
        trial = make_noise(name).trial(4)
        chunks = [trial(rates[first : first + step]) for first in range(0, 23, step)]
        np.testing.assert_array_equal(np.concatenate(chunks), whole)
    np.testing.assert_array_equal(add_noise(rates[:9], name, seed=4), whole[:9])  # more images, the same first ones
    assert not np.array_equal(add_noise(rates, name, seed=5), whole)


@pytest.mark.parametrize("name", [name for name in NOISES if name != "paper"])
def test_a_rate_rounded_otherwise_changes_no_other_image(name: str, rng: np.random.Generator) -> None:
    rates = rng.gamma(2.0, 1.0, (6, 4)).astype(np.float32)
    other = rates.copy()
    other[2, 1] += 3
    before, after = (add_noise(values, make_noise(name), seed=1) for values in (rates, other))
    if name == "calcium":  # what is left of the spikes stays
        before, after = (np.diff(values, axis=0) + 0.5 * values[:-1] for values in (before, after))
        rows = [0, 2, 3, 4]
        np.testing.assert_allclose(after[rows], before[rows], atol=1e-5)
    else:
        rows = [0, 1, 3, 4, 5]
        np.testing.assert_array_equal(after[rows], before[rows])
    assert not np.allclose(after, before)


def test_paper_noise_takes_its_numbers_from_one_stream() -> None:
    rates = np.array([[0.5, -2.0], [1.0, 0.0]], np.float32)
    z = np.random.default_rng(3).standard_normal((2, 2), dtype=np.float32)
    np.testing.assert_allclose(add_noise(rates, PaperNoise(), seed=3), rates + np.sqrt(np.abs(rates)) * z)


# -------------------------------------------------------------------------------------------------------------- gain


def test_gain_noise_has_the_moments_of_a_shared_gamma_gain() -> None:
    n, variance, rates = 40_000, 0.3, np.array([0.7, 2.0, 5.0])
    counts = add_noise(np.tile(rates, (n, 1)), GainNoise(variance), seed=2).astype(float)
    assert (counts == np.round(counts)).all()
    deviations = counts - rates
    for neuron, rate in enumerate(rates):
        assert close(deviations[:, neuron], 0)
        assert close(deviations[:, neuron] ** 2, rate + variance * rate**2)
        for other in range(neuron):
            assert close(deviations[:, neuron] * deviations[:, other], variance * rate * rates[other])
            assert close(deviations[1:, neuron] * deviations[:-1, other], 0)  # each image has a gain of its own
    third = variance**2 * 2 * rates[2] ** 3 + 3 * variance * rates[2] ** 2 + rates[2]
    assert close(deviations[:, 2] ** 3, third)  # the gain is gamma distributed


def test_gain_noise_without_variance_is_poisson() -> None:
    counts = add_noise(np.full((30_000, 2), 1.5), GainNoise(0), seed=2).astype(float)
    assert close((counts[:, 0] - 1.5) ** 2, 1.5)
    assert close((counts[:, 0] - 1.5) * (counts[:, 1] - 1.5), 0)


def test_each_repeat_of_an_image_has_a_gain_of_its_own() -> None:
    population = simulate_population(2, image_size=(20, 24), nonlinearity="relu", mean_rate=40.0)
    recording = simulate(population, 10, n_test_images=400, n_repeats=2, noise=GainNoise(0.5))
    test = recording.test
    residual = (test.responses.reshape(2, 400, 2) - test.rates) / np.maximum(test.rates, 1)
    loud = (test.rates > 20).all(axis=1)
    same_trial = np.corrcoef(residual[0, loud].T)[0, 1]
    other_trial = np.corrcoef(residual[0, loud, 0], residual[1, loud, 0])[0, 1]
    assert loud.sum() > 40
    assert same_trial > 0.7
    assert abs(other_trial) < 0.5


# ----------------------------------------------------------------------------------------------------------- calcium


def test_calcium_noise_has_the_moments_of_a_decaying_trace() -> None:
    rate, decay, deviation, n = 1.5, 0.6, 0.3, 20_000
    traces = add_noise(np.full((40, n), rate), CalciumNoise(decay, deviation), seed=3).astype(float)
    for image in (0, 1, 4, 39):  # from an empty trace to the stationary one
        mean = rate * (1 - decay ** (image + 1)) / (1 - decay)
        spread = rate * (1 - decay ** (2 * image + 2)) / (1 - decay**2)
        assert close(traces[image], mean)
        assert close((traces[image] - mean) ** 2, spread + deviation**2)
        assert close(traces[image], rate / (1 - decay)) == (image == 39)
    late = traces[30:] - rate / (1 - decay)
    for lag in (1, 2, 5):
        assert close(late[0] * late[lag], decay**lag * rate / (1 - decay**2))
    assert close(late[0, :-1] * late[0, 1:], 0)  # every neuron by itself


def test_calcium_noise_is_spikes_measured_with_an_error(rng: np.random.Generator) -> None:
    exact = add_noise(rng.gamma(2.0, 1.0, (30, 4)), CalciumNoise(0.5, 0.0), seed=1).astype(float)
    spikes = exact - 0.5 * np.vstack([np.zeros((1, 4)), exact[:-1]])
    np.testing.assert_allclose(spikes, np.round(spikes), atol=1e-5)
    assert spikes.min() == pytest.approx(0, abs=1e-5)
    silent = add_noise(np.zeros((500, 40)), CalciumNoise(0.5, 0.3), seed=1).astype(float)
    assert close(silent**2, 0.09)
    assert close(silent[1:] * silent[:-1], 0)
    counts = add_noise(np.full((500, 40), 2.0), CalciumNoise(0, 0), seed=1)
    assert close((counts.astype(float) - 2) ** 2, 2)


def test_noise_that_remembers_gets_another_order_in_each_repeat() -> None:
    population = simulate_population(3, image_size=(20, 24), nonlinearity="relu")
    options = {"n_test_images": 30, "n_repeats": 3}
    calcium = simulate(population, 5, noise="calcium", **options).test.image_index.reshape(3, 30)
    for order in calcium:
        assert sorted(order) == list(range(30))
    assert len(np.unique(calcium, axis=0)) == 3
    plain = simulate(population, 5, noise="poisson", **options).test
    assert plain.image_index.tolist() == list(range(30)) * 3
    exact = simulate(population.scaled(np.full(3, 1e4)), 5, noise=CalciumNoise(0.0, 0.0), **options).test
    shown = exact.rates[exact.image_index]
    assert np.abs(exact.responses - shown).max() < 6 * np.sqrt(shown.max())  # each trial answers its own image


# ------------------------------------------------------------------------------------------------------------ options


def test_noises_and_their_options_are_checked() -> None:
    for build, message in (
        (lambda: make_noise("poison"), r"unknown noise 'poison'.*Did you mean 'poisson'\?"),
        (lambda: make_noise("gain", varience=1), r"option of the noise 'gain' 'varience'.*Did you mean 'variance'\?"),
        (lambda: make_noise("paper", variance=1), "the noise 'paper' has no options, but got variance: leave them out"),
        (lambda: GainNoise(-1), "variance must be a number at least 0, got -1"),
        (lambda: CalciumNoise(decay=1), "decay must be a number at least 0 and below 1, got 1"),
        (lambda: CalciumNoise(deviation=-0.1), "deviation must be a number at least 0, got -0.1"),
        (lambda: make_noise("calcium", decay="slow"), "decay must be a number at least 0 and below 1, got 'slow'"),
    ):
        with pytest.raises(OptionError, match=message):
            build()
    for noise in (PoissonNoise(), GainNoise(), CalciumNoise()):
        with pytest.raises(InputError, match=r"rates holds 1 negative values of 2, the least -0\.5: Poisson counts"):
            add_noise([[0.2, -0.5]], noise)
    with pytest.raises(InputError, match=r"rates holds values up to 2e\+19: Poisson counts need .* 1e\+18 at most"):
        add_noise([[0.2, 2e19]], "poisson")
    with pytest.raises(InputError, match=r"rates has 1 dimensions, shape \(3,\): expected 2, \(n_images, n_neurons\)"):
        add_noise([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="rates holds 1 value that is not finite"):
        add_noise([[1.0, np.nan]])
