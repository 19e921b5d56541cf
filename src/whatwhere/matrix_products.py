"""Products of large matrices in single precision on the CPU, by the faster of the two libraries that PyTorch holds.

PyTorch leaves them to the library that it was built with, usually MKL, which does not use the full width of the vector
units of other makers' processors; oneDNN does, and PyTorch has it for convolutions. See `benchmarks/README.md`.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

_FEWEST_PRODUCTS = 2**20
"""Of two numbers each, below which calling oneDNN costs what it gains."""


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """left @ right.T, the inner products of rows: left (n, k), right (m, k) to (n, m)."""
    if _by_onednn(left, right):
        result: Tensor = _InnerProducts.apply(left, right)
        return result
    return left @ right.mT


def add_inner_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right.T to total (n, m) in place; not to be differentiated."""
    if _by_onednn(left, right) or total.dtype != left.dtype:
        total += inner_products(left, right)
    else:
        total.addmm_(left, right.mT)


def _by_onednn(left: Tensor, right: Tensor) -> bool:
    """Whether these are for oneDNN: what they are not is left to PyTorch, and to its messages."""
    return (
        left.ndim == right.ndim == 2
        and left.shape[1] == right.shape[1]
        and left.dtype == right.dtype == torch.float32
        and left.device.type == right.device.type == "cpu"
        and len(left) * len(right) * left.shape[1] >= _FEWEST_PRODUCTS
        and not torch.is_autocast_enabled("cpu")
        and _is_exact()
        and _works()
    )


def _is_exact() -> bool:
    """Whether products of single precision on the CPU are to be computed in it, and by oneDNN at all."""
    if not torch.backends.mkldnn.enabled:  # type: ignore[truthy-bool]  # a bool, by a property of the module
        return False
    products = getattr(torch.backends.mkldnn, "matmul", None)  # from PyTorch 2.9 on; then the other may raise
    if products is not None:
        return products.fp32_precision in ("none", "ieee")
    return torch.get_float32_matmul_precision() == "highest"


@cache
def _works() -> bool:
    """Whether this PyTorch has the operator as it is called here: it is not among its public ones."""
    try:
        return torch.equal(_product(torch.eye(2), torch.eye(2)), torch.eye(2))
    except (AttributeError, RuntimeError, TypeError):
        return False


def _product(left: Tensor, right: Tensor) -> Tensor:
    """By the operator of compiled models' linear layers; by itself it has no derivative."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return product


class _InnerProducts(torch.autograd.Function):
    """With derivatives of every order, backward and forward, and under `torch.func`."""

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        return _product(left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        gradient = gradients[0]  # (n, m)
        of_left = inner_products(gradient, right.mT) if ctx.needs_input_grad[0] else None  # (n, k)
        of_right = inner_products(gradient.mT, left.mT) if ctx.needs_input_grad[1] else None  # (m, k)
        return of_left, of_right

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        left, right = ctx.saved_tensors
        of_left, of_right = tangents
        parts = [] if of_left is None else [inner_products(of_left, right)]
        parts += [] if of_right is None else [inner_products(left, of_right)]
        return torch.stack(parts).sum(0)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, int | None], left: Tensor, right: Tensor) -> tuple[Tensor, int]:
        """Several products at once are PyTorch's."""
        first, second = (
            each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
            for each, dim in zip((left, right), dims, strict=True)
        )
        return first @ second.mT, 0
