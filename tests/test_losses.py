"""Losses against sums written out from their equations."""

import math

import numpy as np
import pytest
import torch

from whatwhere.losses import EPSILON, LOSSES, poisson_loss, squared_error


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and responses of 7 images and 3 neurons."""
    return rng.uniform(0.1, 3.0, (7, 3)), rng.poisson(1.5, (7, 3)).astype(float)


def test_squared_error_is_the_mean_over_images_and_neurons(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, responses = pair
    total = sum((predictions[b, n] - responses[b, n]) ** 2 for b in range(7) for n in range(3))
    got = squared_error(torch.from_numpy(predictions), torch.from_numpy(responses)).item()
    assert got == pytest.approx(total / (7 * 3), rel=1e-12)


def test_poisson_loss_is_r_minus_y_log_r(pair: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, responses = pair
    total = sum(
        predictions[b, n] - responses[b, n] * math.log(predictions[b, n] + EPSILON) for b in range(7) for n in range(3)
    )
    got = poisson_loss(torch.from_numpy(predictions), torch.from_numpy(responses)).item()
    assert got == pytest.approx(total / (7 * 3), rel=1e-12)


def test_poisson_loss_is_least_where_the_rate_is_the_response() -> None:
    response = torch.tensor([[2.5]], dtype=torch.float64)
    at = {rate: poisson_loss(torch.full_like(response, rate), response).item() for rate in (2.4, 2.5, 2.6)}
    assert at[2.5] < min(at[2.4], at[2.6])


def test_a_silent_prediction_costs_a_finite_amount_with_a_finite_gradient() -> None:
    prediction = torch.zeros(1, 1, requires_grad=True)
    loss = poisson_loss(prediction, torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(EPSILON), rel=1e-6)
    assert prediction.grad is not None
    assert prediction.grad.item() == pytest.approx(1 - 1 / EPSILON, rel=1e-4)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_those_of_finite_differences(name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    predictions, responses = (torch.from_numpy(values) for values in pair)
    assert torch.autograd.gradcheck(lambda r: LOSSES[name](r, responses), predictions.requires_grad_())


def test_losses_have_the_names_of_the_options() -> None:
    assert {"poisson": poisson_loss, "squared": squared_error} == LOSSES
