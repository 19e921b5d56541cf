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
