"""How well a fit found the truth of a simulation: where neurons look, their kernels, their types."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.signal import correlate
from scipy.stats import binomtest

from whatwhere.checks import check_finite, check_ndim, check_same_rows, some_of
from whatwhere.errors import InputError

FEWEST = 3  # neurons whose median shows an offset: of two, it would halve the errors; of one, hide it
EDGES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of the bins of stated probability: finer where most locations of a map are."""
CURVE = ("from", "to", "stated", "found", "low", "high", "n")
"""Columns of a reliability curve."""
_SUM_TOLERANCE = 1e-3  # of float32 sums over a large map
_ROUNDING = 1e-6  # pixels: halves that were rounded down in a sum are halves
_NUMBERS_AT_ONCE = 2**22  # probabilities that are sorted at a time


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
    difference = found - true
    return np.hypot(*(difference - channel_offsets(difference, channels)).T)


def hit_rate(errors: ArrayLike, within: float = 1.0) -> float:
    """Share of neurons whose location error (see `location_errors`) is at most `within` pixels.

    Raises `InputError` for no errors, or errors that are not finite.

    >>> hit_rate([0.0, 1.0, 1.5, 9.0])
    0.5
    """
    values = np.asarray(errors, np.float64)
    check_ndim("errors", values, ("n_neurons",))
    if not len(values):
        raise InputError("errors is empty: expected one per neuron.")
    check_finite("errors", values[:, None], row="neuron")
    return float((values <= within).mean())


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


def true_positions(posterior: ArrayLike, true: ArrayLike, channels: ArrayLike | None = None) -> np.ndarray:
    """The true locations in the pixels of the posterior's maps, after removing the offset that no fit can know.

    Per feature channel the median of peak - true over its neurons, as in `location_errors`, is added; what then lies
    between two pixels goes to the later one, for all neurons alike.

    - `posterior` (n_neurons, h, w); `channels` (n_neurons,): see `location_errors`
    - `true` (n_neurons, 2): row and column in pixels of the map, that is the location in the image minus
      `core.map_offset`
    - returns (n_neurons, 2), int; a position may lie outside the map

    Raises `InputError` where shapes do not fit.

    >>> posterior = np.zeros((3, 4, 5))
    >>> posterior[[0, 1, 2], [0, 1, 3], [1, 4, 2]] = 1
    >>> true_positions(posterior, [[1, 1], [2, 4], [3, 2]]).tolist()
    [[0, 1], [1, 4], [2, 2]]
    """
    maps, true = _as_posterior(posterior), _as_locations("true", true)
    check_same_rows("true", len(true), "posterior", len(maps), each="neuron")
    peaks = np.stack(np.unravel_index(maps.reshape(len(maps), -1).argmax(1), maps.shape[1:]), axis=1)
    moved = true + channel_offsets(peaks - true, channels)
    return np.floor(moved + 0.5 + _ROUNDING).astype(np.int64)


def reliability_curve(posterior: ArrayLike, positions: ArrayLike, edges: Sequence[float] = EDGES) -> pd.DataFrame:
    """How often what is stated with probability p is found true.

    Every location of every neuron is a statement, "the neuron looks here with probability p"; the statements are put
    into bins by p. In each, an ideal posterior has `found` = `stated` up to chance.

    - `posterior` (n_neurons, h, w), each neuron's sums to 1
    - `positions` (n_neurons, 2), int: where each neuron looks, as `true_positions` has it; one outside the map makes
      all statements of its neuron false
    - `edges`: of the bins, ascending from 0 to 1; each bin holds its upper edge, the first its lower one too
    - returns a row for each bin: `from`, `to` (its edges), `stated` (mean p), `found` (share that is true), `low` and
      `high` (95 % interval, Clopper and Pearson's; a little wide, since of a neuron's statements only one is true)
      and `n` statements. A bin without statements has NaN.

    Raises `InputError` where shapes do not fit, a posterior does not sum to 1, or the edges do not ascend from 0 to 1.

    >>> curve = reliability_curve([[[0.75, 0.25]], [[0.25, 0.75]]], [[0, 0], [0, 0]], edges=[0, 0.5, 1])
    >>> curve[["stated", "found", "n"]].to_numpy().tolist()
    [[0.25, 0.5, 2.0], [0.75, 0.5, 2.0]]
    """
    maps, true = _as_statements(posterior, positions)
    bounds = np.asarray(edges, np.float64)
    if bounds.ndim != 1 or len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != 1 or (np.diff(bounds) <= 0).any():
        raise InputError(f"edges is {list(edges)}: expected ascending numbers from 0 to 1, for example [0, 0.5, 1].")
    stated = maps.reshape(-1)
    bins = np.clip(np.searchsorted(bounds, stated, side="left") - 1, 0, len(bounds) - 2)
    n = np.bincount(bins, minlength=len(bounds) - 1)
    hits = np.bincount(bins, weights=true.reshape(-1), minlength=len(n)).astype(int)
    sums = np.bincount(bins, weights=stated, minlength=len(n))
    rows = []
    for number, count in enumerate(n):
        row = {"from": bounds[number], "to": bounds[number + 1], "n": int(count)}
        if count:
            low, high = _interval(int(hits[number]), int(count))
            row |= {"stated": sums[number] / count, "found": hits[number] / count, "low": low, "high": high}
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CURVE))


@dataclass(frozen=True)
class Coverage:
    """Of how many neurons the credible regions hold the true location.

    - `level` that was stated, `share` that was found, with its 95 % interval `low` to `high` (Clopper and Pearson's)
    - `mean_size`: locations in a region, on average
    """

    level: float
    share: float
    low: float
    high: float
    n_neurons: int
    mean_size: float


def credible_coverage(posterior: ArrayLike, positions: ArrayLike, level: float = 0.9, seed: int = 0) -> Coverage:
    """The coverage of randomised credible regions, which for an ideal posterior is `level` exactly.

    A region takes the most probable locations first (equal ones in random order) until their sum reaches `level`. The
    last one, which would carry it beyond, is taken with the probability that makes the expected sum `level`: whole
    locations cannot, so regions that always take it cover more than is stated, and the more the surer the posterior.

    `posterior`, `positions`: as in `reliability_curve`; `seed`: of the randomisation.
    Raises `InputError` where shapes do not fit or a posterior does not sum to 1, or for a level not between 0 and 1.

    >>> credible_coverage(np.full((1000, 1, 2), 0.5), np.zeros((1000, 2), int), level=0.5).mean_size
    1.0
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}: 0.9 is usual.")
    maps, true = _as_statements(posterior, positions)
    rng = np.random.default_rng(seed)
    flat, is_true = maps.reshape(len(maps), -1), true.reshape(len(maps), -1)
    chances, n_sure, last = (np.zeros(len(maps)) for _ in range(3))
    at_once = max(1, _NUMBERS_AT_ONCE // flat.shape[1])
    for first in range(0, len(maps), at_once):
        some = slice(first, first + at_once)
        order = np.lexsort((rng.random(flat[some].shape), -flat[some]), axis=1)
        sorted_ = np.take_along_axis(flat[some], order, axis=1)
        before = np.cumsum(sorted_, axis=1) - sorted_
        # The probability of taking each location: 1 until the level is reached, what is lacking for the last, then 0.
        taken = np.clip((level - before) / np.maximum(sorted_, np.finfo(float).tiny), 0, 1)
        chances[some] = (taken * np.take_along_axis(is_true[some], order, axis=1)).sum(axis=1)
        n_sure[some] = (taken == 1).sum(axis=1)
        last[some] = np.where(taken < 1, taken, 0).max(axis=1)
    draw = rng.random(len(maps))
    covered = draw < chances
    low, high = _interval(int(covered.sum()), len(covered))
    sizes = n_sure + (draw < last)
    return Coverage(level, float(covered.mean()), low, high, len(covered), float(sizes.mean()))


def _interval(hits: int, n: int) -> tuple[float, float]:
    found = binomtest(hits, n).proportion_ci(0.95)
    return float(found.low), float(found.high)


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


def channel_offsets(difference: np.ndarray, channels: ArrayLike | None) -> np.ndarray:
    """What no fit can know of places: for each neuron the median difference of its channel, (n_neurons, 2).

    difference: found - true location (n_neurons, 2); channels: see `location_errors`. Where a channel has fewer than
    three neurons, the median of all.
    """
    channel = np.zeros(len(difference), int) if channels is None else np.asarray(channels)
    check_ndim("channels", channel, ("n_neurons",))
    check_same_rows("channels", len(channel), "true", len(difference), each="neuron")
    common = np.median(difference, axis=0) if len(difference) >= FEWEST else np.zeros(2)
    offsets = np.tile(common, (len(difference), 1))
    for name in np.unique(channel):
        members = channel == name
        if members.sum() >= FEWEST:
            offsets[members] = np.median(difference[members], axis=0)
    return offsets


def _as_statements(posterior: ArrayLike, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The posterior, and for each of its locations whether the neuron looks there: both (n_neurons, h, w)."""
    maps, where = _as_posterior(posterior), _as_locations("positions", positions)
    check_same_rows("positions", len(where), "posterior", len(maps), each="neuron")
    if (where != np.rint(where)).any():
        raise InputError("positions must be whole pixels of the map: `true_positions` gives them.")
    true = np.zeros(maps.shape, bool)
    inside = np.flatnonzero(((where >= 0) & (where < maps.shape[1:])).all(axis=1))
    true[inside, *where[inside].astype(int).T] = True
    return maps, true


def _as_posterior(posterior: ArrayLike) -> np.ndarray:
    maps = np.array(posterior, np.float64)
    check_ndim("posterior", maps, ("n_neurons", "h", "w"))
    if not maps.size:
        raise InputError(f"posterior is empty, shape {maps.shape}: expected (n_neurons, h, w).")
    check_finite("posterior", maps, row="neuron")
    sums = maps.sum(axis=(1, 2))
    wrong = np.flatnonzero((np.abs(sums - 1) > _SUM_TOLERANCE) | (maps < 0).any(axis=(1, 2)))
    if len(wrong):
        raise InputError(
            f"posterior must hold probabilities that sum to 1 over each neuron's locations, but that of neuron"
            f" {some_of(wrong)} does not (the first sums to {sums[wrong[0]]:.4g}): give a softmax over locations."
        )
    maps /= sums[:, None, None]
    return maps
