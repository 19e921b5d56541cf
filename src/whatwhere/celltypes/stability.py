"""Whether the types are there again when the model is fitted again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import adjusted_rand_score

from whatwhere.celltypes.clustering import n_distinct, reduced
from whatwhere.celltypes.finding import NO_TYPE, CellTypes, grouping, labels_by_number, type_centres
from whatwhere.celltypes.matching import MatchedMaps, match_centres
from whatwhere.celltypes.options import TypeOptions
from whatwhere.checks import check_finite, check_ndim, check_same_rows
from whatwhere.errors import InputError

_NEURONS_PER_TYPE = 3
"""On average, at least: with fewer, labels agree because most types are of one neuron."""


@dataclass(frozen=True, eq=False)
class Stability:
    """How types found by several fits agree.

    - `refits`: one row a refit: `seed`; `n_types` that it has itself, by the same options; `ari`, the adjusted Rand
      index between its types and the first fit's; `n_neurons` that have a type in both; `map_correlation`, the mean
      correlation of its feature maps with those of the first fit that they are matched to; `centre_similarity`, the
      mean cosine of the first fit's types with those that they are matched to
    - `curve`: one row a number of types: `n_types`, the mean `ari` between two fits that are both put into so many, the
      `low`est and the highest (`high`) pair's; empty for HDBSCAN. Numbers from two to a third of the neurons that have
      a barcode in every fit: types of a neuron each are the same in all fits, whatever their barcodes. A number is left
      out where in some fit one of its types holds no neuron: that fit has fewer
    - `left_out`: seeds of refits none of whose neurons has a barcode. In `refits` they have no types and no agreement
      (NaN); the curve is of the other fits
    """

    refits: pd.DataFrame
    curve: pd.DataFrame
    left_out: tuple[int, ...] = ()

    @property
    def n_types(self) -> int | None:
        """The number of types of the curve in which fits agree best; None where none can be compared.

        Of equal ones the largest: two types that are always one agree as well as the two, while one that is cut in two
        is cut elsewhere in each fit. Low agreement (`best_ari`) is chance, and its number means nothing.
        """
        comparable = self.curve.dropna(subset="ari")
        if comparable.empty:
            return None
        best = comparable["ari"] >= comparable["ari"].max() - 1e-9
        return int(comparable["n_types"][best].max())

    @property
    def best_ari(self) -> float | None:
        """The mean adjusted Rand index between two fits in `n_types` types; None without such a number."""
        best = self.curve["ari"].max()
        return None if np.isnan(best) else float(best)


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """The adjusted Rand index between labels (n_neurons,), of the neurons that have one (not below 0) in both.

    1 for the same types by whatever names, 0 on average by chance (Hubert and Arabie 1985). NaN for fewer than two
    neurons. Raises `InputError` where shapes do not fit.

    >>> agreement([0, 0, 1, 1, -1], [4, 4, 2, 2, 2])
    1.0
    """
    a, b = np.asarray(first), np.asarray(second)
    check_ndim("labels", a, ("n_neurons",))
    check_same_rows("second", len(b), "first", len(a), each="neuron")
    both = (a >= 0) & (b >= 0)
    return float(adjusted_rand_score(a[both], b[both])) if both.sum() >= 2 else float("nan")


def stability_of(
    found: CellTypes, barcodes: Sequence[np.ndarray], seeds: Sequence[int], maps: Sequence[MatchedMaps]
) -> Stability:
    """How the types of a fit agree with those of its refits.

    barcodes: each refit's, (n_neurons, K), of the same neurons; seeds: theirs; maps: each refit's feature maps matched
    to the first fit's, with the signs that they have in the barcodes (`MatchedMaps.of_barcodes`). They are clustered
    with the options of `found`, in as many types as a refit's allow. Raises `InputError` for no refits, for other
    numbers of neurons, or for values that are not finite.
    """
    if not len(barcodes):
        raise InputError("no refits: stability needs at least one.")
    for codes in barcodes:
        check_same_rows("a refit's barcodes", len(codes), "barcodes", len(found.labels), each="neuron")
        check_finite("a refit's barcodes", codes, row="neuron")
    rows = []
    for codes, seed, matched in zip(barcodes, seeds, maps, strict=True):
        own = _own(codes, found.options)
        same = _in_as_many(codes, own, found)
        centres = match_centres(found.centres, type_centres(codes, same), matched)
        rows.append(
            {
                "seed": int(seed),
                "n_types": int(own.max()) + 1,
                "ari": agreement(found.labels, same),
                "n_neurons": int(((found.labels >= 0) & (same >= 0)).sum()),
                "map_correlation": float(matched.correlation.mean()),
                "centre_similarity": float(centres.mean()) if len(centres) and codes.any() else float("nan"),
            }
        )
    silent = [not codes.any() for codes in barcodes]
    left_out = tuple(int(seed) for seed, left in zip(seeds, silent, strict=True) if left)
    heard = [codes for codes, left in zip(barcodes, silent, strict=True) if not left]
    return Stability(pd.DataFrame(rows), _curve(found, heard), left_out)


def _own(codes: np.ndarray, options: TypeOptions) -> np.ndarray:
    """A refit's own labels: in fewer types than asked for where it has fewer different barcodes, none if silent."""
    heard = codes.any(axis=1)
    if not heard.any():
        return np.full(len(codes), NO_TYPE)
    if options.n_types is not None:
        options = replace(options, n_types=min(options.n_types, n_distinct(reduced(codes[heard], options))))
    return grouping(codes, options).labels


def _in_as_many(codes: np.ndarray, own: np.ndarray, found: CellTypes) -> np.ndarray:
    """A refit's labels with as many types as were found, where a mixture can have them; else its own."""
    if found.options.method == "hdbscan" or own.max() + 1 == found.n_types:
        return own
    return labels_by_number(codes, [found.n_types], found.options).get(found.n_types, own)


def _curve(found: CellTypes, barcodes: Sequence[np.ndarray]) -> pd.DataFrame:
    """The agreement of all pairs of fits, by number of types; see `Stability`."""
    columns, fits = ["n_types", "ari", "low", "high"], (found.barcodes, *barcodes)
    if found.options.method == "hdbscan" or len(fits) < 2:
        return pd.DataFrame(columns=columns, dtype=float)
    n_heard = int(np.all([codes.any(axis=1) for codes in fits], axis=0).sum())
    most = min(max(found.options.max_types, found.n_types), n_heard // _NEURONS_PER_TYPE)
    numbers = range(2, most + 1)
    labels = [labels_by_number(codes, numbers, found.options) for codes in fits]
    rows = []
    for number in numbers:
        if all(number in of and _n_held(of[number]) == number for of in labels):
            pairs = [agreement(a[number], b[number]) for a, b in combinations(labels, 2)]
            rows.append((number, float(np.mean(pairs)), min(pairs), max(pairs)))
    return pd.DataFrame(rows, columns=columns).astype({"n_types": int})


def _n_held(labels: np.ndarray) -> int:
    """Types that hold a neuron."""
    return len(np.unique(labels[labels >= 0]))
