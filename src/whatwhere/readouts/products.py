"""Feature maps pooled by masks and weighed: sum_kij c_kij m_ijn w_kn, the readout's product, dense and sparse.

It is taken of a few images at a time, so that what one of them needs stays in the processor's cache, and the gradients
of all pooled features never stand in memory at once; of a sparse product not the pooled features either.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from whatwhere.matrix_products import add_inner_products, inner_products
from whatwhere.readouts.support import Support

_COLUMNS = 512
"""Images times feature maps at once on a CPU; measured, see `benchmarks/README.md`."""
_FEWEST_NUMBERS = 2**20
"""Pooled features at once below which there is nothing to gain."""
_MOST_NUMBERS = 2**24
"""Pooled features at once that fit into memory anywhere: 64 MiB. A dense product of fewer is taken whole."""


def factorized_product(mask: Tensor, weights: Tensor, maps: Tensor) -> Tensor:
    """sum_kij c_kij m_ijn w_kn: mask (n_neurons, h * w), weights (n_neurons, K), maps (n_images, K, h, w).

    Returns (n_images, n_neurons).
    """
    if len(mask) * maps.shape[0] * maps.shape[1] <= _MOST_NUMBERS:
        return _whole_product(mask, weights, maps)
    if torch.is_autocast_enabled(maps.device.type):
        half = torch.get_autocast_dtype(maps.device.type)
        mask, weights, maps = mask.to(half), weights.to(half), maps.to(half)
    with torch.autocast(maps.device.type, enabled=False):
        result: Tensor = _DenseProduct.apply(mask, weights, maps, torch.is_grad_enabled())
    return result


def supported_product(values: Tensor, weights: Tensor, maps: Tensor, support: Support) -> Tensor:
    """The same over the support of m alone: values (n_values,) of the masks; returns (n_images, n_neurons).

    Pooled features are computed again in the backward pass.
    """
    with torch.autocast(maps.device.type, enabled=False):  # sparse products have no half precision on every device
        result: Tensor = _SupportedProduct.apply(values, weights.to(values.dtype), maps.to(values.dtype), support)
    return result


def _whole_product(mask: Tensor, weights: Tensor, maps: Tensor) -> Tensor:
    pooled = inner_products(mask, maps.flatten(0, 1).flatten(1))  # (n_neurons, n_images * K)
    return _weighed(pooled, weights).T  # (n_images, n_neurons)


class _DenseProduct(torch.autograd.Function):
    """Some images at a time; their pooled features are kept for the backward pass, which gives up each as it goes."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, weights: Tensor, maps: Tensor, keep: bool) -> Tensor:
        out, ctx.kept = maps.new_empty(len(mask), len(maps)), []
        for some, features in _by_pixel(maps, len(mask)):
            pooled = inner_products(mask, features.T)  # (n_neurons, n * K)
            out[:, some] = _weighed(pooled, weights)
            ctx.kept.append(pooled if keep and ctx.needs_input_grad[1] else None)  # by no hook: each is given up early
        ctx.save_for_backward(mask, weights, maps)
        return out.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        mask, weights, maps = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of derivatives is wanted
            needs_of = zip((mask, weights, maps), ctx.needs_input_grad[:3], strict=True)
            needed = [given for given, needs in needs_of if needs]
            found = iter(torch.autograd.grad(_whole_product(mask, weights, maps), needed, gradients, create_graph=True))
            return tuple(next(found) if needs else None for needs in ctx.needs_input_grad)
        into = _Gradients(ctx.needs_input_grad[:3], mask, weights, maps)
        by_pixel = mask.T.contiguous() if _copies(into.maps) else mask.T
        for number, (some, features) in enumerate(_by_pixel(maps, len(mask))):
            pooled, ctx.kept[number] = ctx.kept[number], None  # which a second pass over the graph computes again
            wanted = gradients[0][some].T.contiguous()  # (n_neurons, n)
            if into.weights is not None:
                into.add_weights(wanted, inner_products(mask, features.T) if pooled is None else pooled)
            of_pooled = _of_pooled(wanted, weights)
            if into.mask is not None:
                add_inner_products(into.mask, of_pooled, features)
            if into.maps is not None:
                into.put_maps(some, inner_products(by_pixel, of_pooled.T))
        return *into.as_given(mask.dtype), None


class _SupportedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, maps: Tensor, support: Support) -> Tensor:
        out, masks = maps.new_empty(len(weights), len(maps)), support.masks(values)
        for some, features in _by_pixel(maps, len(weights)):
            out[:, some] = _weighed(masks @ features, weights)
        ctx.save_for_backward(values, weights, maps)
        ctx.support = support
        return out.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, weights, maps = ctx.saved_tensors
        masks, transposed = ctx.support.masks(values), ctx.support.transposed(values)
        into = _Gradients(ctx.needs_input_grad[:3], values, weights, maps)
        for some, features in _by_pixel(maps, len(weights)):
            wanted = gradient[some].T.contiguous()  # (n_neurons, n)
            if into.weights is not None:
                into.add_weights(wanted, masks @ features)
            of_pooled = _of_pooled(wanted, weights)
            if into.mask is not None:
                into.mask += ctx.support.products(of_pooled, features)
            if into.maps is not None:
                into.put_maps(some, transposed @ of_pooled)
        return *into.as_given(values.dtype), None


class _Gradients:
    """Of masks (or their values), weights and maps, as they add up, in float32 at least; None where none is needed."""

    def __init__(self, needed: tuple[bool, ...], mask: Tensor, weights: Tensor, maps: Tensor) -> None:
        exact = torch.promote_types(mask.dtype, torch.float32)
        self.mask = torch.zeros_like(mask, dtype=exact) if needed[0] else None
        self.weights = torch.zeros_like(weights, dtype=exact) if needed[1] else None
        self.maps = torch.empty_like(maps) if needed[2] else None

    def add_weights(self, wanted: Tensor, pooled: Tensor) -> None:
        """wanted (n_neurons, n), pooled (n_neurons, n * K)."""
        if self.weights is not None:
            self.weights += torch.bmm(wanted[:, None], pooled.view(*wanted.shape, -1))[:, 0]

    def as_given(self, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
        """All three in the precision of what was given."""
        return tuple(None if found is None else found.to(dtype) for found in (self.mask, self.weights, self.maps))

    def put_maps(self, some: slice, values: Tensor) -> None:
        """Values (h * w, n * K) of some images."""
        assert self.maps is not None
        n_features, height, width = self.maps.shape[1:]
        self.maps[some] = values.view(height, width, -1, n_features).permute(2, 3, 0, 1)


def _copies(maps: Tensor | None) -> bool:
    """Whether these maps' gradients take masks transposed in memory: oneDNN would make such a copy for each product."""
    return maps is not None and maps.device.type == "cpu" and maps.dtype == torch.float32


def _by_pixel(maps: Tensor, n_neurons: int) -> Iterator[tuple[slice, Tensor]]:
    """Some images of (n_images, K, h, w) at a time: which, and their features by pixel (h * w, n * K)."""
    n_images, n_features = maps.shape[:2]
    of_image = max(1, n_neurons * n_features)
    on_cpu = maps.device.type == "cpu"
    at_once = max(_COLUMNS // n_features, _FEWEST_NUMBERS // of_image) if on_cpu else _MOST_NUMBERS // of_image
    for first in range(0, n_images, max(1, at_once)):
        some = slice(first, min(first + max(1, at_once), n_images))
        yield some, maps[some].permute(2, 3, 0, 1).reshape(maps.shape[2] * maps.shape[3], -1)


def _weighed(pooled: Tensor, weights: Tensor) -> Tensor:
    """sum_k w_kn of pooled features (n_neurons, n * K): (n_neurons, n)."""
    return torch.bmm(pooled.view(len(weights), -1, weights.shape[1]), weights[:, :, None])[:, :, 0]


def _of_pooled(wanted: Tensor, weights: Tensor) -> Tensor:
    """The gradient of pooled features, (n_neurons, n * K), from that of the drive, (n_neurons, n)."""
    return (wanted[:, :, None] * weights[:, None]).flatten(1)
