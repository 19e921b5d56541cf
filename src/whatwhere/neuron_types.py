"""Which neurons compute alike, before anything is fitted: codes of what each weighs, and the types that they fall into.

Feature maps that all neurons read alike at first may split the neurons along anything; what is given in common to those
of a type goes to the type.
"""

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from whatwhere.core import fourier_correlation

_OTHER_FEATURES, _MOST_OF_OTHER = 0.4, 0.1
"""Of a neuron's weight of its type's own feature, what the others have at first together, and each at most."""

_ROUNDS = 5
_NUMBERS = 2**24
"""Of matches that are held at once."""


class Types(NamedTuple):
    """What neurons have in common, before any fit.

    - types (n_neurons,): the number of each neuron's type
    - places (n_neurons,): the pixel of the map where it looks, an index into h * w
    - kernels (n_types, C, kh, kw): what those of a type have in common there, of norm one
    """

    types: Tensor
    places: Tensor
    kernels: Tensor


def align_types(averages: Tensor, places: Tensor, kernel_size: tuple[int, int], n_types: int, seed: int) -> Types:
    """Types and places that explain each other, from averages and a first guess of the places (n_neurons,).

    averages: (n_neurons, C, h + kh - 1, w + kw - 1), see `framed`. In turn, neurons whose averages are alike as seen
    from their places are one type, and each looks where its average is most like what a type has in common: a pixel to
    the side, two kernels differ by more than two types may. Neurons of opposite sign are of different types.
    """
    for left in reversed(range(_ROUNDS)):
        codes = window_codes(averages, places, kernel_size)
        types = codes_to_types(codes, n_types, seed)
        found = torch.zeros(n_types, codes.shape[1], device=codes.device).index_add_(0, types.to(codes.device), codes)
        kernels = functional.normalize(found, dim=1).view(n_types, averages.shape[1], *kernel_size)
        if left:
            some = averages.split(max(1, _NUMBERS // (n_types * averages[0].numel())))
            places = torch.cat([fourier_correlation(few, kernels).amax(1).flatten(1).argmax(1) for few in some])
    return Types(types, places, kernels)


def framed(averages: Tensor, map_size: tuple[int, int], offset: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Averages (n_neurons, C, H, W) so that window (i, j) is what pixel (i, j) of the map sees: see `align_types`.

    offset: of the map, from `core.map_offset`; size: (kh, kw) of its receptive field. 0 beyond the image.
    """
    starts = [round(at - (side - 1) / 2) for at, side in zip(offset, size, strict=True)]
    ends = [start + of_map + side - 1 for start, of_map, side in zip(starts, map_size, size, strict=True)]
    beyond = [end - pixels for end, pixels in zip(ends, averages.shape[2:], strict=True)]
    return functional.pad(averages, (-starts[1], beyond[1], -starts[0], beyond[0]))


def window_codes(averages: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Each neuron's average as seen from its place, of norm one: (n_neurons, C * kh * kw); 0 of silent neurons.

    averages, places, size: as in `align_types`.
    """
    width = averages.shape[3] - size[1] + 1
    rows, columns = places.to(averages.device) // width, places.to(averages.device) % width
    i = rows[:, None] + torch.arange(size[0], device=averages.device)  # (n_neurons, kh)
    j = columns[:, None] + torch.arange(size[1], device=averages.device)
    neurons = torch.arange(len(averages), device=averages.device)[:, None, None]
    seen = averages.movedim(1, 3)[neurons, i[:, :, None], j[:, None, :]]  # (n_neurons, kh, kw, C)
    return functional.normalize(seen.movedim(3, 1).flatten(1), dim=1)


def codes_to_types(codes: Tensor, n_types: int, seed: int) -> Tensor:
    """Neurons whose codes (n_neurons, K) are alike, by k-means into at most so many types: (n_neurons,), int64."""
    known = codes.double().cpu().round(decimals=6)
    n_clusters = min(n_types, len(known.unique(dim=0)))
    found = KMeans(n_clusters, n_init=10, random_state=seed % 2**32).fit_predict(known.numpy())
    return torch.from_numpy(found).long()


def start_features(types: Tensor, n_features: int) -> Tensor:
    """Feature weights that sum to one, most of it of the feature that neurons of a type share: (n_neurons, n_features).

    >>> start_features(torch.tensor([0, 2]), 3)
    tensor([[0.8333, 0.0833, 0.0833],
            [0.0833, 0.0833, 0.8333]])
    """
    other = min(_MOST_OF_OTHER, _OTHER_FEATURES / max(1, n_features - 1))
    weights = torch.full((len(types), n_features), other)
    weights[torch.arange(len(types)), types.cpu()] = 1.0
    return weights / weights.sum(1, keepdim=True)
