"""The paper's readout: a sparse mask says *where*, a vector of feature weights says *what* (equation 3)."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from whatwhere.config import ReadoutOptions
from whatwhere.matrix_products import inner_products
from whatwhere.penalties import mean_l1, mean_product_l1
from whatwhere.readouts.base import Readout, Start, draw, draw_features, mask_positions
from whatwhere.readouts.products import factorized_product, supported_product
from whatwhere.readouts.support import Restricted, SupportCache

_LARGEST = 0.99
"""Of the largest value of a mask of norm one, the most that a proximal step takes."""

_SMALLEST = 0.01
"""Of the median neuron's amplitude, the least that one with a mask of norm one starts at: from 0 it could not grow."""


class FactorizedReadout(Readout):
    """q_kijn = m_ijn w_kn (Klindt et al. 2017, equation 3).

    (a m, w / a) is the same model. With one feature there is therefore no w (a buffer of ones stands in for it);
    with more, |w_n| = 1 or |m_n| = 1 is held by projection (`feature_norm="unit"`, `mask_norm="unit"`), or the scale is
    left free, which needs the product of the two norms, or both norms, to be penalised. Where |m_n| = 1, proximal steps
    of an L1 penalty are those on the sphere: they take from a mask what is small, and nothing from the neuron.

    With `hold_masks` each mask is at first one pixel, `pixels`, where `location_inference` moves it; -1 where masks are
    free from the first step on.
    """

    strengths: ClassVar[frozenset[str]] = frozenset({"mask_l1", "feature_l1", "product_l1"})
    choices: ClassVar[frozenset[str]] = frozenset(
        {
            "dropout",
            "noise",
            "nonnegative_masks",
            "nonnegative_features",
            "hold_features",
            "hold_masks",
            "locate_every",
            "locate_from",
            "prior_ridges",
            "feature_norm",
            "mask_norm",
            "mask_noise",
        }
    )

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        n_features, height, width = map_shape
        self.n_neurons, self.map_shape, self.options = n_neurons, map_shape, options
        self.mask = nn.Parameter(torch.zeros(n_neurons, height, width))
        self.weights: Tensor
        if n_features == 1:
            self.register_buffer("weights", torch.ones(n_neurons, 1))
        else:
            self.weights = nn.Parameter(torch.full((n_neurons, n_features), 1.0 / n_features))
        self.pixels: Tensor | None
        self.register_buffer("pixels", torch.zeros(n_neurons, dtype=torch.int64) if options.hold_masks else None)
        self.restricted: Restricted | None = None
        self.cache = SupportCache()

    def restrict(self, restricted: Restricted | None) -> None:
        """From here on the masks are these values on a support, not the parameter; None: the parameter."""
        self.restricted = restricted

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        if self.restricted is not None:
            return supported_product(self.restricted.values, self.weights, maps, self.restricted.support)
        support = None if self.training else self.cache.of(self.mask)
        if support is not None:
            return supported_product(support.gathered(self.mask), self.weights, maps, support)
        if maps.shape[1] == 1:  # no weights: a plain product
            return inner_products(maps.flatten(1), self.mask.flatten(1))
        return factorized_product(self.mask.flatten(1), self.weights, maps)  # (n_images, n_neurons)

    def train(self, mode: bool = True) -> Self:
        self.cache.clear()
        return super().train(mode)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        noise = 0.0 if self.pixels is not None else start.mask_noise
        mask = draw((self.n_neurons, self.map_shape[1] * self.map_shape[2]), 0.0, noise, generator)
        mask[torch.arange(self.n_neurons), start.peaks.cpu()] = start.amplitudes.cpu()
        self.mask.copy_(mask.view_as(self.mask))
        if self.map_shape[0] > 1:
            self.weights.copy_(draw_features(self.n_neurons, self.map_shape[0], start.features, generator))
        if self.pixels is not None:
            self.pixels.copy_(start.peaks)
        if self.options.mask_norm == "unit":
            self._scale_weights(start)
        self.project()

    def _scale_weights(self, start: Start) -> None:
        """Gives feature weights the scale that masks of norm one cannot have; a silent neuron's is small, but not 0."""
        lengths = self.mask.flatten(1).norm(dim=1)
        spoken = lengths[lengths > 0]
        self.weights.mul_(lengths.clamp(min=_SMALLEST * (spoken.median() if len(spoken) else 1.0))[:, None])
        peaks = start.peaks.to(self.mask.device)[:, None]
        silent = torch.zeros_like(self.mask).flatten(1).scatter_(1, peaks, (lengths == 0).to(self.mask)[:, None])
        self.mask.add_(silent.view_as(self.mask))

    def holds_masks(self, step: int) -> bool:
        return step < self.options.hold_masks and self.pixels is not None and bool((self.pixels >= 0).all())

    @property
    def n_held_steps(self) -> int:
        return max(super().n_held_steps, self.options.hold_masks if self.holds_masks(0) else 0)

    def let_go(self) -> None:
        super().let_go()
        if self.pixels is not None:
            self.pixels.fill_(-1)

    @torch.no_grad()
    def look_at(self, pixels: Tensor) -> None:
        """Moves held masks to pixels (n_neurons,), with the value that each has."""
        assert self.pixels is not None
        values = self.held_place()[1]
        self.pixels.copy_(pixels)
        self.mask.zero_()
        self.mask.flatten(1).scatter_(1, self.pixels[:, None], values[:, None])

    @torch.no_grad()
    def held_place(self) -> tuple[Tensor, Tensor]:
        """The pixel that each held mask is, and its value there: (n_neurons,) each."""
        assert self.pixels is not None
        return self.pixels, self.mask.flatten(1).gather(1, self.pixels[:, None])[:, 0]

    @torch.no_grad()
    def keep_one_pixel(self) -> None:
        assert self.pixels is not None
        if self.restricted is None:
            pixels, values = self.held_place()
            self.mask.zero_()
            self.mask.flatten(1).scatter_(1, pixels[:, None], values[:, None])
        else:
            support = self.restricted.support
            self.restricted.values.mul_(support.pixels == self.pixels[support.rows])

    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        return {
            "mask_l1": lambda: mean_l1(self.mask),
            "feature_l1": lambda: mean_l1(self.weights),
            "product_l1": lambda: mean_product_l1(self.mask.flatten(1), self.weights),
        }

    @torch.no_grad()
    def shrunken(self, strengths: Mapping[str, float]) -> list[tuple[Tensor, Tensor | float]]:
        """As `Readout.shrunken`; of a neuron whose mask or weights are all 0, the other factor waits as it is."""
        product = strengths["product_l1"] / self.n_neurons
        norms, of_weights = self._mask_norms(), self.weights.abs().sum(1)  # (n_neurons,)
        masks = (strengths["mask_l1"] / self.n_neurons + product * of_weights) * (of_weights > 0)
        if self.restricted is not None:
            found: list[tuple[Tensor, Tensor | float]] = [(self.restricted.values, masks[self.restricted.support.rows])]
        else:
            found = [(self.mask, masks[:, None, None])]
        if isinstance(self.weights, nn.Parameter):
            features = (strengths["feature_l1"] / self.n_neurons + product * norms) * (norms > 0)
            found.append((self.weights, features[:, None]))
        return found

    @torch.no_grad()
    def limited(self, values: Tensor, thresholds: Tensor | float) -> Tensor | float:
        """As `Readout.limited`: of |m_n| = 1 the largest value is left, however strong the penalty."""
        if self.options.mask_norm == "free" or values is self.weights:
            return thresholds
        sizes = values.clamp(min=0.0) if self.options.nonnegative_masks else values.abs()
        if self.restricted is None:
            most = sizes.amax((1, 2), keepdim=True)
        else:
            most = self.restricted.most(sizes)[self.restricted.support.rows]
        return torch.minimum(torch.as_tensor(thresholds).to(values), _LARGEST * most)

    def _mask_norms(self) -> Tensor:
        """|m_n|_1, (n_neurons,)."""
        return self.mask.abs().sum((1, 2)) if self.restricted is None else self.restricted.norms()

    def _mask_lengths(self) -> Tensor:
        """|m_n|_2, (n_neurons,)."""
        return self.mask.flatten(1).norm(dim=1) if self.restricted is None else self.restricted.lengths()

    @torch.no_grad()
    def project(self) -> None:
        restricted = self.restricted
        masks = self.mask if restricted is None else restricted.values
        if self.options.nonnegative_masks:
            masks.clamp_(min=0.0)
        if self.map_shape[0] == 1:
            return
        if self.options.nonnegative_features:
            self.weights.clamp_(min=0.0)
        if self.options.mask_norm == "unit":
            norms = self._mask_lengths()
            norms[norms == 0] = 1.0  # a mask that is 0 stays
            masks.div_(norms[:, None, None] if restricted is None else norms[restricted.support.rows])
        if self.options.feature_norm == "unit":
            norms = self.weights.norm(dim=1, keepdim=True)  # (n_neurons, 1)
            norms[norms == 0] = 1.0  # weights that are all 0 stay; the mask must not die with them
            self.weights.div_(norms)
            masks.mul_(norms.unsqueeze(2) if restricted is None else norms[restricted.support.rows, 0])

    def masks(self) -> Tensor:
        masks = self.mask.detach()
        if self.restricted is not None:
            masks = masks.clone()
            self.restricted.support.scatter_(masks, self.restricted.values.detach())
        return masks

    def positions(self) -> Tensor:
        return mask_positions(self.masks())

    def feature_weights(self) -> Tensor:
        return self.weights.detach()
