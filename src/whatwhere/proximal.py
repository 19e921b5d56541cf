"""Proximal steps: L1 penalties shrink weights to exactly zero, where gradients would leave them trembling around it."""

import torch
from torch import Tensor, nn

from whatwhere.model import Model


@torch.no_grad()
def shrink(model: Model, optimizer: torch.optim.Optimizer) -> None:
    """The proximal step of the model's L1 penalties, after a step of the optimiser along the gradient of all else.

    The metric is the optimiser's own, element by element: a gradient g moves a weight by s g, so a strength of lambda
    moves it by s lambda towards zero, and not beyond. What does not move any more has |g| <= lambda at zero and
    g = -lambda sign elsewhere, as the penalised loss asks. Source: Yun, Lozano & Yang 2021, Adaptive proximal gradient
    methods for structured neural networks.
    """
    for parameter, strength in model.readout.shrunken(model.options.penalties.single()):
        soft_threshold_(parameter, step_sizes(optimizer, parameter) * strength)


def soft_threshold_(values: Tensor, thresholds: Tensor | float) -> None:
    """sign(v) max(|v| - t, 0) in place, thresholds broadcast over values.

    >>> values = torch.tensor([3.0, -0.5, -2.0])
    >>> soft_threshold_(values, 1.0)
    >>> values
    tensor([ 2., -0., -1.])
    """
    values.copy_(values.sign() * (values.abs() - thresholds).clamp(min=0.0))


def step_sizes(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor | float:
    """How far a unit of gradient that stays moves each element in a step.

    The learning rate; for Adam over the root of its second moment, for gradient descent over 1 - momentum.
    """
    group = next(group for group in optimizer.param_groups if any(parameter is other for other in group["params"]))
    rate = float(group["lr"])
    if not isinstance(optimizer, torch.optim.Adam):
        return rate / (1 - float(group["momentum"]))
    state = optimizer.state[parameter]
    correction = 1 - group["betas"][1] ** state["step"]
    sizes: Tensor = rate / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
    return sizes
