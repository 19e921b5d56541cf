"""Feature maps of two networks matched by what they answer to the same images, and types by their centres."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from whatwhere.core import Core

MOST_SHIFT = 8
"""Pixels by which a map may be shifted against its match, at most half of it: kernels may sit off their middle."""


class MatchedMaps(NamedTuple):
    """Map `order[k]` of the second network times `signs[k]` is like map k of the first, with `correlation[k]`."""

    order: np.ndarray
    signs: np.ndarray
    correlation: np.ndarray

    def of_barcodes(self, first: np.ndarray, second: np.ndarray) -> "MatchedMaps":
        """The same match of the columns of barcodes, in which maps have signs of their own.

        first, second: those signs, `model_signs` of either network, (n_features,) in the order of its own maps.

        >>> maps = MatchedMaps(np.array([1, 0]), np.array([-1.0, -1.0]), np.ones(2))
        >>> maps.of_barcodes(np.array([1.0, 1.0]), np.array([1.0, -1.0])).signs
        array([ 1., -1.])
        """
        return self._replace(signs=self.signs * first * second[self.order])


@torch.no_grad()
def match_maps(first: Core, second: Core, images: Sequence[tuple[np.ndarray, np.ndarray]]) -> MatchedMaps:
    """Matches the feature maps of two cores of the same shape one to one by their correlation.

    c_kl = max over shifts s of |sum_bp a_bk(p) b_bl(p + s)| / (o(s) |a_k| |b_l|), maps a and b without their means over
    images b and positions p, zero outside, o the share of positions that overlap; the assignment has the largest sum of
    c. images: chunks (n, C, H, W), as either network standardises them. A map that never varies has correlation 0.
    """
    cores, n_features = (first, second), first.output_shape[0]
    totals = [torch.zeros(n_features, dtype=torch.float64) for _ in cores]
    norms = [torch.zeros(n_features, dtype=torch.float64) for _ in cores]
    count, products = 0, torch.zeros(())
    for pair in images:  # twice through the cores, rather than all maps in memory
        for total, core, some in zip(totals, cores, pair, strict=True):
            total += _maps(core, some).sum((0, 2, 3))
        count += len(pair[0]) * first.output_shape[1] * first.output_shape[2]
    for pair in images:
        centred = [
            _maps(core, some) - total.view(-1, 1, 1) / count
            for total, core, some in zip(totals, cores, pair, strict=True)
        ]
        for norm, maps in zip(norms, centred, strict=True):
            norm += maps.square().sum((0, 2, 3))
        products = products + _spectra(centred)
    peaks = _peaks(products, first.output_shape[1:])
    return _assigned(peaks.numpy(), *(norm.sqrt().numpy() for norm in norms))


def match_centres(first: np.ndarray, second: np.ndarray, maps: MatchedMaps) -> np.ndarray:
    """Similarity of each type of the first fit with the type of the second that it is matched to: (n_types,), cosines.

    first, second: centres (n_types, K), each in the order of its own network's maps; maps: with the signs of what the
    centres are means of, `MatchedMaps.of_barcodes` for barcodes. Types are matched one to one. A type without a partner
    has 0.

    >>> maps = MatchedMaps(np.array([1, 0]), np.array([1.0, -1.0]), np.ones(2))
    >>> match_centres(np.eye(2), np.array([[-1.0, 0.0], [0.0, 1.0]]), maps)
    array([1., 1.])
    """
    ours, theirs = (_unit(centres) for centres in (first, second[:, maps.order] * maps.signs))
    cosines = ours @ theirs.T
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    found = np.zeros(len(first))
    found[rows] = cosines[rows, columns]
    return found


def _unit(centres: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    return np.divide(centres, lengths, out=np.zeros_like(centres), where=lengths > 0)


def _maps(core: Core, images: np.ndarray) -> Tensor:
    device = next(core.parameters()).device
    maps: Tensor = core(torch.from_numpy(images).to(device)).double().cpu()
    return maps


def _spectra(centred: list[Tensor]) -> Tensor:
    """Of the cross-correlations of all pairs of maps, summed over images: (K, K, ...)."""
    size = [side + min(side, MOST_SHIFT + 1) for side in centred[0].shape[2:]]  # no shift wraps around
    a, b = (torch.fft.rfft2(maps, s=size) for maps in centred)
    return torch.einsum("nkxy,nlxy->klxy", a.conj(), b)


def _peaks(spectra: Tensor, map_size: tuple[int, ...]) -> Tensor:
    """The correlation of largest magnitude over the shifts of each pair, with its sign: (K, K)."""
    size = [side + min(side, MOST_SHIFT + 1) for side in map_size]
    products = torch.fft.irfft2(spectra, s=size)
    steps = [torch.arange(-most, most + 1) for most in (min(side // 2, MOST_SHIFT) for side in map_size)]
    rows, columns = (step % side for step, side in zip(steps, size, strict=True))
    overlaps = [1 - step.abs() / side for step, side in zip(steps, map_size, strict=True)]
    near = products[:, :, rows][:, :, :, columns] / torch.outer(*overlaps)
    near = near.flatten(2)
    return near.gather(2, near.abs().argmax(2, keepdim=True))[:, :, 0]


def _assigned(products: np.ndarray, of_first: np.ndarray, of_second: np.ndarray) -> MatchedMaps:
    scale = np.outer(of_first, of_second)
    correlations = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    rows, order = linear_sum_assignment(np.abs(correlations), maximize=True)
    best = correlations[rows, order]
    return MatchedMaps(order, np.where(best < 0, -1.0, 1.0), np.abs(best).clip(max=1.0))
