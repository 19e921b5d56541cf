"""Losses: how far predictions are from responses, averaged over images and neurons.

Both arguments have shape (n_images, n_neurons) and are in the same units (responses scaled for the fit).
"""

from collections.abc import Callable

import torch
from torch import Tensor

EPSILON = 1e-5
"""Added to the predicted rate inside the logarithm, so that a silent prediction costs much but not everything."""


def squared_error(predictions: Tensor, responses: Tensor) -> Tensor:
    """Mean over images and neurons of (r - y)^2 (Klindt et al. 2017, first term of equation 4, averaged over n too).

    >>> squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item()
    2.5
    """
    return torch.nn.functional.mse_loss(predictions, responses)


def poisson_loss(predictions: Tensor, responses: Tensor) -> Tensor:
    """Mean over images and neurons of r - y log(r + eps): the Poisson negative log-likelihood less log y!.

    >>> round(poisson_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]])).item(), 4)
    1.0
    """
    return torch.nn.functional.poisson_nll_loss(predictions, responses, log_input=False, eps=EPSILON)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"poisson": poisson_loss, "squared": squared_error}
