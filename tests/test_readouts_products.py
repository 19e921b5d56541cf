"""The readout's product, whole, of some images at a time, and on supports: the same numbers, forward and backward."""

import numpy as np
import pytest
import torch

from whatwhere.readouts import products
from whatwhere.readouts.products import factorized_product, supported_product
from whatwhere.readouts.support import Support

N_NEURONS, N_IMAGES, HEIGHT, WIDTH = 7, 5, 9, 11


def operands(n_features: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Masks (7, 99) of few pixels each, of the last none; weights (7, K); maps (5, K, 9, 11), channels last."""
    masks = np.zeros((N_NEURONS, HEIGHT * WIDTH))
    for neuron in range(N_NEURONS - 1):
        at = rng.choice(HEIGHT * WIDTH, 1 + neuron % 5, replace=False)
        masks[neuron, at] = rng.normal(size=len(at))
    maps = torch.from_numpy(rng.normal(size=(N_IMAGES, n_features, HEIGHT, WIDTH)))
    weights = torch.from_numpy(rng.normal(size=(N_NEURONS, n_features)))
    return torch.from_numpy(masks), weights, maps.contiguous(memory_format=torch.channels_last)


def in_blocks(monkeypatch: pytest.MonkeyPatch, n_images: int, n_features: int) -> None:
    """Products are taken of so many images at a time."""
    monkeypatch.setattr(products, "_COLUMNS", n_images * n_features)
    monkeypatch.setattr(products, "_FEWEST_NUMBERS", 0)
    monkeypatch.setattr(products, "_MOST_NUMBERS", 0)


def written_out(masks: torch.Tensor, weights: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Equation 1 with q = m w."""
    return torch.einsum("bkij,nij,nk->bn", maps, masks.view(-1, HEIGHT, WIDTH), weights)


@pytest.mark.parametrize("n_features", [1, 3])
@pytest.mark.parametrize("at_once", [1, 3, 100, None])
def test_every_product_is_the_sum_written_out_and_its_gradients_are_its(
    n_features: int, at_once: int | None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if at_once is not None:
        in_blocks(monkeypatch, at_once, n_features)
    given = [operand.requires_grad_() for operand in operands(n_features, rng)]
    wanted = torch.from_numpy(rng.normal(size=(N_IMAGES, N_NEURONS)))
    expected = written_out(*given)
    expected_gradients = torch.autograd.grad((expected * wanted).sum(), given)
    dense = factorized_product(*given)
    torch.testing.assert_close(dense, expected)
    gradients = torch.autograd.grad((dense * wanted).sum(), given)
    torch.testing.assert_close(gradients, expected_gradients)
    masks, weights, maps = given
    where = Support.of(masks.detach() != 0)
    values = where.gathered(masks.detach()).requires_grad_()
    sparse = supported_product(values, weights, maps, where)
    torch.testing.assert_close(sparse, expected)
    gradients = torch.autograd.grad((sparse * wanted).sum(), (values, weights, maps))
    torch.testing.assert_close(gradients, (where.gathered(expected_gradients[0]), *expected_gradients[1:]))
    assert torch.autograd.gradcheck(lambda *of: supported_product(*of, where), (values, weights, maps), fast_mode=True)


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_gradients_that_nobody_needs_are_left_out(
    needed: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_blocks(monkeypatch, 2, 3)
    given = list(operands(3, rng))
    where = Support.of(given[0] != 0)
    expected = torch.autograd.grad(written_out(*_with_gradient(given, needed)).sum(), given[needed])
    torch.testing.assert_close(torch.autograd.grad(factorized_product(*given).sum(), given[needed]), expected)
    if needed:
        sparse = supported_product(where.gathered(given[0]), given[1], given[2], where)
        torch.testing.assert_close(torch.autograd.grad(sparse.sum(), given[needed]), expected)


def _with_gradient(given: list[torch.Tensor], needed: int) -> list[torch.Tensor]:
    given[needed].requires_grad_()
    return given


def test_derivatives_of_derivatives_pass_through_a_product_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newton's method asks for them."""
    in_blocks(monkeypatch, 2, 3)
    given = tuple(operand.requires_grad_() for operand in operands(3, rng))
    assert torch.autograd.gradcheck(factorized_product, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(factorized_product, given, fast_mode=True)


def test_many_blocks_add_up_exactly_in_half_precision(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block's gradients are rounded, never their sum: so many blocks are as near the truth as the whole."""
    masks = torch.from_numpy(rng.normal(size=(N_NEURONS, HEIGHT * WIDTH))).float()
    weights = torch.from_numpy(rng.normal(size=(N_NEURONS, 3))).float()
    maps = torch.from_numpy(rng.normal(size=(256, 3, HEIGHT, WIDTH))).float()
    given = [operand.bfloat16().float().requires_grad_() for operand in (masks, weights, maps)]
    wanted = torch.from_numpy(rng.normal(size=(256, N_NEURONS))).bfloat16().float()
    exact = torch.autograd.grad((written_out(*given) * wanted).sum(), given)
    errors = []
    for at_once in (256, 1):
        in_blocks(monkeypatch, at_once, 3)
        with torch.autocast("cpu", torch.bfloat16):
            out = factorized_product(*given)
        assert out.dtype == torch.bfloat16
        found = torch.autograd.grad((out.float() * wanted).sum(), given)
        assert all(gradient.dtype == torch.float32 for gradient in found)
        errors.append([((a - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)])
    assert max(errors[0]) < 0.01
    for whole, parts in zip(*errors, strict=True):
        assert parts < 2 * whole + 1e-4


def test_small_products_are_taken_whole_and_large_ones_are_not(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = operands(3, rng)
    calls: list[int] = []
    whole = products._whole_product
    monkeypatch.setattr(products, "_whole_product", lambda *of: (calls.append(1), whole(*of))[1])
    factorized_product(*given)
    assert calls == [1]
    monkeypatch.setattr(products, "_MOST_NUMBERS", N_NEURONS * N_IMAGES * 3 - 1)
    factorized_product(*given)
    assert calls == [1]
