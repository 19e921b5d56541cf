"""The shared checks: each message says what, expected, got and the remedy."""

import numpy as np
import pytest

from whatwhere import checks
from whatwhere.errors import InputError, OptionError


def test_check_finite_names_columns_and_rows_or_rows_alone():
    values = np.zeros((8, 2))
    checks.check_finite("x", values, ["a", "b"])
    values[[1, 2, 3, 4, 5, 6], 1] = np.nan
    with pytest.raises(InputError, match=r"x holds 6 values that are not finite: neuron b in row 1, .* and 1 more"):
        checks.check_finite("x", values, ["a", "b"])
    with pytest.raises(InputError, match=r"not finite: image 1, 2, 3, 4, 5 and 1 more\. Mend them"):
        checks.check_finite("x", values, row="image")
    with pytest.raises(InputError, match="1 value that is not finite"):
        checks.check_finite("x", np.array([np.inf]))


def test_check_positions_accepts_positions_and_booleans():
    np.testing.assert_array_equal(checks.check_positions("x", [2, 0, 2], 3, "image"), [2, 0, 2])
    np.testing.assert_array_equal(checks.check_positions("x", np.array([True, False]), 2, "image"), [0])
    for which, message in [
        ([3], "holds 3, out of range"),
        ([True], "one per image, 3"),
        ([[1]], r"shape \(1, 1\)"),
    ]:
        with pytest.raises(InputError, match=message):
            checks.check_positions("x", which, 3, "image")


def test_the_other_checks_say_expected_and_got():
    with pytest.raises(
        OptionError, match=r"unknown kind 'rigde': expected one of 'ridge', 'lnp'\. Did you mean 'ridge'"
    ):
        checks.check_choice("kind", "rigde", ["ridge", "lnp"])
    with pytest.raises(OptionError, match="unknown option 'b': known are 'a'"):
        checks.check_keys("option", ["a", "b"], ["a"])
    with pytest.raises(InputError, match=r"x has 1 dimensions, shape \(3,\): expected 2, \(rows, columns\)"):
        checks.check_ndim("x", np.zeros(3), ("rows", "columns"))
    with pytest.raises(InputError, match="x has 1,800 rows but y has 1,799"):
        checks.check_same_rows("x", 1800, "y", 1799)
    with pytest.raises(InputError, match="x has dtype complex128"):
        checks.check_numeric("x", np.zeros(3, complex))
    for bad in (0, -1, np.nan, np.inf):
        with pytest.raises(OptionError, match="x must be above 0"):
            checks.check_positive("x", bad)
