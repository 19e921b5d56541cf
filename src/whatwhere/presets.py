"""Default options: for recordings, for the paper's linear and nonlinear simulations, with each readout's strengths."""

from collections.abc import Mapping, Set
from dataclasses import is_dataclass, replace
from typing import Any

from whatwhere.checks import check_choice
from whatwhere.config import (
    WHOLE_EVERY,
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.option_checks import is_sparse
from whatwhere.plain_options import as_plain, make_options, merge

RECORDING = ModelOptions(readout=ReadoutOptions(sta_smoothing=4.0))
"""Recordings: a small core, softplus, Poisson loss, Adam at 3e-3, early stopping after few checks. Averages are noisy,
so their peaks are taken of wide regions."""

SIMULATION = ModelOptions(
    core=CoreOptions(
        kernel_sizes=(17,),
        n_maps=1,
        batch_norm_shift=False,
        nonlinearity="identity",
        last_nonlinearity="identity",
    ),
    readout=ReadoutOptions(nonlinearity="identity", sta_smoothing=1.5),
    training=TrainingOptions(
        loss="squared",
        learning_rate=1e-3,
        batch_size=256,
        check_every=50,
        patience=6,
        rate_factor=0.1,
        n_rates=2,
    ),
    preprocessing=PreprocessingOptions(standardize="none"),
)
"""The paper's linear simulations (section 4.1): one 17 x 17 kernel, squared error, Adam at 1e-3, batches of 256; after
300 steps without a better validation loss back to the best and a tenth of the rate, the second time stop."""

NONLINEAR = ModelOptions(
    core=CoreOptions(
        kernel_sizes=(5, 5, 5), n_maps=(32, 64, 4), padding="valid", nonlinearity="relu", last_nonlinearity="relu"
    ),
    readout=ReadoutOptions(nonlinearity="relu", sta_smoothing=1.5),
    training=TrainingOptions(
        loss="squared",
        learning_rate=1e-3,
        batch_size=64,
        validation_fraction=0.125,
        check_every=100,
        patience=5,
        patience_from=1000,
        rate_factor=0.1,
        n_rates=3,
    ),
)
"""The paper's nonlinear simulations (section 5.1): 32, 64 and 4 maps by 5 x 5 kernels, each with a ReLU, squared error,
Adam at 1e-3, batches of 64; after 500 steps without a better validation loss a tenth of the rate, the third time stop.
The last layer has as many maps as there are types of neurons: set `core.n_maps` for more. Strengths are ours: the
paper's, 0.003 for masks and 0.003 to 0.3 for feature weights, are in units that it does not say. The posterior readout
takes the noise to be constant: such neurons are silent most of the time, and noise that grows with the rate would count
least the few responses that tell what they prefer."""

KERNELS = PenaltyOptions(smoothness=2e-4, group_sparsity=2e-4)
"""Recordings are short: kernels that are smooth and read few maps generalise better, and settle in fewer steps."""

HELD = replace(RECORDING.readout, mask_norm="unit", hold_masks=500, locate_from=50)
"""Averages of noisy neurons rarely show where they look, and masks that are free from the start fit noise at hundreds
of pixels. In 500 steps the core learns enough for its features to show it; narrow masks are fitted from there."""

SLOW_FULL = TrainingOptions(learning_rate=2e-4)
"""The fully connected readout sums tens of thousands of weights: at 3e-3, Adam's first step alone throws it far off."""

PRESETS = {
    "recording": {
        "factorized": replace(
            RECORDING,
            penalties=replace(KERNELS, mask_l1=(0.03, 0.06), feature_l1=0.005),
            readout=HELD,
            training=TrainingOptions(proximal=True),
        ),
        "fixed-mask": replace(RECORDING, penalties=replace(KERNELS, feature_l1=(0.003, 0.01))),
        "fully-connected": replace(RECORDING, penalties=replace(KERNELS, weight_l2=(3.0, 30.0)), training=SLOW_FULL),
        "gaussian": replace(RECORDING, penalties=replace(KERNELS, feature_l1=(0.005, 0.01))),
        "posterior": replace(
            RECORDING,
            penalties=replace(KERNELS, feature_l1=(0.005, 0.01)),
            readout=replace(RECORDING.readout, widths=(0.0, 1.0, 2.0), locate_from=50, anneal_steps=300),
            training=TrainingOptions(patience_from=300),
        ),
    },
    "simulation": {
        "factorized": replace(
            SIMULATION,
            penalties=PenaltyOptions(mask_l1=(0.01, 0.03, 0.1)),
            readout=replace(SIMULATION.readout, feature_norm="unit"),  # separate penalties need a scale that is fixed
        ),
        "fixed-mask": SIMULATION,
        "fully-connected": replace(SIMULATION, penalties=PenaltyOptions(weight_l2=(0.01, 0.1))),
        "gaussian": SIMULATION,
        "posterior": replace(
            SIMULATION,
            core=replace(SIMULATION.core, kernel_std=0.06),
            penalties=PenaltyOptions(smoothness=7e-3),
            readout=replace(
                SIMULATION.readout,
                sta_smoothing=2.5,
                locate_every=20,
                locate_from=0,
                anneal_steps=500,
                temperature=1.5,
            ),
            training=replace(
                SIMULATION.training,
                learning_rate=1e-2,
                check_every=20,
                patience=4,
                patience_from=500,
                rate_factor=0.3,
                n_rates=3,
            ),
        ),
    },
    "nonlinear": {
        "factorized": replace(
            NONLINEAR,
            penalties=PenaltyOptions(mask_l1=(0.06, 0.12, 0.25), feature_l1=0.05),
            readout=replace(
                NONLINEAR.readout,
                nonnegative_features=True,
                feature_norm="unit",
                start="features",
                hold_features=400,
            ),
            training=replace(NONLINEAR.training, proximal=True),
        ),
        "fixed-mask": replace(
            NONLINEAR,
            penalties=PenaltyOptions(feature_l1=0.01),
            readout=replace(NONLINEAR.readout, nonnegative_features=True),
        ),
        "fully-connected": replace(
            NONLINEAR,
            penalties=PenaltyOptions(weight_l2=(3.0, 10.0, 30.0)),
            training=replace(NONLINEAR.training, learning_rate=SLOW_FULL.learning_rate),
        ),
        "gaussian": replace(NONLINEAR, penalties=PenaltyOptions(feature_l1=0.01)),
        "posterior": replace(
            NONLINEAR,
            penalties=PenaltyOptions(feature_l1=0.003),
            readout=replace(
                NONLINEAR.readout,
                nonnegative_features=True,
                start="features",
                hold_features=400,
                locate_from=50,
                locate_every=50,
                noise="constant",
            ),
            training=replace(
                NONLINEAR.training,
                learning_rate=3e-3,
                check_every=50,
                patience=4,
                patience_from=400,
                rate_factor=0.3,
            ),
        ),
    },
}
"""Options by preset and model; tuples of strengths are searched on the validation part."""


def preset_options(model: str, preset: str) -> ModelOptions:
    """All options of a convolutional model under a preset.

    >>> preset_options("factorized", "recording").training.loss
    'poisson'
    """
    of_model = PRESETS[check_choice("preset", preset, PRESETS)]
    return of_model[check_choice("model", model, of_model)]


READOUT_STRENGTHS = ("mask_l1", "feature_l1", "product_l1", "weight_l2", "activity_l1")


def options_over_preset(model: str, preset: str, values: dict[str, Any]) -> ModelOptions:
    """The preset's options with `values` in their place, option by option: `{"core": {"n_maps": 24}}`.

    A strength of the readout given replaces all those that the preset searches. What the preset has and the values
    leave without use goes: the group sparsity of a core of one layer, what is for several feature maps where there is
    one. Raises `OptionError` for an option that is not known, naming the nearest.

    >>> options_over_preset("factorized", "recording", {"penalties": {"mask_l1": 0.1}}).penalties.feature_l1
    0.0
    """
    base = as_plain(preset_options(model, preset))
    plain = {name: as_plain(value) if is_dataclass(value) else value for name, value in values.items()}
    given = plain.get("penalties")
    if isinstance(given, dict) and any(strength in given for strength in READOUT_STRENGTHS):
        base["penalties"].update(dict.fromkeys(READOUT_STRENGTHS, 0.0))
    return without_idle(model, make_options(ModelOptions, merge(base, plain)), plain)


def without_idle(model: str, options: ModelOptions, given: Mapping[str, Any]) -> ModelOptions:
    """Without what a preset or another fit had and nothing can use, unless it was given.

    given: by concern, a mapping by option of what was asked for. Of two norms that are fixed that which was asked for
    stays; masks are held for at most half of the steps, and places inferred in at least half of those.
    """
    asked = {(concern, name) for concern, of in given.items() if isinstance(of, Mapping) for name in of}
    one_map = options.core.layers()[-1].n_maps == 1
    if options.core.n_layers == 1:
        options = _unless_asked(options, asked, "penalties", group_sparsity=0.0)
    if one_map or options.readout.start == "average":
        options = _unless_asked(options, asked, "readout", hold_features=0)
    if model == "factorized":
        if one_map:
            options = _unless_asked(options, asked, "penalties", feature_l1=0.0)
            options = _unless_asked(options, asked, "readout", mask_norm="free")
        options = _with_masks(options, asked)
    if not any(map(is_sparse, options.penalties.candidates())):
        options = _unless_asked(options, asked, "training", proximal=False)
    if not options.training.proximal:
        options = _unless_asked(options, asked, "training", whole_every=WHOLE_EVERY)
    return options


def _with_masks(options: ModelOptions, asked: Set[tuple[str, str]]) -> ModelOptions:
    """As `without_idle`, of the masks of the factorised readout."""
    if options.readout.mask_norm == options.readout.feature_norm == "unit":
        other = "feature_norm" if ("readout", "mask_norm") in asked else "mask_norm"
        options = _unless_asked(options, asked, "readout", **{other: "free"})
    most = options.training.max_steps // 2
    options = _unless_asked(options, asked, "readout", hold_masks=min(options.readout.hold_masks, most))
    readout, default = options.readout, ReadoutOptions()
    if readout.hold_masks:
        return _unless_asked(options, asked, "readout", locate_from=min(readout.locate_from, readout.hold_masks // 2))
    idle = {name: getattr(default, name) for name in ("locate_from", "locate_every", "noise")}
    if readout.start != "features":
        idle["prior_ridges"] = default.prior_ridges
    return _unless_asked(options, asked, "readout", **idle)


def _unless_asked(options: ModelOptions, asked: Set[tuple[str, str]], concern: str, **values: Any) -> ModelOptions:
    """With these values of a concern but for those that were asked for."""
    changed = {name: value for name, value in values.items() if (concern, name) not in asked}
    return replace(options, **{concern: replace(getattr(options, concern), **changed)})
