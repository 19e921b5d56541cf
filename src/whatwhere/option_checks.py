"""Options of a convolutional model that contradict each other, or have nothing to act on: told before any work."""

from dataclasses import replace

from whatwhere.config import WHOLE_EVERY, CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.errors import OptionError
from whatwhere.readouts import READOUTS

SHRUNKEN = ("mask_l1", "feature_l1", "product_l1")
"""Penalties of readouts that proximal steps take; the core's group penalty is split, see `Core.group_sparsity`."""

SPARSE = (*SHRUNKEN, "group_sparsity")
"""Penalties that make weights exactly 0 by proximal steps; the last is the core's."""


def check_options(readout: str, options: ModelOptions, *, frozen: bool = False) -> None:
    """Raises `OptionError` for options that contradict each other, for every candidate strength.

    frozen: the core stays as it is, see `Model`.
    """
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
    if readout == "factorized":
        _check_masks(options.readout, options.training, _n_features(options.core))
    if options.training.proximal and not any(map(is_sparse, options.penalties.candidates())):
        raise OptionError(
            "proximal has nothing to act on: no penalty of these strengths makes weights sparse. Set it to false, or"
            f" give one of {', '.join(map(repr, sorted(READOUTS[readout].strengths & set(SPARSE) | {SPARSE[-1]})))}."
        )
    for penalties in options.penalties.candidates():
        _check_strengths(readout, penalties, options.core, frozen)
        if options.training.whole_every != WHOLE_EVERY and not (options.training.proximal and readout == "factorized"):
            raise OptionError(
                f"whole_every (={options.training.whole_every}) has nothing to act on: it is for proximal steps of the"
                f" factorized readout. Leave it at {WHOLE_EVERY}."
            )
        norms = options.readout.feature_norm, options.readout.mask_norm
        if readout == "factorized" and "unit" not in norms and _n_features(options.core) > 1:
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


def _check_masks(options: ReadoutOptions, training: TrainingOptions, n_features: int) -> None:
    """No choice about the factorised readout's masks that contradicts another, or has nothing to act on."""
    if options.mask_norm == "unit" and n_features == 1:
        raise OptionError(
            "mask_norm 'unit' leaves nothing that carries the scale: with one feature map there are no feature weights."
            " Choose mask_norm 'free', or give the last layer more maps."
        )
    if options.mask_norm == options.feature_norm == "unit":
        raise OptionError(
            "mask_norm and feature_norm are both 'unit': nothing carries the scale. Choose 'free' for one of them."
        )
    default = ReadoutOptions()
    if options.hold_masks and options.mask_noise != default.mask_noise:
        raise OptionError(
            f"mask_noise (={options.mask_noise}) has nothing to act on: with hold_masks (={options.hold_masks}) masks"
            f" are one pixel at first. Leave it at {default.mask_noise}, or set hold_masks to 0."
        )
    if options.hold_masks >= training.max_steps > 0:
        raise OptionError(
            f"hold_masks (={options.hold_masks}) leaves none of max_steps (={training.max_steps}) to free masks, on"
            " which their penalties could act: give fewer, or choose the fixed-mask readout."
        )
    inferred = options.hold_masks > options.locate_from
    for name in ("locate_every", "locate_from", "prior_ridges", "noise"):
        value = getattr(options, name)
        used = inferred or (name == "prior_ridges" and options.start == "features")
        used = used or (name == "locate_from" and options.hold_masks > 0)
        if value != getattr(default, name) and not used:
            raise OptionError(
                f"{name} (={value!r}) has nothing to act on: places of a factorized readout are inferred while its"
                f" masks are held, from locate_from (={options.locate_from}) on. Leave it at"
                f" {getattr(default, name)!r}, or give more hold_masks (={options.hold_masks})."
            )


def _check_strengths(readout: str, penalties: PenaltyOptions, core: CoreOptions, frozen: bool) -> None:
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
    if escaped and not (frozen or core.batch_norm) and (penalties.relative or not strengths["smoothness"]):
        raise OptionError(
            f"{escaped[0]} (={strengths[escaped[0]]}) without batch normalisation is no penalty: the kernels grow"
            " instead. Set core.batch_norm to true, or hold the kernels by an absolute smoothness (relative=false)."
        )


def is_sparse(penalties: PenaltyOptions) -> bool:
    """Whether proximal steps have anything to act on: a penalty of these single strengths makes weights exactly 0."""
    strengths = penalties.single()
    return any(strengths[name] for name in SPARSE)


def with_penalties(options: ModelOptions, penalties: PenaltyOptions) -> ModelOptions:
    """The options of one candidate: its strengths, and no proximal steps where these leave them nothing to do."""
    training = options.training
    if training.proximal and not is_sparse(penalties):
        training = replace(training, proximal=False, whole_every=WHOLE_EVERY)
    return replace(options, penalties=penalties, training=training)


def _n_features(core: CoreOptions) -> int:
    return core.layers()[-1].n_maps


def _check_scale(strengths: dict[str, float]) -> None:
    """No scale that escapes its penalty: (a m, w / a) is the same model."""
    mask, feature = strengths["mask_l1"], strengths["feature_l1"]
    if bool(mask) != bool(feature):
        raise OptionError(
            f"mask_l1 (={mask}) without feature_l1 (={feature}), or the reverse, is no penalty while"
            " both norms are 'free': the other factor grows instead. Give both, use product_l1, or choose"
            " feature_norm='unit' or mask_norm='unit'."
        )
