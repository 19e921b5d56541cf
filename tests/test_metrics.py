"""Scores: hand-worked numbers, other libraries, slow loops and recovered simulations."""

import numpy as np
import pytest
from scipy.stats import pearsonr, poisson
from sklearn.metrics import r2_score

from whatwhere import metrics
from whatwhere.errors import InputError, OptionError
from whatwhere.metrics import explained, image_sums

RAGGED = np.repeat(np.arange(12), [4, 2, 1, 5, 3, 2, 6, 1, 4, 3, 2, 7])


def simulate(seed=0, index=RAGGED, n_neurons=5):
    """Predictions, Poisson responses and image_index, in shuffled order of trials."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(2.0, 1.5, (index.max() + 1, n_neurons))
    index = rng.permutation(index)
    return rates * rng.uniform(0.6, 1.4, rates.shape), rng.poisson(rates[index]).astype(float), index


def averages(responses, index):
    return np.array([responses[index == image].mean(axis=0) for image in np.unique(index)])


# name -> score of (predictions, responses, image_index), all that need no rates
RECORDED = {
    "correlation_with_average": metrics.correlation_with_average,
    "single_trial_correlation": metrics.single_trial_correlation,
    "explainable_variance": lambda p, y, i: metrics.explainable_variance(y, i),
    "normalized_noise_power": lambda p, y, i: metrics.normalized_noise_power(y, i),
    "feve": metrics.feve,
    "oracle": lambda p, y, i: metrics.oracle(y, i),
    "noise_ceiling": lambda p, y, i: metrics.noise_ceiling(y, i),
    "normalized_correlation": metrics.normalized_correlation,
    "poisson_log_likelihood": metrics.poisson_log_likelihood,
}
recorded = pytest.mark.parametrize("score", RECORDED.values(), ids=RECORDED.keys())


def test_correlations_agree_with_scipy():
    predictions, responses, index = simulate()
    mean = averages(responses, index)
    of_averages = [pearsonr(predictions[:, n], mean[:, n]).statistic for n in range(5)]
    of_trials = [pearsonr(predictions[index, n], responses[:, n]).statistic for n in range(5)]
    np.testing.assert_allclose(metrics.correlation(predictions, mean), of_averages, rtol=1e-12)
    np.testing.assert_allclose(metrics.correlation_with_average(predictions, responses, index), of_averages, rtol=1e-12)
    np.testing.assert_allclose(metrics.single_trial_correlation(predictions, responses, index), of_trials, rtol=1e-12)


def test_correlation_with_average_counts_each_image_once():
    # averages 1, 2, 6 whatever the number of trials; predictions 1, 2, 3:
    # cov = (-1)(-2) + 0(-1) + 1(3) = 5, sums of squares 2 and 14
    found = metrics.correlation_with_average([[1], [2], [3]], [[0], [2], [2], [6], [6], [6]], [0, 0, 1, 2, 2, 2])
    np.testing.assert_allclose(found, [5 / np.sqrt(28)])


def test_correlations_of_large_offsets_and_tiny_scales_keep_their_digits():
    predictions, responses, index = simulate()
    expected = metrics.single_trial_correlation(predictions, responses, index)
    found = metrics.single_trial_correlation(predictions * 1e-9, responses + 1e6, index)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e8 / 3])
def test_constant_prediction_or_response_has_correlation_zero(constant):
    predictions, responses, index = simulate()
    predictions[:, 1], responses[:, 3] = constant, constant
    for score in (metrics.correlation_with_average, metrics.single_trial_correlation):
        found = score(predictions, responses, index)
        assert found[1] == 0
        assert found[3] == 0
        assert (found[[0, 2, 4]] != 0).all()
    assert metrics.oracle(responses, index)[3] == 0
    assert metrics.normalized_correlation(predictions, responses, index)[1] == 0
    np.testing.assert_array_equal(metrics.constant_neurons(predictions), [False, True, False, False, False])


def test_fev_is_r_squared():
    predictions, rates, _ = simulate()
    rates = rates[:12]
    expected = r2_score(rates, predictions, multioutput="raw_values")
    np.testing.assert_allclose(metrics.fev(predictions, rates), expected, rtol=1e-12)
    # errors 0, 1, 1, 0, mean 1/2; rates 0, 1, 2, 3 have variance 5/4
    np.testing.assert_allclose(metrics.fev([[0], [2], [1], [3]], [[0], [1], [2], [3]]), [0.6])


def test_fev_of_mean_constant_and_perfect_predictions():
    rates = np.array([[1.0, 7.0], [2.0, 7.0], [6.0, 7.0]])
    np.testing.assert_array_equal(metrics.fev(rates, rates), [1, 0])
    np.testing.assert_allclose(metrics.fev(np.full((3, 2), 3.0), rates), [0, 0], atol=1e-15)


def test_variances_worked_by_hand_with_ragged_repeats():
    # means 1, 5, 3; squares within 2, 2, 0; noise (2 + 2 + 0) / (1 + 2 + 0) = 4/3
    # Var(m) = 4, <1/k> = (1/2 + 1/3 + 1) / 3 = 11/18, signal = 4 - 22/27 = 86/27, total = 122/27
    responses, index = [[0], [2], [4], [5], [6], [3]], [0, 0, 1, 1, 1, 2]
    np.testing.assert_allclose(metrics.explainable_variance(responses, index), [86 / 122])
    np.testing.assert_allclose(metrics.normalized_noise_power(responses, index), [36 / 122])
    np.testing.assert_allclose(metrics.noise_ceiling(responses, index), [np.sqrt(86 / 108)])
    # errors 1, 0, 1: FEVE = (4 - 2/3) / (86/27)
    np.testing.assert_allclose(metrics.feve([[0], [5], [4]], responses, index), [90 / 86])
    # correlation of 0, 5, 4 (mean 3) with 1, 5, 3 (mean 3): (6 + 4 + 0) / sqrt(14 * 8)
    ceiling = np.sqrt(86 / 108)
    np.testing.assert_allclose(
        metrics.normalized_correlation([[0], [5], [4]], responses, index), [10 / np.sqrt(112) / ceiling]
    )


def test_noise_ceiling_is_schoppes_where_trials_are_unpaired():
    # Schoppe et al. 2016: SP = (Var(sum_t R_t) - sum_t Var(R_t)) / (T (T - 1)); averaged over
    # pairings of trials, which are arbitrary between images, it is the signal power here.
    rng = np.random.default_rng(3)
    trials = rng.poisson(rng.gamma(2, 2, (40, 1)), (40, 6)).astype(float)
    powers = []
    for _ in range(4000):
        paired = rng.permuted(trials, axis=1)
        powers.append((paired.sum(axis=1).var(ddof=1) - paired.var(axis=0, ddof=1).sum()) / 30)
    ceiling = metrics.noise_ceiling(trials.reshape(-1, 1), np.repeat(np.arange(40), 6))[0]
    of_means = trials.mean(axis=1).var(ddof=1)
    assert ceiling**2 * of_means == pytest.approx(np.mean(powers), rel=2e-3)


def test_feve_and_variances_are_unbiased_for_ragged_repeats():
    """Many neurons of one kind: their averaged numerators and denominators give the truth."""
    rng = np.random.default_rng(1)
    n_neurons, index = 40_000, RAGGED
    rates = rng.normal(3.0, 1.0, (12, n_neurons))
    responses = rates[index] + 1.5 * rng.standard_normal((len(index), n_neurons))
    # one pooled "neuron": signal 1, noise 2.25; ratios of single neurons are not unbiased, their parts are
    data = image_sums.sum_images(rates, responses, index)
    found = explained.variances(data, image_sums.over_images)
    assert found.signal.mean() == pytest.approx(1.0, abs=0.02)
    assert found.noise.mean() == pytest.approx(2.25, abs=0.02)
    truth = explained.squared_error(data).mean(axis=0)
    mean = ((3.0 - averages(responses, index)) ** 2).mean(axis=0)
    assert (found.of_means - truth).mean() / found.signal.mean() == pytest.approx(1.0, abs=0.02)
    assert (found.of_means - mean).mean() / found.signal.mean() == pytest.approx(0.0, abs=0.02)


def test_feve_of_true_rates_is_one_and_of_the_mean_zero():
    rng = np.random.default_rng(2)
    index = np.repeat(np.arange(400), rng.integers(1, 9, 400))
    rates = rng.gamma(2.0, 2.0, (400, 200))
    responses = rng.poisson(rates[index])
    assert metrics.feve(rates, responses, index).mean() == pytest.approx(1.0, abs=0.003)
    assert metrics.feve(np.full_like(rates, 4.0), responses, index).mean() == pytest.approx(0.0, abs=0.01)
    assert metrics.normalized_correlation(rates, responses, index).mean() == pytest.approx(1.0, abs=0.003)


def test_feve_without_noise_is_fev_up_to_the_degree_of_freedom():
    predictions, rates, _ = simulate()
    rates = rates[:12]
    twice, index = np.concatenate([rates, rates]), np.tile(np.arange(12), 2)
    found = metrics.feve(predictions, twice, index)
    np.testing.assert_allclose(1 - found, (1 - metrics.fev(predictions, rates)) * 11 / 12, rtol=1e-12)


def test_feve_leaves_out_neurons_under_the_floor():
    predictions, responses, index = simulate(n_neurons=30)
    share = metrics.explainable_variance(responses, index)
    floor = float(np.median(share))
    np.testing.assert_array_equal(np.isnan(metrics.feve(predictions, responses, index, floor=floor)), share < floor)
    assert np.isnan(metrics.feve(predictions, responses, index, floor=floor)).sum() == 15
    assert not np.isnan(metrics.feve(predictions, responses, index, floor=share[0])[0])
    with pytest.raises(OptionError, match="floor must be at least 0 and below 1, got 1"):
        metrics.feve(predictions, responses, index, floor=1)


def test_neurons_without_signal_are_left_out_of_the_ceiling_and_never_clipped():
    index = np.repeat(np.arange(20), 3)
    responses = np.random.default_rng(5).standard_normal((60, 50))
    share = metrics.explainable_variance(responses, index)
    assert (share < 0).any()  # unbiased, hence of either sign
    np.testing.assert_array_equal(np.isnan(metrics.noise_ceiling(responses, index)), share <= 0)
    predictions = np.random.default_rng(6).standard_normal((20, 50))
    normalized = metrics.normalized_correlation(predictions, responses, index)
    np.testing.assert_array_equal(np.isnan(normalized), share <= 0)
    assert np.isnan(metrics.explainable_variance(np.ones((60, 1)), index)).all()


def test_no_signal_at_all_is_left_out_at_floor_zero():
    # means 0, 1, 2: Var(m) = 1; noise 2 of two trials each: signal 1 - 2 / 2 = 0
    responses, index = [[-1], [1], [0], [2], [1], [3]], [0, 0, 1, 1, 2, 2]
    assert metrics.explainable_variance(responses, index) == pytest.approx(0)
    assert np.isnan(metrics.feve([[0], [1], [2]], responses, index, floor=0)).all()
    assert np.isnan(metrics.noise_ceiling(responses, index)).all()


def test_resample_without_repeats_has_no_oracle_nor_noise():
    _, responses, index = simulate()
    data = image_sums.sum_images(None, responses, index)
    weights = np.where(data.n_repeats == 1, 6.0, 0.0).T  # (1 resample, n_images)
    for name in ("oracle", "explainable_variance", "feve", "noise_ceiling"):
        kernel = metrics.SCORES[name].kernel
        found = kernel(data, lambda values: weights @ values, image_sums.ScoreOptions())
        assert np.isnan(found).all()
        assert found.shape == (1, 5)


def test_oracle_agrees_with_a_loop():
    _, responses, index = simulate()
    trials, others = [], []
    for t in range(len(index)):
        same = (index == index[t]) & (np.arange(len(index)) != t)
        if same.any():
            trials.append(responses[t])
            others.append(responses[same].mean(axis=0))
    expected = [pearsonr(*pair).statistic for pair in zip(np.array(trials).T, np.array(others).T, strict=True)]
    np.testing.assert_allclose(metrics.oracle(responses, index), expected, rtol=1e-10)


@pytest.mark.parametrize("given", [True, False])
def test_likelihood_agrees_with_scipy(given):
    predictions, responses, index = simulate()
    mean_rate = np.array([1.0, 2.0, 3.0, 4.0, 5.0]) if given else responses.mean(axis=0)
    bits = poisson.logpmf(responses, predictions[index]) - poisson.logpmf(responses, mean_rate)
    expected = bits.sum(axis=0) / np.log(2) / responses.sum(axis=0)
    found = metrics.poisson_log_likelihood(predictions, responses, index, mean_rate=mean_rate if given else None)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_likelihood_of_zero_predictions_silent_neurons_and_the_mean_rate():
    # rate 1 spikes in the second of two images, where 0 was predicted: floored at 2^-10, 10 bits
    eps = 2.0**-10
    found = metrics.poisson_log_likelihood([[1, 1], [0, 1]], [[0, 0], [1, 0]], eps=eps, mean_rate=[1, 1])
    # log2 eps - (1 + eps - 2) / ln 2, for one spike
    np.testing.assert_allclose(found, [-10 + (1 - eps) / np.log(2), np.nan])
    _, responses, index = simulate()
    null = metrics.poisson_log_likelihood(np.tile(responses.mean(axis=0), (12, 1)), responses, index)
    np.testing.assert_allclose(null, 0, atol=1e-12)


@recorded
def test_permuting_neurons_permutes_scores(score):
    predictions, responses, index = simulate()
    order = [3, 0, 4, 1, 2]
    expected = score(predictions, responses, index)[order]
    np.testing.assert_allclose(score(predictions[:, order], responses[:, order], index), expected, rtol=1e-12)
    alone = score(predictions[:, [3]], responses[:, [3]], index)
    assert alone.shape == (1,)
    np.testing.assert_allclose(alone, expected[:1], rtol=1e-12)


@recorded
def test_permuting_trials_or_images_changes_nothing(score):
    predictions, responses, index = simulate()
    expected = score(predictions, responses, index)
    trials = np.random.default_rng(1).permutation(len(index))
    np.testing.assert_allclose(score(predictions, responses[trials], index[trials]), expected, rtol=1e-10)
    images = np.random.default_rng(2).permutation(12)
    np.testing.assert_allclose(score(predictions[images], responses, np.argsort(images)[index]), expected, rtol=1e-10)


@recorded
def test_images_never_shown_change_nothing(score):
    predictions, responses, index = simulate()
    more = np.concatenate([np.full((2, 5), 99.0), predictions, np.full((1, 5), -99.0)])
    expected = score(predictions, responses, index)
    np.testing.assert_allclose(score(more, responses, index + 2), expected, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in RECORDED if name != "poisson_log_likelihood"])
def test_changing_the_unit_changes_nothing(name):
    predictions, responses, index = simulate()
    scale = np.array([1e-3, 0.5, 2.0, 10.0, 1e4])
    expected = RECORDED[name](predictions, responses, index)
    np.testing.assert_allclose(RECORDED[name](predictions * scale, responses * scale, index), expected, rtol=1e-9)
    np.testing.assert_allclose(
        metrics.fev(predictions * scale, responses[:12] * scale),
        metrics.fev(predictions, responses[:12]),
        rtol=1e-9,
    )


def test_blocks_of_neurons_do_not_show(monkeypatch):
    predictions, responses, index = simulate(n_neurons=7)
    expected = metrics.feve(predictions, responses, index)
    monkeypatch.setattr(image_sums, "CHUNK", 2 * len(index))
    np.testing.assert_array_equal(metrics.feve(predictions, responses, index), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y, i: (p[:, :4], y, i), "predictions has 4 neurons but responses has 5"),
        (lambda p, y, i: (p, y[:-1], i), "responses has 39 rows but image_index has 40: one row per trial"),
        (lambda p, y, i: (p[:9], y, i), "image_index names images 9, 10, 11: expected 0 to 8"),
        (lambda p, y, i: (p, y, i - 1), "image_index names images -1: expected 0 to 11"),
        (lambda p, y, i: (p, y, i + 0.5), "image_index has dtype float64: expected integers"),
        (lambda p, y, i: (p, y, i * 0), "the number of images shown is 1: at least 2"),
        (lambda p, y, i: (p, y[0], i), r"responses has 1 dimensions, shape \(5,\): expected 2"),
        (lambda p, y, i: (p, np.where(y == y[2, 1], np.nan, y), i), "responses has .* values that are NaN"),
        (lambda p, y, i: (p + np.inf, y, i), r"predictions has 60 values .* the first at \(0, 0\)"),
        (lambda p, y, i: (p, y.astype(str), i), "responses has dtype"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        metrics.correlation_with_average(*change(*simulate()))


def test_data_that_cannot_tell_are_refused():
    predictions, responses, _ = simulate()
    once = np.arange(12)
    for score in ("feve", "normalized_correlation"):
        with pytest.raises(InputError, match=f"{score} needs at least 1 image shown more than once, got 0 of 12"):
            RECORDED[score](predictions, responses[:12], once)
    for name in ("explainable_variance", "normalized_noise_power", "noise_ceiling"):
        with pytest.raises(InputError, match=f"{name} needs at least 1 image shown more than once"):
            getattr(metrics, name)(responses[:12], once)
    with pytest.raises(InputError, match="oracle needs at least 2 images shown more than once, got 1 of 11"):
        metrics.oracle(responses[:12], np.maximum(once, 1))
    with pytest.raises(InputError, match="responses has negative values, down to -1"):
        metrics.poisson_log_likelihood(predictions, responses[:12] * 0 - 1)
    with pytest.raises(InputError, match="mean_rate has 2 neurons but responses has 5"):
        metrics.poisson_log_likelihood(predictions, responses[:12], mean_rate=[1, 2])
    with pytest.raises(InputError, match="responses has 40 rows but predictions has 12"):
        metrics.poisson_log_likelihood(predictions, responses)
