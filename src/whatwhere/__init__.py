"""whatwhere: fit models of large neural populations that separate what each neuron computes from where it looks."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from whatwhere.baselines import GLM, LNP, OLS, Lasso, Ridge
from whatwhere.catalogue import load_model, load_shared, make_model
from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.estimators import (
    FactorizedCNN,
    FixedMaskCNN,
    FullyConnectedCNN,
    GaussianCNN,
    PosteriorCNN,
    SharedCoreCNN,
    transferred,
)
from whatwhere.export import export_onnx
from whatwhere.formats import load, save
from whatwhere.heldout import HeldOut, Truth
from whatwhere.recording import Recording

if TYPE_CHECKING:
    from whatwhere.report.explorer import report

__version__ = version("whatwhere")

__all__ = [
    "GLM",
    "LNP",
    "OLS",
    "CoreOptions",
    "FactorizedCNN",
    "FixedMaskCNN",
    "FullyConnectedCNN",
    "GaussianCNN",
    "HeldOut",
    "Lasso",
    "ModelOptions",
    "PenaltyOptions",
    "PosteriorCNN",
    "PreprocessingOptions",
    "ReadoutOptions",
    "Recording",
    "Ridge",
    "SharedCoreCNN",
    "TrainingOptions",
    "Truth",
    "__version__",
    "export_onnx",
    "load",
    "load_model",
    "load_shared",
    "make_model",
    "report",
    "save",
    "transferred",
]


def __getattr__(name: str) -> Any:
    """`report`, which may be called, and holds the figures: loaded when it is first asked for, for it draws."""
    if name == "report":
        from importlib import import_module

        return import_module("whatwhere.report")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
