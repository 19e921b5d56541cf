"""A fixed bank of local features: what neurons may respond to, before any core has learned what they do respond to.

A spike-triggered average finds only what is linear in the pixels. Neurons that prefer an edge of either contrast, or a
rare colour, hide from it; under these features they do not.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from whatwhere.location_posterior import FeatureMoments, constant_noise_evidence
from whatwhere.neuron_types import codes_to_types
from whatwhere.stored_images import Images
from whatwhere.stored_responses import Responses

_ORDERS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
"""Of the derivatives, along rows and columns."""
_REACH = 4
"""Widths of the Gaussian beyond which it counts as zero."""
_MOST_COLOURS = 3
_LEAST_VARIANCE = 1e-3
"""Of a colour, relative to the strongest: below it there is none."""
_IMAGES_AT_ONCE = 128
_MOST_IMAGES = 4096
"""Enough to start from."""
_LEAST_DEVIATION = 1e-5
"""Of responses that vary, relative to their mean."""
_RIDGE = 1.0
"""Of the weights that codes are made of, relative to the features' mean power."""
_MOST_NUMBERS = 2**24
"""Of the products of features and responses that evidence is computed from at once."""
_MOST_PRODUCTS = 2**27
"""Of neurons that one pass over the images is for."""

_MOST_KEPT = 2**28
"""Of them that are kept from one round to the next: 1 GiB."""
_ROUNDS = 4
"""Of places from types and types from places."""


class LocalFeatures:
    """Images (n_images, C, H, W) to features (n_images, K, h, w), each pixel of the map at its place in the image.

    Gaussian derivatives up to the second order (the local jet of Koenderink and van Doorn 1987) of the images' three
    strongest colours, decorrelated; positive and negative parts are features of their own, so K is at most 36. Each has
    unit variance over the images that the bank is made from.

    - map_size: (h, w); offset: image position (row, column) of the map's first pixel, from `core.map_offset`
    - scale: standard deviation of the Gaussian, pixels
    """

    def __init__(
        self, images: Tensor, map_size: tuple[int, int], offset: tuple[float, float], scale: float = 1.0
    ) -> None:
        self.places = [_places(*at) for at in zip(offset, map_size, images.shape[2:], strict=True)]
        self.means = images.mean((0, 2, 3), keepdim=True)
        self.colours = _decorrelated_colours(images - self.means)  # (n_colours, C)
        self.kernels = torch.stack([_derivative(scale, order, images) for order in range(3)])  # (3, side)
        self.scales = torch.ones((), device=images.device)
        deviations = self(images).std((0, 2, 3), correction=0)
        self.scales = torch.where(deviations > 0, 1 / deviations, 0.0)[:, None, None]  # (K, 1, 1)

    @property
    def n_features(self) -> int:
        """K."""
        return 2 * len(_ORDERS) * len(self.colours)

    def __call__(self, images: Tensor) -> Tensor:
        seen = torch.einsum("dc,bchw->bdhw", self.colours, images - self.means)
        (n_images, n_colours), side = seen.shape[:2], self.kernels.shape[1]
        planes = functional.pad(seen.flatten(0, 1)[:, None], 4 * (side // 2,), mode="replicate")
        rows = functional.conv2d(planes, self.kernels[:, None, :, None])  # (n_images * n_colours, 3, H, W + side - 1)
        found = [
            functional.conv2d(rows[:, vertical, None], self.kernels[horizontal, None, None, None])
            for vertical, horizontal in _ORDERS
        ]
        jet = torch.cat(found, 1).view(n_images, n_colours * len(_ORDERS), *images.shape[2:])
        for axis, (below, above) in enumerate(self.places, start=2):
            index = [where.to(jet.device) for where in (below, above)]
            jet = jet.index_select(axis, index[0]) if torch.equal(*index) else _between(jet, axis, *index)
        return torch.cat([jet.clamp(min=0), (-jet).clamp(min=0)], 1) * self.scales


class LocalFit(NamedTuple):
    """What local features say of neurons.

    - evidence (n_neurons, h * w): log evidence that a neuron looks at a pixel of the map, relative to no weights, under
      noise of constant variance: it weighs the features as its type does, or, as likely, in a way of its own
    - places (n_neurons,): the best of the former
    - types (n_neurons,): neurons that weigh the features alike, see `codes_to_types`
    """

    evidence: Tensor
    places: Tensor
    types: Tensor


def fit_local_features(
    images: Images,
    responses: Responses,
    map_size: tuple[int, int],
    offset: tuple[float, float],
    ridges: Sequence[float],
    n_types: int,
    seed: int,
) -> LocalFit:
    """Where each neuron looks and which weigh the features there alike, each found from the other in turn.

    images (n_images, C, H, W), responses (n_images, n_neurons); map_size, offset: see `LocalFeatures`; ridges: see
    `constant_noise_evidence`. At first every neuron has weights of its own at every place. Its best place may be a
    wrong one then; from what those of its type have in common it is found far more surely, since only how strongly the
    neuron follows that is unknown. Of long recordings some images, evenly spaced, and the evidence is what it would
    then be of all.
    """
    return fit_together([(images, responses)], map_size, offset, ridges, n_types, seed)[0]


def fit_together(
    shown: Sequence[tuple[Images, Responses]],
    map_size: tuple[int, int],
    offset: tuple[float, float],
    ridges: Sequence[float],
    n_types: int,
    seed: int,
) -> list[LocalFit]:
    """As `fit_local_features`, of several recordings, each with its own images; types are of all their neurons."""
    rows = [_some_rows(images) for images, _ in shown]
    of_bank = torch.cat([images[few[:: _every(few)]] for (images, _), few in zip(shown, rows, strict=True)])
    bank = LocalFeatures(of_bank, map_size, offset)
    parts = [_Shown(*some, few, bank, map_size) for some, few in zip(shown, rows, strict=True)]
    free, weights = (list(found) for found in zip(*(part.free_fit(ridges) for part in parts), strict=True))
    mean_gram = torch.stack([part.gram.mean(0) for part in parts]).mean(0)
    metric = torch.linalg.cholesky(mean_gram + _steady(mean_gram, 1e-3))
    for _ in range(_ROUNDS):
        codes = _codes(torch.cat(weights), metric)
        types = codes_to_types(codes, n_types, seed).to(codes.device)
        common = torch.zeros(int(types.max()) + 1, codes.shape[1]).to(codes).index_add_(0, types, codes)
        filters = torch.linalg.solve(metric.T, functional.normalize(common, dim=1).T).T  # (n_types, K)
        fits = zip(*(part.typed_fit(filters, ridges) for part in parts), strict=True)
        typed, weights = (list(found) for found in fits)
    return [
        LocalFit((torch.logaddexp(by_type, own) - math.log(2)) * part.share, by_type.argmax(1), of_part)
        for part, own, by_type, of_part in zip(parts, free, typed, types.split([len(one) for one in free]), strict=True)
    ]


def _some_rows(images: Images) -> Tensor:
    """Which images are enough to start from, evenly spaced."""
    return torch.linspace(0, len(images) - 1, min(_MOST_IMAGES, len(images)), device=images.device).long()


def _every(rows: Tensor) -> int:
    """Of so many images the bank is made from one."""
    return math.ceil(len(rows) / _IMAGES_AT_ONCE)


class _Shown:
    """Some images, evenly spaced, under the bank, and what neurons responded to them, centred."""

    def __init__(
        self, images: Images, responses: Responses, rows: Tensor, bank: LocalFeatures, map_size: tuple[int, int]
    ) -> None:
        self.images, self.rows, self.bank = images, rows, bank
        wanted = responses[self.rows]
        mean = wanted.mean(0)
        constant = wanted.std(0, correction=0) <= _LEAST_DEVIATION * mean.abs()
        self.wanted = torch.where(constant, 0.0, wanted - mean)
        self.variances = self.wanted.var(0, correction=0)
        self.share = len(images) / len(self.rows)
        self.n_places = map_size[0] * map_size[1]

        self.moments = FeatureMoments(self.bank.n_features, self.n_places, self.wanted)
        for features, _ in self.batches():
            self.moments.add(features)
        self.gram = self.moments.centred_gram()
        numbers = self.bank.n_features * self.n_places
        self.neurons = torch.arange(self.wanted.shape[1]).split(max(1, _MOST_PRODUCTS // numbers))
        self.at_once = max(1, _MOST_NUMBERS // numbers)
        self.kept: list[Tensor] | None = [] if numbers * self.wanted.shape[1] <= _MOST_KEPT else None

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (n_images, K, h * w) and responses (n_images, n_neurons), some images at a time."""
        parts = self.rows.split(_IMAGES_AT_ONCE), self.wanted.split(_IMAGES_AT_ONCE)
        for chosen, shown in zip(*parts, strict=True):
            yield self.bank(self.images[chosen]).flatten(2), shown

    def products(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some neurons at a time, and sum_b c_b y_bn of the features at every place: (h * w, K, n_neurons).

        They are kept where they are few, and computed anew otherwise, of many neurons in one pass over the images.
        """
        for number, chosen in enumerate(self.neurons):
            kept = self.kept is not None and number < len(self.kept)
            total = self.kept[number] if self.kept is not None and kept else self._products_of(chosen)
            if self.kept is not None and not kept:
                self.kept.append(total)
            yield from zip(chosen.split(self.at_once), total.split(self.at_once, 2), strict=True)

    def _products_of(self, neurons: Tensor) -> Tensor:
        """Of neurons numbered in a row, (h * w, K, n_neurons)."""
        total = self.wanted.new_zeros(self.n_places * self.bank.n_features, len(neurons))
        for features, shown in self.batches():
            total.addmm_(features.permute(2, 1, 0).flatten(0, 1), shown[:, neurons[0] : neurons[-1] + 1])
        return total.view(self.n_places, self.bank.n_features, -1)

    def free_fit(self, ridges: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Of weights of their own: evidence (n_neurons, h * w) and the weights (n_neurons, K) at each best place."""
        evidence, weights = [], []
        for chosen, products in self.products():
            found = constant_noise_evidence(self.moments, products, self.variances[chosen], ridges)
            evidence.append(found)
            weights.append(_weights_at(self.gram, products, found.argmax(1)))
        return torch.cat(evidence), torch.cat(weights)

    def typed_fit(self, filters: Tensor, ridges: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Of weights that are those of some type, (n_types, K), times a strength of 0 or more: as `free_fit`.

        The weights are again the neuron's own, at the place that is best by its type.
        """
        of_types = [self.moments.projected(one) for one in filters]
        at_once = max(1, _MOST_NUMBERS // (len(filters) * self.n_places))
        evidence, weights = [], []
        for chosen, products in self.products():
            for some, part in zip(chosen.split(at_once), products.split(at_once, 2), strict=True):
                found = part.new_full((len(some), self.n_places), -math.inf)
                cross = (filters @ part).clamp(min=0.0)  # (h * w, n_types, n_neurons)
                for number, moments in enumerate(of_types):
                    of_type = cross[:, number, None]
                    found = torch.logaddexp(
                        found, constant_noise_evidence(moments, of_type, self.variances[some], ridges)
                    )
                evidence.append(found - math.log(len(filters)))
                weights.append(_weights_at(self.gram, part, found.argmax(1)))
        return torch.cat(evidence), torch.cat(weights)


def _codes(weights: Tensor, metric: Tensor) -> Tensor:
    """Weights (n_neurons, K) in a basis in which the features are uncorrelated on average over the map, of norm one.

    The closer two codes, the more alike what the neurons compute. 0 for constant responses.
    """
    return functional.normalize(weights @ metric, dim=1)


def local_memory(n_channels: int, map_size: tuple[int, int], n_neurons: int, n_ridges: int) -> int:
    """Bytes that `fit_local_features` takes at its peak, beside images and responses."""
    n_features = 2 * len(_ORDERS) * min(n_channels, _MOST_COLOURS)
    n_places = map_size[0] * map_size[1]
    of_neuron = n_features * n_places
    at_once = min(n_neurons, max(1, _MOST_NUMBERS // of_neuron))
    kept = n_neurons * of_neuron if n_neurons * of_neuron <= _MOST_KEPT else _MOST_PRODUCTS
    products = n_places * at_once * (n_features + 3 * n_ridges)
    grams = 6 * n_places * n_features**2
    batch = 5 * _IMAGES_AT_ONCE * of_neuron
    return 4 * (kept + products + grams + batch + 3 * n_neurons * n_places)


def _weights_at(gram: Tensor, products: Tensor, places: Tensor) -> Tensor:
    """Ridge regression on the features at a place (n_neurons,) for each neuron: (n_neurons, K).

    gram (h * w, K, K), products (h * w, K, n_neurons).
    """
    neurons = torch.arange(len(places), device=places.device)
    wanted = products[places, :, neurons]  # (n_neurons, K)
    return torch.linalg.solve(gram[places] + _steady(gram, _RIDGE), wanted[:, :, None])[:, :, 0]


def _steady(gram: Tensor, ridge: float) -> Tensor:
    """A multiple of the identity, relative to the mean of the diagonal: (K, K)."""
    power = gram.diagonal(dim1=-2, dim2=-1).mean().clamp(min=1e-12)
    return ridge * power * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def _places(offset: float, size: int, n_pixels: int) -> tuple[Tensor, Tensor]:
    """The pixels of the image that a map's rows (or columns) lie on, or between; the last one beyond the border."""
    below = (torch.arange(size) + math.floor(offset)).clamp(max=n_pixels - 1)
    return below, (below + int(offset % 1 > 0)).clamp(max=n_pixels - 1)


def _between(jet: Tensor, axis: int, below: Tensor, above: Tensor) -> Tensor:
    return (jet.index_select(axis, below) + jet.index_select(axis, above)) / 2


def _derivative(scale: float, order: int, like: Tensor) -> Tensor:
    """A Gaussian of unit sum, or its first or second derivative in units of the scale: (side,)."""
    reach = max(1, round(_REACH * scale))
    x = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype) / scale
    gaussian = torch.exp(-x.square() / 2)
    gaussian = gaussian / gaussian.sum()
    variance = (gaussian * x.square()).sum()  # 1 but for the sampling: a constant image has no second derivative
    factor = (torch.ones_like(x), x, x.square() - variance)[order]
    return gaussian * factor


def _decorrelated_colours(centred: Tensor) -> Tensor:
    """Weights of channels, (n_colours, C), that make uncorrelated colours of unit variance, the strongest first."""
    channels = centred.transpose(0, 1).flatten(1)
    variances, directions = torch.linalg.eigh(channels @ channels.T / channels.shape[1])
    kept = (variances > _LEAST_VARIANCE * variances[-1]).nonzero().flatten().flip(0)[:_MOST_COLOURS]
    kept = kept if len(kept) else variances.argmax()[None]  # constant images
    return (directions[:, kept] / variances[kept].clamp(min=1e-12).sqrt()).T
