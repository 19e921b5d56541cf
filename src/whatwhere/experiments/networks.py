"""Factorised networks fitted along a path of strengths, each fit starting where the last one ended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.config import ModelOptions, PenaltyOptions
from whatwhere.estimators.base import shapes_of
from whatwhere.estimators.preparation import Prepared, prepare
from whatwhere.model import Model, initialize, set_statistics, spread
from whatwhere.recording import Recording
from whatwhere.training import train

_CHUNK = 256
_STATISTICS = 2048  # images that the unit variance of maps under a given kernel is measured with


@dataclass(frozen=True, eq=False)
class PathFit:
    """The best model of a path by its unpenalised validation loss, and every fit of the path.

    losses: one row a fit, with its penalties, `validation_loss`, `steps` and `stopped`; best: the chosen row.
    """

    model: Model
    prepared: Prepared
    losses: pd.DataFrame
    best: int

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Responses (n_images, n_neurons) in the recording's units."""
        found = [
            self.model(torch.from_numpy(self.prepared.standardisation.apply(images[start : start + _CHUNK])))
            for start in range(0, len(images), _CHUNK)
        ]
        return torch.cat(found).numpy() * self.prepared.response_scale

    def kernels(self) -> np.ndarray:
        """The first layer's kernels (K, n_channels, height, width), each with the sign that its neurons read it with.

        A kernel and all weights that read it may both change sign, and the model stays the same.
        """
        kernels: np.ndarray = self.model.core.layers[0].spatial_kernels().detach().numpy()
        return kernels * self._signs()[:, None, None, None]

    def feature_weights(self) -> np.ndarray:
        """How much of each of `kernels()` each neuron reads where it looks, its mask's sign in it: (n_neurons, K)."""
        return self._read() * self._signs()

    def _read(self) -> np.ndarray:
        """Feature weights times the sign of the mask's peak."""
        masks = self.model.readout.masks().flatten(1)  # (n_neurons, h * w)
        peaks = masks.gather(1, masks.abs().argmax(1, keepdim=True))
        read: np.ndarray = (peaks.sign() * self.model.readout.feature_weights()).numpy()
        return read

    def _signs(self) -> np.ndarray:
        return np.where(self._read().sum(0) < 0, -1.0, 1.0)


def fit_path(
    recording: Recording,
    options: ModelOptions,
    path: Sequence[PenaltyOptions],
    *,
    seed: int,
    warm_start: bool = True,
    patient: bool = False,
    given_maps: bool = False,
) -> PathFit:
    """The factorised model under each of these penalties, on the CPU; the one with the lowest validation loss is kept.

    - path: single strengths, from strong to weak. With `warm_start` each fit starts from the parameters that the one
      before it ended with; else all start alike, as `FactorizedCNN` does, and with one element the two are the same fit
    - patient: go to the end of the path; else stop after the first fit that is no better than the one before it
    - given_maps: the images are feature maps already, each to be scaled to unit variance and read as it is

    Raises what `train` raises.
    """
    rows = recording.split(options.training.validation_fraction, seed)
    prepared = prepare(recording, options, *rows, torch.device("cpu"), "")
    model = _start(replace(options, penalties=path[0]), recording, prepared, seed, given_maps)
    start = _state(model)
    best = ended = start
    losses: list[dict[str, Any]] = []
    for penalties in path:
        model.options = replace(options, penalties=penalties)
        model.load_state_dict(ended if warm_start else start)
        result = train(model, prepared.data, seed=seed)
        ended = _state(model)
        strengths = {name: value for name, value in penalties.single().items() if value}
        losses.append(
            {
                **strengths,
                "validation_loss": result.best_loss,
                "steps": result.history[-1].step,
                "stopped": result.stopped,
            }
        )
        if all(result.best_loss < row["validation_loss"] for row in losses[:-1]):
            best = ended
        elif not patient:
            break
    model.load_state_dict(best)
    table = pd.DataFrame(losses)
    return PathFit(model.eval(), prepared, table, int(table["validation_loss"].argmin()))


def _start(options: ModelOptions, recording: Recording, prepared: Prepared, seed: int, given_maps: bool) -> Model:
    """The model with its initial values."""
    data = prepared.data
    model = Model("factorized", options, shapes_of(recording))
    initialize(model, data.images, data.responses, seed)
    if given_maps:
        weight = model.core.layers[0].convolution.weight
        with torch.no_grad():
            weight.copy_(torch.eye(recording.n_channels)[:, :, None, None])
        weight.requires_grad_(False)
        set_statistics(model, spread(data.images, _STATISTICS))
    return model


def _state(model: Model) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
