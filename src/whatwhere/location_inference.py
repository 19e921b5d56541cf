"""Expectation maximisation of the posterior readout: places from the evidence, weights and noise from the places.

The objective is F = sum_n E_q_n[log p(y_n | place, w_n, core)] - KL(q_n | uniform). Gradient steps of the core at
places drawn from q_n raise its first term; the softmax of the log likelihoods of all places is the q_n at which F is
highest. `locate` goes beyond F in three ways: the evidence is tempered at first, when the core knows little; weights
are integrated out of it where that can be done, for with one weight given the places look surer than they are; and
weights that are solved for are drawn towards each other.

Masks of the factorised readout that are held at one pixel are moved by the same evidence, to its maximum.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from whatwhere.core import map_offset
from whatwhere.local_features import fit_local_features
from whatwhere.location_posterior import VaryingNoiseEvidence, narrow_priors, posterior
from whatwhere.losses import LOSSES
from whatwhere.model import Model, spread
from whatwhere.noise_models import NOISE_MODELS, NoiseModel, choose_noise, fit_noise
from whatwhere.normal_hierarchy import shrunken
from whatwhere.place_evidence import constant_evidence, count_places, feature_batches
from whatwhere.readouts import FactorizedReadout, PosteriorReadout
from whatwhere.recentring import recentre
from whatwhere.stored_images import Images

_DRAWS = 4  # places drawn of each neuron to estimate weights and noise
_MOST_DRAWN = 2**24  # numbers at places drawn, that weights and noise are estimated from
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
    """Whether places are to be inferred before this step: of masks as long as they are held."""
    options = model.options.readout
    since = step - options.locate_from
    inferred = isinstance(model.readout, PosteriorReadout) or model.readout.holds_masks(step)
    return inferred and since >= 0 and since % options.locate_every == 0


@torch.no_grad()
def locate(
    model: Model, images: Images, responses: Tensor, step: int, seed: int, members: Sequence[Model] = ()
) -> None:
    """Places from all training images, core frozen; the model's mode is left as it was.

    Of the posterior readout: weights, noise and posterior. With an identity output the weights of each neuron are
    solved for, drawn towards the population's mean as far as the population's spread says. Of the factorised readout,
    while its masks are held: the one pixel whose features explain the neuron best, whatever its weights; those that it
    has stay.

    images (n_images, C, H, W), responses (n_images, n_neurons), in the units of the fit. members: see `recentre`.
    """
    training = model.training
    model.eval()
    if isinstance(model.readout, FactorizedReadout):
        _look_where_evident(model, images, responses, step)
    else:
        _infer_posterior(model, images, responses, step, seed, members)
    model.train(training)


def _look_where_evident(model: Model, images: Images, responses: Tensor, step: int) -> None:
    """Each neuron of a factorised readout looks at the pixel whose features explain it best, with any weights.

    Its feature weights stay: those that it learned where it looked before begin at the new place.
    """
    readout, options = model.readout, model.options.readout
    assert isinstance(readout, FactorizedReadout)
    batches = feature_batches(model, images)
    pixels, values = readout.held_place()
    rows = spread(torch.arange(len(responses), device=responses.device), _most_rows(model, 1))
    features = _at_places(batches, pixels[None], rows)  # (n_neurons, n_rows, K)
    drive = torch.einsum("nik,nk->in", features, readout.feature_weights() * values[:, None]) + model.bias
    progress = min(1.0, step / options.hold_masks)
    first = step - options.locate_from < 2 * options.locate_every
    noise = _noise(model, model.nonlinearity(drive), responses[rows], _floor(responses, progress), first)
    readout.look_at(constant_evidence(model, batches, noise.stabilised(responses)).argmax(1))


def _infer_posterior(
    model: Model, images: Images, responses: Tensor, step: int, seed: int, members: Sequence[Model]
) -> None:
    readout, options = model.readout, model.options.readout
    assert isinstance(readout, PosteriorReadout)
    since = step - options.locate_from
    progress = min(1.0, since / options.anneal_steps) if options.anneal_steps else 1.0
    temperature = max(1.0, options.temperature * (1 - progress / 0.85))
    floor = _floor(responses, progress)
    recentre(model, members)
    first = since < 2 * options.locate_every
    generator = torch.Generator(images.device).manual_seed(seed)
    batches = feature_batches(model, images)
    prior = _fit_weights_and_noise(model, batches, responses, floor, first, generator)
    if readout.evidence_renewed is not None and not first and not readout.evidence_renewed:
        _renew_local_evidence(model, images, responses, seed)
    evidence = _evidence(model, batches, responses, prior)
    readout.set_posterior(posterior(evidence, temperature))


def _floor(responses: Tensor, progress: float) -> float:
    """The variance that the noise has at least: it falls with the progress of the annealing, from 0 to 1."""
    return max(_LAST_FLOOR, _FIRST_FLOOR * (1 - progress)) * responses.var(0, correction=0).mean().item()


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
    return _evidence(model, feature_batches(model, images), responses, prior)


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
    n_features, n_atoms = readout.map_shape[0], count_places(model)
    noise = readout.noise()
    if prior is not None and n_features == 1:
        return _integrated_evidence(noise, batches, responses.split(size), *prior)
    if model.options.readout.nonlinearity != "identity":
        return constant_evidence(model, batches, noise.stabilised(responses))
    n_places = int(_MOST_LIKELIHOODS / (responses.numel() * (1 + n_features / 8)))
    if noise.kind != "constant" and n_places >= n_atoms:
        return _likelihood_everywhere(model, noise, batches, responses)
    evidence = constant_evidence(model, batches, responses)
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


def _likelihood_everywhere(model: Model, noise: NoiseModel, batches: Iterable[Tensor], responses: Tensor) -> Tensor:
    """Of an identity output, its weights taken as they are: (n_neurons, n_atoms)."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    weights, bias = readout.feature_weights(), model.bias.detach()
    n_neurons, n_atoms = len(weights), count_places(model)
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
    rows = spread(torch.arange(len(responses), device=responses.device), _most_rows(model, _DRAWS))
    features = _at_places(batches, readout.draw_places(_DRAWS, generator), rows)
    wanted = responses[rows].T.repeat_interleave(_DRAWS, 1)  # (n_neurons, n_images * draws)
    prior = None
    if model.options.readout.nonlinearity == "identity":
        prior = _solve_weights(model, features, wanted)
    drive = torch.einsum("ndk,nk->dn", features, readout.feature_weights()) + model.bias
    rates = model.nonlinearity(drive)  # (n_images * draws, n_neurons)
    readout.set_noise(_noise(model, rates, wanted.T, floor, first))
    return prior


def _most_rows(model: Model, n_draws: int) -> int:
    """Images that weights and noise are estimated from, at so many places of each neuron."""
    return max(32, _MOST_DRAWN // (model.shapes.n_neurons * model.core.output_shape[0] * n_draws))


def _noise(model: Model, rates: Tensor, responses: Tensor, floor: float, first: bool) -> NoiseModel:
    """The noise of responses (n, n_neurons) given their rates: at first constant, unless it is known to be Poisson."""
    kind = noise_kind(model, rates, responses)
    return fit_noise("constant" if first and kind != "poisson" else kind, rates, responses, floor)


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
