"""Points into clusters: mixtures of Gaussians with their BIC, and HDBSCAN."""

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from sklearn.cluster import HDBSCAN
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from whatwhere.celltypes.options import TypeOptions

_DECIMALS = 6  # to which points count as the same
_NEURONS_PER_COMPONENT = 10


class Clusters(NamedTuple):
    """Labels (n,), int, -1 for no cluster; how sure each is, from 0 to 1, (n,)."""

    labels: np.ndarray
    confidence: np.ndarray


def principal_components(codes: np.ndarray, n: int) -> np.ndarray:
    """The first n principal components of codes (n_neurons, n_features): (n_neurons, n), zeros where there are fewer.

    Each with the sign that makes its largest loading positive. Equal codes, of which scikit-learn warns, are all at 0.

    >>> principal_components(np.array([[1.0, 0.0], [0.0, 1.0]]), 3).round(3)
    array([[ 0.707,  0.   ,  0.   ],
           [-0.707,  0.   ,  0.   ]])
    """
    found = np.zeros((len(codes), n))
    values, scales, axes = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)[:, 0]
    possible = min(n, len(scales))
    found[:, :possible] = (values * scales * np.sign(largest))[:, :possible]
    return found


def reduced(codes: np.ndarray, options: TypeOptions) -> np.ndarray:
    """The principal components of codes (n_neurons, n_features) that are clustered, see `TypeOptions`."""
    most = min(options.max_components, max(2, len(codes) // _NEURONS_PER_COMPONENT), codes.shape[1])
    components = principal_components(codes, min(codes.shape))
    shares = np.cumsum(components.var(0)) / max(components.var(0).sum(), np.finfo(float).tiny)
    enough = 1 + int(np.searchsorted(shares, options.explained - 1e-12))
    return components[:, : min(most, enough, components.shape[1])]


def n_distinct(points: np.ndarray) -> int:
    """How many different points there are."""
    return len(np.unique(points.round(_DECIMALS) + 0.0, axis=0))


def mixtures(points: np.ndarray, numbers: Sequence[int], options: TypeOptions) -> dict[int, GaussianMixture]:
    """A fitted mixture for each number of Gaussians, points (n, d) with at least two different ones."""
    found = {}
    for number in numbers:
        mixture = GaussianMixture(
            number,
            covariance_type=options.covariance,
            reg_covar=options.floor**2,
            n_init=options.n_starts,
            max_iter=500,
            random_state=options.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the best of the starts is kept, at rest or not
            found[number] = mixture.fit(points)
    return found


def mixture_clusters(mixture: GaussianMixture, points: np.ndarray) -> Clusters:
    """Each point's most probable Gaussian, and its probability."""
    shares = mixture.predict_proba(points)
    return Clusters(shares.argmax(1), shares.max(1))


def density_clusters(points: np.ndarray, min_size: int, floor: float) -> Clusters:
    """HDBSCAN's clusters of points (n, d) and its probability that each belongs to its own, 0 for none (noise).

    Clusters that come nearer to each other than `floor` are one (scikit-learn's own option for this fails under recent
    versions of NumPy). Where there is no second cluster beside it, all that is dense is one cluster; fewer than
    `min_size` points are none.
    """
    nothing = Clusters(np.full(len(points), -1), np.zeros(len(points)))
    if len(points) < min_size:
        return nothing
    if n_distinct(points) == 1:
        return Clusters(np.zeros(len(points), int), np.ones(len(points)))
    for alone in (False, True):
        found = HDBSCAN(min_cluster_size=min_size, allow_single_cluster=alone, copy=True).fit(points)
        if (found.labels_ >= 0).any():
            return Clusters(_joined(points, found.labels_.astype(int), floor), found.probabilities_)
    return nothing


def _joined(points: np.ndarray, labels: np.ndarray, floor: float) -> np.ndarray:
    """Labels of clusters, two of them one where any points of theirs are nearer than `floor`; -1 stays."""
    n_clusters = int(labels.max()) + 1
    trees = [cKDTree(points[labels == number]) for number in range(n_clusters)]
    near = np.zeros((n_clusters, n_clusters), bool)
    for a, b in combinations(range(n_clusters), 2):
        near[a, b] = trees[a].query(trees[b].data, distance_upper_bound=floor)[0].min() < floor
    groups = connected_components(near, directed=False)[1]
    return np.where(labels >= 0, groups[labels], -1)


def by_size(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered without gaps, the largest cluster 0; of equal ones that of the first point first. -1 stays.

    >>> by_size(np.array([5, 3, -1, 3]))
    array([ 1,  0, -1,  0])
    """
    names, firsts, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = names[np.lexsort((firsts, -counts))]
    renamed = np.full(len(labels), -1)
    for number, name in enumerate(order):
        renamed[labels == name] = number
    return renamed
