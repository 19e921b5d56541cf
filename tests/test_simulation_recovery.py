"""Recovery scores on cases made by hand, whose answers are known."""

import numpy as np
import pytest

from whatwhere.errors import InputError
from whatwhere.simulation import (
    difference_of_gaussians,
    kernel_correlation,
    location_errors,
    type_accuracy,
)
from whatwhere.simulation.recovery import credible_coverage, hit_rate, reliability_curve, true_positions


def test_each_channel_has_an_offset_of_its_own(rng: np.random.Generator) -> None:
    true = rng.uniform(0, 40, (9, 2))
    channels = np.array([2, 0, 0, 2, 2, 0, 0, 2, 0])
    offsets = {0: np.array([3.0, -1.0]), 2: np.array([-4.0, 0.5])}
    found = true + np.stack([offsets[c] for c in channels])
    found[1] += [6, 8]
    expected = np.zeros(9)
    expected[1] = 10
    np.testing.assert_allclose(location_errors(found, true, channels), expected, atol=1e-12)
    assert (location_errors(found, true) > 0.5).sum() > 3  # one offset for all does not explain them


def test_rows_and_columns_are_not_mixed() -> None:
    true = np.zeros((5, 2))
    found = np.array([[0.0, 0], [0, 0], [0, 0], [0, 2], [7, 0]])
    assert location_errors(found, true).tolist() == [0, 0, 0, 2, 7]


def test_a_lonely_neuron_does_not_hide_its_error() -> None:
    true = np.zeros((6, 2))
    found = np.array([[1.0, 1]] * 4 + [[1, 31], [41, 1]])
    errors = location_errors(found, true, [0, 0, 0, 0, 1, 2])
    np.testing.assert_allclose(errors, [0, 0, 0, 0, 30, 40])
    pair = location_errors(found, true, [0, 0, 0, 0, 1, 1])  # nor do two share theirs
    np.testing.assert_allclose(pair, [0, 0, 0, 0, 30, 40])


def test_one_or_two_neurons_have_no_offset() -> None:
    assert location_errors([[3.0, 4.0]], [[0.0, 0.0]]).tolist() == [5]
    assert location_errors([[3.0, 4.0], [3.0, 4.0]], np.zeros((2, 2))).tolist() == [5, 5]


def test_location_complaints() -> None:
    with pytest.raises(InputError, match="found has 2 rows but true has 3: one row per neuron is needed"):
        location_errors(np.zeros((2, 2)), np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"found has shape \(4, 3\): expected \(n_neurons, 2\)"):
        location_errors(np.zeros((4, 3)), np.zeros((4, 2)))


def test_kernel_correlation_finds_shift_sign_and_scale() -> None:
    kernel = difference_of_gaussians(9, size_factor=0.3)
    wide = np.zeros((15, 20))
    wide[5:14, 1:10] = -3 * kernel
    assert kernel_correlation(wide, kernel) == pytest.approx(1, abs=1e-12)
    assert kernel_correlation(kernel, wide) == pytest.approx(1, abs=1e-12)


def test_kernel_correlation_of_known_overlaps() -> None:
    assert kernel_correlation([[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0]]) == pytest.approx(np.sqrt(0.5))
    assert kernel_correlation([[3.0, 4.0]], [[4.0, 3.0]]) == pytest.approx(24 / 25)  # unshifted is the best
    assert kernel_correlation(np.ones((3, 3)), np.zeros((3, 3))) == 0


def test_a_cropped_kernel_loses_its_missing_energy() -> None:
    kernel = difference_of_gaussians()
    cropped = kernel[6:]
    kept = np.sqrt((cropped**2).sum() / (kernel**2).sum())
    assert kernel_correlation(cropped, kernel) == pytest.approx(kept)
    assert kept < 0.99


def test_channels_shift_together() -> None:
    a = np.zeros((2, 1, 4))
    a[:, 0, 0] = 1
    b = a.copy()
    assert kernel_correlation(np.roll(a, 2, axis=2), b) == pytest.approx(1)
    b[1] = np.roll(b[1], 1, axis=1)
    assert kernel_correlation(a, b) == pytest.approx(0.5)
    with pytest.raises(InputError, match="found has 2 channels but true has 1"):
        kernel_correlation(a, np.ones((2, 2)))


def test_type_accuracy_with_swapped_types_and_signs() -> None:
    types = np.array([0, 0, 0, 1, 1, 1])
    weights = np.array([[0.1, -2], [0, 1], [0.3, 0.4], [1, 0], [-1, 0.5], [3, 0]])
    assert type_accuracy(weights, types) == 1
    weights[2] = [0.4, 0.3]
    assert type_accuracy(weights, types) == pytest.approx(5 / 6)


def test_a_channel_names_one_type_only() -> None:
    types = ["a", "a", "a", "b", "b"]
    assert type_accuracy(np.ones((5, 1)), types) == pytest.approx(3 / 5)
    assert type_accuracy(np.eye(5), types) == pytest.approx(2 / 5)  # every neuron a channel of its own
    assert type_accuracy(np.zeros((5, 2)), types) == 0


def test_type_accuracy_is_the_best_assignment_not_the_greedy_one() -> None:
    # counts [[5, 4], [4, 0]]: the greedy match takes 5 + 0, the best 4 + 4
    channel = np.array([0] * 5 + [1] * 4 + [0] * 4)
    types = np.array([0] * 9 + [1] * 4)
    assert type_accuracy(np.eye(2)[channel], types) == pytest.approx(8 / 13)


def test_hit_rate_counts_the_edge() -> None:
    errors = [0.0, 0.99, 1.0, 1.01, np.hypot(1, 1), 30.0]
    assert hit_rate(errors) == pytest.approx(3 / 6)
    assert hit_rate(errors, within=1.5) == pytest.approx(5 / 6)
    assert hit_rate([2.0], within=0.5) == 0
    with pytest.raises(InputError, match="errors holds 1 value that is not finite: neuron 1"):
        hit_rate([0.0, np.nan])
    with pytest.raises(InputError, match="errors is empty"):
        hit_rate([])


def posterior_of(
    rng: np.random.Generator, n_neurons: int, amplitude: float, power: float = 1.0, shape: tuple[int, int] = (5, 8)
) -> tuple[np.ndarray, np.ndarray]:
    """Locations drawn evenly, and their posterior given amplitude at the location plus N(0, 1) at each.

    log p(x | l) = amplitude x_l up to a constant, so Bayes' rule gives softmax(amplitude x). A power above 1 is
    overconfident.
    """
    true = np.stack([rng.integers(0, size, n_neurons) for size in shape], axis=1)
    seen = rng.standard_normal((n_neurons, *shape))
    seen[np.arange(n_neurons), *true.T] += amplitude
    evidence = np.exp(power * amplitude * (seen - seen.max(axis=(1, 2), keepdims=True)))
    return evidence / evidence.sum(axis=(1, 2), keepdims=True), true


@pytest.mark.parametrize("amplitude", [1.0, 2.0, 4.0])
def test_an_ideal_posterior_is_calibrated(rng: np.random.Generator, amplitude: float) -> None:
    n = 4000
    posterior, true = posterior_of(rng, n, amplitude)
    for level in (0.5, 0.9, 0.95):
        found = credible_coverage(posterior, true, level)
        assert abs(found.share - level) < 4 * np.sqrt(level * (1 - level) / n), level
        assert found.low < found.share < found.high
        assert found.n_neurons == n
    curve = reliability_curve(posterior, true)
    curve = curve[curve["n"] > 0]
    assert curve["n"].sum() == n * 40
    assert (curve["n"] * curve["stated"]).sum() == pytest.approx(n)  # each neuron's sum to 1
    assert (curve["n"] * curve["found"]).sum() == pytest.approx(n)  # each neuron is somewhere
    error = np.sqrt(curve["stated"] * (1 - curve["stated"]) / curve["n"]) + 1 / curve["n"]
    assert ((curve["found"] - curve["stated"]).abs() < 4 * error).all()
    assert ((curve["low"] <= curve["stated"]) & (curve["stated"] <= curve["high"])).mean() > 0.7


def test_an_overconfident_posterior_is_found_out(rng: np.random.Generator) -> None:
    posterior, true = posterior_of(rng, 2000, 2.0, power=3.0)
    assert credible_coverage(posterior, true).high < 0.8
    curve = reliability_curve(posterior, true)
    sure = curve[(curve["from"] >= 0.8) & (curve["n"] > 0)]
    assert (sure["high"] < sure["stated"]).all()
    timid, true = posterior_of(rng, 2000, 2.0, power=0.4)
    assert credible_coverage(timid, true).low > 0.95


def test_the_last_location_is_taken_as_often_as_the_level_needs() -> None:
    n = 20_000
    posterior = np.tile([[[0.6, 0.3, 0.1]]], (n, 1, 1))
    first, second, third = (credible_coverage(posterior, np.full((n, 2), [0, k]), 0.8) for k in range(3))
    assert first.share == 1
    assert second.share == pytest.approx(0.2 / 0.3, abs=0.015)
    assert third.share == 0
    assert first.mean_size == pytest.approx(1 + 0.2 / 0.3, abs=0.015)
    again = credible_coverage(posterior, np.full((n, 2), [0, 1]), 0.8)
    assert again == second  # the same seed
    assert credible_coverage(posterior, np.full((n, 2), [0, 1]), 0.8, seed=1) != second


def test_equal_probabilities_are_taken_in_random_order() -> None:
    n = 10_000
    posterior = np.full((n, 2, 3), 1 / 6)
    shares = [
        credible_coverage(posterior, np.full((n, 2), [row, column]), 0.5).share for row in (0, 1) for column in range(3)
    ]
    np.testing.assert_allclose(shares, 0.5, atol=0.025)
    assert np.sum(shares) == pytest.approx(3, abs=1e-9)  # three of six locations are in every region


def test_certain_neurons_and_one_neuron() -> None:
    posterior = np.zeros((1, 3, 4))
    posterior[0, 2, 1] = 1
    hits = [credible_coverage(posterior, [[2, 1]], 0.9, seed=seed).share for seed in range(400)]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.05)  # whole locations would always cover
    assert credible_coverage(posterior, [[1, 2]]).share == 0
    curve = reliability_curve(posterior, [[2, 1]], edges=[0, 0.5, 1])
    assert curve["found"].tolist() == [0, 1]
    assert curve["n"].tolist() == [11, 1]


def test_bins_hold_their_upper_edge_and_empty_ones_have_no_share() -> None:
    curve = reliability_curve([[[0.5, 0.5, 0.0]]], [[0, 1]], edges=[0, 0.25, 0.5, 1])
    assert curve["n"].tolist() == [1, 2, 0]
    assert curve["stated"].tolist()[:2] == [0, 0.5]
    assert curve["found"].tolist()[:2] == [0, 0.5]
    assert curve.loc[2, ["stated", "found", "low", "high"]].isna().all()
    assert curve["low"][1] == pytest.approx(0.0126, abs=1e-4)  # Clopper and Pearson for 1 of 2
    assert curve["high"][1] == pytest.approx(0.9874, abs=1e-4)


def test_a_location_outside_the_map_is_never_found() -> None:
    posterior = np.full((2, 2, 3), 1 / 6)
    positions = np.array([[0, 2], [2, 0]])  # row 2 of 2
    assert reliability_curve(posterior, positions)["found"].dropna().sum() * 12 == pytest.approx(1)
    outside = np.array([[-1, 0], [0, 3]])
    assert credible_coverage(posterior, outside, 0.99).share == 0


def test_true_positions_take_each_channels_whole_offset(rng: np.random.Generator) -> None:
    true = np.stack([rng.integers(4, 9, 8), rng.integers(3, 12, 8)], axis=1)
    channels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    moved = true + np.array([[2, -1], [-3, 1]])[channels]
    posterior = np.zeros((8, 14, 16))
    posterior[np.arange(8), *moved.T] = 1
    np.testing.assert_array_equal(true_positions(posterior, true, channels), moved)
    posterior[0] = 0
    posterior[0, 13, 15] = 1  # one that is wrong does not move the others
    np.testing.assert_array_equal(true_positions(posterior, true + 0.3, channels), moved)
    np.testing.assert_array_equal(true_positions(posterior[:1], true[:1]), true[:1])  # one neuron shows no offset
    assert (true_positions(posterior, true) != moved).any()  # one offset for both channels


@pytest.mark.parametrize("moved", [(0.5, -1.5), (-0.5, 0.5)])
def test_kernels_whose_middle_lies_between_pixels_have_one_position_each(
    moved: tuple[float, float], rng: np.random.Generator
) -> None:
    true = np.stack([rng.integers(2, 14, 30), rng.integers(2, 19, 30)], axis=1) + 0.5  # of 16 x 16 pixels, say
    where = (true + moved).astype(int)
    posterior = np.zeros((30, 17, 22))
    posterior[np.arange(30), *where.T] = 1
    np.testing.assert_array_equal(true_positions(posterior, true), where)
    whole = true - 0.5  # half of the neurons found a pixel further: all go one way
    posterior[...] = 0
    posterior[np.arange(30), *(whole.astype(int) + (np.arange(30) % 2)[:, None]).T] = 1
    np.testing.assert_array_equal(true_positions(posterior, whole), whole + 1)


def test_coverage_does_not_depend_on_how_many_neurons_are_sorted_at_once(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior, true = posterior_of(rng, 101, 2.0)
    posterior[7] = 1 / posterior[7].size
    true[3] = -1
    whole = credible_coverage(posterior, true, 0.8, seed=4)
    monkeypatch.setattr("whatwhere.simulation.recovery._NUMBERS_AT_ONCE", 3 * posterior[0].size)
    assert credible_coverage(posterior, true, 0.8, seed=4) == whole


def test_the_posterior_given_is_left_as_it_was() -> None:
    posterior = np.full((3, 1, 2), 0.5002)
    credible_coverage(posterior, np.zeros((3, 2)))
    assert (posterior == 0.5002).all()


def test_posterior_complaints() -> None:
    good, where = np.full((2, 2, 2), 0.25), np.zeros((2, 2), int)
    with pytest.raises(InputError, match=r"of neuron 1 does not \(the first sums to 2\)"):
        reliability_curve(np.stack([good[0], 2 * good[1]]), where)
    with pytest.raises(InputError, match="of neuron 0 does not"):
        credible_coverage([[[1.5, -0.5]]], [[0, 0]])
    with pytest.raises(InputError, match="positions has 1 rows but posterior has 2: one row per neuron is needed"):
        reliability_curve(good, where[:1])
    with pytest.raises(InputError, match="positions must be whole pixels of the map: `true_positions` gives them"):
        reliability_curve(good, where + 0.5)
    with pytest.raises(InputError, match=r"edges is \[0, 0.5\]: expected ascending numbers from 0 to 1"):
        reliability_curve(good, where, edges=[0, 0.5])
    with pytest.raises(InputError, match="level must lie between 0 and 1, got 1"):
        credible_coverage(good, where, level=1)
    with pytest.raises(InputError, match=r"posterior is empty, shape \(0, 2, 2\)"):
        credible_coverage(np.zeros((0, 2, 2)), np.zeros((0, 2)))
