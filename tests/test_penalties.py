"""Penalties against sums written out from the equations, and what they must not depend on."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from scipy.signal import convolve2d

from whatwhere.penalties import (
    group_sparsity,
    kernel_norms,
    mean_l1,
    mean_l2,
    mean_product_l1,
    smoothness,
)

LAPLACE = np.array([[0.5, 1, 0.5], [1, -6, 1], [0.5, 1, 0.5]])


@pytest.fixture
def kernels(rng: np.random.Generator) -> np.ndarray:
    """4 maps of 3 input maps, 5 pixels high and 7 wide, of unequal sizes."""
    return rng.normal(size=(4, 3, 5, 7)) * rng.uniform(0.2, 3.0, (4, 3, 1, 1))


def roughness(kernels: np.ndarray) -> np.ndarray:
    """For each map, sum_{ijl} (W_l * L)_ij^2 of equation 6."""
    return np.array(
        [sum((convolve(plane, LAPLACE, mode="constant") ** 2).sum() for plane in kernel) for kernel in kernels]
    )


def test_mean_l1(rng: np.random.Generator) -> None:
    masks = rng.normal(size=(5, 3, 4))
    expected = np.mean([sum(abs(value) for value in masks[n].ravel()) for n in range(5)])
    assert mean_l1(torch.from_numpy(masks)).item() == pytest.approx(expected, rel=1e-12)


def test_mean_l2(rng: np.random.Generator) -> None:
    weights = rng.normal(size=(5, 2, 3, 4))
    expected = np.mean([sum(value**2 for value in weights[n].ravel()) for n in range(5)])
    assert mean_l2(torch.from_numpy(weights)).item() == pytest.approx(expected, rel=1e-12)


def test_mean_product_l1(rng: np.random.Generator) -> None:
    masks, features = rng.normal(size=(5, 12)), rng.normal(size=(5, 3))
    expected = np.mean([np.abs(np.outer(masks[n], features[n])).sum() for n in range(5)])
    got = mean_product_l1(torch.from_numpy(masks), torch.from_numpy(features)).item()
    assert got == pytest.approx(expected, rel=1e-12)


def test_mean_product_l1_is_blind_to_the_shared_scale(rng: np.random.Generator) -> None:
    masks, features = torch.from_numpy(rng.normal(size=(5, 12))), torch.from_numpy(rng.normal(size=(5, 3)))
    scale = torch.from_numpy(rng.uniform(0.1, 9.0, (5, 1)))
    torch.testing.assert_close(mean_product_l1(masks * scale, features / scale), mean_product_l1(masks, features))


def test_readout_penalties_of_a_doubled_population_are_the_same(rng: np.random.Generator) -> None:
    masks, features = torch.from_numpy(rng.normal(size=(5, 12))), torch.from_numpy(rng.normal(size=(5, 3)))
    for penalty, arguments in ((mean_l1, [masks]), (mean_l2, [masks]), (mean_product_l1, [masks, features])):
        twice = penalty(*(torch.cat([values, values]) for values in arguments))
        torch.testing.assert_close(twice, penalty(*arguments))


def test_absolute_smoothness_is_equation_6(kernels: np.ndarray) -> None:
    got = smoothness(torch.from_numpy(kernels), relative=False).item()
    assert got == pytest.approx(roughness(kernels).sum(), rel=1e-12)
    planes = kernels.reshape(-1, 5, 7)
    by_signal = sum((convolve2d(plane, LAPLACE, mode="same") ** 2).sum() for plane in planes)
    assert got == pytest.approx(by_signal, rel=1e-12)


def test_relative_smoothness_divides_each_map_by_its_squared_norm(kernels: np.ndarray) -> None:
    expected = (roughness(kernels) / (kernels**2).sum((1, 2, 3))).sum()
    assert smoothness(torch.from_numpy(kernels)).item() == pytest.approx(expected, rel=1e-9)


def test_smoothness_of_a_delta_is_the_squared_norm_of_the_laplacian() -> None:
    delta = torch.zeros(1, 1, 5, 7)
    delta[0, 0, 2, 3] = 2.0
    assert smoothness(delta, relative=False).item() == pytest.approx(4 * 41.0)
    assert smoothness(delta).item() == pytest.approx(41.0)


def test_kernel_norms_and_absolute_group_sparsity(kernels: np.ndarray) -> None:
    norms = np.array([[np.sqrt((kernels[k, l] ** 2).sum()) for l in range(3)] for k in range(4)])  # noqa: E741
    got = kernel_norms(torch.from_numpy(kernels))
    np.testing.assert_allclose(got.numpy(), norms, rtol=1e-9)
    assert group_sparsity(got, relative=False).item() == pytest.approx(norms.sum(), rel=1e-9)


def test_relative_group_sparsity_divides_each_map_by_its_norm(kernels: np.ndarray) -> None:
    expected = 0.0
    for kernel in kernels:
        groups = [np.linalg.norm(plane) for plane in kernel]
        expected += sum(groups) / np.linalg.norm(kernel)
    got = group_sparsity(kernel_norms(torch.from_numpy(kernels))).item()
    assert got == pytest.approx(expected, rel=1e-9)


def test_relative_group_sparsity_lies_between_one_input_and_all_alike() -> None:
    one, alike = torch.zeros(1, 4, dtype=torch.float64), torch.full((1, 4), 0.3, dtype=torch.float64)
    one[0, 2] = 5.0
    assert group_sparsity(one).item() == pytest.approx(1.0)
    assert group_sparsity(alike).item() == pytest.approx(2.0)


def test_relative_penalties_are_blind_to_each_maps_scale_and_absolute_ones_are_not(
    kernels: np.ndarray,
) -> None:
    before = torch.from_numpy(kernels)
    after = before * torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)[:, None, None, None]
    for penalty in (smoothness, lambda values, relative: group_sparsity(kernel_norms(values), relative)):
        torch.testing.assert_close(penalty(after, relative=True), penalty(before, relative=True))
        assert penalty(after, relative=False) > 2 * penalty(before, relative=False)


@pytest.mark.parametrize("relative", [True, False])
def test_gradients_are_those_of_finite_differences(kernels: np.ndarray, relative: bool) -> None:
    values = torch.from_numpy(kernels[:2, :2, :3, :4].copy()).requires_grad_()
    masks = torch.from_numpy(kernels[:, 0, 0].copy()).requires_grad_()
    features = torch.from_numpy(kernels[:, 1, 1, :3].copy()).requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda w: smoothness(w, relative), values)
    assert check(lambda w: group_sparsity(kernel_norms(w), relative), values)
    assert check(mean_l1, masks)
    assert check(mean_l2, masks)
    assert check(mean_product_l1, (masks, features))


@pytest.mark.parametrize("relative", [True, False])
def test_kernels_of_zeros_have_finite_penalties_and_gradients(relative: bool) -> None:
    kernels = torch.zeros(2, 3, 3, 4, requires_grad=True)
    total = smoothness(kernels, relative) + group_sparsity(kernel_norms(kernels), relative)
    total.backward()
    assert total.isfinite()
    assert kernels.grad is not None
    assert kernels.grad.isfinite().all()
