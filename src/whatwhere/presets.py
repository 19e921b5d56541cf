"""Default options: one set for recordings, one for the paper's linear simulations, with each readout's strengths."""

from dataclasses import replace

from whatwhere.checks import check_choice
from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)

RECORDING = ModelOptions()
"""Recordings: a small core, softplus, Poisson loss, Adam at 3e-3, early stopping after few checks."""

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

PRESETS = {"recording": RECORDING, "simulation": SIMULATION}

STRENGTHS = {
    "recording": {
        "factorized": PenaltyOptions(product_l1=(0.03, 0.1)),
        "fixed-mask": PenaltyOptions(feature_l1=(0.003, 0.03)),
        "fully-connected": PenaltyOptions(weight_l2=(0.01, 0.1)),
    },
    "simulation": {
        "factorized": PenaltyOptions(mask_l1=(0.01, 0.03, 0.1)),
        "fixed-mask": PenaltyOptions(),
        "fully-connected": PenaltyOptions(weight_l2=(0.01, 0.1)),
    },
}
"""Strengths searched on the validation part, where none are given."""


def preset_options(model: str, preset: str) -> ModelOptions:
    """All options of a convolutional model under a preset.

    >>> preset_options("factorized", "recording").training.loss
    'poisson'
    """
    check_choice("preset", preset, PRESETS)
    check_choice("model", model, STRENGTHS[preset])
    options = replace(PRESETS[preset], penalties=STRENGTHS[preset][model])
    if preset == "simulation" and model == "factorized":  # separate penalties need a scale that is fixed
        options = replace(options, readout=replace(options.readout, feature_norm="unit"))
    return options
