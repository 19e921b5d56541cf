"""The Gaussian point readout: each neuron reads the maps at one point, drawn anew in training (Lurz et al. 2021)."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from whatwhere.config import ReadoutOptions
from whatwhere.penalties import mean_l1
from whatwhere.readouts.base import Readout, Start, draw_features

SPREADS: dict[str, tuple[int, ...]] = {"full": (2, 2), "uncorrelated": (2,), "isotropic": (1,)}
"""Shape of each neuron's A, by kind of covariance."""


class GaussianReadout(Readout):
    """sum_k w_kn c_k(p_n): the maps at one point (row, column), between pixels by bilinear interpolation.

    In training p_n = mu_n + A_n z with z ~ N(0, I), a draw for each image and neuron (`batch_sample=True`, the default
    of the published code): so a mean that is wrong still meets features worth moving to, and A narrows as the place
    becomes certain. Otherwise p_n = mu_n. A draw beyond the border reads the border. Lurz et al. 2021,
    "Generalization in data-driven models of primary visual cortex", and FullGaussian2d of their neuralpredictors.

    It differs from theirs in three things. mu starts at the peak of the decorrelated average, not at random near
    the centre; A at `position_std` times the identity, also where it is a full matrix; and lengths are in halves of
    the map's longer side on both axes, not of each its own, so that isotropic means so in pixels.
    """

    strengths: ClassVar[frozenset[str]] = frozenset({"feature_l1"})
    choices: ClassVar[frozenset[str]] = frozenset(
        {"dropout", "nonnegative_features", "hold_features", "covariance", "position_std"}
    )

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        n_features, height, width = map_shape
        self.n_neurons, self.map_shape, self.options = n_neurons, map_shape, options
        self.unit = max(height - 1, width - 1, 1) / 2
        """Pixels that `mean` and `spread` have as 1."""
        self.centre: Tensor
        self.register_buffer("centre", torch.tensor([(height - 1) / 2, (width - 1) / 2]), persistent=False)
        self.mean = nn.Parameter(torch.zeros(n_neurons, 2))  # row and column from the centre
        self.spread = nn.Parameter(torch.zeros(n_neurons, *SPREADS[options.covariance]))  # A
        self.weights = nn.Parameter(torch.full((n_neurons, n_features), 1.0 / n_features))

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        features = self._sampled(maps) if self.training else self._interpolated(maps)  # (n_images, K, n_neurons)
        return (features * self.weights.T).sum(1)  # (n_images, n_neurons)

    def _sampled(self, maps: Tensor) -> Tensor:
        generator = torch.Generator(maps.device).manual_seed(self.step_seed)
        start, stop, whole = self.drawn_for(len(maps))
        shape = (whole, self.n_neurons, 2)
        noise = torch.randn(shape, generator=generator, device=maps.device, dtype=self.mean.dtype)[start:stop]
        if self.spread.ndim == 3:
            offsets = torch.einsum("nij,bnj->bni", self.spread, noise)
        else:
            offsets = self.spread * noise
        points = (self.mean + offsets) * (self.unit / self.centre.clamp(min=0.5))  # -1 to 1 from border to border
        grid = points.flip(2)[:, :, None]  # (n_images, n_neurons, 1, 2), the column first
        features = functional.grid_sample(maps.to(grid.dtype), grid, padding_mode="border", align_corners=True)
        return features.squeeze(3)

    def _interpolated(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        features = flat.new_zeros(())
        for pixels, shares in zip(*self.corners(), strict=True):  # of the four, one after the other
            features = features + flat.index_select(2, pixels) * shares
        return features

    def corners(self) -> tuple[Tensor, Tensor]:
        """The four pixels around each mean, indices into h * w, and their shares: both (4, n_neurons).

        Beyond the border they are the border's own, so that no share is lost there.
        """
        height, width = self.map_shape[1:]
        point = self.centre + self.unit * self.mean  # (n_neurons, 2)
        low = point.detach().floor()
        above = point - low
        low = low.nan_to_num()  # a mean that is not a number shall give such predictions, not an index out of range
        rows, columns = (
            torch.stack([low[:, axis], low[:, axis] + 1]).clamp(0, size - 1).long()  # (2, n_neurons)
            for axis, size in enumerate((height, width))
        )
        of_row, of_column = (torch.stack([1 - above[:, axis], above[:, axis]]) for axis in (0, 1))
        pixels = rows[:, None] * width + columns
        return pixels.flatten(0, 1), (of_row[:, None] * of_column).flatten(0, 1)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        width = self.map_shape[2]
        self.move_to(torch.stack([start.peaks // width, start.peaks % width], 1))
        spread = torch.eye(2) if self.spread.ndim == 3 else torch.ones(self.spread.shape[1])
        self.spread.copy_((self.options.position_std * spread).expand_as(self.spread))
        weights = draw_features(self.n_neurons, self.map_shape[0], start.features, generator)
        self.weights.copy_(weights * start.amplitudes.cpu()[:, None])
        self.project()

    @torch.no_grad()
    def move_to(self, positions: Tensor) -> None:
        """Sets the means: row and column in pixels of the map, (n_neurons, 2)."""
        self.mean.copy_((positions.to(self.mean) - self.centre) / self.unit)

    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        return {"feature_l1": lambda: mean_l1(self.weights)}

    @torch.no_grad()
    def project(self) -> None:
        """Means inside the map, and feature weights above zero where that is asked for."""
        border = self.centre / self.unit
        self.mean.clamp_(-border, border)
        if self.options.nonnegative_features:
            self.weights.clamp_(min=0.0)

    @torch.no_grad()
    def masks(self) -> Tensor:
        """The shares of the four pixels around the mean: they sum to one."""
        pixels, shares = self.corners()
        masks = shares.new_zeros(self.n_neurons, self.map_shape[1] * self.map_shape[2])
        return masks.scatter_add_(1, pixels.T, shares.T).view(-1, *self.map_shape[1:])

    @torch.no_grad()
    def positions(self) -> Tensor:
        return (self.centre + self.unit * self.mean).double()

    @torch.no_grad()
    def covariances(self) -> Tensor:
        """A A^T of each neuron's position in training, row before column, in squared pixels: (n_neurons, 2, 2)."""
        spread = self.unit * self.spread
        if self.spread.ndim == 2:
            spread = torch.diag_embed(spread.expand(-1, 2))
        return spread @ spread.mT

    def feature_weights(self) -> Tensor:
        return self.weights.detach()
