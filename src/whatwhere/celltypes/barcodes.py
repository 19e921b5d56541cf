"""Barcodes: what each neuron computes, as numbers that do not depend on how the network happens to write it down."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import ndtri

from whatwhere.catalogue import MODELS
from whatwhere.checks import check_finite, check_ndim, check_same_rows
from whatwhere.core import Core, UnitBatchNorm
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN, Estimator
from whatwhere.model import Model
from whatwhere.readouts import READOUTS, FullyConnectedReadout
from whatwhere.recording import Recording
from whatwhere.rows import read_rows, spaced

WITH_BARCODES = tuple(
    name for name, kind in MODELS.items() if issubclass(kind, CNN) and READOUTS[name] is not FullyConnectedReadout
)
"""Models whose neurons have a vector of feature weights."""

MOST_IMAGES = 1024
"""Training images, spread evenly, that feature maps are measured on."""

_AT_ONCE = 64  # images
_SILENT = 1e-3
"""Of the median neuron's amplitude, below which a neuron has no barcode: what a fit leaves of one that never varies."""
_LEVELS = 4096  # values that stand for a normal distribution


class MapStatistics(NamedTuple):
    """Of feature maps over images and positions: standard deviations (K,), and correlations (K, K) where known."""

    std: np.ndarray
    correlations: np.ndarray | None = None


def barcodes_of(
    feature_weights: ArrayLike,
    masks: ArrayLike,
    statistics: MapStatistics,
    *,
    metric: str = "weights",
    free_signs: bool = False,
) -> np.ndarray:
    """Barcodes (n_neurons, n_features) of length one: b_nk = s_n g_k w_kn sigma_k / |.|, 0 for neurons without any.

    - sigma_k, of `statistics`: the standard deviation of feature map k, so that a map scaled up, with its weights
      scaled down, changes nothing
    - s_n: the sign of the value of largest magnitude of the neuron's mask, so that (m, w) and (-m, -w), the same
      model, have the same barcode, and on and off cells have opposite ones
    - g_k, with `free_signs`, for maps that may change sign together with all weights that read them (the core ends
      with no nonlinearity): such that sum_n b_nk is not negative. Otherwise 1: there a map's sign means something
    - metric "signal": with R the correlations of the maps, R^(1/2) (b_n1, ..., b_nK) in place of b_n, scaled to length
      one. The inner product of two barcodes is then the correlation of what two neurons would answer that look at the
      same pixel, also where several maps have features in common

    `feature_weights` (n_neurons, K), `masks` (n_neurons, h, w). A permutation of the maps permutes columns, no more.
    Neurons whose amplitude |m_n|_2 |w_n sigma|_2 is below a thousandth of the median have barcodes of 0. Raises
    `InputError` where shapes do not fit or values are not finite, `OptionError` for "signal" without correlations.

    >>> statistics = MapStatistics(np.array([1.0, 2.0]))
    >>> barcodes_of([[3.0, 2.0], [-3.0, -2.0]], [[[0.1, 1.0]], [[0.1, -1.0]]], statistics).round(3)
    array([[0.6, 0.8],
           [0.6, 0.8]])
    """
    codes = _scaled(feature_weights, masks, statistics)
    signs = _column_signs(codes) if free_signs else np.ones(codes.shape[1])
    codes = codes * signs
    if metric == "signal":
        if statistics.correlations is None:
            raise OptionError(
                "metric 'signal' needs the correlations of feature maps: give the recording (--recording), whose images"
                " show them."
            )
        codes = _of_length_one(codes @ _root(statistics.correlations * np.outer(signs, signs)))
    return codes + 0.0  # no -0


def _scaled(feature_weights: ArrayLike, masks: ArrayLike, statistics: MapStatistics) -> np.ndarray:
    """Barcodes under the metric "weights", the signs of the maps as they are in the network."""
    weights, places = np.asarray(feature_weights, np.float64), np.asarray(masks, np.float64)
    check_ndim("feature_weights", weights, ("n_neurons", "n_features"))
    check_ndim("masks", places, ("n_neurons", "height", "width"))
    check_same_rows("masks", len(places), "feature_weights", len(weights), each="neuron")
    check_finite("feature_weights", weights, row="neuron")
    check_finite("masks", places, row="neuron")
    scaled = weights * statistics.std * mask_signs(places)[:, None]
    amplitudes = np.linalg.norm(places.reshape(len(places), -1), axis=1) * np.linalg.norm(scaled, axis=1)
    heard = amplitudes > 0
    heard &= amplitudes >= _SILENT * (np.median(amplitudes[heard]) if heard.any() else 0.0)
    return _of_length_one(np.where(heard[:, None], scaled, 0.0))


def _column_signs(codes: np.ndarray) -> np.ndarray:
    return np.where(codes.sum(0) < 0, -1.0, 1.0)


def mask_signs(masks: np.ndarray) -> np.ndarray:
    """The sign of each mask's value of largest magnitude, (n_neurons,); 1 for masks of zeros.

    >>> mask_signs(np.array([[[0.5, -2.0]], [[0.0, 0.0]]]))
    array([-1.,  1.])
    """
    flat = masks.reshape(len(masks), -1)
    peaks = np.take_along_axis(flat, np.abs(flat).argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(peaks < 0, -1.0, 1.0)


def _of_length_one(codes: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.divide(codes, lengths, out=np.zeros_like(codes), where=lengths > 0)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a matrix of correlations: (K, K)."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values.clip(min=0))) @ vectors.T)


def network_barcodes(model: Model, statistics: MapStatistics | None = None, *, metric: str = "weights") -> np.ndarray:
    """`barcodes_of` a network; statistics: None for what its batch normalisation remembers, see `remembered_maps`.

    Raises `InputError` for a readout without a vector of feature weights, or where it remembers nothing.
    """
    parts = _parts(model)
    known = remembered_maps(model.core) if statistics is None else statistics
    return barcodes_of(*parts, known, metric=metric, free_signs=_free_signs(model))


def network_signs(model: Model, statistics: MapStatistics | None = None) -> np.ndarray:
    """g_k of `barcodes_of` for a network, (n_features,): the signs that its maps have in `network_barcodes`.

    Raises as that does. Needed where maps of two networks are compared together with their barcodes, see
    `MatchedMaps.of_barcodes`.
    """
    parts = _parts(model)
    if not _free_signs(model):
        return np.ones(parts[0].shape[1])
    return _column_signs(_scaled(*parts, remembered_maps(model.core) if statistics is None else statistics))


def _parts(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Feature weights and masks; raises `InputError` for a readout without the former."""
    if isinstance(model.readout, FullyConnectedReadout):
        raise InputError(_without("fully-connected"))
    return model.readout.feature_weights().cpu().numpy(), model.readout.masks().cpu().numpy()


def _free_signs(model: Model) -> bool:
    """Whether a map may change its sign together with all weights that read it."""
    return model.core.options.last_nonlinearity == "identity"


def model_barcodes(model: Estimator, recording: Recording | None = None, *, metric: str = "weights") -> np.ndarray:
    """Barcodes of a fitted model's neurons, (n_neurons, n_features), in the order of its `neurons_`.

    recording: whose training images (at most 1,024, evenly spread) the feature maps are measured on; without, what the
    core's batch normalisation remembers of the images that it was fitted to is used. Raises `InputError` for models
    whose neurons have no vector of feature weights, for a core without batch normalisation where no recording is
    given, and for images of another shape; `OptionError` for the metric "signal" without a recording.
    """
    network = check_barcodes(model)
    return network_barcodes(network, None if recording is None else recording_maps(model, recording), metric=metric)


def model_signs(model: Estimator, recording: Recording | None = None) -> np.ndarray:
    """The signs (n_features,) that a fitted model's maps have in its `model_barcodes` from the same recording."""
    network = check_barcodes(model)
    return network_signs(network, None if recording is None else recording_maps(model, recording))


def maps_to_measure(model: CNN, recording: Recording | None, metric: str) -> Recording | None:
    """The recording where barcodes need its images: for the metric "signal", and without batch normalisation."""
    return recording if metric == "signal" or not model.options_.core.batch_norm else None


def check_barcodes(model: Estimator) -> Model:
    """The network of a fitted model whose neurons have barcodes; else raises `InputError`."""
    if not isinstance(model, CNN) or model.name not in WITH_BARCODES:
        raise InputError(_without(model.name))
    model.check_fitted()
    return model.model_


def _without(name: str) -> str:
    why = " (weights at every position, no vector of them for a neuron)" if name == "fully-connected" else ""
    return (
        f"a {name} model has no barcodes{why}: fit one of {', '.join(WITH_BARCODES)}, whose neurons have weights of"
        " the core's features."
    )


def recording_maps(model: Estimator, recording: Recording) -> MapStatistics:
    """Statistics of a fitted network's feature maps over some of a recording's training images."""
    network = check_barcodes(model)
    return measured_maps(network.core, model.standardised(some_images(recording), _AT_ONCE))


def some_images(recording: Recording, most: int = MOST_IMAGES) -> np.ndarray:
    """At most so many of a recording's training images, evenly spread, as stored."""
    return read_rows(recording.images, spaced(recording.n_images, most))


@torch.no_grad()
def measured_maps(core: Core, chunks: Iterable[np.ndarray]) -> MapStatistics:
    """Statistics of feature maps over images, standardised as in the fit, (n, C, H, W) at a time, and over positions.

    A map that never varies has correlation 0 with all others.
    """
    device = next(core.parameters()).device
    n_features = core.output_shape[0]
    count, total, products = 0, np.zeros(n_features), np.zeros((n_features, n_features))
    offset = None
    for images in chunks:
        maps = (
            core(torch.from_numpy(images).to(device)).movedim(1, 0).flatten(1).double().cpu().numpy()
        )  # (K, n * h * w)
        offset = maps.mean(1) if offset is None else offset  # or the squares of large means would swamp the rest
        maps = maps - offset[:, None]
        count, total, products = count + maps.shape[1], total + maps.sum(1), products + maps @ maps.T
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    std = np.sqrt(covariance.diagonal().clip(min=0))
    scale = np.outer(std, std)
    correlations = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(correlations, 1.0)
    return MapStatistics(std, correlations)


@torch.no_grad()
def remembered_maps(core: Core) -> MapStatistics:
    """Standard deviations of feature maps by what the last layer's batch normalisation remembers of training.

    Before the nonlinearity map k has the mean beta_k, its learned shift, and variance v_k / (v_k + epsilon); what the
    nonlinearity makes of it is computed for a normal distribution. Raises `InputError` without batch normalisation.
    """
    last = core.layers[-1]
    if not isinstance(last.normalize, UnitBatchNorm):
        raise InputError(
            "the core has no batch normalisation, which would remember how much its feature maps vary: give the"
            " recording (--recording), whose images show it."
        )
    variance = last.normalize.running_var.double().cpu()
    std = (variance / (variance + last.normalize.eps)).sqrt()
    shift = torch.zeros_like(std) if last.normalize.shift is None else last.normalize.shift.double().cpu()
    levels = torch.from_numpy(ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS))
    maps = last.nonlinearity(shift[:, None] + std[:, None] * levels)  # (K, n_levels)
    return MapStatistics(maps.std(1, correction=0).numpy())
