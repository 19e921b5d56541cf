"""Every model's prediction as a graph: raw images in, responses in the units of the responses fitted out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import MOST_DRIVE
from whatwhere.core import NONLINEARITIES, Layer, UnitBatchNorm
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN, Estimator
from whatwhere.export.graph import IMAGES, Graph
from whatwhere.readouts import (
    FactorizedReadout,
    FixedMaskReadout,
    FullyConnectedReadout,
    GaussianReadout,
    PosteriorReadout,
    Readout,
)
from whatwhere.readouts.support import sparse_support
from whatwhere.standardisation import Standardisation


def forward_graph(model: Estimator) -> Graph:
    """The graph of `model.predict`.

    Convolutions, products and sums are the plain ones, however this package computes them; masks are whole, with zeros.
    Raises `OptionError` for a model of a kind that has no graph.
    """
    graph = Graph()
    pixels = _standardised(graph, model.standardisation_)
    with torch.no_grad():
        if isinstance(model, CNN):
            _network(graph, model, pixels)
        elif isinstance(model, FilterModel):
            _filters(graph, model, pixels)
        else:
            raise OptionError(f"a {type(model).__name__} cannot be exported: expected a network or a filter model.")
    return graph


def _standardised(graph: Graph, standardisation: Standardisation) -> str:
    """(images - mean) / std, in single precision as in `Standardisation.apply`."""
    mean, std = (values[None].astype(np.float32) for values in (standardisation.mean, standardisation.std))
    value = IMAGES
    if mean.any():
        value = graph.add("images/centred", "Sub", value, graph.constant("images/mean", mean))
    if (std != 1).any():
        value = graph.add("images/standardised", "Div", value, graph.constant("images/std", std))
    return value


def _network(graph: Graph, model: CNN, pixels: str) -> None:
    network, value = model.model_, pixels
    if type(network.readout) not in READOUTS:
        raise OptionError(
            f"a {type(network.readout).__name__} cannot be exported: expected one of"
            f" {', '.join(kind.__name__ for kind in READOUTS)}. Give export.forward.READOUTS its graph."
        )
    for number, layer in enumerate(network.core.layers, start=1):
        value = _layer(graph, layer, f"core/layer{number}", value)
    value = READOUTS[type(network.readout)](graph, network.readout, value)
    value = graph.add("readout/drive", "Add", value, graph.constant("readout/bias", _array(network.bias)))
    value = _nonlinear(graph, network.nonlinearity, "readout/rate", value)
    graph.end(graph.add("readout/scaled", "Mul", value, graph.constant("responses/scale", model.response_scale_)))


def _layer(graph: Graph, layer: Layer, name: str, value: str) -> str:
    """As `core.Layer`, with the padding that is done before the convolution in it."""
    left, right, top, bottom = layer.pad.padding if isinstance(layer.pad, nn.ZeroPad2d) else (0, 0, 0, 0)
    rows, columns = layer.padding
    pads = [top + rows, left + columns, bottom + rows, right + columns]
    if layer.depthwise is not None:
        value = _convolved(graph, f"{name}/depthwise", value, layer.depthwise, pads)
        pads = [0, 0, 0, 0]
    value = _convolved(graph, f"{name}/convolution", value, layer.convolution, pads, layer.normalize)
    return _nonlinear(graph, layer.nonlinearity, f"{name}/maps", value)


def _convolved(
    graph: Graph, name: str, value: str, convolution: nn.Conv2d, pads: list[int], normalize: nn.Module | None = None
) -> str:
    """The convolution, and the normalisation by running statistics that follows it, in one: a change of its weights."""
    kernels, bias = convolution.weight.double(), convolution.bias
    if isinstance(normalize, UnitBatchNorm):
        factor = normalize.scale.double() / (normalize.running_var.double() + normalize.eps).sqrt()  # (n_maps,)
        bias = ((0.0 if bias is None else bias) - normalize.running_mean.double()) * factor
        kernels = kernels * factor[:, None, None, None]
        bias = bias if normalize.shift is None else bias + normalize.shift
    inputs = [value, graph.constant(f"{name}/kernels", _array(kernels))]
    if bias is not None:
        inputs.append(graph.constant(f"{name}/bias", _array(bias)))
    return graph.add(
        name, "Conv", *inputs, kernel_shape=[*convolution.kernel_size], pads=pads, group=convolution.groups
    )


OPERATORS = {"relu": "Relu", "softplus": "Softplus", "elu": "Elu", "exponential": "Exp"}
"""Of each nonlinearity but the identity, in `core.NONLINEARITIES` and in those of the filter models."""


def _nonlinear(graph: Graph, module: nn.Module, name: str, value: str) -> str:
    kind = next(kind for kind, made in NONLINEARITIES.items() if type(module) is made)
    return value if kind == "identity" else graph.add(name, OPERATORS[kind], value)


def _pooled(graph: Graph, readout: FactorizedReadout | PosteriorReadout, value: str) -> str:
    """sum_kij c_kij m_ijn w_kn."""
    mask = _read_mask(readout)  # (n_neurons, h * w)
    n_features = readout.map_shape[0]
    shape = graph.constant("readout/shape", [0, n_features, mask.shape[1]])  # 0: as many images as there are
    value = graph.add("readout/maps", "Reshape", value, shape)  # (n_images, K, h * w)
    value = graph.add("readout/pooled", "MatMul", value, graph.constant("readout/masks", _array(mask).T))
    return _weighed(graph, readout, value)


def _read_mask(readout: FactorizedReadout | PosteriorReadout) -> Tensor:
    """The masks as a prediction reads them, (n_neurons, h * w): of sparse ones no more than their support."""
    mask = readout.masks().flatten(1)
    support = sparse_support(mask, readout.cache.least)
    return mask if support is None else mask * support.pattern()


def _at_pixels(graph: Graph, readout: FixedMaskReadout, value: str) -> str:
    """sum_k w_kn c_k at neuron n's pixel."""
    return _weighed(graph, readout, _gathered(graph, readout, value, readout.pixels))


def _between_pixels(graph: Graph, readout: GaussianReadout, value: str) -> str:
    """sum_k w_kn c_k at neuron n's mean, from the four pixels around it."""
    pixels, shares = readout.corners()  # (4, n_neurons) both
    value = _gathered(graph, readout, value, pixels)  # (n_images, K, 4, n_neurons)
    value = graph.add("readout/shared", "Mul", value, graph.constant("readout/shares", _array(shares)))
    value = _summed(graph, "readout/interpolated", value, axis=2)
    return _weighed(graph, readout, value)


def _gathered(graph: Graph, readout: Readout, value: str, pixels: Tensor) -> str:
    """The maps at pixels, indices into h * w: (n_images, K, ...)."""
    n_features, height, width = readout.map_shape
    shape = graph.constant("readout/shape", [0, n_features, height * width])
    value = graph.add("readout/maps", "Reshape", value, shape)
    return graph.add("readout/read", "Gather", value, graph.constant("readout/pixels", _array(pixels)), axis=2)


def _weighed(graph: Graph, readout: Readout, value: str) -> str:
    """sum_k w_kn of (n_images, K, n_neurons): (n_images, n_neurons)."""
    weights = graph.constant("readout/weights", _array(readout.weights).T)
    return _summed(graph, "readout/features", graph.add("readout/weighed", "Mul", value, weights), axis=1)


def _summed(graph: Graph, name: str, value: str, axis: int) -> str:
    return graph.add(name, "ReduceSum", value, graph.constant(f"{name}/axis", [axis]), keepdims=0)


def _fully_connected(graph: Graph, readout: FullyConnectedReadout, value: str) -> str:
    """sum_kij c_kij q_kijn."""
    value = graph.add("readout/maps", "Flatten", value, axis=1)  # (n_images, K * h * w)
    weights = graph.constant("readout/weights", _array(readout.weights.flatten(1)).T)
    return graph.add("readout/pooled", "MatMul", value, weights)


READOUTS: dict[type[Readout], Callable[[Graph, Any, str], str]] = {
    FactorizedReadout: _pooled,
    FixedMaskReadout: _at_pixels,
    FullyConnectedReadout: _fully_connected,
    GaussianReadout: _between_pixels,
    PosteriorReadout: _pooled,
}
"""From the name of the maps (n_images, K, h, w) to that of the drive without its bias (n_images, n_neurons)."""


def _filters(graph: Graph, model: FilterModel, pixels: str) -> None:
    """f(a_n^T x + b_n) s_n, with filters of the whole image, zeros around a window."""
    filters, kind = model.whole_filters(), model.family().nonlinearity
    value = graph.add("images/pixels", "Flatten", pixels, axis=1)
    matrix = graph.constant("filters", filters.reshape(len(filters), -1).T)
    value = graph.add("filtered", "MatMul", value, matrix)
    value = graph.add("drive", "Add", value, graph.constant("offset", model.offset_))
    if kind == "exponential":
        value = graph.add("drive/cut", "Min", value, graph.constant("drive/most", MOST_DRIVE))
    if kind != "identity":
        value = graph.add("rate", OPERATORS[kind], value)
        value = graph.add("scaled", "Mul", value, graph.constant("responses/scale", model.scale_))
    graph.end(value)


def _array(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().cpu().numpy()
    return found
