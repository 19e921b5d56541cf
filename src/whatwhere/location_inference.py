"""Expectation maximisation of the posterior readout: places from the evidence, weights and noise from the places.

The objective is F = sum_n E_q_n[log p(y_n | place, w_n, core)] - KL(q_n | uniform). Gradient steps of the core at
places drawn from q_n raise its first term; the softmax of the log likelihoods of all places is the q_n at which F is
highest. `locate` goes beyond F in three ways: the evidence is tempered at first, when the core knows little; weights
are integrated out of it where that can be done, for with one weight given the places look surer than they are; and
weights that are solved for are drawn towards each other.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from whatwhere.core import map_offset
from whatwhere.local_features import fit_local_features
from whatwhere.location_posterior import (
    FeatureMoments,
    VaryingNoiseEvidence,
    blur_places,
    constant_noise_evidence,
    narrow_priors,
    posterior,
)
from whatwhere.losses import LOSSES
from whatwhere.model import Model, spread
from whatwhere.noise_models import NOISE_MODELS, NoiseModel, choose_noise, fit_noise
from whatwhere.normal_hierarchy import shrunken
from whatwhere.readouts import PosteriorReadout
from whatwhere.recentring import recentre
from whatwhere.stored_images import Images

_DRAWS = 4  # places drawn of each neuron to estimate weights and noise
_MOST_NUMBERS = 2**25  # held at once
_MOST_DRAWN = 2**24  # numbers at places drawn, that weights and noise are estimated from
_MOST_FEATURES = 2**28  # kept from one loop over the images to the next
_AT_ONCE = 2**20  # numbers of one step over places, so that they stay in the processor's cache
_MOST_LIKELIHOODS = 4e7  # likelihoods of single responses in one call of `locate`
_FEWEST_PLACES = 16
_MOST_CHOOSING = 2**20  # responses that the noise model is chosen by
_FIRST_FLOOR, _LAST_FLOOR = 0.9, 0.1  # of the variance that the noise has at least, of the response's


def training_loss(model: Model, predictions: Tensor, responses: Tensor) -> Tensor:
    """What training lowers, without penalties: the loss.

    The squared error of the posterior readout counts every response by its noise, unless that is constant: it is then
    the negative log likelihood under the noise model.
    """
    readout, loss = model.readout, model.options.training.loss
    if isinstance(readout, PosteriorReadout) and loss == "squared" and model.options.readout.noise != "constant":
        return readout.noise().negative_log_likelihood(predictions, responses).mean()
    return LOSSES[loss](predictions, responses)


def is_due(model: Model, step: int) -> bool:
    """Whether places are to be inferred before this step."""
    options = model.options.readout
    since = step - options.locate_from
    return isinstance(model.readout, PosteriorReadout) and since >= 0 and since % options.locate_every == 0


@torch.no_grad()
def locate(
    model: Model, images: Images, responses: Tensor, step: int, seed: int, members: Sequence[Model] = ()
) -> None:
    """Weights, noise and posterior from all training images, core frozen; the model's mode is left as it was.

    images (n_images, C, H, W), responses (n_images, n_neurons), in the units of the fit. With an identity output the
    weights of each neuron are solved for, drawn towards the population's mean as far as the population's spread says.
    members: see `recentre`.
    """
    readout, options = model.readout, model.options.readout
    assert isinstance(readout, PosteriorReadout)
    training = model.training
    model.eval()
    since = step - options.locate_from
    progress = min(1.0, since / options.anneal_steps) if options.anneal_steps else 1.0
    temperature = max(1.0, options.temperature * (1 - progress / 0.85))
    floor = max(_LAST_FLOOR, _FIRST_FLOOR * (1 - progress)) * responses.var(0, correction=0).mean().item()
    recentre(model, members)
    first = since < 2 * options.locate_every
    generator = torch.Generator(images.device).manual_seed(seed)
    batches = _feature_batches(model, images)
    prior = _fit_weights_and_noise(model, batches, responses, floor, first, generator)
    if readout.evidence_renewed is not None and not first and not readout.evidence_renewed:
        _renew_local_evidence(model, images, responses, seed)
    evidence = _evidence(model, batches, responses, prior)
    readout.set_posterior(posterior(evidence, temperature))
    model.train(training)


def _renew_local_evidence(model: Model, images: Images, responses: Tensor, seed: int) -> None:
    """What the fixed bank of features says of the places once the noise is known, which is made constant."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    steady = readout.noise().stabilised(responses)
    size, offset = model.core.output_shape[1:], map_offset(model.options.core)
    ridges = readout.options.prior_ridges
    found = fit_local_features(images, steady, size, offset, ridges, readout.map_shape[0], seed)
    readout.set_local_evidence(found.evidence, renewed=True)


def settle(model: Model, images: Images, responses: Tensor, seed: int, members: Sequence[Model] = ()) -> None:
    """`locate` as at the end of annealing: the posterior then is the one under the model's final core."""
    options = model.options.readout
    step = options.locate_from + max(options.anneal_steps, 2 * options.locate_every)
    locate(model, images, responses, step, seed, members)


def log_evidence(model: Model, images: Images, responses: Tensor, prior: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(n_neurons, n_widths * h * w). prior: mean (K + 1,) and covariance of weights and bias over neurons.

    Of one feature, whose weight is solved for, that weight is integrated out under the neurons' own prior. Otherwise,
    with an identity output, weights are integrated out under constant noise, with a broad prior, and taken as they are
    under noise that varies. With another output they are integrated out, too, from responses whose noise is made
    constant (`NoiseModel.stabilised`), taken as linear in the features: they follow by gradient steps, too slowly for
    places to be judged by them as they are, for those where they were learned would always look best. With
    `start="features"` a neuron reads either the core's features or the fixed bank's (`local_features`), each as likely.
    """
    return _evidence(model, _feature_batches(model, images), responses, prior)


def _evidence(
    model: Model, batches: Iterable[Tensor], responses: Tensor, prior: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Of the core's features; with `start="features"` either they or the fixed bank's may be what a neuron reads."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    evidence = _core_evidence(model, batches, responses, prior)
    if readout.local_evidence is not None:
        n_places = readout.local_evidence.shape[1]
        sharpest = evidence[:, readout.smallest_width * n_places :][:, :n_places]
        sharpest.copy_(torch.logaddexp(sharpest, readout.local_evidence))
    return evidence


def _core_evidence(
    model: Model, batches: Iterable[Tensor], responses: Tensor, prior: tuple[Tensor, Tensor] | None
) -> Tensor:
    readout, size = model.readout, model.options.training.batch_size
    assert isinstance(readout, PosteriorReadout)
    n_features, n_atoms = readout.map_shape[0], readout.posterior[0].numel()
    noise = readout.noise()
    if prior is not None and n_features == 1:
        return _integrated_evidence(noise, batches, responses.split(size), *prior)
    if model.options.readout.nonlinearity != "identity":
        return _constant_evidence(model, batches, noise.stabilised(responses))
    n_places = int(_MOST_LIKELIHOODS / (responses.numel() * (1 + n_features / 8)))
    if noise.kind != "constant" and n_places >= n_atoms:
        return _likelihood_everywhere(model, noise, batches, responses)
    evidence = _constant_evidence(model, batches, responses)
    if noise.kind == "constant":
        return evidence
    return _likelihood_at_best(model, noise, batches, responses, evidence, min(max(n_places, _FEWEST_PLACES), n_atoms))


def _integrated_evidence(
    noise: NoiseModel, batches: Iterable[Tensor], responses: Sequence[Tensor], mean: Tensor, covariance: Tensor
) -> Tensor:
    """Of one feature, its weight integrated out under the prior of weight and bias: (n_neurons, n_atoms)."""
    parts = [
        (math.log(share), VaryingNoiseEvidence(noise, at, spread_of, mean[-1]))
        for share, at, spread_of in narrow_priors(mean[0], covariance[0, 0])
    ]
    for features, wanted in zip(batches, responses, strict=True):
        for _, part in parts:
            part.add(features, wanted)
    return torch.stack([log_share + part.evidence() for log_share, part in parts]).logsumexp(0)


def _constant_evidence(model: Model, batches: Iterable[Tensor], responses: Tensor) -> Tensor:
    """(n_neurons, n_atoms)."""
    readout, options = model.readout, model.options
    assert isinstance(readout, PosteriorReadout)
    n_features, n_atoms = readout.map_shape[0], readout.posterior[0].numel()
    moments = FeatureMoments(n_features, n_atoms, responses)
    for features in batches:
        moments.add(features)
    at_once = max(1, _MOST_NUMBERS // _numbers_of_neuron(model))  # neurons
    parts = []
    for some in responses.chunk(math.ceil(responses.shape[1] / at_once), 1):
        cross = _cross_products(model, batches, some - some.mean(0))
        parts.append(constant_noise_evidence(moments, cross, some.var(0, correction=0), options.readout.prior_ridges))
    return torch.cat(parts)


def _numbers_of_neuron(model: Model) -> int:
    """Of one neuron's cross products, or of its evidence under every ridge."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    return max(readout.map_shape[0], len(readout.options.prior_ridges)) * readout.posterior[0].numel()


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


def _feature_batches(model: Model, images: Images) -> Iterable[Tensor]:
    """The features at every place, a batch at a time: (n_images, K, n_widths * h * w), places first in memory.

    They are kept where they are few, and computed anew by each loop over them otherwise.
    """
    batches = _FeatureBatches(model, images)
    n_features_of_image = math.prod(model.core.output_shape) * len(model.options.readout.widths)
    return list(batches) if len(images) * n_features_of_image <= _MOST_FEATURES else batches


def location_memory(model: Model, n_images: int) -> int:
    """Bytes that `locate` takes at its peak, beside model and data: features that are kept, tables of the places."""
    readout, options = model.readout, model.options
    assert isinstance(readout, PosteriorReadout)
    n_features, n_atoms = readout.map_shape[0], readout.posterior[0].numel()
    of_image = n_features * n_atoms
    kept = n_images * of_image if n_images * of_image <= _MOST_FEATURES else 0
    batch = 3 * min(n_images, options.training.batch_size) * of_image
    table = readout.n_neurons * n_atoms
    of_neuron = _numbers_of_neuron(model)
    at_once = 3 * min(readout.n_neurons * of_neuron, max(_MOST_NUMBERS, of_neuron))
    tables = (24 if readout.solved else 4) * table + n_atoms * n_features**2 + at_once  # four a part of the prior
    return 4 * (kept + batch + tables)


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


def _likelihood_everywhere(model: Model, noise: NoiseModel, batches: Iterable[Tensor], responses: Tensor) -> Tensor:
    """Of an identity output, its weights taken as they are: (n_neurons, n_atoms)."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    weights, bias = readout.feature_weights(), model.bias.detach()
    n_neurons, n_atoms = len(weights), readout.posterior[0].numel()
    total = torch.zeros(n_neurons, n_atoms).to(weights)
    size = model.options.training.batch_size
    for features, wanted in zip(batches, responses.split(size), strict=True):
        some = max(1, _AT_ONCE // (len(features) * n_atoms))
        for start in range(0, n_neurons, some):
            chosen = slice(start, start + some)
            drive = torch.einsum("nk,bka->ban", weights[chosen], features) + bias[chosen]
            found = NoiseModel(noise.kind, noise.coefficients, noise.dispersion[chosen])
            total[chosen] -= found.negative_log_likelihood(drive, wanted[:, None, chosen]).sum(0).T
    return total


def _likelihood_at_best(
    model: Model, noise: NoiseModel, batches: Iterable[Tensor], responses: Tensor, evidence: Tensor, n_places: int
) -> Tensor:
    """At the places that the evidence under constant noise finds best; -inf elsewhere."""
    weights, bias = model.readout.feature_weights(), model.bias.detach()
    places = evidence.topk(n_places, 1).indices  # (n_neurons, n_places)
    total = torch.zeros(places.shape).to(weights)
    size = model.options.training.batch_size
    for features, wanted in zip(batches, responses.split(size), strict=True):
        places_first = features.permute(2, 1, 0)  # (n_atoms, K, n_images): each place's features lie together
        some = max(1, 4 * _AT_ONCE // (n_places * features[:, :, 0].numel()))
        for start in range(0, len(weights), some):
            chosen = slice(start, start + some)
            at = places_first.index_select(0, places[chosen].flatten()).unflatten(0, (-1, n_places))
            drive = (weights[chosen, None, None] @ at)[:, :, 0].permute(2, 1, 0) + bias[chosen]
            found = NoiseModel(noise.kind, noise.coefficients, noise.dispersion[chosen])
            likelihood = found.negative_log_likelihood(drive, wanted[:, None, chosen])
            total[chosen] -= likelihood.sum(0).T  # drive and likelihood (n_images, n_places, n_neurons)
    return torch.full_like(evidence, -torch.inf).scatter_(1, places, total)


def _fit_weights_and_noise(
    model: Model,
    batches: Iterable[Tensor],
    responses: Tensor,
    floor: float,
    first: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor] | None:
    """From places drawn of the present posterior. At first the noise counts as constant: nothing is known yet.

    Returns mean and covariance of weights and bias over neurons, where they were solved for.
    """
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    most = max(32, _MOST_DRAWN // (readout.n_neurons * readout.map_shape[0] * _DRAWS))
    rows = spread(torch.arange(len(responses), device=responses.device), most)
    features = _at_places(batches, readout.draw_places(_DRAWS, generator), rows)
    wanted = responses[rows].T.repeat_interleave(_DRAWS, 1)  # (n_neurons, n_images * draws)
    prior = None
    if model.options.readout.nonlinearity == "identity":
        prior = _solve_weights(model, features, wanted)
    drive = torch.einsum("ndk,nk->dn", features, readout.feature_weights()) + model.bias
    rates = model.nonlinearity(drive)  # (n_images * draws, n_neurons)
    kind = noise_kind(model, rates, wanted.T)
    readout.set_noise(fit_noise("constant" if first and kind != "poisson" else kind, rates, wanted.T, floor))
    return prior


def noise_kind(model: Model, rates: Tensor, responses: Tensor) -> str:
    """The noise model to use: the option, or for `auto` the one that these rates and responses (n, n_neurons) choose.

    Where rates can be negative there is no Poisson to choose.
    """
    kind = model.options.readout.noise
    if kind != "auto":
        return kind
    rows = spread(torch.arange(len(rates), device=rates.device), max(1, _MOST_CHOOSING // rates.shape[1]))
    some = [kind for kind in NOISE_MODELS if kind != "poisson" or model.options.readout.nonlinearity != "identity"]
    return choose_noise(some, rates[rows], responses[rows])


def _at_places(batches: Iterable[Tensor], places: Tensor, rows: Tensor) -> Tensor:
    """The features at places (n_draws, n_neurons) in the images of `rows`: (n_neurons, n_rows * n_draws, K)."""
    found, first = [], 0
    for features in batches:
        within = rows[(rows >= first) & (rows < first + len(features))] - first
        at = features.permute(2, 1, 0).index_select(0, places.flatten())  # (n_draws * n_neurons, K, n_images)
        found.append(at[:, :, within].unflatten(0, places.shape))
        first += len(features)
    return torch.cat(found, 3).permute(1, 3, 0, 2).flatten(1, 2)


def _solve_weights(model: Model, features: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """argmax over weights and bias of the expected log likelihood and a prior N(m, T) that the neurons give.

    features: (n_neurons, n, K), wanted: (n_neurons, n); every draw counts for 1 / draws of an image. Returns m and T.
    """
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    weights, noise = readout.feature_weights(), readout.noise()
    rates = torch.einsum("ndk,nk->dn", features, weights) + model.bias
    precision = (1.0 / (noise.variance(rates) * noise.dispersion)).T.double() / _DRAWS  # (n_neurons, n)
    terms = torch.cat([features, torch.ones_like(features[:, :, :1])], 2).double()  # (n_neurons, n, K + 1)
    weighted = terms * precision[:, :, None]
    cross = torch.einsum("ndk,nd->nk", weighted, wanted.double())
    values, mean, covariance = shrunken(terms.mT @ weighted, cross)
    readout.weights.copy_(values[:, :-1])
    readout.project()
    model.bias.copy_(values[:, -1])
    return mean.to(weights), covariance.to(weights)
