"""Models in scikit-learn's manner: `fit`, `predict`, `score`, `evaluate`."""

from whatwhere.estimators.base import Estimator, Observer
from whatwhere.estimators.cnn import CNN, FactorizedCNN, FixedMaskCNN, FullyConnectedCNN, GaussianCNN, PosteriorCNN
from whatwhere.estimators.shared import SharedCoreCNN
from whatwhere.estimators.transfer import transferred

__all__ = [
    "CNN",
    "Estimator",
    "FactorizedCNN",
    "FixedMaskCNN",
    "FullyConnectedCNN",
    "GaussianCNN",
    "Observer",
    "PosteriorCNN",
    "SharedCoreCNN",
    "transferred",
]
