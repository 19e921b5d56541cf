"""Whether the types are there again when the model is fitted again."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import adjusted_rand_score

from whatwhere.celltypes.finding import CellTypes, grouping, labels_by_number, type_centres
from whatwhere.celltypes.matching import MatchedMaps, match_centres
from whatwhere.checks import check_ndim, check_same_rows
from whatwhere.errors import InputError


@dataclass(frozen=True, eq=False)
class Stability:
    """How types found by several fits agree.

    - `refits`: one row a refit: `seed`; `n_types` that it has itself, by the same options; `ari`, the adjusted Rand
      index between its types and the first fit's; `n_neurons` that have a type in both; `map_correlation`, the mean
      correlation of its feature maps with those of the first fit that they are matched to; `centre_similarity`, the
      mean cosine of the first fit's types with those that they are matched to
    - `curve`: one row a number of types: `n_types`, the mean `ari` between two fits that are both put into so many, the
      `low`est and the highest (`high`) pair's; empty for HDBSCAN
    """

    refits: pd.DataFrame
    curve: pd.DataFrame

    @property
    def n_types(self) -> int | None:
        """The number of types, two or more, in which fits agree best (of equal ones the largest); None without a curve.

        One type is the same in every fit, and no number to compare.
        """
        if self.curve.empty:
            return None
        best = self.curve["ari"] >= self.curve["ari"].max() - 1e-9
        return int(self.curve["n_types"][best].max())


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
    to the first fit's. Barcodes are clustered with the options of `found`, where so many refits allow them. Raises
    `InputError` for no refits, or for other numbers of neurons.
    """
    if not len(barcodes):
        raise InputError("no refits: stability needs at least one.")
    for codes in barcodes:
        check_same_rows("a refit's barcodes", len(codes), "barcodes", len(found.labels), each="neuron")
    rows = []
    for codes, seed, matched in zip(barcodes, seeds, maps, strict=True):
        own = grouping(codes, found.options).labels
        same = _in_as_many(codes, own, found)
        centres = match_centres(found.centres, type_centres(codes, same), matched)
        rows.append(
            {
                "seed": int(seed),
                "n_types": int(own.max()) + 1,
                "ari": agreement(found.labels, same),
                "n_neurons": int(((found.labels >= 0) & (same >= 0)).sum()),
                "map_correlation": float(matched.correlation.mean()),
                "centre_similarity": float(centres.mean()) if len(centres) else float("nan"),
            }
        )
    return Stability(pd.DataFrame(rows), _curve(found, barcodes))


def _in_as_many(codes: np.ndarray, own: np.ndarray, found: CellTypes) -> np.ndarray:
    """A refit's labels with as many types as were found, where a mixture can have them; else its own."""
    if found.options.method == "hdbscan" or own.max() + 1 == found.n_types:
        return own
    return labels_by_number(codes, [found.n_types], found.options).get(found.n_types, own)


def _curve(found: CellTypes, barcodes: Sequence[np.ndarray]) -> pd.DataFrame:
    """The agreement of all pairs of fits, by number of types."""
    columns = ["n_types", "ari", "low", "high"]
    if found.options.method == "hdbscan":
        return pd.DataFrame(columns=columns, dtype=float)
    numbers = range(2, max(found.options.max_types, found.n_types) + 1)
    labels = [labels_by_number(codes, numbers, found.options) for codes in (found.barcodes, *barcodes)]
    rows = []
    for number in numbers:
        if all(number in of for of in labels):
            pairs = [agreement(a[number], b[number]) for a, b in combinations(labels, 2)]
            rows.append((number, float(np.mean(pairs)), min(pairs), max(pairs)))
    return pd.DataFrame(rows, columns=columns).astype({"n_types": int})
