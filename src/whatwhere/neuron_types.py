"""Which neurons compute alike, before anything is fitted: codes of what each weighs, and the types that they fall into.

Feature maps that all neurons read alike at first may split the neurons along anything; what is given in common to those
of a type goes to the type.
"""

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

_OTHER_FEATURES = 0.1
"""Of a neuron's weight of its type's own feature, what the others have at first."""


def window_codes(averages: Tensor, places: np.ndarray, reach: int) -> Tensor:
    """Each neuron's average as seen from its place, of norm one: (n_neurons, C * (2 reach + 1)^2); 0 of silent ones.

    averages: (n_neurons, C, H, W), see `initialisation.filtered`; places: (n_neurons, 2), row and column in pixels of
    the image, within it; reach: pixels to each side, of which those beyond the image count as 0. Neurons of opposite
    sign have opposite codes.
    """
    padded = functional.pad(averages, 4 * (reach,))
    side = 2 * reach + 1
    seen = torch.stack(
        [padded[neuron, :, row : row + side, column : column + side] for neuron, (row, column) in enumerate(places)]
    ).flatten(1)
    norms = seen.norm(dim=1, keepdim=True)
    return torch.where(norms > 0, seen / norms.clamp(min=1e-12), 0.0)


def codes_to_types(codes: Tensor, n_types: int, seed: int) -> Tensor:
    """Neurons whose codes (n_neurons, K) are alike, by k-means into at most so many types: (n_neurons,), int64."""
    n_clusters = min(n_types, len(codes.unique(dim=0)))
    found = KMeans(n_clusters, n_init=10, random_state=seed % 2**32).fit_predict(codes.double().cpu().numpy())
    return torch.from_numpy(found).long()


def start_features(types: Tensor, n_features: int) -> Tensor:
    """Feature weights that sum to one, most of it of the feature that neurons of a type share: (n_neurons, n_features).

    >>> start_features(torch.tensor([0, 2]), 3)
    tensor([[0.8333, 0.0833, 0.0833],
            [0.0833, 0.0833, 0.8333]])
    """
    weights = torch.full((len(types), n_features), _OTHER_FEATURES)
    weights[torch.arange(len(types)), types.cpu()] = 1.0
    return weights / weights.sum(1, keepdim=True)
