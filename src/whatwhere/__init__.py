"""whatwhere: fit models of large neural populations that separate what each neuron computes from where it looks."""

from importlib.metadata import version

from whatwhere.baselines import Ridge
from whatwhere.catalogue import load_model, make_model
from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.estimators import FactorizedCNN, FixedMaskCNN, FullyConnectedCNN
from whatwhere.formats import load, save
from whatwhere.heldout import HeldOut
from whatwhere.recording import Recording

__version__ = version("whatwhere")

__all__ = [
    "CoreOptions",
    "FactorizedCNN",
    "FixedMaskCNN",
    "FullyConnectedCNN",
    "HeldOut",
    "ModelOptions",
    "PenaltyOptions",
    "PreprocessingOptions",
    "ReadoutOptions",
    "Recording",
    "Ridge",
    "TrainingOptions",
    "__version__",
    "load",
    "load_model",
    "make_model",
    "save",
]
