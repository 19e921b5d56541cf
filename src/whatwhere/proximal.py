"""Proximal steps: sparse penalties make weights exactly zero, where gradients would leave them trembling around it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from whatwhere.shared_model import Network, shares

_BISECTIONS = 50
_TINY = 1e-300


@torch.no_grad()
def shrink(model: Network, *optimizers: torch.optim.Optimizer) -> None:
    """The proximal step of the model's L1 and group penalties, after the optimisers' step along all else's gradient.

    The metric is the optimiser's own, element by element: a gradient g moves a weight by s g, so a strength of lambda
    moves it by s lambda towards zero, and not beyond. What does not move any more has |g| <= lambda at zero and
    g = -lambda sign elsewhere, as the penalised loss asks; likewise a group, with norms in place of magnitudes.
    Source: Yun, Lozano & Yang 2021, Adaptive proximal gradient methods for structured neural networks.
    """
    penalties = model.options.penalties
    strengths = penalties.single()
    for share, member in zip(shares(model), model.members, strict=True):
        of_member = {name: share * strength for name, strength in strengths.items()}  # of the mean over all neurons
        for parameter, strength in member.readout.shrunken(of_member):
            thresholds = step_sizes(optimizers, parameter) * strength
            soft_threshold_(parameter, member.readout.limited(parameter, thresholds))
    if model.frozen:
        return
    for kernels, by_norm in model.core.shrunken(strengths["group_sparsity"], penalties.relative):
        group_threshold_(kernels, step_sizes(optimizers, kernels), by_norm)


def soft_threshold_(values: Tensor, thresholds: Tensor | float) -> None:
    """sign(v) max(|v| - t, 0) in place, thresholds broadcast over values.

    >>> values = torch.tensor([3.0, -0.5, -2.0])
    >>> soft_threshold_(values, 1.0)
    >>> values
    tensor([ 2., -0., -1.])
    """
    values.copy_(values.sign() * (values.abs() - thresholds).clamp(min=0.0))


def group_threshold_(kernels: Tensor, sizes: Tensor | float, strengths: Tensor) -> None:
    """argmin_x 1/2 sum_i (x_i - v_i)^2 / s_i + lambda |x|_2 for each kernel v_kl (height, width), in place.

    kernels (K, K_in, height, width), step sizes s like them or one number, strengths lambda (K, K_in). The solution
    x_i = v_i t / (t + s_i lambda) has a norm t that is found by bisection; it is 0 where |v / s|_2 <= lambda.

    >>> kernels = torch.tensor([[[[3.0, 4.0]], [[0.3, 0.4]]]])
    >>> group_threshold_(kernels, 1.0, torch.ones(1, 2))
    >>> kernels.flatten().tolist()
    [2.4, 3.2, 0.0, 0.0]
    """
    values = kernels.double()
    spread = torch.as_tensor(sizes, dtype=values.dtype, device=values.device).expand_as(values)
    given = strengths.double()[:, :, None, None]
    low, high = torch.zeros_like(given), values.norm(dim=(2, 3), keepdim=True)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        longer = (values / (middle + spread * given)).norm(dim=(2, 3), keepdim=True) > 1  # the norm is larger than this
        low, high = torch.where(longer, middle, low), torch.where(longer, high, middle)
    norms = torch.where((values / spread).norm(dim=(2, 3), keepdim=True) > given, (low + high) / 2, 0.0)
    kernels.copy_(torch.where(norms > 0, values * norms / (norms + spread * given).clamp(min=_TINY), 0.0))


def step_sizes(optimizers: Sequence[torch.optim.Optimizer], parameter: Tensor) -> Tensor | float:
    """How far a unit of gradient that stays moves each element in a step of the optimiser that has the parameter.

    The learning rate; for Adam over the root of its second moment, for gradient descent over 1 - momentum.
    """
    optimizer, group = next(
        (optimizer, group)
        for optimizer in optimizers
        for group in optimizer.param_groups
        if any(parameter is other for other in group["params"])
    )
    rate = float(group["lr"])
    if not isinstance(optimizer, torch.optim.Adam):
        return rate / (1 - float(group["momentum"]))
    state = optimizer.state[parameter]
    correction = 1 - group["betas"][1] ** state["step"]
    sizes: Tensor = rate / ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
    return sizes
