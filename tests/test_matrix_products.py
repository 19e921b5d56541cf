"""Products of large matrices by oneDNN: the numbers of PyTorch's own product, with every derivative."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from whatwhere import matrix_products
from whatwhere.matrix_products import add_inner_products, inner_products

needs_onednn = pytest.mark.skipif(not matrix_products._works(), reason="this PyTorch has no oneDNN")


def matrices(n: int = 96, m: int = 130, k: int = 110) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, k, generator=generator), torch.randn(m, k, generator=generator)


@needs_onednn
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


@needs_onednn
def test_a_gradient_that_is_not_needed_is_not_computed(monkeypatch):
    left, right = matrices()
    right.requires_grad_()
    product = inner_products(left, right).sum()
    calls = []
    monkeypatch.setattr(matrix_products, "_product", lambda *given: calls.append(given) or given[0] @ given[1].mT)
    product.backward()
    assert len(calls) == 1
    torch.testing.assert_close(right.grad, left.sum(0).expand_as(right), rtol=0, atol=1e-4)


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


def test_shapes_that_do_not_fit_are_told_in_pytorchs_words():
    left, right = matrices()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        inner_products(left, right[:, 1:])


@pytest.mark.parametrize("transform", ["grad", "vjp", "jvp", "jacrev", "vmap", "forward"])
def test_under_transformations_of_functions(transform):
    left, right = matrices(96, 130, 110)
    wanted = torch.randn(3, *left.shape, generator=torch.Generator().manual_seed(2))

    def of(product):
        def scalar(given: Tensor) -> Tensor:
            return product(given, right).square().mean()

        match transform:
            case "grad":
                return torch.func.grad(scalar)(left)
            case "vjp":
                return torch.func.vjp(scalar, left)[1](torch.tensor(2.0))[0]
            case "jvp":
                return torch.func.jvp(lambda *both: product(*both), (left, right), (wanted[0], right))[1]
            case "jacrev":
                return torch.func.jacrev(lambda given: product(given, right)[:2, :2].sum(1))(left)
            case "vmap":
                return torch.vmap(lambda given: product(given, right))(wanted)
            case "forward":
                with torch.autograd.forward_ad.dual_level():
                    dual = torch.autograd.forward_ad.make_dual(left, wanted[1])
                    return torch.autograd.forward_ad.unpack_dual(product(dual, right)).tangent

    torch.testing.assert_close(of(inner_products), of(lambda one, other: one @ other.mT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_products(dtype):
    left, right = (each.to(dtype) for each in matrices())
    total = torch.ones(96, 130, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    add_inner_products(total, left, right)
    torch.testing.assert_close(total, 1 + left @ right.T, rtol=0, atol=1e-4)


PRECISION = """
import os
import sys
import torch
from whatwhere import matrix_products
from whatwhere.matrix_products import inner_products

for chosen in sys.argv[1:]:
    if os.fork():  # the choice is this copy's alone
        os.wait()
        continue
    exec(chosen)
    one = torch.ones(128, 128)
    assert inner_products(one, one)[0, 0] == 128
    print(matrix_products._by_onednn(one, one), flush=True)
    os._exit(0)
"""


@needs_onednn
def test_what_a_user_has_chosen_for_products_holds():
    by_onednn = {
        "": True,
        "torch.set_float32_matmul_precision('medium')": False,
        "torch.backends.mkldnn.enabled = False": False,
    }
    if hasattr(torch.backends.mkldnn, "matmul"):  # from PyTorch 2.9 on
        by_onednn["torch.backends.cuda.matmul.fp32_precision = 'tf32'"] = True
        by_onednn["torch.backends.mkldnn.matmul.fp32_precision = 'bf16'"] = False
    done = subprocess.run([sys.executable, "-c", PRECISION, *by_onednn], capture_output=True, text=True, check=True)
    assert dict(zip(by_onednn, done.stdout.split(), strict=True)) == {key: str(by_onednn[key]) for key in by_onednn}
