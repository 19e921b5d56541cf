"""Small recordings for fits that share a core, and what their tests compare."""

from collections.abc import Callable

import numpy as np
import torch

import whatwhere as ww
from whatwhere.estimators import CNN

CORE = {"kernel_sizes": (5, 3), "n_maps": 3, "padding": ("valid", "same")}
TRAINING = {"batch_size": 32, "max_steps": 20, "check_every": 5, "learning_rate": 0.01, "checkpoint_seconds": 0}
PROXIMAL = {**TRAINING, "proximal": True, "max_steps": 80, "patience": 50}
STRENGTHS = {
    "factorized": {"product_l1": 0.03},
    "fixed-mask": {"feature_l1": 0.003},
    "fully-connected": {"weight_l2": 0.1},
    "gaussian": {"feature_l1": 0.003},
    "posterior": {"feature_l1": 0.003},
}
CENTRES = np.array([[4, 5], [7, 12], [5, 8], [6, 3], [4, 13], [7, 7]])


def simulated(
    n_images: int = 160, seed: int = 0, n_neurons: int = 6, n_channels: int = 1, test: bool = True
) -> ww.Recording:
    """Poisson responses to the light in a patch of 3 x 3 of 12 x 17 pixels; 12 held-out images shown 4 times."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, n_channels, 12, 17)).astype(np.float32)
    shown, index = rng.normal(size=(12, n_channels, 12, 17)).astype(np.float32), np.repeat(np.arange(12), 4)

    def rates(some: np.ndarray) -> np.ndarray:
        patches = [some[:, -1, i - 1 : i + 2, j - 1 : j + 2].sum((1, 2)) for i, j in CENTRES[:n_neurons]]
        return np.logaddexp(0, np.stack(patches, 1))

    held_out = ww.HeldOut(shown, rng.poisson(rates(shown)[index]), index)
    return ww.Recording(images, rng.poisson(rates(images)), test=held_out if test else None)


def make(name: str = "factorized", **options: object) -> ww.SharedCoreCNN:
    chosen = {"core": CORE, "penalties": STRENGTHS[name], "training": TRAINING} | options
    return ww.SharedCoreCNN(name, **chosen)  # type: ignore[arg-type]


def two() -> dict[str, ww.Recording]:
    return {"a": simulated(), "b": simulated(90, seed=1, n_neurons=4)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def core(model: CNN) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.model_.core.state_dict().items()}


class StoppedError(Exception):
    """Raised in a fit as if the machine had failed."""


def stop_at(step: int, candidate: int = 0) -> Callable[[object], None]:
    def observe(event: object) -> None:
        if getattr(getattr(event, "check", None), "step", -1) == step and event.candidate == candidate:  # type: ignore[attr-defined]
            raise StoppedError

    return observe
