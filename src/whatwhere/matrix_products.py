"""Products of large matrices in single precision on the CPU, by the faster of the two libraries that PyTorch holds.

PyTorch leaves them to the library that it was built with, usually MKL, which does not use the full width of the vector
units of other makers' processors; oneDNN does, and PyTorch has it for convolutions. Measured in `benchmarks/README.md`.
"""

from typing import Any

import torch
from torch import Tensor

_FEWEST_PRODUCTS = 2**20
"""Of two numbers each, below which calling oneDNN costs what it gains."""


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """left @ right.T, the inner products of rows: left (n, k), right (m, k) to (n, m). It has every derivative."""
    if _by_onednn(left, right):
        result: Tensor = _InnerProducts.apply(left, right)
        return result
    return left @ right.T


def _by_onednn(left: Tensor, right: Tensor) -> bool:
    return (
        left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and len(left) * len(right) * left.shape[1] >= _FEWEST_PRODUCTS
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.get_float32_matmul_precision() == "highest"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class _InnerProducts(torch.autograd.Function):
    """The operator that compiled models use for linear layers; by itself it has no derivative."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        gradient = gradients[0]  # (n, m)
        of_left = inner_products(gradient, right.T) if ctx.needs_input_grad[0] else None  # (n, k)
        of_right = inner_products(gradient.T, left.T) if ctx.needs_input_grad[1] else None  # (m, k)
        return of_left, of_right
