"""Proximal steps: true zeros, and the optimum of the penalised loss."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

import whatwhere as ww
from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.core import Core
from whatwhere.proximal import group_threshold_, shrink, soft_threshold_, step_sizes
from whatwhere.readouts import FactorizedReadout
from whatwhere.training import OPTIMIZERS

STRENGTH = 0.3


def lasso_problem(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images of 5 x 8 correlated pixels, and two neurons that read three of them."""
    pixels = rng.standard_normal((300, 40)) @ (np.eye(40) + 0.3 * rng.standard_normal((40, 40)))
    truth = np.zeros((40, 2))
    truth[[3, 17, 30], 0], truth[[5, 17, 39], 1] = (1.0, -0.7, 0.4), (0.8, 0.5, -1.2)
    responses = pixels @ truth + 0.5 * rng.standard_normal((300, 2))
    return (pixels - pixels.mean(0)).astype(np.float32), (responses - responses.mean(0)).astype(np.float32)


def solved(pixels: np.ndarray, responses: np.ndarray, optimizer: str, proximal: bool) -> np.ndarray:
    """The masks, (2, 40), of the mean squared error with `mask_l1`, by many steps on all images, ever smaller."""
    readout = FactorizedReadout(2, (1, 5, 8), ReadoutOptions(nonlinearity="identity"))
    options = ModelOptions(penalties=PenaltyOptions(mask_l1=STRENGTH))
    core = SimpleNamespace(shrunken=lambda strength, relative: [])
    members = [SimpleNamespace(readout=readout)]
    model: Any = SimpleNamespace(members=members, core=core, options=options, frozen=False)
    rate = {"adam": 0.05, "sgd": 0.01}[optimizer]
    steps = OPTIMIZERS[optimizer]([readout.mask], TrainingOptions(optimizer=optimizer, learning_rate=rate))
    maps, wanted = torch.from_numpy(pixels).view(-1, 1, 5, 8), torch.from_numpy(responses)
    for step in range(3000):
        for group in steps.param_groups:
            group["lr"] = rate * 0.5 ** (step // 300)
        steps.zero_grad()
        loss = (readout(maps) - wanted).square().mean()
        if not proximal:
            loss = loss + STRENGTH * readout.mask.abs().sum() / 2
        loss.backward()
        steps.step()
        if proximal:
            shrink(model, steps)
    return readout.mask.detach().flatten(1).numpy()


def penalised(pixels: np.ndarray, responses: np.ndarray, masks: np.ndarray) -> float:
    return float(np.square(pixels @ masks.T - responses).mean() + STRENGTH * np.abs(masks).sum() / 2)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_masks_are_those_of_the_lasso_with_its_zeros(optimizer: str, rng: np.random.Generator) -> None:
    """scikit-learn halves the squared error, so its strength is half of ours."""
    pixels, responses = lasso_problem(rng)
    lasso = Lasso(STRENGTH / 2, fit_intercept=False, tol=1e-10, max_iter=100_000)
    wanted = np.stack([lasso.fit(pixels.astype(np.float64), one).coef_ for one in responses.T.astype(np.float64)])
    found = solved(pixels, responses, optimizer, proximal=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(found == 0, wanted == 0)
    assert 0.5 < (wanted == 0).mean() < 1
    by_gradients = solved(pixels, responses, optimizer, proximal=False)
    assert not (by_gradients == 0).any()
    best, near = (penalised(pixels, responses, masks) for masks in (found, by_gradients))
    assert best <= near < 1.001 * best


def test_thresholds_may_differ_and_signs_stay() -> None:
    values = torch.tensor([[1.0, -2.0], [0.5, -0.5]])
    soft_threshold_(values, torch.tensor([[0.25], [0.75]]))
    assert values.tolist() == [[0.75, -1.75], [0.0, 0.0]]


def test_groups_shrink_to_where_no_gradient_is_left(rng: np.random.Generator) -> None:
    """Step sizes differ within a kernel: (x - v) / s + lambda x / |x| = 0, or x = 0 and |v / s| <= lambda."""
    kernels, sizes = rng.standard_normal((2, 3, 2, 3)), rng.uniform(0.1, 2, (2, 3, 2, 3))
    strengths = np.array([[0.1, 1.0, 30.0], [0.5, 2.0, 0.0]])
    found = torch.from_numpy(kernels.copy())
    group_threshold_(found, torch.from_numpy(sizes), torch.from_numpy(strengths))
    for place in np.ndindex(2, 3):
        x, pull = found[place].numpy(), kernels[place] / sizes[place]
        if x.any():
            np.testing.assert_allclose(pull - x / sizes[place], strengths[place] * x / np.linalg.norm(x), atol=1e-9)
        else:
            assert np.linalg.norm(pull) <= strengths[place]
    assert [(kernel == 0).all().item() for kernel in found.flatten(0, 1)].count(True) in (1, 2)


def test_a_core_of_true_zeros_loses_nothing(rng: np.random.Generator) -> None:
    shown = recording(rng)
    for separable in (False, True):
        losses, zeros = {}, {}
        for proximal in (True, False):
            model = ww.FixedMaskCNN(
                core={"kernel_sizes": (3, 3), "n_maps": (6, 4), "separable": (False, separable)},
                penalties={"group_sparsity": 0.03},
                training={"max_steps": 120, "batch_size": 64, "proximal": proximal, "learning_rate": 1e-2},
            ).fit(shown)
            losses[proximal] = model.candidates_["validation_loss"].min()
            weights = model.model_.core.layers[1].convolution.weight.detach()
            zeros[proximal] = (weights == 0).all(3).all(2).float().mean().item()
        assert zeros[True] > 0.2
        assert zeros[False] == 0
        assert losses[True] < losses[False] + 0.01


@pytest.mark.parametrize("relative", [True, False])
def test_parts_of_group_sparsity_make_the_whole_gradient(relative: bool) -> None:
    """What is left to the gradient and what is shrunken add up to the derivative of the penalty."""
    core = Core(CoreOptions(kernel_sizes=(3, 3), n_maps=(4, 5)), 1, 12, 13)
    core.initialize(torch.Generator().manual_seed(0))
    weight = core.layers[1].convolution.weight
    (whole,) = torch.autograd.grad(core.group_sparsity(relative), weight)
    rest = torch.zeros_like(weight)
    if relative:
        (rest,) = torch.autograd.grad(core.group_sparsity(relative, smooth_only=True), weight)
    ((_, by_norm),) = core.shrunken(1.0, relative)
    norms = weight.detach().norm(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(rest + by_norm[:, :, None, None] * weight.detach() / norms, whole, rtol=1e-3, atol=1e-3)


def test_step_sizes_are_the_optimisers_own() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    for name in OPTIMIZERS:
        optimizer = OPTIMIZERS[name]([parameter], TrainingOptions(optimizer=name, learning_rate=0.1))
        parameter.grad = torch.tensor([2.0, -0.5, 1e-3])
        for _ in range(300):
            before = parameter.detach().clone()
            optimizer.step()
        moved = parameter.detach() - before
        torch.testing.assert_close(moved, -step_sizes([optimizer], parameter) * parameter.grad, rtol=1e-3, atol=1e-5)


def recording(rng: np.random.Generator) -> ww.Recording:
    images = rng.standard_normal((400, 1, 14, 18)).astype(np.float32)
    drive = np.stack([images[:, 0, 4 + n, 5 + n] - images[:, 0, 5 + n, 5 + n] for n in range(5)], axis=1)
    return ww.Recording(images, np.maximum(drive, 0) + 0.3 * rng.random((400, 5)))


@pytest.mark.parametrize("penalties", [{"mask_l1": 0.05, "feature_l1": 0.02}, {"product_l1": 0.05}])
def test_a_fit_has_true_zeros_and_loses_nothing(penalties: dict[str, float], rng: np.random.Generator) -> None:
    shown = recording(rng)
    losses, zeros = {}, {}
    for proximal in (True, False):
        model = ww.FactorizedCNN(
            core={"kernel_sizes": (5,), "n_maps": 3},
            penalties=penalties,
            training={"max_steps": 400, "batch_size": 64, "proximal": proximal, "n_rates": 3},
        ).fit(shown)
        losses[proximal] = model.candidates_["validation_loss"].min()
        zeros[proximal] = (model.masks_ == 0).mean()
    assert zeros[True] > 0.5
    assert zeros[False] < 0.01
    assert losses[True] < losses[False] + 0.01


@pytest.mark.parametrize("kind", [ww.FixedMaskCNN, ww.GaussianCNN, ww.PosteriorCNN])
def test_feature_weights_of_every_readout_become_zero(kind: Any, rng: np.random.Generator) -> None:
    model = kind(
        core={"kernel_sizes": (5,), "n_maps": 6},
        penalties={"feature_l1": 0.15},
        training={"max_steps": 300, "patience_from": 300, "batch_size": 64, "proximal": True},
    ).fit(recording(rng))
    assert 0 < (model.feature_weights_ == 0).mean() < 1


def test_without_a_penalty_nothing_is_shrunken() -> None:
    strengths = PenaltyOptions().single()
    readout = FactorizedReadout(3, (4, 5, 6), ReadoutOptions())
    assert all(float(torch.as_tensor(strength).sum()) == 0 for _, strength in readout.shrunken(strengths))


def test_a_neuron_without_a_mask_keeps_its_weights_and_may_come_back() -> None:
    readout = FactorizedReadout(3, (4, 5, 6), ReadoutOptions())
    with torch.no_grad():
        readout.mask[0] = 1.0
        readout.mask[2] = 1.0
        readout.weights[2] = 0.0
    strengths = PenaltyOptions(mask_l1=0.3, feature_l1=0.6).single()
    (_, masks), (_, features) = readout.shrunken(strengths)
    np.testing.assert_allclose(torch.as_tensor(masks).flatten(), [0.1, 0.1, 0.0])
    np.testing.assert_allclose(torch.as_tensor(features).flatten(), [0.2, 0.0, 0.2])


def test_proximal_steps_without_a_sparse_penalty_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ww.errors.OptionError, match="proximal has nothing to act on"):
        ww.FullyConnectedCNN(penalties={"group_sparsity": 0.0}, training={"proximal": True}).fit(recording(rng))
