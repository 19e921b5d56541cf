"""Cell types: neurons whose barcodes are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE

from whatwhere.celltypes.clustering import (
    Clusters,
    by_size,
    density_clusters,
    mixture_clusters,
    mixtures,
    n_distinct,
    principal_components,
    reduced,
)
from whatwhere.celltypes.options import TypeOptions
from whatwhere.checks import check_finite, check_ndim
from whatwhere.errors import InputError

NO_TYPE = -1
TYPED, NOISE, SILENT = "typed", "noise", "silent"
_FEWEST_FOR_TSNE = 5


class Grouping(NamedTuple):
    """Labels and confidence (n_neurons,) and the BIC by number of types, as in `CellTypes`."""

    labels: np.ndarray
    confidence: np.ndarray
    bic: pd.DataFrame


@dataclass(frozen=True, eq=False)
class CellTypes:
    """Types of neurons; -1 (`NO_TYPE`) is none.

    - `labels` (n_neurons,), int: type 0 is the one with most neurons
    - `confidence` (n_neurons,): the probability of the type given the barcode (of a mixture, its responsibility;
      HDBSCAN's own), 0 for neurons without type
    - `bic`: columns n_types and bic, lower is better; empty for HDBSCAN, or where all barcodes are the same
    - `status` (n_neurons,): "typed"; "noise", not in any of HDBSCAN's clusters; "silent", without feature weights
    - `barcodes` (n_neurons, n_features); `pca` (n_neurons, 2), their first principal components, and `tsne`
      (n_neurons, 2), their t-SNE map: NaN for silent neurons, `tsne` None for fewer than five others
    - `options` that were asked for
    """

    labels: np.ndarray
    confidence: np.ndarray
    bic: pd.DataFrame
    status: np.ndarray
    barcodes: np.ndarray
    pca: np.ndarray
    tsne: np.ndarray | None
    options: TypeOptions

    @property
    def n_types(self) -> int:
        """Types that hold a neuron."""
        return int(self.labels.max()) + 1

    @property
    def counts(self) -> np.ndarray:
        """Neurons of each type, (n_types,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_types)

    @property
    def centres(self) -> np.ndarray:
        """Each type's mean barcode, (n_types, n_features)."""
        return type_centres(self.barcodes, self.labels)


def type_centres(barcodes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean barcode of each type 0, 1, ...: (n_types, n_features).

    >>> type_centres(np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), np.array([0, -1, 0]))
    array([[0.9, 0.3]])
    """
    means = [barcodes[labels == number].mean(0) for number in range(int(labels.max(initial=-1)) + 1)]
    return np.array(means).reshape(len(means), barcodes.shape[1])


def find_types(barcodes: ArrayLike, options: TypeOptions | None = None) -> CellTypes:
    """Puts neurons into types by their barcodes (n_neurons, n_features), of which rows of 0 are silent neurons.

    The barcodes' principal components are clustered, see `TypeOptions`: by mixtures of Gaussians of 1, 2, ... types,
    of which that with the lowest BIC = p log n - 2 log L is taken (p parameters, likelihood L; Schwarz 1978), or by
    HDBSCAN (Campello et al. 2013). Where all barcodes are the same there is one type. Raises `InputError` for barcodes
    that are not finite, where every neuron is silent, or where more types are asked for than there are different
    barcodes.

    >>> rng = np.random.default_rng(0)
    >>> codes = np.repeat(np.eye(3), [30, 20, 10], axis=0) + rng.normal(0, 0.05, (60, 3))
    >>> found = find_types(codes / np.linalg.norm(codes, axis=1, keepdims=True))
    >>> found.n_types, found.counts.tolist(), round(float(found.confidence.min()), 2)
    (3, [30, 20, 10], 1.0)
    """
    options = options or TypeOptions()
    grouped = grouping(barcodes, options)
    codes: np.ndarray = np.asarray(barcodes, np.float64)
    heard = _heard(codes)
    status = np.where(grouped.labels >= 0, TYPED, np.where(heard, NOISE, SILENT))
    pca = _spread_out(principal_components(codes[heard], 2), heard)
    return CellTypes(*grouped, status, codes, pca, _tsne(codes, heard, options), options)


def grouping(barcodes: ArrayLike, options: TypeOptions) -> Grouping:
    """The types of `find_types` alone; raises as it does."""
    codes: np.ndarray = np.asarray(barcodes, np.float64)
    check_ndim("barcodes", codes, ("n_neurons", "n_features"))
    check_finite("barcodes", codes, row="neuron")
    heard = _heard(codes)
    if not heard.any():
        raise InputError(
            f"none of the {len(codes):,} neurons has feature weights: the model found nothing, and there are no types."
        )
    points = reduced(codes[heard], options)
    if options.method == "gmm":
        clusters, bic = _by_mixture(points, options)
    else:
        clusters, bic = density_clusters(points, options.min_size, options.floor), _table([], [])
    labels, confidence = np.full(len(codes), NO_TYPE), np.zeros(len(codes))
    labels[heard] = by_size(clusters.labels)
    confidence[heard] = np.where(clusters.labels >= 0, clusters.confidence, 0.0)
    return Grouping(labels, confidence, bic)


def labels_by_number(barcodes: np.ndarray, numbers: Sequence[int], options: TypeOptions) -> dict[int, np.ndarray]:
    """For each number of types that the barcodes allow the labels by a mixture of so many, -1 for silent neurons.

    As in `grouping` type 0 is the largest; a Gaussian that is no neuron's most probable one is no type.
    """
    heard = _heard(barcodes)
    found: dict[int, np.ndarray] = {}
    if not heard.any():
        return found
    points = reduced(barcodes[heard], options)
    possible = [number for number in numbers if number <= n_distinct(points)]
    for number, mixture in mixtures(points, possible if len(points) > 1 else [], options).items():
        found[number] = np.full(len(barcodes), NO_TYPE)
        found[number][heard] = by_size(mixture_clusters(mixture, points).labels)
    return found


def _heard(codes: np.ndarray) -> np.ndarray:
    """Which neurons have feature weights."""
    return np.linalg.norm(codes, axis=1) > 0


def _by_mixture(points: np.ndarray, options: TypeOptions) -> tuple[Clusters, pd.DataFrame]:
    distinct = n_distinct(points)
    if options.n_types is not None and options.n_types > distinct:
        raise InputError(
            f"n_types is {options.n_types}, but {len(points):,} neurons have feature weights, with {distinct:,}"
            " different barcodes: ask for no more types than that."
        )
    if distinct == 1:
        return Clusters(np.zeros(len(points), int), np.ones(len(points))), _table([], [])
    most = min(max(options.max_types, options.n_types or 1), distinct)
    found = mixtures(points, range(1, most + 1), options)
    bic = _table(list(found), [float(mixture.bic(points)) for mixture in found.values()])
    number = options.n_types or int(bic["n_types"][bic["bic"].argmin()])
    return mixture_clusters(found[number], points), bic


def more_could_be_tried(found: CellTypes) -> bool:
    """Whether the BIC is lowest at the most types that were tried, and the barcodes allow more."""
    if found.options.n_types is not None or not len(found.bic):
        return False
    most = found.options.max_types
    lowest = int(found.bic["n_types"][found.bic["bic"].argmin()])
    return lowest == most < n_distinct(reduced(found.barcodes[_heard(found.barcodes)], found.options))


def _table(numbers: list[int], values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"n_types": np.array(numbers, int), "bic": np.array(values, float)})


def _spread_out(points: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Points of some neurons among all: NaN for the others."""
    everywhere = np.full((len(heard), points.shape[1]), np.nan)
    everywhere[heard] = points
    return everywhere


def _tsne(codes: np.ndarray, heard: np.ndarray, options: TypeOptions) -> np.ndarray | None:
    """The t-SNE map of neurons that are not silent, started from their principal components where there are two."""
    some = codes[heard]
    if len(some) < _FEWEST_FOR_TSNE or n_distinct(some) < 2:
        return None
    start = principal_components(some, 2)
    flat = start[:, 1].std() < 1e-6 * start[:, 0].std()  # a map that starts on a line would stay on it
    tsne = TSNE(
        2,
        perplexity=min(options.perplexity, (len(some) - 1) / 3),
        init="random" if flat else (1e-4 * start / start[:, 0].std()).astype(np.float32),
        learning_rate="auto",
        random_state=options.seed,
    )
    return _spread_out(tsne.fit_transform(some).astype(np.float64), heard)
