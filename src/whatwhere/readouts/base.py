"""What every readout offers: pooled feature maps, penalties, and the *what* and *where* of each neuron."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from whatwhere.parallel import Part

_TINY = 1e-12
_LEAST_FACTOR = 1e-3
"""Of feature weights that are held: at 0 they could not return."""


class Start(NamedTuple):
    """What is known of neurons before any fit.

    - peaks (n_neurons,): the pixel of the map where each looks, an index into h * w
    - amplitudes (n_neurons,): standard deviation of its signal
    - mask_noise: standard deviation of initial masks off their peak
    - features (n_neurons, K): feature weights that sum to one; None: all alike
    """

    peaks: Tensor
    amplitudes: Tensor
    mask_noise: float
    features: Tensor | None = None


class Readout(nn.Module, ABC):
    """sum_ijk c_kij q_kijn: feature maps (n_images, K, h, w) to the drive of each neuron (n_images, n_neurons)."""

    strengths: ClassVar[frozenset[str]]
    """Names of the options in `PenaltyOptions` that this readout has."""

    choices: ClassVar[frozenset[str]]
    """Names of the options in `ReadoutOptions` that this readout has beside those that all have."""

    n_neurons: int
    map_shape: tuple[int, int, int]
    """(K, h, w) of the feature maps that it pools."""

    step_seed: int = 0
    """Of all that `forward` draws in training. Set anew before each step, so that a resumed fit draws the same."""

    step_part: Part | None = None
    """Which of the step's images the maps are of, where processes share them; None: of all. What is drawn is of all."""

    solved: bool = False
    """Whether feature weights and bias are solved for where the places are inferred, not stepped by the optimiser."""

    weights: Tensor
    """Feature weights, (n_neurons, K); of the fully connected readout (n_neurons, K, h, w)."""

    held: Tensor
    """Feature weights as they start, (n_neurons, K), 0 once they are let go; there after `may_hold`."""

    n_feature_steps: int = 0
    """Steps at a fit's beginning in which feature weights keep the proportions of `held`."""

    @abstractmethod
    def forward(self, maps: Tensor) -> Tensor:
        """(n_images, K, h, w) to (n_images, n_neurons)."""

    @abstractmethod
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        """Starts each neuron where it is thought to look; what is random comes from the generator."""

    def drawn_for(self, n_images: int) -> Part:
        """Of the images that something is drawn for in training, those of the maps."""
        return Part(0, n_images, n_images) if self.step_part is None else self.step_part

    def may_hold(self, n_steps: int) -> None:
        """Makes room for `held`, which a fit that goes on later needs again, for so many steps."""
        self.n_feature_steps = n_steps
        self.register_buffer("held", torch.ones_like(self.weights))

    def holds_features(self, step: int) -> bool:
        """Whether feature weights keep their proportions in this step."""
        return step < self.n_feature_steps and bool(self.held.any())

    def holds_masks(self, step: int) -> bool:
        """Whether masks are one pixel in this step, which is inferred."""
        return False

    @property
    def n_held_steps(self) -> int:
        """Steps of a fit's beginning in which something is held."""
        return self.n_feature_steps if self.holds_features(0) else 0

    def let_go(self) -> None:
        """Holds nothing: of a fit that starts from the parameters of another."""
        if self.n_feature_steps:
            self.held.zero_()

    def keep_one_pixel(self) -> None:
        """Masks back to the one pixel that they are held at, of which a step may have made more."""

    @torch.no_grad()
    def hold(self) -> None:
        """Feature weights in the proportions that they started with, each neuron's times the factor that fits best."""
        factors = (self.weights * self.held).sum(1) / self.held.square().sum(1).clamp(min=_TINY)
        self.weights.copy_(self.held * factors.clamp(min=_LEAST_FACTOR)[:, None])

    @abstractmethod
    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        """For each of `strengths` what it multiplies, a scalar; predictions (n_images, n_neurons)."""

    def shrunken(self, strengths: Mapping[str, float]) -> list[tuple[Tensor, Tensor | float]]:
        """What L1 penalties of these strengths shrink, with the derivative of the penalty by each |weight|.

        None of a readout without them; of a product of norms each factor's derivative holds the other as it is.
        """
        strength = strengths["feature_l1"]
        weights = getattr(self, "weights", None)
        if not strength or "feature_l1" not in self.strengths or not isinstance(weights, nn.Parameter):
            return []
        return [(weights, strength / self.n_neurons)]

    def limited(self, values: Tensor, thresholds: Tensor | float) -> Tensor | float:
        """The thresholds by which a proximal step shrinks values of `shrunken`, lowered where a constraint asks."""
        return thresholds

    @abstractmethod
    def project(self) -> None:
        """Moves the weights back to where their constraints hold; called after each step of the optimiser."""

    @abstractmethod
    def masks(self) -> Tensor:
        """*Where*: (n_neurons, h, w)."""

    @abstractmethod
    def positions(self) -> Tensor:
        """*Where*, as one point: row and column in pixels of the map, (n_neurons, 2), float64; NaN for nowhere."""

    @abstractmethod
    def feature_weights(self) -> Tensor:
        """*What*: (n_neurons, K)."""


def draw(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Numbers from N(mean, std^2), always drawn on the CPU so that every device starts from the same ones."""
    return torch.empty(shape).normal_(mean, std, generator=generator) if std else torch.full(shape, mean)


def draw_features(n_neurons: int, n_features: int, given: Tensor | None, generator: torch.Generator) -> Tensor:
    """Initial feature weights, (n_neurons, n_features): 1 / K each, or those given, and a little noise."""
    if given is None:
        return draw((n_neurons, n_features), 1.0 / n_features, 0.01, generator)
    return given.cpu() + draw((n_neurons, n_features), 0.0, 0.01, generator)


def mask_positions(masks: Tensor) -> Tensor:
    """Row and column of each mask's pixel of largest magnitude, (n_neurons, 2), float64.

    NaN for a mask (h, w) that is zero everywhere: it looks nowhere.

    >>> mask_positions(torch.tensor([[[0.0, 0.5, -2.0], [1.0, 0.0, 0.0]]]))
    tensor([[0., 2.]], dtype=torch.float64)
    """
    magnitudes, pixels = masks.flatten(1).abs().max(1)
    width = masks.shape[2]
    positions = torch.stack([pixels // width, pixels % width], 1).double()
    positions[magnitudes == 0] = torch.nan
    return positions
