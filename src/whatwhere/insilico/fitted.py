"""The neurons of a fitted network or filter model, shown images."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import MOST_DRIVE
from whatwhere.estimators import CNN
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject
from whatwhere.standardisation import Standardisation


class NetworkSubject(Subject):
    """The neurons of a fitted network: r_n = s_n f(sum_ijk c_kij q_kijn + b_n), with q put together where needed."""

    def __init__(self, model: CNN) -> None:
        model.check_fitted()
        network, shapes = model.model_, model.shapes_
        self.network = network
        self.image_shape = (shapes.n_channels, shapes.height, shapes.width)
        self.names = model.neurons_
        known = ImageStatistics.of_standardisation(model.standardisation_, self.image_shape)
        self.statistics, self.why_unknown = known
        self.device = network.bias.device
        self.standardise = _Standardise(model.standardisation_, self.device)
        self.scale = torch.from_numpy(np.asarray(model.response_scale_, np.float32)).to(self.device)
        self.weights = network.readout.weights.detach()  # (n_neurons, K), or (n_neurons, K, h, w)
        self.masks = network.readout.masks().detach() if self.weights.ndim == 2 else None
        self.numbers = self._count_numbers()

    @torch.no_grad()
    def _count_numbers(self) -> int:
        maps = torch.zeros(1, *self.image_shape, device=self.device)
        total = 4 * maps.numel()
        for layer in self.network.core.layers:
            maps = layer(maps)
            total += 4 * maps.numel()
        return total + 2 * maps.numel()

    @torch.no_grad()
    def rates(self, images: Tensor) -> Tensor:
        return self.network(self.standardise(images)) * self.scale

    def drives(self, neurons: Tensor, images: Tensor) -> Tensor:
        n, m = images.shape[:2]
        maps = self.network.core(self.standardise(images.flatten(0, 1)))  # (n * m, K, h, w)
        pooled = maps.reshape(n, m, -1) @ self._pooling(neurons)[:, :, None]  # (n, m, 1)
        return pooled[:, :, 0] + self.network.bias.detach()[neurons][:, None]

    def _pooling(self, neurons: Tensor) -> Tensor:
        """q of these neurons, (n, K * h * w)."""
        weights = self.weights[neurons]
        if self.masks is None:
            return weights.flatten(1)
        return (weights[:, :, None] * self.masks[neurons].flatten(1)[:, None]).flatten(1)

    def respond(self, neurons: Tensor, drives: Tensor) -> Tensor:
        return self.network.nonlinearity(drives) * self.scale[neurons][:, None]


class FilterSubject(Subject):
    """The neurons of a fitted filter model: r_n = s_n f(a_n^T x + b_n)."""

    def __init__(self, model: FilterModel) -> None:
        model.check_fitted()
        shapes = model.shapes_
        self.model = model
        self.image_shape = (shapes.n_channels, shapes.height, shapes.width)
        self.names = model.neurons_
        known = ImageStatistics.of_standardisation(model.standardisation_, self.image_shape)
        self.statistics, self.why_unknown = known
        self.device = torch.device("cpu")
        self.standardise = _Standardise(model.standardisation_, self.device)
        self.offset, self.scale = (torch.from_numpy(array) for array in (model.offset_, model.scale_))
        self.nonlinearity = NONLINEARITIES[model.family().nonlinearity]
        self.numbers = 6 * int(np.prod(self.image_shape))

    def rates(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.model.predict(images.numpy()))

    def drives(self, neurons: Tensor, images: Tensor) -> Tensor:
        filters = torch.from_numpy(self.model.whole_filters(neurons.numpy())).flatten(1)  # (n, n_pixels)
        return (self.standardise(images).flatten(2) @ filters[:, :, None])[:, :, 0] + self.offset[neurons][:, None]

    def respond(self, neurons: Tensor, drives: Tensor) -> Tensor:
        return self.nonlinearity(drives) * self.scale[neurons][:, None]


NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda drive: drive,
    "relu": functional.relu,
    "exponential": lambda drive: drive.clamp(max=MOST_DRIVE).exp(),
    "softplus": functional.softplus,
}
"""Those of the filter models, for tensors."""


class _Standardise:
    """(images - mean) / std, for tensors."""

    def __init__(self, standardisation: Standardisation, device: torch.device) -> None:
        self.mean, self.std = (
            torch.from_numpy(values.astype(np.float32)).to(device)
            for values in (standardisation.mean, standardisation.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
