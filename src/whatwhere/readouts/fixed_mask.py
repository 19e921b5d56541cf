"""The fixed mask: each neuron reads one pixel, chosen before the fit and never moved (Batty et al. 2017)."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from whatwhere.config import ReadoutOptions
from whatwhere.penalties import mean_l1
from whatwhere.readouts.base import Readout, Start, draw_features, mask_positions


class FixedMaskReadout(Readout):
    """q_kijn = w_kn where (i, j) is neuron n's pixel, 0 elsewhere (Klindt et al. 2017, section 5.1).

    The pixel is the peak of the decorrelated average; the feature weights carry the scale.
    """

    strengths: ClassVar[frozenset[str]] = frozenset({"feature_l1"})
    choices: ClassVar[frozenset[str]] = frozenset({"nonnegative_features", "hold_features", "dropout"})

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        self.n_neurons, self.map_shape, self.options = n_neurons, map_shape, options
        self.pixels: Tensor
        self.register_buffer("pixels", torch.zeros(n_neurons, dtype=torch.int64))
        self.weights = nn.Parameter(torch.full((n_neurons, map_shape[0]), 1.0 / map_shape[0]))

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        features = maps.flatten(2).index_select(2, self.pixels)  # (n_images, K, n_neurons)
        return (features * self.weights.T).sum(1)  # (n_images, n_neurons)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        self.pixels.copy_(start.peaks)
        weights = draw_features(self.n_neurons, self.map_shape[0], start.features, generator)
        self.weights.copy_(weights * start.amplitudes.cpu()[:, None])
        self.project()

    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        return {"feature_l1": lambda: mean_l1(self.weights)}

    @torch.no_grad()
    def project(self) -> None:
        if self.options.nonnegative_features:
            self.weights.clamp_(min=0.0)

    def masks(self) -> Tensor:
        one_hot = torch.nn.functional.one_hot(self.pixels, self.map_shape[1] * self.map_shape[2])
        return one_hot.view(self.n_neurons, *self.map_shape[1:]).to(self.weights)

    def positions(self) -> Tensor:
        return mask_positions(self.masks())

    def feature_weights(self) -> Tensor:
        return self.weights.detach()
