"""Default options: for recordings, for the paper's linear and nonlinear simulations, with each readout's strengths."""

from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

from whatwhere.checks import check_choice
from whatwhere.config import (
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

SLOW_FULL = TrainingOptions(learning_rate=2e-4)
"""The fully connected readout sums tens of thousands of weights: at 3e-3, Adam's first step alone throws it far off."""

PRESETS = {
    "recording": {
        "factorized": replace(
            RECORDING,
            penalties=replace(KERNELS, mask_l1=(0.03, 0.06), feature_l1=0.005),
            readout=replace(RECORDING.readout, mask_norm="unit", hold_masks=500, locate_from=50),
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
    return _without_idle(model, make_options(ModelOptions, merge(base, plain)), plain)


def _without_idle(model: str, options: ModelOptions, given: Mapping[str, Any]) -> ModelOptions:
    """Without what the preset has and nothing can use, unless it was given."""
    readout, one_map = options.readout, options.core.layers()[-1].n_maps == 1
    idle = {
        "penalties": {
            "group_sparsity": (0.0, options.core.n_layers == 1),
            "feature_l1": (0.0, one_map and model == "factorized"),
        },
        "readout": {
            "hold_features": (0, one_map or readout.start == "average"),
            "mask_norm": ("free", one_map or readout.feature_norm == "unit"),
            "locate_from": (ReadoutOptions().locate_from, model == "factorized" and not readout.hold_masks),
        },
    }
    for concern, unused in idle.items():
        asked = given.get(concern)
        asked = asked if isinstance(asked, Mapping) else {}
        values = {name: value for name, (value, is_idle) in unused.items() if is_idle and name not in asked}
        options = replace(options, **{concern: replace(getattr(options, concern), **values)})
    training = given.get("training")
    asked_proximal = isinstance(training, Mapping) and "proximal" in training
    if asked_proximal or all(is_sparse(model, penalties) for penalties in options.penalties.candidates()):
        return options
    return replace(options, training=replace(options.training, proximal=False))
