"""What every readout offers: pooled feature maps, penalties, and the *what* and *where* of each neuron."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn


class Readout(nn.Module, ABC):
    """sum_ijk c_kij q_kijn: feature maps (n_images, K, h, w) to the drive of each neuron (n_images, n_neurons)."""

    strengths: ClassVar[frozenset[str]]
    """Names of the options in `PenaltyOptions` that this readout has."""

    choices: ClassVar[frozenset[str]]
    """Names of the options in `ReadoutOptions` that this readout has beside those that all have."""

    n_neurons: int
    map_shape: tuple[int, int, int]
    """(K, h, w) of the feature maps that it pools."""

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """(n_images, K, h, w) to (n_images, n_neurons)."""

    @abstractmethod
    def initialize(self, peaks: Tensor, amplitudes: Tensor, mask_noise: float, generator: torch.Generator) -> None:
        """Starts each neuron at its pixel of the map.

        peaks: (n_neurons,) index into the h * w pixels; amplitudes: (n_neurons,) standard deviation of the signal.
        """

    @abstractmethod
    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        """For each of `strengths` what it multiplies, a scalar; predictions (n_images, n_neurons)."""

    @abstractmethod
    def project(self) -> None:
        """Moves the weights back to where their constraints hold; called after each step of the optimiser."""

    @abstractmethod
    def masks(self) -> Tensor:
        """*Where*: (n_neurons, h, w)."""

    @abstractmethod
    def feature_weights(self) -> Tensor:
        """*What*: (n_neurons, K)."""


def draw(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Numbers from N(mean, std^2), always drawn on the CPU so that every device starts from the same ones."""
    return torch.empty(shape).normal_(mean, std, generator=generator) if std else torch.full(shape, mean)
