"""What is shown images: neurons, asked all at once, or each about images of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whatwhere.checks import check_positions, check_positive
from whatwhere.errors import InputError
from whatwhere.insilico.statistics import ImageStatistics

_MOST_ON_CPU, _MOST_AT_ONCE = 64, 512
"""Images at once, however much memory there is: on a CPU more are slower, on a GPU no faster."""
_GIB = 2**30


class Subject(ABC):
    """Neurons that images (..., n_channels, height, width) are shown to, in the units of the recording's pixels."""

    image_shape: tuple[int, int, int]
    """(n_channels, height, width)."""
    names: list[str]
    """Identifiers of all neurons."""
    statistics: ImageStatistics | None
    """Of the images that the neurons were fitted to; None where they do not know, `why_unknown` says why."""
    why_unknown: str = ""
    device: torch.device
    numbers: int
    """Floating-point numbers that one image of one neuron needs, with the gradient, roughly."""

    @abstractmethod
    def rates(self, images: Tensor) -> Tensor:
        """Responses of all neurons to the same images: (n_images, n_channels, height, width) to (n_images, n_neurons).

        In the units of the responses; without gradients.
        """

    @abstractmethod
    def drives(self, neurons: Tensor, images: Tensor) -> Tensor:
        """What the output nonlinearity is applied to, of each of these neurons for images of its own; differentiable.

        neurons: (n,), positions; images: (n, m, n_channels, height, width), m for each; returns (n, m).
        """

    @abstractmethod
    def respond(self, neurons: Tensor, drives: Tensor) -> Tensor:
        """Responses (n, m) in the units of the responses, which never fall as the drives (n, m) rise."""

    def rates_of(self, neurons: Tensor, images: Tensor) -> Tensor:
        """Responses (n, m) of each of these neurons to images of its own, see `drives`."""
        return self.respond(neurons, self.drives(neurons, images))

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self.names)


def chosen_neurons(subject: Subject, neurons: Any) -> np.ndarray:
    """Positions of the neurons asked for, all of them where None; raises `InputError` where they are out of range."""
    if neurons is None:
        return np.arange(subject.n_neurons)
    return check_positions("neurons", neurons, subject.n_neurons, "neuron")


def statistics_for(subject: Subject, statistics: ImageStatistics | None) -> ImageStatistics:
    """Those given, or the subject's own.

    Raises `InputError` where those given are of images of another shape, or none are and the subject does not know.
    """
    if statistics is None:
        if subject.statistics is None:
            raise InputError(
                f"the model does not know which grey and contrast its images have ({subject.why_unknown}): give the"
                " recording (--recording), or statistics=ImageStatistics.of(recording.images)."
            )
        return subject.statistics
    if statistics.mean.shape != subject.image_shape:
        raise InputError(
            f"the statistics are of images of {statistics.mean.shape}, the model is for {subject.image_shape}: expected"
            " the same (n_channels, height, width)."
        )
    return statistics


def images_at_once(subject: Subject, memory_gib: float) -> int:
    """How many images, each of one neuron, fit into so much memory with their gradients; at least one.

    Raises `OptionError` where the memory is not above 0.
    """
    check_positive("memory_gib", memory_gib)
    most = _MOST_ON_CPU if subject.device.type == "cpu" else _MOST_AT_ONCE
    return int(np.clip(memory_gib * _GIB / (4 * subject.numbers), 1, most))


def groups(neurons: np.ndarray, most: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Where some neurons stand among those given, and which they are, at most so many at a time.

    >>> [(where.start, some.tolist()) for where, some in groups(np.array([4, 7, 9]), 2)]
    [(0, [4, 7]), (2, [9])]
    """
    for start in range(0, len(neurons), max(1, most)):
        where = slice(start, min(start + max(1, most), len(neurons)))
        yield where, neurons[where]


def slopes(subject: Subject, neurons: Tensor, images: Tensor, *, of_drive: bool = False) -> Tensor:
    """Gradient of each neuron's response, or drive, with respect to images of its own.

    images: (n, m, n_channels, height, width), or (m, n_channels, height, width), the same for all; returns the former.
    """
    if images.ndim == 4:
        images = images.expand(len(neurons), *images.shape)
    shown = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        found = subject.drives(neurons, shown) if of_drive else subject.rates_of(neurons, shown)
        (gradient,) = torch.autograd.grad(found.sum(), shown)
    return gradient
