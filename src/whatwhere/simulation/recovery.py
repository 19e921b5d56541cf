"""How well a fit found the truth of a simulation: where neurons look, their kernels, their types."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.signal import correlate

from whatwhere.checks import check_finite, check_ndim, check_same_rows
from whatwhere.errors import InputError

FEWEST = 3  # neurons whose median shows an offset: of two, it would halve the errors; of one, hide it


def location_errors(found: ArrayLike, true: ArrayLike, channels: ArrayLike | None = None) -> np.ndarray:
    """Distance from the found to the true location, after removing what no fit can know.

    A kernel shifted one way and its masks the other are the same model, so locations are known up to one
    offset per feature channel: e_n = |found_n - true_n - o_c(n)|_2, where o_c is the median of found - true
    over the neurons of channel c, rows and columns apart.

    - `found`, `true` (n_neurons, 2): row and column, pixels
    - `channels` (n_neurons,): the feature channel that each neuron reads most; None: all read one
    - returns (n_neurons,), pixels

    A channel of fewer than three neurons cannot show its offset, for it would absorb their own errors: they
    get the median over all neurons, or no offset where there are fewer than three in all. Of three neurons
    the median still is one neuron's own error along each axis: errors of small channels are a little
    flattered.
    Raises `InputError` where shapes do not fit or values are not finite.

    >>> true = np.array([[5.0, 5], [9, 20], [12, 7], [3, 3]])
    >>> location_errors(true + [1, -2] + np.array([[0, 0], [0, 0], [0, 0], [3, 4]]), true)
    array([0., 0., 0., 5.])
    """
    found, true = _as_locations("found", found), _as_locations("true", true)
    check_same_rows("found", len(found), "true", len(true), each="neuron")
    channel = np.zeros(len(true), int) if channels is None else np.asarray(channels)
    check_ndim("channels", channel, ("n_neurons",))
    check_same_rows("channels", len(channel), "true", len(true), each="neuron")
    difference = found - true
    common = np.median(difference, axis=0) if len(true) >= FEWEST else np.zeros(2)
    offsets = np.tile(common, (len(true), 1))
    for name in np.unique(channel):
        members = channel == name
        if members.sum() >= FEWEST:
            offsets[members] = np.median(difference[members], axis=0)
    return np.hypot(*(difference - offsets).T)


def kernel_correlation(found: ArrayLike, true: ArrayLike) -> float:
    """Similarity of two kernels up to shift and sign, from 0 to 1.

    max over shifts s of |sum_ij found_(ij + s) true_ij| / (|found|_2 |true|_2), whole pixels, all shifts with
    any overlap; outside their windows both kernels are zero. The norms are those of the whole kernels, so a
    kernel that its window crops scores less than 1. No mean is subtracted: a kernel's sum is its response to
    light.

    - `found`, `true` (kernel height, kernel width) or (n_channels, kernel height, kernel width), of any
      sizes; the channels are shifted together
    - a kernel of zeros has similarity 0

    Raises `InputError` where the channels differ in number or values are not finite.

    >>> kernel = np.array([[0.0, 1, 0], [0, 2, 3], [0, 0, 0]])
    >>> kernel_correlation(-np.roll(kernel, 1, axis=0), kernel)
    1.0
    """
    a, b = _as_kernel("found", found), _as_kernel("true", true)
    if len(a) != len(b):
        raise InputError(f"found has {len(a)} channels but true has {len(b)}: expected the same colour channels.")
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    if norm == 0:
        return 0.0
    products = sum(correlate(x, y, mode="full", method="direct") for x, y in zip(a, b, strict=True))
    return min(1.0, float(np.abs(products).max() / norm))  # rounding


def type_accuracy(feature_weights: ArrayLike, types: ArrayLike) -> float:
    """Share of neurons whose largest |feature weight| names their type.

    Channels carry no names, so they are matched to types one to one, as favourably as possible (Hungarian
    method): with few neurons chance is well above 1 / n_types. A channel without a type, or a neuron whose
    weights are all 0, counts as wrong.

    - `feature_weights` (n_neurons, n_features), `types` (n_neurons,)

    Raises `InputError` where shapes do not fit or weights are not finite.

    >>> type_accuracy([[0.1, -3.0], [0.0, 2.0], [1.0, 0.2], [0.5, 0.6]], ["a", "a", "b", "b"])
    0.75
    """
    weights, labels = np.abs(np.asarray(feature_weights, np.float64)), np.asarray(types)
    check_ndim("feature_weights", weights, ("n_neurons", "n_features"))
    check_ndim("types", labels, ("n_neurons",))
    check_same_rows("feature_weights", len(weights), "types", len(labels), each="neuron")
    check_finite("feature_weights", weights, row="neuron")
    names, type_index = np.unique(labels, return_inverse=True)
    read = weights.max(axis=1) > 0
    counts = np.zeros((len(names), weights.shape[1]), int)  # neurons of each type by channel
    np.add.at(counts, (type_index[read], weights[read].argmax(axis=1)), 1)
    matched = linear_sum_assignment(counts, maximize=True)
    return float(counts[matched].sum() / len(labels))


def _as_locations(name: str, locations: ArrayLike) -> np.ndarray:
    values = np.asarray(locations, np.float64)
    check_ndim(name, values, ("n_neurons", "row and column"))
    if values.shape[1] != 2 or not len(values):
        raise InputError(f"{name} has shape {values.shape}: expected (n_neurons, 2), row and column in pixels.")
    check_finite(name, values, row="neuron")
    return values


def _as_kernel(name: str, kernel: ArrayLike) -> np.ndarray:
    values = np.asarray(kernel, np.float64)
    if values.ndim == 2:
        values = values[None]
    check_ndim(name, values, ("n_channels", "kernel height", "kernel width"))
    check_finite(name, values)
    return values
