"""Whether both implementations compute the same: loss and gradients of one batch, from the same initial values."""

from dataclasses import dataclass, replace

import torch
from plain import MODELS
from torch import Tensor, nn
from workloads import Workload, make_model

from whatwhere.gradients import backpropagate
from whatwhere.model import Model
from whatwhere.readouts.support import Restricted, Support

TOLERANCE = 1e-4
N_IMAGES = 8


@dataclass(frozen=True)
class Pair:
    """Both implementations of one workload, with the same initial values."""

    ours: Model
    plain: nn.Module


@torch.no_grad()
def make_pair(workload: Workload) -> Pair:
    """Both models; the values are handed over parameter by parameter, in their common order."""
    pair = Pair(make_model(workload), MODELS[workload.name]())
    for ours, plain in zip(*_in_order(pair), strict=True):
        plain.copy_(ours.view_as(plain))
    return pair


def differences(workload: Workload, images: Tensor, responses: Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """Relative differences of the loss and of the gradients of loss and penalties, over one batch.

    Of the gradients: the largest over parameters of max |a - b| / max |b|. In float32 a whole batch, in float64 the
    first `N_IMAGES` of it: at the kink of a ReLU, rounding alone decides which way a gradient goes, so only the
    latter shows whether the mathematics is the same. What is timed in bf16 is compared in these, too.
    """
    exact = replace(workload.options.training, precision="float32")
    workload = replace(workload, options=replace(workload.options, training=exact))
    n_images = workload.options.training.batch_size if dtype == torch.float32 else N_IMAGES
    images, responses = images[:n_images].to(dtype), responses[:n_images].to(dtype)
    pair = make_pair(workload)
    ours, plain = pair.ours.to(dtype).train(), pair.plain.to(dtype).train()
    if workload.support is not None:
        _restrict(ours)
    loss = backpropagate(ours, [images], [responses])
    plain_loss, penalty = plain.loss(plain(images), responses)
    (plain_loss if workload.options.training.proximal else plain_loss + penalty).backward()
    gradients = [
        ((a - b.grad.view_as(a)).abs().max() / b.grad.abs().max()).item()
        for a, b in zip(_gradients(pair), _in_order(pair)[1], strict=True)
    ]
    return abs(loss.item() / plain_loss.item() - 1), max(gradients)


def _restrict(model: Model) -> None:
    """From here on the model reads what its masks hold."""
    mask = model.readout.mask.detach().flatten(1)
    support = Support.of(mask != 0)
    model.readout.restrict(Restricted(support, support.gathered(mask).requires_grad_()))


def _gradients(pair: Pair) -> list[Tensor]:
    """Of our parameters, in their common order; of masks read on their support, plain's own elsewhere."""
    ours, plain = _in_order(pair)
    readout = pair.ours.readout
    found = []
    for a, b in zip(ours, plain, strict=True):
        gradient = a.grad
        if a is readout.mask and readout.restricted is not None:
            gradient = b.grad.clone()
            readout.restricted.support.scatter_(gradient, readout.restricted.values.grad)
        found.append(gradient.view_as(a))
    return found


def _in_order(pair: Pair) -> tuple[list[Tensor], list[Tensor]]:
    """The trained parameters of both: by layer, then mask, feature weights and bias."""
    ours = sorted(pair.ours.named_parameters(), key=lambda item: item[0] == "bias")
    plain = [parameter for parameter in pair.plain.parameters() if parameter.requires_grad]
    return [parameter for _, parameter in ours], plain
