"""Products of large matrices by oneDNN: the numbers of PyTorch's own product, with every derivative."""

import pytest
import torch
from torch import Tensor

from whatwhere import matrix_products
from whatwhere.matrix_products import inner_products

BY_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def matrices(n: int = 96, m: int = 130, k: int = 110) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, k, generator=generator), torch.randn(m, k, generator=generator)


@pytest.mark.skipif(not BY_ONEDNN, reason="this PyTorch has no oneDNN")
def test_large_single_precision_matrices_are_multiplied_by_onednn(monkeypatch):
    left, right = matrices()
    assert matrix_products._by_onednn(left, right)
    monkeypatch.setattr(matrix_products._InnerProducts, "apply", lambda *_: "by oneDNN")
    assert inner_products(left, right) == "by oneDNN"


@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_is_that_of_pytorch(transposed):
    left, right = matrices()
    if transposed:
        left, right = left.T.contiguous().T, right.T.contiguous().T
    exact = left.double() @ right.double().T
    torch.testing.assert_close(inner_products(left, right).double(), exact, rtol=0, atol=1e-4)
    assert inner_products(left, right).is_contiguous()


def test_gradients_are_those_of_pytorch_whatever_the_layout_of_what_comes_back():
    left, right = (each.requires_grad_() for each in matrices())
    wanted = torch.randn(130, 96, generator=torch.Generator().manual_seed(1)).T
    found = torch.autograd.grad(inner_products(left, right), (left, right), wanted)
    plain = torch.autograd.grad(left @ right.T, (left, right), wanted)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
        assert one.is_contiguous()


def test_a_gradient_that_is_not_needed_is_not_computed():
    left, right = matrices()
    right.requires_grad_()
    (inner_products(left, right) ** 2).sum().backward()
    assert left.grad is None
    assert right.grad is not None


def test_derivatives_of_derivatives():
    left, right = (each.requires_grad_() for each in matrices())

    def bend(product: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(product.pow(3).sum() * 1e-3, (left, right), create_graph=True)
        return torch.autograd.grad(sum(each.square().sum() for each in first) * 1e-3, (left, right))

    for one, other in zip(bend(inner_products(left, right)), bend(left @ right.T), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


@pytest.mark.parametrize("shape", [(0, 130, 110), (96, 130, 0), (3, 4, 5)])
def test_small_and_empty_matrices(shape):
    left, right = matrices(*shape)
    assert torch.equal(inner_products(left, right), left @ right.T)


def test_other_precisions_are_left_to_pytorch():
    left, right = (each.double() for each in matrices())
    assert torch.equal(inner_products(left, right), left @ right.T)
    left, right = matrices()
    with torch.autocast("cpu", torch.bfloat16):
        assert inner_products(left, right).dtype == torch.bfloat16


@pytest.mark.skipif(not BY_ONEDNN, reason="this PyTorch has no oneDNN")
def test_a_lower_precision_that_is_asked_for_is_given():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not matrix_products._by_onednn(*matrices())
    finally:
        torch.set_float32_matmul_precision(before)
