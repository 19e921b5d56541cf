"""The model: core, readout, bias and output nonlinearity, r_n = f(sum_ijk c_kij q_kijn + b_n)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.alignment import chance_scores, shared_kernels, start_probabilities
from whatwhere.checks import check_choice
from whatwhere.config import ModelOptions, PenaltyOptions
from whatwhere.core import NONLINEARITIES, Core, UnitBatchNorm, map_offset, receptive_field
from whatwhere.initialisation import (
    decorrelation,
    filtered,
    initial_bias,
    mask_peaks,
    signal_std,
    spike_triggered_averages,
)
from whatwhere.local_features import fit_together
from whatwhere.location_posterior import posterior
from whatwhere.neuron_types import align_types, framed, start_features
from whatwhere.option_checks import SHRUNKEN, check_options
from whatwhere.parallel import Parallel
from whatwhere.penalties import weighted_sum
from whatwhere.readouts import READOUTS, PosteriorReadout, Start
from whatwhere.stored_images import Images
from whatwhere.stored_responses import Responses, mean_of

_OF_DROPOUT = 2
"""Tells its draws from the others of a step."""

_MOST_IMAGES = 2048
"""Images that the initial biases and statistics are computed from."""

_FEWEST_SPREAD, _MOST_SPREAD = 256, 2**30
"""Images, and bytes, of what stands for all of them."""

_MOST_JUDGED = 8192
"""Images that initial amplitudes are computed from."""


@dataclass(frozen=True)
class Shapes:
    """Sizes that the data fix: channels, height and width of the images, and the number of neurons."""

    n_channels: int
    height: int
    width: int
    n_neurons: int


class Model(nn.Module):
    """Images (n_images, C, H, W) to predicted responses (n_images, n_neurons), both in the units of the fit.

    core: that of another model with the same options, which the two then share. frozen: the core stays as it is, its
    parameters and the statistics of its normalisation alike, and is not penalised. Raises `OptionError` for a readout
    that is not known, or a penalty that the readout does not have; `InputError` for a kernel larger than the image.
    """

    def __init__(
        self, readout: str, options: ModelOptions, shapes: Shapes, *, core: Core | None = None, frozen: bool = False
    ) -> None:
        super().__init__()
        check_choice("readout", readout, READOUTS)
        check_options(readout, options, frozen=frozen)
        self.options, self.shapes, self.frozen = options, shapes, frozen
        self.core = Core(options.core, shapes.n_channels, shapes.height, shapes.width) if core is None else core
        self.core.requires_grad_(not frozen)
        self.readout = READOUTS[readout](shapes.n_neurons, self.core.output_shape, options.readout)
        if options.readout.hold_features:
            self.readout.may_hold(options.readout.hold_features)
        self.bias = nn.Parameter(torch.zeros(shapes.n_neurons), not self.readout.solved)
        self.nonlinearity = NONLINEARITIES[options.readout.nonlinearity]()

    compiled_core: Callable[[Tensor], Tensor] | None = None
    """What computes the core's maps in training, where it was compiled."""

    @property
    def members(self) -> "tuple[Model, ...]":
        """One for each recording that is fitted, see `shared_model`: this model alone."""
        return (self,)

    def forward(self, images: Tensor) -> Tensor:
        return self.respond(self.maps(images))

    def maps(self, images: Tensor) -> Tensor:
        """The core's feature maps of images (n_images, C, H, W): (n_images, K, h, w)."""
        core = self.compiled_core if self.training and self.compiled_core is not None else self.core
        return core(images)

    def respond(self, maps: Tensor) -> Tensor:
        """Predictions (n_images, n_neurons) from feature maps (n_images, K, h, w)."""
        drive = self.readout(self._dropped(maps)) + self.bias  # (n_images, n_neurons)
        return self.nonlinearity(drive)

    def _dropped(self, maps: Tensor) -> Tensor:
        """In training the share `dropout` of features set to 0, the others scaled up (Srivastava et al. 2014)."""
        share = self.options.readout.dropout
        if not (self.training and share):
            return maps
        start, stop, whole = self.readout.drawn_for(len(maps))
        generator = torch.Generator(maps.device).manual_seed(self.readout.step_seed ^ _OF_DROPOUT)
        kept = torch.rand((whole, *maps.shape[1:]), generator=generator, device=maps.device)[start:stop] >= share
        return maps * kept / (1 - share)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.core.eval()  # or the statistics of its normalisation would move
        return self

    def penalty(self, options: PenaltyOptions, predictions: Tensor, *, smooth_only: bool = False) -> Tensor:
        """All penalties with their strengths, a scalar; `smooth_only`: but for what proximal steps do."""
        of_readout = self.readout_penalty(options, predictions, smooth_only=smooth_only)
        return self.with_core_penalty(of_readout, options, smooth_only=smooth_only)

    def readout_penalty(self, options: PenaltyOptions, predictions: Tensor, *, smooth_only: bool = False) -> Tensor:
        """Those of the readout, each a mean over this model's neurons."""
        strengths = of_gradient(options, smooth_only=smooth_only)
        return weighted_sum(strengths, self.readout.penalties(predictions), predictions.new_zeros(()))

    def with_core_penalty(self, total: Tensor, options: PenaltyOptions, *, smooth_only: bool = False) -> Tensor:
        """A scalar and, unless it is frozen, the penalties of the core."""
        terms = {
            "smoothness": lambda: self.core.smoothness(options.relative),
            "group_sparsity": lambda: self.core.group_sparsity(options.relative, smooth_only=smooth_only),
        }
        return total if self.frozen else weighted_sum(of_gradient(options, smooth_only=smooth_only), terms, total)

    def share(self, parallel: Parallel) -> None:
        """Normalises by the statistics of all the processes' images in training."""
        for module in self.modules():
            if isinstance(module, UnitBatchNorm):
                module.parallel = parallel

    def locations(self) -> np.ndarray:
        """Where each neuron looks, (n_neurons, 2): row and column in pixels of the image.

        The peak of its mask, or the mean of its Gaussian. NaN for a neuron whose mask is zero everywhere.
        """
        return self.readout.positions().cpu().numpy() + map_offset(self.options.core)


def of_gradient(options: PenaltyOptions, *, smooth_only: bool = False) -> dict[str, float]:
    """Strengths of the penalties whose gradient is followed; `smooth_only`: 0 for those that proximal steps take."""
    strengths = options.single()
    return strengths | dict.fromkeys(SHRUNKEN, 0.0) if smooth_only else strengths


def spread(rows: Images | Responses, most: int) -> Tensor:
    """At most `most` rows, and 1 GiB, evenly from the first to the last: a recording may begin unlike it goes on."""
    most = min(most, len(rows), max(_FEWEST_SPREAD, _MOST_SPREAD // (4 * math.prod(rows.shape[1:]))))
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).long()]


def initialize(model: Model, images: Images, responses: Responses, seed: int, *, keep_core: bool = False) -> None:
    """Sets every parameter from the data: kernels, masks at the peaks of the decorrelated averages, biases.

    images: (n_images, C, H, W), responses: (n_images, n_neurons), training part alone, in the units of the fit.
    Batch normalisation starts with the statistics of the data under the initial kernels. keep_core: the core is a
    fitted one and stays as it is; neurons then start as alike as averages (`start="average"`) have them.
    """
    initialize_together([model], [(images, responses)], seed, keep_core=keep_core)


class _Guess(NamedTuple):
    """What is known of a recording's neurons before any fit.

    averages, and seen: decorrelated ones, (n_neurons, C, H, W); scores: see `chance_scores`; evidence: see `LocalFit`;
    peaks and features: see `Start`. Where a neuron's place is not judged by something, that has no elements.
    """

    averages: Tensor
    peaks: Tensor
    seen: Tensor = torch.empty(0)
    scores: Tensor = torch.empty(0)
    evidence: Tensor = torch.empty(0)
    features: Tensor | None = None


@torch.no_grad()
def initialize_together(
    models: Sequence[Model], shown: Sequence[tuple[Images, Responses]], seed: int, *, keep_core: bool = False
) -> None:
    """As `initialize`, of models that share a core, each with its own images and responses.

    Types, and the kernels that neurons have in common, are those of all neurons together; statistics those of as many
    images of each recording.
    """
    generator = torch.Generator().manual_seed(seed)
    first = models[0]
    options, offset = first.options, map_offset(first.options.core)
    if not keep_core:
        first.core.initialize(generator)
    guesses = _by_features(first, shown, seed) if options.readout.start == "features" else _by_averages(first, shown)
    if options.readout.start == "types":
        guesses = _of_types(first, guesses, seed)
    reach = max(options.core.layers()[0].kernel_size) // 2
    for model, (images, responses), guess in zip(models, shown, guesses, strict=True):
        peaks = np.unravel_index(guess.peaks.cpu().numpy(), model.core.output_shape[1:])
        positions = np.stack(peaks, 1) + np.floor(offset).astype(int)
        judged = spread(images, _MOST_JUDGED), spread(responses, _MOST_JUDGED)
        amplitudes = signal_std(*judged, guess.averages, positions, reach)
        start = Start(guess.peaks, amplitudes, options.readout.mask_noise, guess.features)
        model.readout.initialize(start, generator)
        if options.readout.hold_features:
            model.readout.held.copy_(model.readout.weights)
    if isinstance(first.readout, PosteriorReadout):
        _start_places(models, guesses, keep_core)
    if not keep_core:
        most = min(max(options.training.batch_size, 512), *(len(images) for images, _ in shown))
        set_statistics(first, torch.cat([spread(images, most) for images, _ in shown]))
    for model, (images, responses) in zip(models, shown, strict=True):
        _start_bias(model, images, responses)


def _start_bias(model: Model, images: Images, responses: Responses) -> None:
    """Such that the mean prediction is the mean response."""
    model.eval()
    some = spread(images, _MOST_IMAGES).split(model.options.training.batch_size)
    drive = torch.cat([model.readout(model.core(chunk)) for chunk in some])
    mean = mean_of(responses).cpu().numpy()
    bias = initial_bias(drive.double().cpu().numpy(), mean, model.options.readout.nonlinearity)
    model.bias.copy_(torch.from_numpy(bias))


def _by_features(model: Model, shown: Sequence[tuple[Images, Responses]], seed: int) -> list[_Guess]:
    """Places and types by a fixed bank of local features."""
    n_features, *map_size = model.core.output_shape
    ridges, offset = model.options.readout.prior_ridges, map_offset(model.options.core)
    fits = fit_together(shown, (map_size[0], map_size[1]), offset, ridges, n_features, seed)
    return [
        _Guess(
            spike_triggered_averages(*some),
            fit.places,
            evidence=fit.evidence,
            features=start_features(fit.types, n_features),
        )
        for some, fit in zip(shown, fits, strict=True)
    ]


def _by_averages(model: Model, shown: Sequence[tuple[Images, Responses]]) -> list[_Guess]:
    """Places at the peaks of the decorrelated averages."""
    options, guesses = model.options, []
    for images, responses in shown:
        averages, some = spike_triggered_averages(images, responses), spread(images, _MOST_IMAGES)
        whitening = decorrelation(some)
        seen = filtered(averages, whitening)
        scores = chance_scores(seen, filtered(some, whitening).std(0, correction=0), responses)
        peaks = mask_peaks(seen, model.core.output_shape[1:], map_offset(options.core), options.readout.sta_smoothing)
        guesses.append(_Guess(averages, peaks, scores=scores, seen=seen))
    return guesses


def _of_types(model: Model, guesses: list[_Guess], seed: int) -> list[_Guess]:
    """Places and feature weights of neurons that fall into types, from their averages.

    A core of one layer starts with the kernels of the types, too.
    """
    core, options = model.core, model.options.core
    field = receptive_field(options)
    seen = framed(torch.cat([guess.seen for guess in guesses]), core.output_shape[1:], map_offset(options), field)
    found = align_types(seen, torch.cat([guess.peaks for guess in guesses]), field, core.output_shape[0], seed)
    if len(core.layers) == 1 and core.layers[0].depthwise is None:
        kernels = core.layers[0].spatial_kernels()
        known = found.kernels.flatten(1).any(1)
        kernels[known] = found.kernels[known] * options.kernel_std * kernels[0].numel() ** 0.5
    features = start_features(found.types, core.output_shape[0])
    sizes = [len(guess.peaks) for guess in guesses]
    parts = zip(guesses, found.places.split(sizes), features.split(sizes), strict=True)
    return [guess._replace(peaks=places, features=of_type) for guess, places, of_type in parts]


def _start_places(models: Sequence[Model], guesses: Sequence[_Guess], keep_core: bool) -> None:
    """The posterior before any fit, and for a core of one layer the kernels that its neurons share.

    Places follow from scores (`chance_scores`) or from evidence (`LocalFit`), which is kept. They are those of the
    smallest width.
    """
    core, options = models[0].core, models[0].options
    smoothing, layer = options.readout.sta_smoothing, core.layers[0]
    sizes = [len(guess.peaks) for guess in guesses]
    if options.readout.start == "features":
        evidence = torch.cat([guess.evidence for guess in guesses])
        places = posterior(evidence, options.readout.temperature).view(-1, *core.output_shape[1:])
    else:
        scores = torch.cat([guess.scores for guess in guesses])
        has_kernels = keep_core or options.readout.start == "types"
        if len(core.layers) == 1 and layer.depthwise is None and not has_kernels:
            kernels = layer.spatial_kernels()
            size = options.core.layers()[0].kernel_size
            found, places = shared_kernels(layer.padded(scores), size, smoothing, len(kernels))
            kernels[: len(found)] = found * options.core.kernel_std * kernels[0].numel() ** 0.5
        else:
            places = start_probabilities(scores, core.output_shape[1:], map_offset(options.core), smoothing)
    for model, guess, some in zip(models, guesses, places.split(sizes), strict=True):
        readout = model.readout
        assert isinstance(readout, PosteriorReadout)
        if options.readout.start == "features":
            readout.set_local_evidence(guess.evidence)
        probabilities = torch.zeros_like(readout.posterior)
        probabilities[:, readout.smallest_width] = some
        readout.set_posterior(probabilities)


@torch.no_grad()
def set_statistics(model: Model, images: Tensor) -> None:
    """Running statistics of batch normalisation from these images, as if they had been seen for ever."""
    normalizations = [module for module in model.modules() if isinstance(module, UnitBatchNorm)]
    momenta = [module.momentum for module in normalizations]
    for module in normalizations:
        module.momentum = 1.0
    model.train()
    model.core(images)
    for module, momentum in zip(normalizations, momenta, strict=True):
        module.momentum = momentum
