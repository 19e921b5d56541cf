"""Confidence intervals: SciPy's bootstrap, explicit resampling, and coverage on simulations."""

import functools

import numpy as np
import pytest
from scipy import stats

from whatwhere import metrics
from whatwhere.errors import InputError, OptionError
from whatwhere.metrics import resampling

SLOW = {
    "correlation": metrics.correlation_with_average,
    "single_trial_correlation": metrics.single_trial_correlation,
    "feve": metrics.feve,
    "explainable_variance": lambda p, y, i: metrics.explainable_variance(y, i),
    "normalized_noise_power": lambda p, y, i: metrics.normalized_noise_power(y, i),
    "oracle": lambda p, y, i: metrics.oracle(y, i),
    "normalized_correlation": metrics.normalized_correlation,
    "noise_ceiling": lambda p, y, i: metrics.noise_ceiling(y, i),
    "log_likelihood_bits_per_spike": metrics.poisson_log_likelihood,
}


def simulate(seed=0, n_images=25, n_neurons=6):
    rng = np.random.default_rng(seed)
    rates = rng.gamma(3.0, 1.0, (n_images, n_neurons))
    index = rng.permutation(np.repeat(np.arange(n_images), rng.integers(1, 6, n_images)))
    return rates * rng.uniform(0.5, 1.5, rates.shape), rng.poisson(rates[index]).astype(float), index


def test_interval_over_neurons_agrees_with_scipy():
    scores = np.random.default_rng(0).gamma(2.0, 0.1, 80)
    ours = metrics.interval_over_neurons(scores, n_resamples=20_000)
    theirs = stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000, random_state=1)
    spread = theirs.standard_error
    assert ours.mean == pytest.approx(scores.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * spread)


def test_interval_over_neurons_has_its_level():
    rng = np.random.default_rng(0)
    held = [
        (found := metrics.interval_over_neurons(rng.normal(0.3, 0.2, 40), n_resamples=400, seed=seed)).low
        <= 0.3
        <= found.high
        for seed in range(400)
    ]
    assert 0.9 < np.mean(held) < 0.98


@pytest.mark.parametrize("name", ["correlation", "feve", "oracle"])
def test_interval_over_images_has_its_level_for_many_neurons(name):
    """About the expected mean over test sets of this size; unshifted percentiles hold it almost never."""
    weights = np.random.default_rng(0).standard_normal((3, 60))
    found = []
    for seed in range(150):
        rng = np.random.default_rng(seed + 1)
        rates = rng.standard_normal((40, 3)) @ weights
        index = np.repeat(np.arange(40), 4)
        responses = rates[index] + rng.standard_normal((160, 60))
        predictions = rates + 0.5 * rng.standard_normal(rates.shape)
        found.append(metrics.interval_over_images(name, predictions, responses, index, n_resamples=200))
    expected = np.mean([interval.mean for interval in found])
    held = np.mean([interval.low <= expected <= interval.high for interval in found])
    assert 0.87 < held < 0.99
    assert all(interval.low < interval.mean < interval.high for interval in found)


def test_level_narrows_the_interval_and_seed_repeats_it():
    scores = np.random.default_rng(0).normal(size=50)
    wide, narrow = (metrics.interval_over_neurons(scores, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert metrics.interval_over_neurons(scores, level=0.99) == wide
    assert metrics.interval_over_neurons(scores, level=0.99, seed=1) != wide


def test_neurons_left_out_one_neuron_and_none():
    assert metrics.interval_over_neurons([0.25]) == metrics.Interval(0.25, 0.25, 0.25, 0.95, 1, 0)
    scores = np.array([0.1, 0.2, 0.6])
    with_gaps = metrics.interval_over_neurons([np.nan, 0.1, 0.2, np.nan, 0.6])
    assert (with_gaps.n, with_gaps.n_left_out) == (3, 2)
    assert with_gaps.low == metrics.interval_over_neurons(scores).low
    none = metrics.interval_over_neurons([np.nan])
    assert (none.n, none.n_left_out) == (0, 1)
    assert np.isnan([none.mean, none.low, none.high]).all()


def test_duplicated_population_keeps_its_mean_and_narrows_its_interval():
    scores = np.random.default_rng(0).normal(size=30)
    once = metrics.interval_over_neurons(scores)
    fourfold = metrics.interval_over_neurons(np.tile(scores, 4))
    assert fourfold.mean == pytest.approx(once.mean)
    assert (fourfold.high - fourfold.low) / (once.high - once.low) == pytest.approx(0.5, rel=0.1)
    predictions, responses, index = simulate()
    few = metrics.interval_over_images("correlation", predictions, responses, index)
    many = metrics.interval_over_images("correlation", *(np.tile(a, 4) for a in (predictions, responses)), index)
    np.testing.assert_allclose([many.mean, many.low, many.high], [few.mean, few.low, few.high], rtol=1e-9)


@pytest.mark.parametrize("over", ["images", "both"])
@pytest.mark.parametrize("name", SLOW)
def test_interval_over_images_agrees_with_resampled_trials(name, over):
    """The sums over images of a named score against the score of the resampled trials themselves."""
    predictions, responses, index = simulate()
    by_sums = metrics.interval_over_images(name, predictions, responses, index, over=over, n_resamples=60)
    by_trials = metrics.interval_over_images(SLOW[name], predictions, responses, index, over=over, n_resamples=60)
    bounded = min(by_trials.high, 1.0) if name in ("noise_ceiling",) else by_trials.high
    np.testing.assert_allclose([by_sums.mean, by_sums.low], [by_trials.mean, by_trials.low], rtol=1e-9)
    assert by_sums.high == pytest.approx(bounded, rel=1e-9)
    assert by_sums.low < by_sums.mean < by_sums.high


def test_fev_over_images_and_options_reach_the_score():
    predictions, responses, index = simulate()
    rates = responses[:25]
    fev = metrics.interval_over_images("fev", predictions, rates, n_resamples=50)
    slow = metrics.interval_over_images(lambda p, y, i: metrics.fev(p, y[i]), predictions, rates, n_resamples=50)
    np.testing.assert_allclose([fev.mean, fev.low, fev.high], [slow.mean, slow.low, slow.high], rtol=1e-9)
    mean_rate = np.full(6, 2.5)
    likelihood = functools.partial(metrics.poisson_log_likelihood, mean_rate=mean_rate)
    slow = metrics.interval_over_images(likelihood, predictions, responses, index, n_resamples=50)
    name = "log_likelihood_bits_per_spike"
    fast = metrics.interval_over_images(name, predictions, responses, index, mean_rate=mean_rate, n_resamples=50)
    np.testing.assert_allclose([fast.mean, fast.low, fast.high], [slow.mean, slow.low, slow.high], rtol=1e-9)
    share = metrics.explainable_variance(responses, index)
    floor = float(np.median(share))
    assert metrics.interval_over_images("feve", predictions, responses, index, floor=floor).n_left_out == 3


def test_both_is_as_wide_as_the_two_sources_together():
    """For a score linear in images and neurons the variances add, but for their product."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 1))
    neurons = images.T  # as many and alike: draws that were not independent would add their deviations
    predictions, responses = np.zeros((40, 40)), images + neurons

    def mean(p, y, i):
        return y.mean(axis=0)

    kwargs = {"n_resamples": 4000, "level": 0.68}
    over_images = metrics.interval_over_images(mean, predictions, responses, **kwargs)
    both = metrics.interval_over_images(mean, predictions, responses, over="both", **kwargs)
    half = (over_images.high - over_images.low) / 2, (both.high - both.low) / 2
    assert half[0] == pytest.approx(images.std() / np.sqrt(40), rel=0.05)
    assert half[1] == pytest.approx(np.hypot(images.std() / np.sqrt(40), neurons.std() / np.sqrt(40)), rel=0.05)


def test_blocks_of_neurons_leave_the_distribution_alone(monkeypatch):
    predictions, responses, index = simulate(n_neurons=40)
    arguments = ("correlation", predictions, responses, index)
    images = metrics.interval_over_images(*arguments)
    both = metrics.interval_over_images(*arguments, over="both")
    monkeypatch.setattr(resampling, "CHUNK", 7_000)  # blocks of 7 neurons, and one of 5
    again = metrics.interval_over_images(*arguments)
    np.testing.assert_allclose([images.low, images.high], [again.low, again.high], rtol=1e-9)
    in_blocks = metrics.interval_over_images(*arguments, over="both")
    assert in_blocks != both
    assert in_blocks.high - in_blocks.low == pytest.approx(both.high - both.low, rel=0.1)


def test_resampled_neurons_are_as_many_as_there_are():
    blocks = resampling.neuron_blocks(23, 2**17)  # 8 neurons a block
    assert [block.stop - block.start for block in blocks] == [8, 8, 7]
    counts = np.concatenate(list(resampling.neuron_counts(blocks, 5000, 0)), axis=1)
    assert (counts.sum(axis=1) == 23).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(axis=0), 22 / 23, atol=0.1)


def test_perfect_scores_stay_within_their_bounds():
    predictions, _, _ = simulate(n_images=6)
    found = metrics.interval_over_images("correlation", predictions, predictions * 2, n_resamples=50)
    assert (found.low, found.mean, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("correlation", 1),
        ("single_trial_correlation", 1),
        ("fev", 1),
        ("explainable_variance", 1),
        ("normalized_noise_power", 0),
        ("oracle", 1),
        ("noise_ceiling", 1),
    ],
)
def test_intervals_end_where_scores_do(name, bound):
    """One image carries most of the error, and resamples without it are near perfect."""
    index = np.arange(8) if name == "fev" else np.repeat(np.arange(8), 2)
    rates = np.arange(8.0)
    responses = rates[index]
    responses[index == 0] += [1.5] if name == "fev" else [1.5, -1.5]
    predictions = rates + 1.5 * (rates == 3)
    found = metrics.interval_over_images(name, predictions[:, None], responses[:, None], index)
    assert (found.low if bound == 0 else found.high) == bound


def test_paired_difference_worked_by_hand():
    # differences .1, .2, .3, .4, -.05: ranks 2, 3, 4, 5 and 1 against; 4 of the 2^5 signs are as extreme
    a, b = [0.1, 0.2, 0.3, 0.4, 0.0, np.nan, 0.5], [0, 0, 0, 0, 0.05, 0.1, 0.5]
    found = metrics.paired_difference(a, b)
    assert found.p_value == pytest.approx(4 / 32)
    assert found.difference.mean == pytest.approx(0.95 / 6)
    assert (found.difference.n, found.difference.n_left_out) == (6, 1)
    swapped = metrics.paired_difference(b, a)
    assert swapped.difference.mean == pytest.approx(-0.95 / 6)
    assert swapped.p_value == found.p_value


def test_paired_difference_of_equal_single_and_no_neurons():
    assert metrics.paired_difference([0.1, 0.2], [0.1, 0.2]).p_value == 1
    single = metrics.paired_difference([0.3], [0.1])
    assert single.p_value == 1
    assert single.difference.low == single.difference.high == pytest.approx(0.2)
    assert np.isnan(metrics.paired_difference([np.nan], [0.1]).p_value)
    with pytest.raises(InputError, match="scores_a has 2 rows but scores_b has 1: one row per neuron"):
        metrics.paired_difference([0.1, 0.2], [0.1])


def test_wrong_options_are_refused():
    predictions, responses, index = simulate()
    with pytest.raises(OptionError, match=r"unknown score 'corelation'.*Did you mean 'correlation'"):
        metrics.interval_over_images("corelation", predictions, responses, index)
    with pytest.raises(OptionError, match="unknown over 'neurons'"):
        metrics.interval_over_images("correlation", predictions, responses, index, over="neurons")
    with pytest.raises(OptionError, match="level must be between 0 and 1, got 95"):
        metrics.interval_over_neurons([0.1, 0.2], level=95)
    with pytest.raises(OptionError, match="n_resamples must be a whole number of at least 1, got 0"):
        metrics.interval_over_neurons([0.1, 0.2], n_resamples=0)
    with pytest.raises(InputError, match="scores has 1 infinite values"):
        metrics.interval_over_neurons([0.1, np.inf])
    with pytest.raises(InputError, match="fev needs noise-free rates, one row per image"):
        metrics.interval_over_images("fev", predictions, responses, index)
    with pytest.raises(InputError, match="feve needs at least 1 image shown more than once"):
        metrics.interval_over_images("feve", predictions, responses[:25])
