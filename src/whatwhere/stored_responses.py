"""Responses of a recording that is too large for a fit to copy: the rows of a fit, scaled as they are asked for."""

from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from whatwhere.rows import by_columns


class StoredResponses:
    """Rows of responses that stay the recording's, each neuron's divided by its scale: float32 tensors (n, n_neurons).

    It has what a fit needs of a tensor: length, shape, device, selection of rows, mean and standard deviation.
    """

    def __init__(self, source: np.ndarray, rows: np.ndarray, scale: np.ndarray, device: torch.device) -> None:
        self.source, self.rows, self.scale, self.device = source, rows, scale, device
        self.shape = torch.Size((len(rows), source.shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """The responses at some positions, in this order."""
        chosen = which if isinstance(which, slice) else which.cpu().numpy()
        responses = self.source[self.rows[chosen]]
        responses /= self.scale
        return torch.from_numpy(responses).to(self.device)

    def mean(self) -> Tensor:
        """Of each neuron, (n_neurons,), float64."""
        return self._scaled(by_columns(lambda some: some.mean(0, dtype=np.float64), self.source, self.rows))

    def std(self) -> Tensor:
        """Of each neuron, (n_neurons,), not corrected."""
        return self._scaled(by_columns(lambda some: some.std(0, dtype=np.float64), self.source, self.rows)).float()

    def _scaled(self, statistic: np.ndarray) -> Tensor:
        return torch.from_numpy(statistic / self.scale).to(self.device)

    @property
    def nbytes(self) -> int:
        """What the recording holds of them."""
        return len(self.rows) * self.source.shape[1] * self.source.dtype.itemsize

    def at(self, rows: np.ndarray) -> "StoredResponses":
        """Other rows of the same recording."""
        return StoredResponses(self.source, rows, self.scale, self.device)


Responses: TypeAlias = Tensor | StoredResponses
"""What a fit is given: responses of its own, or those of a large recording."""


def mean_of(responses: Responses) -> Tensor:
    """Each neuron's mean, (n_neurons,), float64."""
    return responses.mean(0, dtype=torch.float64) if isinstance(responses, Tensor) else responses.mean()


def std_of(responses: Responses) -> Tensor:
    """Each neuron's standard deviation, not corrected, (n_neurons,), in the precision of what is given."""
    return responses.std(0, correction=0) if isinstance(responses, Tensor) else responses.std()


def joined_responses(responses: Responses, others: Responses) -> Responses:
    """Responses and, after them, others of the same recording."""
    if isinstance(responses, StoredResponses) and isinstance(others, StoredResponses):
        return responses.at(np.concatenate([responses.rows, others.rows]))
    return torch.cat([responses[:], others[:]])
