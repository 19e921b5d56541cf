"""Expectation maximisation of the posterior readout: places from the evidence, weights and noise from the places.

The objective is F = sum_n E_q_n[log p(y_n | place, w_n, core)] - KL(q_n | uniform). Between gradient steps of the core,
which raise its first term, `locate` sets q_n to the softmax of the evidence, where F is highest for a given core.
"""

import torch
from torch import Tensor

from whatwhere.location_posterior import ConstantNoiseEvidence, blur, posterior
from whatwhere.losses import LOSSES
from whatwhere.model import Model, spread
from whatwhere.noise_models import NoiseModel, fit_noise
from whatwhere.readouts import PosteriorReadout

_DRAWS = 4  # places drawn of each neuron to estimate weights and noise
_MOST_NUMBERS = 2**25  # held at once
_AT_ONCE = 2**20  # numbers of one step over places, so that they stay in the processor's cache
_MOST_LIKELIHOODS = 1.5e8  # likelihoods of single responses in one call of `locate`
_FEWEST_PLACES = 16
_FIRST_FLOOR, _LAST_FLOOR = 0.9, 0.1  # of the variance that the noise has at least, of the response's


def noise_kind(model: Model) -> str:
    """The noise model in use: `auto` is Poisson under the Poisson loss and proportional to the rate otherwise."""
    kind = model.options.readout.noise
    if kind != "auto":
        return kind
    return "poisson" if model.options.training.loss == "poisson" else "rate"


def training_loss(model: Model, predictions: Tensor, responses: Tensor) -> Tensor:
    """What training lowers, without penalties: the loss, or under a noise model of its own that likelihood."""
    readout = model.readout
    if isinstance(readout, PosteriorReadout) and noise_kind(model) in ("rate", "estimated"):
        return readout.noise(noise_kind(model)).negative_log_likelihood(predictions, responses).mean()
    return LOSSES[model.options.training.loss](predictions, responses)


def is_due(model: Model, step: int) -> bool:
    """Whether places are to be inferred before this step."""
    options = model.options.readout
    since = step - options.locate_from
    return isinstance(model.readout, PosteriorReadout) and since >= 0 and since % options.locate_every == 0


@torch.no_grad()
def locate(model: Model, images: Tensor, responses: Tensor, step: int, seed: int) -> None:
    """Weights, noise and posterior from all training images, core frozen; the model's mode is left as it was.

    images (n_images, C, H, W), responses (n_images, n_neurons), in the units of the fit. With an identity output the
    weights of each neuron are solved for, drawn towards the population's mean as far as the population's spread says.
    """
    readout, options = model.readout, model.options.readout
    assert isinstance(readout, PosteriorReadout)
    training = model.training
    model.eval()
    kind = noise_kind(model)
    progress = min(1.0, (step - options.locate_from) / max(options.anneal_steps, 1))
    temperature = max(1.0, options.temperature * (1 - progress / 0.85))
    floor = max(_LAST_FLOOR, _FIRST_FLOOR * (1 - progress)) * responses.var(0, correction=0).mean().item()
    recentre(model)
    first = step - options.locate_from < 2 * options.locate_every
    _fit_weights_and_noise(model, kind, images, responses, floor, first, torch.Generator().manual_seed(seed))
    evidence = log_evidence(model, kind, images, responses)
    readout.set_posterior(posterior(evidence, temperature))
    model.train(training)


def log_evidence(model: Model, kind: str, images: Tensor, responses: Tensor) -> Tensor:
    """(n_neurons, n_widths * h * w). Constant noise: weights integrated out; otherwise given the weights."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    batches = list(_feature_batches(model, images))
    n_atoms = batches[0].shape[2]
    size = model.options.training.batch_size
    n_places = int(_MOST_LIKELIHOODS / (responses.numel() * (1 + readout.map_shape[0] / 8)))
    n_places = n_atoms if n_places >= n_atoms else max(n_places, _FEWEST_PLACES)
    evidence = torch.zeros(0)
    if kind == "constant" or n_places < n_atoms:
        constant = ConstantNoiseEvidence(readout.map_shape[0], n_atoms, responses)
        for features, wanted in zip(batches, responses.split(size), strict=True):
            constant.add(features, wanted)
        evidence = constant.evidence(model.options.readout.prior_ridge)
    if kind == "constant":
        return evidence
    noise = readout.noise(kind)
    if n_places == n_atoms:
        return _likelihood_everywhere(model, noise, batches, responses)
    return _likelihood_at_best(model, noise, batches, responses, evidence, n_places)


def _feature_batches(model: Model, images: Tensor) -> list[Tensor]:
    """The features at every place, a batch at a time: (n_images, K, n_widths * h * w)."""
    batches = []
    for some in images.split(model.options.training.batch_size):
        maps = model.core(some)
        batches.append(torch.cat([blur(maps, width).flatten(2) for width in model.options.readout.widths], 2))
    return batches


def _likelihood_everywhere(model: Model, noise: NoiseModel, batches: list[Tensor], responses: Tensor) -> Tensor:
    weights, bias = model.readout.feature_weights(), model.bias.detach()
    n_neurons, n_atoms = len(weights), batches[0].shape[2]
    total = torch.zeros(n_neurons, n_atoms).to(weights)
    size = model.options.training.batch_size
    for features, wanted in zip(batches, responses.split(size), strict=True):
        some = max(1, _AT_ONCE // (len(features) * n_atoms))
        for start in range(0, n_neurons, some):
            chosen = slice(start, start + some)
            drive = torch.einsum("nk,bka->ban", weights[chosen], features) + bias[chosen]
            found = NoiseModel(noise.kind, noise.coefficients, noise.dispersion[chosen])
            rates = model.nonlinearity(drive)
            total[chosen] -= found.negative_log_likelihood(rates, wanted[:, None, chosen]).sum(0).T
    return total


def _likelihood_at_best(
    model: Model, noise: NoiseModel, batches: list[Tensor], responses: Tensor, evidence: Tensor, n_places: int
) -> Tensor:
    """At the places that the evidence under constant noise finds best; -inf elsewhere."""
    weights, bias = model.readout.feature_weights(), model.bias.detach()
    places = evidence.topk(n_places, 1).indices  # (n_neurons, n_places)
    total = torch.zeros(places.shape).to(weights)
    size = model.options.training.batch_size
    n_features = weights.shape[1]
    for features, wanted in zip(batches, responses.split(size), strict=True):
        some = max(1, 4 * _AT_ONCE // (len(features) * n_places * n_features))
        for start in range(0, len(weights), some):
            chosen = slice(start, start + some)
            at = features[:, :, places[chosen].flatten()].view(len(features), n_features, -1, n_places)
            drive = torch.einsum("nk,bknp->bpn", weights[chosen], at) + bias[chosen]
            found = NoiseModel(noise.kind, noise.coefficients, noise.dispersion[chosen])
            likelihood = found.negative_log_likelihood(model.nonlinearity(drive), wanted[:, None, chosen])
            total[chosen] -= likelihood.sum(0).T
    return torch.full_like(evidence, -torch.inf).scatter_(1, places, total)


def _fit_weights_and_noise(
    model: Model,
    kind: str,
    images: Tensor,
    responses: Tensor,
    floor: float,
    first: bool,
    generator: torch.Generator,
) -> None:
    """From places drawn of the present posterior. At first the noise counts as constant: nothing is known yet."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    n_features = readout.map_shape[0]
    most = max(32, _MOST_NUMBERS // (readout.n_neurons * n_features * _DRAWS))
    images, responses = spread(images, most), spread(responses, most)
    pixels = readout.draw_pixels(_DRAWS, generator)  # (draws, n_neurons)
    features = torch.cat(
        [
            torch.stack([model.core(some).flatten(2)[:, :, of_draw] for of_draw in pixels], 1)
            for some in images.split(model.options.training.batch_size)
        ]
    )  # (n_images, draws, K, n_neurons)
    features = features.permute(3, 0, 1, 2).flatten(1, 2)  # (n_neurons, n_images * draws, K)
    wanted = responses.T.repeat_interleave(_DRAWS, 1)  # (n_neurons, n_images * draws)
    if model.options.readout.nonlinearity == "identity":
        _solve_weights(model, kind, features, wanted)
    drive = torch.einsum("ndk,nk->dn", features, readout.feature_weights()) + model.bias
    used = "constant" if first and kind in ("rate", "estimated") else kind
    readout.set_noise(fit_noise(used, model.nonlinearity(drive), wanted.T, floor))


def _solve_weights(model: Model, kind: str, features: Tensor, wanted: Tensor) -> None:
    """argmax_w of the expected log likelihood and a prior N(m, T) over neurons, whose m and T the neurons give.

    features: (n_neurons, n, K), wanted: (n_neurons, n); every draw counts for 1 / draws of an image.
    """
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    weights, noise = readout.feature_weights(), readout.noise(kind)
    rates = torch.einsum("ndk,nk->dn", features, weights) + model.bias
    precision = (1.0 / (noise.variance(rates) * noise.dispersion)).T / _DRAWS  # (n_neurons, n)
    share = precision / precision.sum(1, keepdim=True)
    centre = torch.einsum("ndk,nd->nk", features, share)
    mean = (wanted * share).sum(1)
    centred = (features - centre[:, None]).double()
    weighted = centred * precision.double()[:, :, None]
    gram = centred.mT @ weighted  # (n_neurons, K, K)
    cross = torch.einsum("ndk,nd->nk", weighted, (wanted - mean[:, None]).double())
    solved = shrunken(gram, cross)
    readout.weights.copy_(solved)
    readout.project()
    model.bias.copy_(mean - (centre * readout.weights).sum(1))


def shrunken(gram: Tensor, cross: Tensor, n_rounds: int = 20) -> Tensor:
    """w_n = argmax of -w^T G_n w / 2 + b_n^T w + log N(w; m, T), with m and T of the highest likelihood over neurons.

    gram: (n_neurons, K, K), cross: (n_neurons, K); returns (n_neurons, K). Expectation maximisation of a normal
    hierarchy: alike neurons share one w, unlike ones keep their own. With fewer than four neurons there is no prior.
    """
    n_neurons, n_features = cross.shape
    eye = torch.eye(n_features).to(gram)
    gram = gram + 1e-6 * gram.diagonal(dim1=1, dim2=2).mean() * eye
    own = torch.linalg.inv(gram)  # covariance of each neuron's own estimate
    values = (own @ cross[:, :, None])[:, :, 0]
    if n_neurons < 4:
        return values
    least = 1e-6 * values.square().mean().clamp(min=1e-12)
    mean = values.mean(0)
    prior = _positive(torch.cov(values.T).view(n_features, n_features) - own.mean(0), least)  # by moments, at first
    for _ in range(n_rounds):
        inverse = torch.linalg.inv(prior)
        covariance = torch.linalg.inv(gram + inverse)
        values = (covariance @ (cross + mean @ inverse)[:, :, None])[:, :, 0]
        mean = values.mean(0)
        prior = _positive((values - mean).T @ (values - mean) / n_neurons + covariance.mean(0), least)
    return values


def _positive(matrix: Tensor, least: Tensor) -> Tensor:
    """The nearest symmetric matrix whose eigenvalues are at least `least`."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors @ torch.diag(torch.maximum(values, least)) @ vectors.T


def recentre(model: Model) -> None:
    """Moves the kernels of a core of one layer to the middle of their window, and the posterior the other way.

    A kernel shifted one way and its places the other are the same model, but a kernel off the middle is cropped.
    """
    core, readout = model.core, model.readout
    assert isinstance(readout, PosteriorReadout)
    if len(core.layers) > 1:
        return
    kernels = core.layers[0].spatial_kernels()
    shift = _off_centre(kernels)
    if not any(shift):
        return
    kernels.copy_(_shifted(kernels, (-shift[0], -shift[1])))
    moved = _shifted(readout.posterior, shift)
    total = moved.sum((1, 2, 3), keepdim=True)
    readout.set_posterior(torch.where(total > 0.5, moved / total.clamp(min=0.5), readout.posterior))


def _off_centre(kernels: Tensor) -> tuple[int, int]:
    """Rows and columns from the middle to the centre of mass of the squared kernels, whole pixels."""
    energy = kernels.square()
    energy = (energy / energy.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)).sum((0, 1))
    energy = energy / energy.sum()
    rows, columns = (torch.arange(size).to(energy) - (size - 1) / 2 for size in energy.shape)
    return round((energy.sum(1) @ rows).item()), round((energy.sum(0) @ columns).item())


def _shifted(values: Tensor, shift: tuple[int, int]) -> Tensor:
    """The last two dimensions moved by whole pixels, zeros where nothing came from."""
    out = values.roll(shift, (-2, -1))
    for axis, by in zip((-2, -1), shift, strict=True):
        size = values.shape[axis]
        gone = range(by) if by > 0 else range(size + by, size)
        out.index_fill_(axis, torch.tensor(list(gone), dtype=torch.int64, device=values.device), 0.0)
    return out
