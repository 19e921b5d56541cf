"""The table of all scores: what is in it, what is not and why, and that JSON takes it."""

import json

import numpy as np
import pytest

from whatwhere import metrics
from whatwhere.errors import InputError, OptionError

ALL = list(metrics.SCORES)
NEED_REPEATS = [
    "feve",
    "explainable_variance",
    "normalized_noise_power",
    "oracle",
    "normalized_correlation",
    "noise_ceiling",
]


def simulate(seed=0, n_images=20, n_repeats=4, n_neurons=8):
    rng = np.random.default_rng(seed)
    rates = rng.gamma(3.0, 1.0, (n_images, n_neurons))
    index = np.repeat(np.arange(n_images), n_repeats)
    predictions = rates * rng.uniform(0.5, 1.5, rates.shape)
    return predictions, rng.poisson(rates[index]).astype(float), index, rates


def test_columns_are_the_scores_and_the_summary_their_intervals():
    predictions, responses, index, rates = simulate()
    mean_rate = np.full(8, 2.0)
    table = metrics.score_table(
        predictions,
        responses,
        index,
        rates=rates,
        mean_rate=mean_rate,
        floor=0.3,
        level=0.9,
        n_resamples=100,
        seed=3,
    )
    expected = {
        "correlation": metrics.correlation_with_average(predictions, responses, index),
        "single_trial_correlation": metrics.single_trial_correlation(predictions, responses, index),
        "fev": metrics.fev(predictions, rates),
        "feve": metrics.feve(predictions, responses, index, floor=0.3),
        "explainable_variance": metrics.explainable_variance(responses, index),
        "normalized_noise_power": metrics.normalized_noise_power(responses, index),
        "oracle": metrics.oracle(responses, index),
        "normalized_correlation": metrics.normalized_correlation(predictions, responses, index),
        "noise_ceiling": metrics.noise_ceiling(responses, index),
        "log_likelihood_bits_per_spike": metrics.poisson_log_likelihood(
            predictions, responses, index, mean_rate=mean_rate
        ),
    }
    assert table.absent == {}
    assert list(table.summary) == list(expected)
    for name, scores in expected.items():
        np.testing.assert_array_equal(table.neurons[name], scores)
        entry = table.summary[name]
        neurons = metrics.interval_over_neurons(scores, level=0.9, n_resamples=100, seed=3)
        assert (entry["mean"], entry["low"], entry["high"]) == (neurons.mean, neurons.low, neurons.high)
        data = (predictions, rates, None) if name == "fev" else (predictions, responses, index)
        for over in ("images", "both"):
            found = metrics.interval_over_images(
                name, *data, over=over, mean_rate=mean_rate, floor=0.3, level=0.9, n_resamples=100, seed=3
            )
            assert (entry[f"low_{over}"], entry[f"high_{over}"]) == (found.low, found.high)
        assert (entry["level"], entry["over"]) == (0.9, "neurons")
        assert entry["n_neurons"] + entry["n_left_out"] == 8


def test_scores_of_the_responses_alone_are_the_same_for_every_model():
    predictions, responses, index, rates = simulate()
    one, other = (
        metrics.score_table(p, responses, index, rates=rates, mean_rate=np.full(8, 2.0)).neurons
        for p in (predictions, rates + 0.1)
    )
    same = {name for name in ALL if np.array_equal(one[name], other[name])}
    assert same == {name for name, score in metrics.SCORES.items() if not score.of_predictions}
    assert same == {"explainable_variance", "normalized_noise_power", "oracle", "noise_ceiling"}


def test_without_repeats_the_reason_is_recorded():
    predictions, responses, index, _ = simulate(n_repeats=1)
    table = metrics.score_table(predictions, responses, index, n_resamples=20)
    assert list(table.summary) == ["correlation", "single_trial_correlation", "log_likelihood_bits_per_spike"]
    for name in NEED_REPEATS:
        assert f"{name} needs at least" in table.absent[name]
        assert "shown more than once, got 0 of 20" in table.absent[name]
    assert table.absent["fev"] == "fev needs noise-free rates, got recorded responses only."
    same = metrics.score_table(predictions, responses, n_resamples=20)
    assert same.summary == table.summary


def test_negative_responses_have_no_likelihood():
    predictions, responses, index, _ = simulate()
    table = metrics.score_table(predictions, responses - 3, index, n_resamples=20)
    assert list(table.absent) == ["fev", "log_likelihood_bits_per_spike"]
    assert "negative values, down to -3" in table.absent["log_likelihood_bits_per_spike"]


def test_rates_alone_give_fev():
    predictions, _, _, rates = simulate()
    table = metrics.score_table(predictions, rates=rates, n_resamples=20)
    assert list(table.summary) == ["fev"]
    assert set(table.absent) == set(ALL) - {"fev"}
    np.testing.assert_array_equal(table.neurons["fev"], metrics.fev(predictions, rates))
    assert list(table.neurons.columns) == ["fev", "constant_rate", "constant_prediction"]


def test_constant_and_left_out_neurons_are_counted():
    predictions, responses, index, rates = simulate()
    predictions[:, 0], responses[:, 1], rates[:, 2] = 2.0, 0.0, 1.0
    table = metrics.score_table(predictions, responses, index, rates=rates, n_resamples=20)
    counts = {name: (entry["n_left_out"], entry["n_constant"]) for name, entry in table.summary.items()}
    assert counts["correlation"] == counts["single_trial_correlation"] == (0, 2)
    assert counts["oracle"] == (0, 1)
    assert counts["fev"] == (0, 1)
    left_out = int(np.isnan(metrics.feve(predictions, responses, index)).sum())
    assert left_out >= 1
    assert counts["feve"] == (left_out, 0)
    assert counts["noise_ceiling"] == (1, 0)
    assert counts["normalized_correlation"] == (1, 1)
    assert counts["explainable_variance"] == counts["log_likelihood_bits_per_spike"] == (1, 0)
    predictions[:, 1] = 2.0  # now neither varies: left out, and not counted twice
    again = metrics.score_table(predictions, responses, index, n_resamples=20).summary["normalized_correlation"]
    assert (again["n_left_out"], again["n_constant"]) == (1, 1)
    for kind, neuron in (("prediction", 0), ("response", 1), ("rate", 2)):
        assert list(np.flatnonzero(table.neurons[f"constant_{kind}"])) == [neuron]


def test_summary_is_strict_json_even_without_numbers():
    predictions, responses, index, _ = simulate(n_neurons=1)
    table = metrics.score_table(predictions, responses * 0, index, n_resamples=20)
    assert json.loads(json.dumps(table.summary, allow_nan=False)) == table.summary
    assert table.summary["feve"]["mean"] is None
    assert table.summary["feve"]["n_left_out"] == 1
    assert table.summary["correlation"]["mean"] == 0
    full = metrics.score_table(predictions, responses, index, n_resamples=20, n_resamples_images=0)
    json.dumps(full.summary, allow_nan=False)
    entry = full.summary["correlation"]
    assert entry["low"] == entry["mean"] == entry["high"]
    assert entry["low_images"] is entry["high_images"] is entry["low_both"] is None


def test_same_seed_same_table_and_single_precision_is_close():
    predictions, responses, index, _ = simulate()
    once, again = (metrics.score_table(predictions, responses, index, n_resamples=30, seed=5) for _ in range(2))
    assert once.summary == again.summary
    single = metrics.score_table(predictions.astype(np.float32), responses.astype(np.int16), index, n_resamples=30)
    np.testing.assert_allclose(single.neurons.iloc[:, :9], once.neurons.iloc[:, :9], rtol=1e-5)


def test_wrong_use_is_refused():
    predictions, responses, index, rates = simulate()
    with pytest.raises(InputError, match=r"needs responses or rates .* got neither"):
        metrics.score_table(predictions)
    with pytest.raises(InputError, match="responses has 19 rows but predictions has 20"):
        metrics.score_table(predictions, rates=rates[:19])
    with pytest.raises(OptionError, match="n_resamples must be a whole number of at least 1, got -1"):
        metrics.score_table(predictions, responses, index, n_resamples_images=-1)


def test_negative_mean_rates_leave_the_likelihood_out_and_the_rest_in():
    rng = np.random.default_rng(3)
    responses = rng.poisson(2.0, (12, 3)).astype(float)
    table = metrics.score_table(responses[:6], responses, np.tile(np.arange(6), 2), mean_rate=[1.0, -0.1, 2.0])
    assert "correlation" in table.summary
    assert "mean_rate has negative values, down to -0.1" in table.absent["log_likelihood_bits_per_spike"]
