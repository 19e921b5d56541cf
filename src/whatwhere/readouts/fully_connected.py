"""The fully connected readout: every feature at every position has a weight of its own (McIntosh et al. 2016)."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from whatwhere.config import ReadoutOptions
from whatwhere.matrix_products import inner_products
from whatwhere.penalties import mean_l2
from whatwhere.readouts.base import Readout, Start, draw, draw_features, mask_positions


class FullyConnectedReadout(Readout):
    """q_kijn unconstrained (Klindt et al. 2017, section 5.1): L2 on the weights, L1 on the activations.

    Its *where* and *what* are the best rank-one approximation of q_n, (K, h * w), by singular values.
    """

    strengths: ClassVar[frozenset[str]] = frozenset({"weight_l2", "activity_l1"})
    choices: ClassVar[frozenset[str]] = frozenset({"mask_noise", "dropout"})

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        self.n_neurons, self.map_shape, self.options = n_neurons, map_shape, options
        self.weights = nn.Parameter(torch.zeros(n_neurons, *map_shape))

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        return inner_products(maps.flatten(1), self.weights.flatten(1))  # (n_images, n_neurons)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        n_features, height, width = self.map_shape
        weights = draw((self.n_neurons, n_features, height * width), 0.0, start.mask_noise, generator)
        weighed = draw_features(self.n_neurons, n_features, start.features, generator)
        weights[torch.arange(self.n_neurons), :, start.peaks.cpu()] = weighed * start.amplitudes.cpu()[:, None]
        self.weights.copy_(weights.view_as(self.weights))

    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        return {"weight_l2": lambda: mean_l2(self.weights), "activity_l1": lambda: predictions.abs().mean()}

    def project(self) -> None:
        """Nothing: the weights are free."""

    def masks(self) -> Tensor:
        return self._rank_one()[0]

    def positions(self) -> Tensor:
        return mask_positions(self.masks())

    def feature_weights(self) -> Tensor:
        return self._rank_one()[1]

    @torch.no_grad()
    def _rank_one(self) -> tuple[Tensor, Tensor]:
        """masks (n_neurons, h, w) with their largest entry positive, feature weights (n_neurons, K) of norm one."""
        left, values, right = torch.linalg.svd(self.weights.flatten(2), full_matrices=False)
        masks, features = right[:, 0] * values[:, :1], left[:, :, 0]
        signs = masks.gather(1, masks.abs().argmax(1, keepdim=True)).sign()
        return (masks * signs).view(self.n_neurons, *self.map_shape[1:]), features * signs
