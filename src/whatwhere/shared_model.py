"""Several recordings, one core: what it computes is learned from the neurons of all, each through its own images.

The loss is the mean over all neurons, each one's averaged over the images of its recording; penalties of the readouts
are means over all neurons, those of the core count once. So one recording alone is fitted as ever, and a recording
whose neurons are divided in two is fitted as if they were not.
"""

from collections.abc import Callable, Sequence
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

from whatwhere.config import ModelOptions
from whatwhere.core import UnitBatchNorm
from whatwhere.model import Model, Shapes
from whatwhere.parallel import Parallel


class SharedModel(nn.Module):
    """A core, and for each recording a readout and biases: its `members` are ordinary models that have this core.

    shapes: of each recording; sizes and channels of their images must agree. Raises as `Model` does.
    """

    frozen = False
    compiled_core: Callable[[Tensor], Tensor] | None = None
    """What computes the core's maps in training, where it was compiled."""

    def __init__(self, readout: str, options: ModelOptions, shapes: Sequence[Shapes]) -> None:
        super().__init__()
        first = Model(readout, options, shapes[0])
        later = (Model(readout, options, each, core=first.core) for each in shapes[1:])
        self.members: tuple[Model, ...] = (first, *later)
        self.options, self.shapes, self.core = options, tuple(shapes), first.core
        self.readouts = nn.ModuleList([member.readout for member in self.members])
        self.biases = nn.ParameterList([member.bias for member in self.members])

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        return predict_together(self, images)

    def maps(self, images: Tensor) -> Tensor:
        """As `Model.maps`."""
        core = self.compiled_core if self.training and self.compiled_core is not None else self.core
        return core(images)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for member in self.members:
            member.train(mode)
        return self

    def share(self, parallel: Parallel) -> None:
        """As `Model.share`."""
        for module in self.modules():
            if isinstance(module, UnitBatchNorm):
                module.parallel = parallel


Network: TypeAlias = Model | SharedModel
"""What is fitted: the model of one recording, or those of several."""


def shares(model: Network) -> list[float]:
    """What part of all neurons are those of each recording; they sum to one.

    >>> shares(SharedModel("gaussian", ModelOptions(), [Shapes(1, 20, 30, n_neurons) for n_neurons in (3, 1)]))
    [0.75, 0.25]
    """
    numbers = [member.readout.n_neurons for member in model.members]
    return [number / sum(numbers) for number in numbers]


def mean_over_neurons(model: Network, values: Sequence[Tensor]) -> Tensor:
    """Of values that are means over the neurons of each recording the mean over all: scalars."""
    if len(values) == 1:
        return values[0]
    return torch.stack([share * value for share, value in zip(shares(model), values, strict=True)]).sum()


def predict_together(model: Network, images: Sequence[Tensor]) -> list[Tensor]:
    """Predictions (n_images, n_neurons) for images (n_images, C, H, W) of each recording.

    The core sees all images at once: in training they are normalised by the statistics of all.
    """
    if len(images) == 1:
        return [model.members[0].respond(model.maps(images[0]))]
    maps = model.maps(torch.cat(list(images))).split([len(some) for some in images])
    return [member.respond(some) for member, some in zip(model.members, maps, strict=True)]


def penalty_together(model: Network, predictions: Sequence[Tensor], *, smooth_only: bool = False) -> Tensor:
    """As `Model.penalty`: of the readouts the mean over all neurons, of the core once."""
    options, members = model.options.penalties, model.members
    of_readouts = [
        member.readout_penalty(options, some, smooth_only=smooth_only)
        for member, some in zip(members, predictions, strict=True)
    ]
    return members[0].with_core_penalty(mean_over_neurons(model, of_readouts), options, smooth_only=smooth_only)
