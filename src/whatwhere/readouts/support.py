"""Pooling by masks that are mostly zero: only the pixels that neurons look at are read, forward and backward."""

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DENSEST = 1 / 16
"""Share of a mask's pixels above which a dense product is as fast; measured, see `benchmarks/README.md`."""

_MOST_NUMBERS = 2**25
"""Of pooled features that are held at once: 128 MiB."""


@dataclass(frozen=True, eq=False)
class Support:
    """The pixels that each of some neurons looks at: a sparse (n_neurons, n_pixels) pattern without values.

    - `starts` (n_neurons + 1,), `pixels` (n_values,): the pixels of neuron n are pixels[starts[n] : starts[n + 1]]
    - `rows` (n_values,): the neuron of each value
    - `pixel_starts` (n_pixels + 1,), `neurons` (n_values,): the same by pixel, and `order`: where its values are
    """

    starts: Tensor
    pixels: Tensor
    rows: Tensor
    pixel_starts: Tensor
    neurons: Tensor
    order: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, pattern: Tensor) -> "Support":
        """Where a pattern (n_neurons, n_pixels) is true."""
        neurons, pixels = pattern.nonzero(as_tuple=True)
        order = torch.argsort(pixels, stable=True)
        return cls(
            _starts(neurons, pattern.shape[0]),
            pixels,
            neurons,
            _starts(pixels[order], pattern.shape[1]),
            neurons[order],
            order,
            (pattern.shape[0], pattern.shape[1]),
        )

    @property
    def density(self) -> float:
        """The share of all pixels that neurons look at."""
        return len(self.pixels) / max(1, self.shape[0] * self.shape[1])

    def pattern(self) -> Tensor:
        """(n_neurons, n_pixels), true here."""
        found = torch.zeros(self.shape, dtype=torch.bool, device=self.pixels.device)
        found[self.rows, self.pixels] = True
        return found

    def gathered(self, dense: Tensor) -> Tensor:
        """The values of something (n_neurons, n_pixels) here: (n_values,)."""
        return dense.reshape(self.shape)[self.rows, self.pixels]

    def scatter_(self, dense: Tensor, values: Tensor) -> None:
        """Puts the values where they belong in something (n_neurons, n_pixels), the rest as it is."""
        dense.view(self.shape)[self.rows, self.pixels] = values

    def sums(self, values: Tensor) -> Tensor:
        """The sum of each neuron's values: (n_neurons,)."""
        return values.new_zeros(self.shape[0]).index_add_(0, self.rows, values)

    def part(self, first: int, last: int) -> tuple["Support", slice]:
        """Of the neurons first to last - 1 alone, and which of the values those are."""
        if (first, last) == (0, self.shape[0]):
            return self, slice(None)
        some = slice(int(self.starts[first]), int(self.starts[last]))
        kept = (self.neurons >= first) & (self.neurons < last)
        neurons = self.neurons[kept] - first
        counts = torch.zeros(self.shape[1], dtype=torch.int64, device=kept.device)
        counts.scatter_add_(0, self.pixels[some], torch.ones_like(self.pixels[some]))
        pixel_starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        part = Support(
            self.starts[first : last + 1] - some.start,
            self.pixels[some],
            self.rows[some] - first,
            pixel_starts,
            neurons,
            self.order[kept] - some.start,
            (last - first, self.shape[1]),
        )
        return part, some

    def masks(self, values: Tensor) -> Tensor:
        """A sparse matrix (n_neurons, n_pixels) of these values."""
        return _csr(self.starts, self.pixels, values, self.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """A sparse matrix (n_pixels, n_neurons) of these values."""
        return _csr(self.pixel_starts, self.neurons, values[self.order], (self.shape[1], self.shape[0]))

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """The values of left @ right.T here, left (n_neurons, m), right (n_pixels, m): (n_values,)."""
        zeros = self.masks(left.new_zeros(len(self.pixels)))
        found: Tensor = torch.sparse.sampled_addmm(zeros, left, right.T, beta=0.0)
        return found.values()


def sparse_support(masks: Tensor, least: float = 0.0) -> Support | None:
    """Where masks (n_neurons, n_pixels) are above `least` in magnitude; None where that is not sparse enough to pay."""
    pattern = masks.abs() > least
    return Support.of(pattern) if pattern.sum() <= DENSEST * pattern.numel() else None


def supported_product(values: Tensor, weights: Tensor, maps: Tensor, support: Support) -> Tensor:
    """sum_kij c_kij m_ijn w_kn over the support of m alone: (n_images, n_neurons).

    values (n_values,) of the masks, weights (n_neurons, K), maps (n_images, K, h, w). Neurons are taken as many at once
    as their pooled features, sum_ij c_kij m_ijn, fit into memory; these are computed again in the backward pass.
    """
    result: Tensor = _SupportedProduct.apply(values, weights, maps, support)
    return result


class _SupportedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, maps: Tensor, support: Support) -> Tensor:
        n_images, n_features = maps.shape[:2]
        by_pixel = _by_pixel(maps)
        out = maps.new_empty(support.shape[0], n_images)
        for first, last in _chunks(support.shape[0], n_images * n_features):
            some, which = support.part(first, last)
            pooled = (some.masks(values[which]) @ by_pixel).view(last - first, n_images, n_features)
            out[first:last] = torch.bmm(pooled, weights[first:last, :, None])[:, :, 0]
        ctx.save_for_backward(values, weights, by_pixel)
        ctx.support, ctx.map_shape = support, maps.shape
        return out.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        values, weights, by_pixel = ctx.saved_tensors
        n_images, n_features, height, width = ctx.map_shape
        needs_values, needs_weights, needs_maps = ctx.needs_input_grad[:3]
        of_values = torch.empty_like(values) if needs_values else None
        of_weights = torch.empty_like(weights) if needs_weights else None
        of_maps = torch.zeros_like(by_pixel) if needs_maps else None
        for first, last in _chunks(ctx.support.shape[0], n_images * n_features):
            some, which = ctx.support.part(first, last)
            wanted = gradient[:, first:last].T.contiguous()  # (n, n_images)
            if of_weights is not None:
                pooled = (some.masks(values[which]) @ by_pixel).view(last - first, n_images, n_features)
                of_weights[first:last] = torch.bmm(wanted[:, None], pooled)[:, 0]
            of_pooled = (wanted[:, :, None] * weights[first:last, None]).flatten(1)  # (n, n_images * K)
            if of_values is not None:
                of_values[which] = some.products(of_pooled, by_pixel)
            if of_maps is not None:
                of_maps += some.transposed(values[which]) @ of_pooled
        if of_maps is not None:
            of_maps = of_maps.T.reshape(n_images, n_features, height, width)
        return of_values, of_weights, of_maps, None


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse matrix by rows."""
    with warnings.catch_warnings():  # that PyTorch calls them beta tells the user nothing
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


def _by_pixel(maps: Tensor) -> Tensor:
    """(n_images, K, h, w) to (h * w, n_images * K), laid out in memory like that."""
    return maps.permute(2, 3, 0, 1).reshape(maps.shape[2] * maps.shape[3], -1).contiguous()


def _chunks(n_neurons: int, numbers: int) -> list[tuple[int, int]]:
    """Ranges of neurons of which each holds so many pooled features."""
    at_once = max(1, _MOST_NUMBERS // max(1, numbers))
    return [(first, min(first + at_once, n_neurons)) for first in range(0, n_neurons, at_once)]


def _starts(sorted_numbers: Tensor, size: int) -> Tensor:
    """Where each of the numbers 0 .. size - 1 begins in a sorted list, and the list's length: (size + 1,)."""
    return torch.searchsorted(sorted_numbers, torch.arange(size + 1, device=sorted_numbers.device))
