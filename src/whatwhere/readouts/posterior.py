"""The posterior readout: where a neuron looks is a discrete unknown, so it is inferred rather than penalised."""

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from whatwhere.config import ReadoutOptions
from whatwhere.errors import OptionError
from whatwhere.location_posterior import blur, features_at_places
from whatwhere.noise_models import NOISE_MODELS, NoiseModel
from whatwhere.penalties import mean_l1
from whatwhere.readouts.base import Readout, Start, draw_features, mask_positions
from whatwhere.readouts.products import factorized_product, supported_product
from whatwhere.readouts.support import SupportCache

_LEFT_OUT = 1e-6
"""Of a mask, which sums to one, at most what pixels that are hardly possible have together; they are not read."""


class PosteriorReadout(Readout):
    """q_kijn = w_kn m_ijn with m_n = sum_s blur_s(q_n(s, .)), the expectation of the place under its posterior q_n.

    q_n(s, l) is the probability that neuron n looks at pixel l with a Gaussian of width s; it is no parameter, but set
    by `set_posterior` from the evidence (`location_inference`). In training, with `sampled`, a place is drawn from q_n
    for each image and neuron instead, and the map under its Gaussian read there: so the gradient is that of the
    expected log likelihood, not of the likelihood of the expectation.
    """

    strengths: ClassVar[frozenset[str]] = frozenset({"feature_l1"})
    choices: ClassVar[frozenset[str]] = frozenset(
        {
            "nonnegative_features",
            "hold_features",
            "noise",
            "widths",
            "sampled",
            "locate_every",
            "locate_from",
            "anneal_steps",
            "temperature",
            "prior_ridges",
        }
    )

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        _check(options)
        n_features, height, width = map_shape
        self.n_neurons, self.map_shape, self.options = n_neurons, map_shape, options
        self.solved = n_features == 1 and options.nonlinearity == "identity"
        self.weights = nn.Parameter(torch.full((n_neurons, n_features), 1.0 / n_features), not self.solved)
        self.cache = SupportCache(_LEFT_OUT / (height * width))
        self.posterior: Tensor
        self.mask: Tensor
        self.noise_number: Tensor
        self.coefficients: Tensor
        self.dispersion: Tensor
        self.register_buffer("posterior", torch.zeros(n_neurons, len(options.widths), height, width))
        self.register_buffer("mask", torch.zeros(n_neurons, height, width))
        self.register_buffer("noise_number", torch.zeros((), dtype=torch.int64))  # in NOISE_MODELS
        self.register_buffer("coefficients", torch.tensor([1.0, 0.0, 0.0]))
        self.register_buffer("dispersion", torch.ones(n_neurons))
        self.local_evidence: Tensor | None
        has_evidence = options.start == "features"
        self.register_buffer("local_evidence", torch.zeros(n_neurons, height * width) if has_evidence else None)
        self.evidence_renewed: Tensor | None
        self.register_buffer("evidence_renewed", torch.zeros((), dtype=torch.bool) if has_evidence else None)

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        if self.training and self.options.sampled:
            return (self._drawn(maps) * self.weights.T).sum(1)  # (n_images, n_neurons)
        support = None if self.training else self.cache.of(self.mask)
        if support is not None:
            return supported_product(support.gathered(self.mask), self.weights, maps, support)
        return factorized_product(self.mask.flatten(1), self.weights, maps)

    def _drawn(self, maps: Tensor) -> Tensor:
        """The features at a place drawn for each image and neuron, (n_images, K, n_neurons)."""
        start, stop, whole = self.drawn_for(len(maps))
        places = self.draw_places(whole, torch.Generator(maps.device).manual_seed(self.step_seed))[start:stop]
        index = places[:, None].expand(-1, maps.shape[1], -1)  # (n_images, K, n_neurons)
        return features_at_places(maps, self.options.widths).gather(2, index)

    def draw_places(self, n: int, generator: torch.Generator) -> Tensor:
        """Places from the posterior, n for each neuron: (n, n_neurons), indices into n_widths * h * w."""
        cumulative = self.posterior.flatten(1).cumsum(1)
        cumulative = cumulative / cumulative[:, -1:]
        level = torch.rand((self.n_neurons, n), generator=generator, device=cumulative.device, dtype=cumulative.dtype)
        places = torch.searchsorted(cumulative, level, right=True).T
        return places.clamp(max=cumulative.shape[1] - 1)  # of a posterior of zeros, before the start, the last place

    @torch.no_grad()
    def set_posterior(self, posterior: Tensor) -> None:
        """posterior: (n_neurons, n_widths, h, w), each neuron's sum to one."""
        self.posterior.copy_(posterior.view_as(self.posterior))
        blurred = [blur(self.posterior[:, i], width) for i, width in enumerate(self.options.widths)]
        self.mask.copy_(torch.stack(blurred).sum(0))

    @property
    def smallest_width(self) -> int:
        """The number of the width that is nearest to a single pixel."""
        return self.options.widths.index(min(self.options.widths))

    @torch.no_grad()
    def set_local_evidence(self, evidence: Tensor, *, renewed: bool = False) -> None:
        """Keeps what a fixed bank of features says of each place: log evidence, (n_neurons, h * w).

        renewed: of responses whose noise was made constant.
        """
        assert self.local_evidence is not None
        assert self.evidence_renewed is not None
        self.local_evidence.copy_(evidence)
        self.evidence_renewed.fill_(renewed)

    def noise(self) -> NoiseModel:
        """The noise model as estimated last."""
        return NoiseModel(NOISE_MODELS[int(self.noise_number)], self.coefficients, self.dispersion)

    @torch.no_grad()
    def set_noise(self, noise: NoiseModel) -> None:
        """Keeps a noise model and its estimates."""
        self.noise_number.fill_(NOISE_MODELS.index(noise.kind))
        self.coefficients.copy_(noise.coefficients)
        self.dispersion.copy_(noise.dispersion)

    def train(self, mode: bool = True) -> Self:
        self.cache.clear()
        return super().train(mode)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        places = torch.zeros(self.n_neurons, *self.posterior.shape[1:]).flatten(2)  # (n_neurons, n_widths, h * w)
        places[torch.arange(self.n_neurons), self.smallest_width, start.peaks.cpu()] = 1.0
        self.set_posterior(places.to(self.posterior))
        self.set_noise(NoiseModel("constant", torch.tensor([1.0, 0.0, 0.0]), torch.ones(self.n_neurons)))
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
        return self.mask

    def positions(self) -> Tensor:
        return mask_positions(self.mask)

    def feature_weights(self) -> Tensor:
        return self.weights.detach()


def _check(options: ReadoutOptions) -> None:
    if not options.widths:
        raise OptionError("widths is empty: a place needs at least one, 0 for a single pixel.")
    if options.noise == "poisson" and options.nonlinearity == "identity":
        raise OptionError(
            "the poisson noise needs predictions of 0 or more, but the output nonlinearity is 'identity': choose"
            " readout.nonlinearity 'softplus' or 'relu', or the noise 'rate'."
        )
