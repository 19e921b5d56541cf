"""p-values of several tests at once."""

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.checks import check_ndim, check_numeric, some_of
from whatwhere.errors import InputError
from whatwhere.metrics.image_sums import Array


def holm(p_values: ArrayLike) -> Array:
    """p-values corrected for their number by Holm's step-down method (Holm 1979).

    The k-th smallest of m becomes max over j <= k of min(1, (m - j + 1) p_j): the chance of any false rejection stays
    below the level, whatever the dependence of the tests. p_values (n_tests,); NaN is no test, stays, and is not
    counted. Raises `InputError` for values outside 0 to 1.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    values = np.asarray(p_values)
    check_ndim("p_values", values, ("n_tests",))
    check_numeric("p_values", values)
    corrected = values.astype(np.float64)
    if ((corrected < 0) | (corrected > 1)).any():
        outside = corrected[(corrected < 0) | (corrected > 1)]
        raise InputError(f"p_values holds {some_of(outside)}: expected chances, from 0 to 1, or NaN for no test.")
    tested = np.flatnonzero(~np.isnan(corrected))
    order = tested[np.argsort(corrected[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * corrected[order]))
    return corrected
