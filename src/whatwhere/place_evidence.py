"""How well the core's features at each place explain a neuron, by ridge regressions: the evidence for places."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from whatwhere.location_posterior import FeatureMoments, blur_places, constant_noise_evidence
from whatwhere.model import Model
from whatwhere.stored_images import Images

_MOST_NUMBERS = 2**25  # held at once
_MOST_FEATURES = 2**28  # kept from one loop over the images to the next


def feature_batches(model: Model, images: Images) -> Iterable[Tensor]:
    """The features at every place, a batch at a time: (n_images, K, n_widths * h * w), places first in memory.

    They are kept where they are few, and computed anew by each loop over them otherwise.
    """
    batches = _FeatureBatches(model, images)
    n_features_of_image = math.prod(model.core.output_shape) * len(model.options.readout.widths)
    return list(batches) if len(images) * n_features_of_image <= _MOST_FEATURES else batches


@dataclass(frozen=True)
class _FeatureBatches:
    model: Model
    images: Images

    def __iter__(self) -> Iterator[Tensor]:
        options = self.model.options
        for some in self.images.split(options.training.batch_size):
            maps = self.model.core(some).permute(2, 3, 1, 0).contiguous()  # (h, w, K, n_images)
            places_first = torch.cat([blur_places(maps, width).flatten(0, 1) for width in options.readout.widths])
            yield places_first.permute(2, 1, 0)


def count_places(model: Model) -> int:
    """Pixels of the feature map, once for each width that a place may have: n_widths * h * w."""
    return len(model.options.readout.widths) * math.prod(model.core.output_shape[1:])


def constant_evidence(model: Model, batches: Iterable[Tensor], responses: Tensor) -> Tensor:
    """Log evidence of every place under constant noise, weights integrated out: (n_neurons, n_widths * h * w).

    batches: of `feature_batches`; responses (n_images, n_neurons).
    """
    options = model.options
    moments = FeatureMoments(model.core.output_shape[0], count_places(model), responses)
    for features in batches:
        moments.add(features)
    at_once = max(1, _MOST_NUMBERS // _numbers_of_neuron(model))  # neurons
    parts = []
    for some in responses.chunk(math.ceil(responses.shape[1] / at_once), 1):
        cross = _cross_products(model, batches, some - some.mean(0))
        parts.append(constant_noise_evidence(moments, cross, some.var(0, correction=0), options.readout.prior_ridges))
    return torch.cat(parts)


def _cross_products(model: Model, batches: Iterable[Tensor], centred: Tensor) -> Tensor:
    """sum_b c_a y_bn: (n_atoms, K, n_neurons). A blur is its own adjoint, so sharp features are all that it takes."""
    widths, (n_features, height, width) = model.options.readout.widths, model.core.output_shape
    n_pixels, n_atoms = height * width, len(widths) * height * width
    sharp = widths.index(0.0) if 0.0 in widths else None
    part = slice(0, n_atoms) if sharp is None else slice(sharp * n_pixels, (sharp + 1) * n_pixels)
    total = centred.new_zeros((part.stop - part.start) * n_features, centred.shape[1])
    size = model.options.training.batch_size
    for features, wanted in zip(batches, centred.split(size), strict=True):
        places_first = features.permute(2, 1, 0)[part]  # (n_places, K, n_images)
        total.addmm_(places_first.flatten(0, 1), wanted)
    cross = total.view(-1, n_features, centred.shape[1])
    if sharp is None or len(widths) == 1:
        return cross
    maps = cross.reshape(height, width, -1)  # places first, as what comes after needs them
    return torch.cat([blur_places(maps, width).view_as(cross) for width in widths])


def _numbers_of_neuron(model: Model) -> int:
    """Of one neuron's cross products, or of its evidence under every ridge."""
    return max(model.core.output_shape[0], len(model.options.readout.prior_ridges)) * count_places(model)


def location_memory(model: Model, n_images: int) -> int:
    """Bytes that `locate` takes at its peak, beside model and data: features that are kept, tables of the places."""
    readout, options = model.readout, model.options
    n_features, n_atoms = readout.map_shape[0], count_places(model)
    of_image = n_features * n_atoms
    kept = n_images * of_image if n_images * of_image <= _MOST_FEATURES else 0
    batch = 3 * min(n_images, options.training.batch_size) * of_image
    table = readout.n_neurons * n_atoms
    of_neuron = _numbers_of_neuron(model)
    at_once = 3 * min(readout.n_neurons * of_neuron, max(_MOST_NUMBERS, of_neuron))
    tables = (24 if readout.solved else 4) * table + n_atoms * n_features**2 + at_once  # four a part of the prior
    return 4 * (kept + batch + tables)
