"""Every model by its name, made from plain values and found again from its files."""

import re
from pathlib import Path
from typing import Any

from whatwhere.baselines import GLM, LNP, OLS, Lasso, Ridge
from whatwhere.checks import check_choice, check_keys
from whatwhere.errors import FormatError, OptionError
from whatwhere.estimators import (
    CNN,
    Estimator,
    FactorizedCNN,
    FixedMaskCNN,
    FullyConnectedCNN,
    GaussianCNN,
    PosteriorCNN,
    SharedCoreCNN,
)
from whatwhere.presets import options_over_preset
from whatwhere.storage import read_model

MODELS: dict[str, type[Estimator]] = {
    model.name: model
    for model in (
        FactorizedCNN,
        FixedMaskCNN,
        FullyConnectedCNN,
        GaussianCNN,
        PosteriorCNN,
        Ridge,
        OLS,
        Lasso,
        GLM,
        LNP,
    )
}

USUAL = ("factorized", "fixed-mask", "fully-connected", "ridge")
"""Models that are compared where none are named: the paper's three readouts and a linear one."""

_LABEL = re.compile(r"[^@]*(@\w[\w.-]*)?")

COMMON = {"seed", "device", "threads", "nonfinite", "devices", "nodes"}
"""What is asked of every model alike; one that has no use for it (a device for ridge) is not told."""


def model_of(label: str) -> str:
    """The model that a label stands for: its name, or its name, @, and words that tell it from others of its kind.

    Raises `OptionError` where there is no such model.

    >>> model_of("factorized@one-layer"), model_of("ridge")
    ('factorized', 'ridge')
    """
    if not _LABEL.fullmatch(label):
        raise OptionError(f"the label {label!r} names no folder: expected letters, digits, and _ - . after the @.")
    return check_choice("model", label.partition("@")[0], MODELS)


def is_label(text: str) -> bool:
    """Whether `model_of` would find a model."""
    return text.partition("@")[0] in MODELS and _LABEL.fullmatch(text) is not None


def make_model(
    name: str, values: dict[str, Any] | None = None, *, preset: str = "recording", **common: Any
) -> Estimator:
    """A model that is not fitted yet; `name` may be a label of one, see `model_of`.

    values: options by concern, as in a configuration file, in place of the preset's: `{"core": {"n_maps": 8}}`, or
    `{"strengths": [1, 10]}` for ridge; a strength of the readout given replaces all those that the preset searches.
    common: seed, device, threads, nonfinite, devices, nodes. Raises `OptionError` for a name or an option that is not
    known, or options that do not fit together.

    >>> make_model("factorized", {"core": {"n_maps": 8}}).core.n_maps
    8
    """
    name = model_of(name)
    kind = MODELS[name]
    values = dict(values or {})
    common_names = kind().get_params().keys() & COMMON
    own = {key: value for key, value in common.items() if key in common_names}
    check_keys("option", common, COMMON)
    if issubclass(kind, CNN):
        options = options_over_preset(name, preset, values)
        model: Estimator = kind(preset, **vars(options), **own)
    else:
        check_keys(f"option of {name}", values, sorted(kind().get_params().keys() - COMMON))
        model = kind(**values, **own)
    model.asked()
    return model


def load_model(path: str | Path) -> Estimator:
    """The fitted model in a run's folder or in its `model.safetensors`, whichever kind it is.

    Raises `FormatError` where the files are missing, damaged, changed or of a newer version.
    """
    tensors, description, history = read_model(Path(path))
    try:
        kind = MODELS[check_choice("model", str(description.get("model")), MODELS)]
    except OptionError as error:
        raise FormatError(f"{path}: {error} It may come from a newer whatwhere.") from error
    return kind.rebuilt(path, tensors, description, history)


def make_shared(
    name: str, values: dict[str, Any] | None = None, *, preset: str = "recording", **common: Any
) -> SharedCoreCNN:
    """As `make_model`, a model of several recordings that share a core; common: seed, device, threads, nonfinite.

    >>> make_shared("gaussian", {"core": {"n_maps": 8}}).model
    'gaussian'
    """
    kind = MODELS[check_choice("model", name, MODELS)]
    if not issubclass(kind, CNN):
        raise OptionError(f"{name} has no core that several recordings could share: choose a convolutional model.")
    check_keys("option", common, sorted(COMMON - {"devices", "nodes"}))
    model = SharedCoreCNN(name, preset, **vars(options_over_preset(name, preset, dict(values or {}))), **common)
    model.template().asked()
    return model


def load_shared(path: str | Path) -> SharedCoreCNN:
    """The fitted models in the folder of a fit of several recordings, which share their core again.

    Raises `FormatError` where files are missing, damaged, changed or of a newer version.
    """
    return SharedCoreCNN.load(path)
