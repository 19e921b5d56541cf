"""Neurons of a simulation, whose truth is known, shown the same images as those of a fitted model."""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject
from whatwhere.simulation import EnergyPopulation, LinearPopulation, MixedPopulation

_Part: TypeAlias = LinearPopulation | EnergyPopulation


def is_population(population: Any) -> bool:
    """Whether `PopulationSubject` can show it images: linear neurons, energy-model cells, or mixtures of these."""
    if isinstance(population, MixedPopulation):
        return all(is_population(part) for part in population.parts)
    return isinstance(population, LinearPopulation | EnergyPopulation)


class PopulationSubject(Subject):
    """Simulated neurons: r_n = f(k_n . x), or (k_n . x)^2 + (q_n . x)^2, whose drive is the response itself.

    Images have mean 0 and contrast 1, as white noise has, unless other statistics are given.
    """

    def __init__(self, population: LinearPopulation | EnergyPopulation | MixedPopulation) -> None:
        self.population = population
        self.parts = _parts(population)
        self.firsts = np.cumsum([0, *(part.n_neurons for part in self.parts)])
        self.image_shape = (population.n_channels, *population.image_size)
        self.names = [str(number) for number in range(self.firsts[-1])]
        self.statistics = ImageStatistics(np.zeros(self.image_shape), 1.0)
        self.device = torch.device("cpu")
        self.numbers = 10 * int(np.prod(self.image_shape))

    def rates(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.population.rates(images.numpy()))

    def drives(self, neurons: Tensor, images: Tensor) -> Tensor:
        pixels = images.flatten(2)  # (n, m, n_pixels)
        found = []
        for number, neuron in enumerate(neurons.tolist()):
            place = int(np.searchsorted(self.firsts, neuron, side="right")) - 1
            part, own = self.parts[place], neuron - int(self.firsts[place])
            if isinstance(part, LinearPopulation):
                found.append(pixels[number] @ _field(part, own))
            else:
                even, odd = (pixels[number] @ _field(one, own) for one in (part.even, part.odd))
                found.append(even**2 + odd**2)
        return torch.stack(found)  # (n, m)

    def respond(self, neurons: Tensor, drives: Tensor) -> Tensor:
        places = np.searchsorted(self.firsts, neurons.numpy(), side="right") - 1
        parts = [self.parts[place] for place in places]
        rectified = [isinstance(part, LinearPopulation) and part.nonlinearity == "relu" for part in parts]
        return torch.where(torch.tensor(rectified)[:, None], drives.relu(), drives)


def _parts(population: Any) -> list[_Part]:
    """The populations of one kind that make up a mixture, in order."""
    if isinstance(population, MixedPopulation):
        return [part for mixed in population.parts for part in _parts(mixed)]
    return [population]


def _field(population: LinearPopulation, neuron: int) -> Tensor:
    """A neuron's kernel in its place, (n_pixels,)."""
    return torch.from_numpy(population.receptive_fields(slice(neuron, neuron + 1)).reshape(-1).astype(np.float32))
