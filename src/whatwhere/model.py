"""The model: core, readout, bias and output nonlinearity, r_n = f(sum_ijk c_kij q_kijn + b_n)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.alignment import chance_scores, shared_kernels, start_probabilities
from whatwhere.checks import check_choice
from whatwhere.config import WHOLE_EVERY, CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions
from whatwhere.core import NONLINEARITIES, Core, UnitBatchNorm, map_offset, receptive_field
from whatwhere.errors import OptionError
from whatwhere.initialisation import (
    decorrelation,
    filtered,
    initial_bias,
    mask_peaks,
    signal_std,
    spike_triggered_averages,
)
from whatwhere.local_features import fit_local_features
from whatwhere.location_posterior import posterior
from whatwhere.neuron_types import align_types, framed, start_features
from whatwhere.parallel import Parallel
from whatwhere.penalties import weighted_sum
from whatwhere.readouts import READOUTS, PosteriorReadout, Start
from whatwhere.stored_images import Images
from whatwhere.stored_responses import Responses, mean_of

SHRUNKEN = ("mask_l1", "feature_l1", "product_l1")
"""Penalties of readouts that proximal steps take; the core's group penalty is split, see `Core.group_sparsity`."""

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

    Raises `OptionError` for a readout that is not known, or a penalty that the readout does not have; `InputError`
    for a kernel larger than the image.
    """

    def __init__(self, readout: str, options: ModelOptions, shapes: Shapes) -> None:
        super().__init__()
        check_choice("readout", readout, READOUTS)
        check_options(readout, options)
        self.options, self.shapes = options, shapes
        self.core = Core(options.core, shapes.n_channels, shapes.height, shapes.width)
        self.readout = READOUTS[readout](shapes.n_neurons, self.core.output_shape, options.readout)
        if options.readout.hold_features:
            self.readout.may_hold()
        self.bias = nn.Parameter(torch.zeros(shapes.n_neurons), not self.readout.solved)
        self.nonlinearity = NONLINEARITIES[options.readout.nonlinearity]()

    compiled_core: Callable[[Tensor], Tensor] | None = None
    """What computes the core's maps in training, where it was compiled."""

    def forward(self, images: Tensor) -> Tensor:
        core = self.compiled_core if self.training and self.compiled_core is not None else self.core
        maps = self._dropped(core(images))  # (n_images, K, h, w)
        drive = self.readout(maps) + self.bias  # (n_images, n_neurons)
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

    def penalty(self, options: PenaltyOptions, predictions: Tensor, *, smooth_only: bool = False) -> Tensor:
        """All penalties with their strengths, a scalar; `smooth_only`: but for what proximal steps do."""
        terms = {
            **self.readout.penalties(predictions),
            "smoothness": lambda: self.core.smoothness(options.relative),
            "group_sparsity": lambda: self.core.group_sparsity(options.relative, smooth_only=smooth_only),
        }
        strengths = options.single()
        if smooth_only:
            strengths |= dict.fromkeys(SHRUNKEN, 0.0)
        return weighted_sum(strengths, terms, predictions.new_zeros(()))

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


def check_options(readout: str, options: ModelOptions) -> None:
    """Raises `OptionError` for options that contradict each other, for every candidate strength."""
    if options.training.loss == "poisson" and options.readout.nonlinearity == "identity":
        raise OptionError(
            "the poisson loss needs predictions of 0 or more, but the output nonlinearity is 'identity': choose"
            " readout.nonlinearity 'softplus' or 'relu', or the loss 'squared'."
        )
    _check_choices(readout, options.readout)
    if readout == "posterior" and options.readout.nonlinearity == "identity" and options.penalties.feature_l1:
        raise OptionError(
            f"feature_l1 (={options.penalties.feature_l1}) has nothing to act on: with the output nonlinearity"
            " 'identity' the posterior readout solves for its feature weights. Set it to 0."
        )
    if readout == "posterior" and options.readout.nonlinearity == "identity" and options.readout.start != "average":
        raise OptionError(
            f"start {options.readout.start!r} is for neurons with an output nonlinearity: with 'identity' the posterior"
            " readout solves for feature weights and judges places by likelihoods of its own. Choose start 'average'."
        )
    if options.readout.hold_features and (options.readout.start == "average" or _n_features(options.core) == 1):
        raise OptionError(
            f"hold_features (={options.readout.hold_features}) has nothing to act on: it is for feature weights that"
            " start from types. Set it to 0, or give several feature maps and choose start 'types' or 'features'."
        )
    if options.readout.start == "types" and _n_features(options.core) == 1:
        raise OptionError(
            "start 'types' has nothing to act on: with one feature map all neurons are of one type. Choose start"
            " 'average', or give the last layer more maps."
        )
    for penalties in options.penalties.candidates():
        _check_strengths(readout, penalties, options.core)
        if options.training.proximal and not _is_sparse(readout, penalties):
            raise OptionError(
                "proximal has nothing to act on: no penalty of these strengths makes weights sparse. Set it to false,"
                f" or give one of {', '.join(map(repr, sorted(_sparse(readout))))}."
            )
        if options.training.whole_every != WHOLE_EVERY and not (options.training.proximal and readout == "factorized"):
            raise OptionError(
                f"whole_every (={options.training.whole_every}) has nothing to act on: it is for proximal steps of the"
                f" factorized readout. Leave it at {WHOLE_EVERY}."
            )
        if readout == "factorized" and options.readout.feature_norm == "free" and _n_features(options.core) > 1:
            _check_scale(penalties.single())


def _check_choices(readout: str, options: ReadoutOptions) -> None:
    """No choice that the readout would ignore."""
    default = ReadoutOptions()
    of_some = frozenset().union(*(kind.choices for kind in READOUTS.values()))
    for name in sorted(of_some - READOUTS[readout].choices):
        value = getattr(options, name)
        if value != getattr(default, name):
            raise OptionError(
                f"the {readout} readout has no option {name!r} (={value!r}): leave it at {getattr(default, name)!r}."
            )


def _check_strengths(readout: str, penalties: PenaltyOptions, core: CoreOptions) -> None:
    """No strength that the model would ignore or escape."""
    strengths = penalties.single()
    allowed = READOUTS[readout].strengths | {"smoothness", "group_sparsity"}
    for name, strength in strengths.items():
        if strength and name not in allowed:
            raise OptionError(
                f"the {readout} readout has no penalty {name!r} (={strength}): it has"
                f" {', '.join(map(repr, sorted(allowed)))}. Set it to 0."
            )
    if readout == "factorized" and _n_features(core) == 1 and strengths["feature_l1"]:
        raise OptionError(
            f"feature_l1 (={strengths['feature_l1']}) has nothing to act on: with one feature map there are no feature"
            " weights. Set it to 0, or give the last layer more maps."
        )
    if strengths["group_sparsity"] and core.n_layers == 1:
        raise OptionError(
            f"group_sparsity (={strengths['group_sparsity']}) has nothing to act on: it is for the layers after the"
            " first, and the core has one. Set it to 0, or give kernel_sizes for more layers."
        )
    escaped = [name for name in ("mask_l1", "feature_l1", "product_l1", "weight_l2") if strengths[name]]
    if escaped and not core.batch_norm and (penalties.relative or not strengths["smoothness"]):
        raise OptionError(
            f"{escaped[0]} (={strengths[escaped[0]]}) without batch normalisation is no penalty: the kernels grow"
            " instead. Set core.batch_norm to true, or hold the kernels by an absolute smoothness (relative=false)."
        )


def _sparse(readout: str) -> frozenset[str]:
    """The penalties of a model that make weights exactly 0 by proximal steps."""
    return (READOUTS[readout].strengths & frozenset(SHRUNKEN)) | {"group_sparsity"}


def _is_sparse(readout: str, penalties: PenaltyOptions) -> bool:
    strengths = penalties.single()
    return any(strengths[name] for name in _sparse(readout))


def _n_features(core: CoreOptions) -> int:
    return core.layers()[-1].n_maps


def _check_scale(strengths: dict[str, float]) -> None:
    """No scale that escapes its penalty: (a m, w / a) is the same model."""
    mask, feature = strengths["mask_l1"], strengths["feature_l1"]
    if bool(mask) != bool(feature):
        raise OptionError(
            f"mask_l1 (={mask}) without feature_l1 (={feature}), or the reverse, is no penalty while"
            " feature_norm='free': the other factor grows instead. Give both, use product_l1, or choose"
            " feature_norm='unit'."
        )


@torch.no_grad()
def initialize(model: Model, images: Images, responses: Responses, seed: int) -> None:
    """Sets every parameter from the data: kernels, masks at the peaks of the decorrelated averages, biases.

    images: (n_images, C, H, W), responses: (n_images, n_neurons), training part alone, in the units of the fit.
    Batch normalisation starts with the statistics of the data under the initial kernels.
    """
    generator = torch.Generator().manual_seed(seed)
    options = model.options
    model.core.initialize(generator)
    averages = spike_triggered_averages(images, responses)
    offset, map_size = map_offset(options.core), model.core.output_shape[1:]
    some = spread(images, _MOST_IMAGES)
    n_features = model.core.output_shape[0]
    evidence = scores = features = None
    if options.readout.start == "features":
        evidence, peaks, types = fit_local_features(
            images, responses, map_size, offset, options.readout.prior_ridges, n_features, seed
        )
        features = start_features(types, n_features)
    else:
        whitening = decorrelation(some)
        seen = filtered(averages, whitening)
        scores = chance_scores(seen, filtered(some, whitening).std(0, correction=0), responses)
        peaks = mask_peaks(seen, map_size, offset, options.readout.sta_smoothing)
        if options.readout.start == "types":
            peaks, features = start_types(model, seen, peaks, seed)
    positions = np.stack(np.unravel_index(peaks.cpu().numpy(), map_size), 1) + np.floor(offset).astype(int)
    reach = max(options.core.layers()[0].kernel_size) // 2
    judged = spread(images, _MOST_JUDGED), spread(responses, _MOST_JUDGED)
    amplitudes = signal_std(*judged, averages, positions, reach)
    model.readout.initialize(Start(peaks, amplitudes, options.readout.mask_noise, features), generator)
    if options.readout.hold_features:
        model.readout.held.copy_(model.readout.weights)
    if isinstance(model.readout, PosteriorReadout):
        start_places(model, scores, evidence)
    set_statistics(model, spread(images, max(options.training.batch_size, 512)))
    model.eval()
    drive = torch.cat([model.readout(model.core(chunk)) for chunk in some.split(options.training.batch_size)])
    mean = mean_of(responses).cpu().numpy()
    bias = initial_bias(drive.double().cpu().numpy(), mean, options.readout.nonlinearity)
    model.bias.copy_(torch.from_numpy(bias))


def start_types(model: Model, averages: Tensor, peaks: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Places (n_neurons,) and feature weights (n_neurons, K) of neurons that fall into types, from their averages.

    A core of one layer starts with the kernels of the types, too. averages: (n_neurons, C, H, W), peaks: (n_neurons,).
    """
    core, options = model.core, model.options.core
    field = receptive_field(options)
    seen = framed(averages, core.output_shape[1:], map_offset(options), field)
    found = align_types(seen, peaks, field, core.output_shape[0], seed)
    if len(core.layers) == 1 and core.layers[0].depthwise is None:
        kernels = core.layers[0].spatial_kernels()
        known = found.kernels.flatten(1).any(1)
        kernels[known] = found.kernels[known] * options.kernel_std * kernels[0].numel() ** 0.5
    return found.places, start_features(found.types, core.output_shape[0])


@torch.no_grad()
def start_places(model: Model, scores: Tensor | None, evidence: Tensor | None = None) -> None:
    """The posterior before any fit, and for a core of one layer the kernels that its neurons share.

    scores: (n_neurons, C, H, W), see `chance_scores`, or evidence: (n_neurons, h * w), see `LocalFit`; places follow
    from either, and evidence is kept. They are those of the smallest width.
    """
    core, readout, options = model.core, model.readout, model.options
    assert isinstance(readout, PosteriorReadout)
    layer = core.layers[0]
    smoothing = options.readout.sta_smoothing
    if evidence is not None:
        readout.set_local_evidence(evidence)
        places = posterior(evidence, options.readout.temperature).view(-1, *core.output_shape[1:])
    elif scores is None:
        raise AssertionError("places start from scores or from evidence")
    elif len(core.layers) == 1 and layer.depthwise is None and options.readout.start != "types":  # has its kernels
        kernels = layer.spatial_kernels()
        found, places = shared_kernels(
            layer.padded(scores), options.core.layers()[0].kernel_size, smoothing, len(kernels)
        )
        kernels[: len(found)] = found * options.core.kernel_std * kernels[0].numel() ** 0.5
    else:
        places = start_probabilities(scores, core.output_shape[1:], map_offset(options.core), smoothing)
    probabilities = torch.zeros_like(readout.posterior)
    probabilities[:, readout.smallest_width] = places
    readout.set_posterior(probabilities)


def spread(rows: Images | Responses, most: int) -> Tensor:
    """At most `most` rows, and 1 GiB, evenly from the first to the last: a recording may begin unlike it goes on."""
    most = min(most, len(rows), max(_FEWEST_SPREAD, _MOST_SPREAD // (4 * math.prod(rows.shape[1:]))))
    return rows[torch.linspace(0, len(rows) - 1, most, device=rows.device).long()]


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
