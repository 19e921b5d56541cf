"""The gradient of a step: of the loss and of the penalties that have one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from whatwhere.location_inference import training_loss
from whatwhere.shared_model import Network, mean_over_neurons, penalty_together, predict_together


def backpropagate(model: Network, images: Sequence[Tensor], responses: Sequence[Tensor], share: float = 1.0) -> Tensor:
    """Adds the gradient of loss and penalties over one batch to the parameters; returns the loss without penalties.

    A batch of each recording: images (n_images, C, H, W), responses (n_images, n_neurons). Both times `share`, the part
    of a batch that these images are: so those of all its parts make the batch's in sum.
    """
    options = model.options
    with torch.autocast(images[0].device.type, torch.bfloat16, enabled=options.training.precision == "bf16"):
        predictions = predict_together(model, images)  # (n_images, n_neurons) each
    predictions = [some.float() for some in predictions]
    found = zip(model.members, predictions, responses, strict=True)
    loss = mean_over_neurons(model, [training_loss(member, some, wanted) for member, some, wanted in found])
    penalty = penalty_together(model, predictions, smooth_only=options.training.proximal)
    if (total := share * (loss + penalty)).requires_grad:  # not where weights are solved for under a frozen core
        total.backward()
    return share * loss.detach()
