"""Where neurons look, inferred: likelihoods against loops, the steps of `locate`, and the objective that they raise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from whatwhere import location_inference, place_evidence
from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.location_inference import (
    _likelihood_at_best,
    _likelihood_everywhere,
    is_due,
    locate,
    log_evidence,
    noise_kind,
    settle,
    training_loss,
)
from whatwhere.location_posterior import (
    FeatureMoments,
    VaryingNoiseEvidence,
    constant_noise_evidence,
    narrow_priors,
    posterior,
)
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes
from whatwhere.noise_models import NoiseModel, fit_noise
from whatwhere.normal_hierarchy import shrunken
from whatwhere.place_evidence import feature_batches
from whatwhere.readouts import PosteriorReadout

N_IMAGES, N_NEURONS, BATCH, HEIGHT, WIDTH = 50, 5, 16, 9, 13
MAP, WIDTHS = (7, 10), (0.0, 1.0)
SHARED = ("readout.coefficients", "readout.noise_number")


def options(nonlinearity: str = "softplus", n_maps: int = 2, **readout: object) -> ModelOptions:
    return ModelOptions(
        core=CoreOptions(kernel_sizes=((3, 4),), n_maps=n_maps, kernel_std=0.3),
        readout=ReadoutOptions(nonlinearity=nonlinearity, **{"widths": WIDTHS} | readout),  # type: ignore[arg-type]
        training=TrainingOptions(loss="squared" if nonlinearity == "identity" else "poisson", batch_size=BATCH),
    )


def build(nonlinearity: str = "softplus", n_maps: int = 2, n_neurons: int = N_NEURONS, **readout: object) -> Model:
    """Random symmetric kernels, weights, biases, posterior and noise, in double precision and evaluation mode."""
    chosen = options(nonlinearity, n_maps, **readout)
    model = Model("posterior", chosen, Shapes(1, HEIGHT, WIDTH, n_neurons)).double().eval()
    assert isinstance(model.readout, PosteriorReadout)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.core.initialize(generator)
        kernels = model.core.layers[0].convolution.weight
        kernels += kernels.flip(2, 3).clone()  # in the middle of their window: nothing to recentre
        model.readout.weights.normal_(generator=generator)
        model.bias.normal_(generator=generator)
    odds = torch.rand(model.readout.posterior.shape, generator=generator, dtype=torch.float64) ** 8
    model.readout.set_posterior(odds / odds.sum((1, 2, 3), keepdim=True))
    dispersion = torch.linspace(0.5, 2.0, n_neurons).double()
    kind = str(readout.get("noise", "estimated"))
    model.readout.set_noise(NoiseModel(kind, torch.tensor([0.3, 0.5, 0.2]).double(), dispersion))
    return model


@pytest.fixture
def images(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(N_IMAGES, 1, HEIGHT, WIDTH)))


@pytest.fixture
def responses(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.poisson(2.0, (N_IMAGES, N_NEURONS)).astype(float))


@torch.no_grad()
def features(model: Model, images: torch.Tensor) -> np.ndarray:
    """(n_images, K, n_atoms) by SciPy's blur."""
    maps = model.core(images).numpy()
    found = []
    for width in model.options.readout.widths:
        reach = int(np.ceil(3 * width))
        blurred = gaussian_filter(maps, (0, 0, width, width), mode="constant", radius=(0, 0, reach, reach))
        found.append(blurred.reshape(*maps.shape[:2], -1))
    return np.concatenate(found, 2)


def log_likelihoods(model: Model, kind: str, images: torch.Tensor, responses: torch.Tensor) -> np.ndarray:
    """(n_neurons, n_atoms), given weights, bias and noise: one neuron, one place and one image after the other."""
    at, readout = features(model, images), model.readout
    assert isinstance(readout, PosteriorReadout)
    weights, bias = readout.weights.detach().numpy(), model.bias.detach().numpy()
    (alpha, beta, gamma), phi, y = readout.coefficients.numpy(), readout.dispersion.numpy(), responses.numpy()
    found = np.zeros((len(bias), at.shape[2]))
    for n in range(len(bias)):
        for a in range(at.shape[2]):
            for b in range(len(at)):
                drive = weights[n] @ at[b, :, a] + bias[n]
                rate = drive if model.options.readout.nonlinearity == "identity" else np.logaddexp(0, drive)
                if kind == "poisson":
                    found[n, a] -= (rate - y[b, n] * np.log(rate + 1e-5)) / phi[n]
                    continue
                size = abs(rate)
                variance = phi[n] * (alpha + (beta * size + (gamma * size**2 if kind == "estimated" else 0.0)))
                found[n, a] -= 0.5 * ((y[b, n] - rate) ** 2 / variance + np.log(variance))
    return found


@pytest.mark.parametrize("kind", ["rate", "estimated"])
def test_likelihoods_of_all_places_are_those_of_a_loop(
    kind: str, images: torch.Tensor, responses: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("identity", noise=kind)
    expected = log_likelihoods(model, kind, images, responses)
    assert expected.shape == (N_NEURONS, 2 * MAP[0] * MAP[1])
    with torch.no_grad():
        np.testing.assert_allclose(log_evidence(model, images, responses).numpy(), expected, rtol=1e-9)
        monkeypatch.setattr(place_evidence, "_MOST_FEATURES", 0)  # computed anew by each loop
        monkeypatch.setattr(location_inference, "_AT_ONCE", 3_000)  # a neuron or two at once
        np.testing.assert_allclose(log_evidence(model, images, responses).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["rate", "estimated"])
def test_likelihoods_of_the_best_places_are_those_of_all(
    kind: str, images: torch.Tensor, responses: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("identity", noise=kind)
    n_atoms = 2 * MAP[0] * MAP[1]
    with torch.no_grad():
        noise, batches = model.readout.noise(), feature_batches(model, images)
        everywhere = _likelihood_everywhere(model, noise, batches, responses)
        evidence = torch.rand(N_NEURONS, n_atoms, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for n_places in (1, 17, n_atoms):
            found = _likelihood_at_best(model, noise, batches, responses, evidence, n_places)
            best = evidence >= evidence.topk(n_places, 1).values[:, -1:]
            assert best.sum().item() == N_NEURONS * n_places
            torch.testing.assert_close(found[best], everywhere[best], rtol=1e-9, atol=1e-9)
            assert (found[~best] == -torch.inf).all()
        constant = log_evidence(build("identity", noise="constant"), images, responses)
        monkeypatch.setattr(location_inference, "_MOST_LIKELIHOODS", 1.0)
        few = log_evidence(model, images, responses)
    best = constant >= constant.topk(16, 1).values[:, -1:]  # by constant noise, where there are too many
    torch.testing.assert_close(few[best], everywhere[best], rtol=1e-9, atol=1e-9)
    assert (few[~best] == -torch.inf).all()


@pytest.mark.parametrize("kind", ["poisson", "rate", "estimated"])
def test_under_a_nonlinear_output_the_evidence_is_that_of_responses_whose_noise_is_constant(
    kind: str, images: torch.Tensor, responses: torch.Tensor
) -> None:
    model = build("softplus", noise=kind)
    constant = build("softplus", noise="constant")
    stable = model.readout.noise().stabilised(responses)
    with torch.no_grad():
        found = log_evidence(model, images, responses)
        torch.testing.assert_close(found, log_evidence(constant, images, stable))
        assert (found - log_evidence(constant, images, responses)).abs().max() > 0.1
        model.readout.weights.normal_()  # it does not ask where weights were learned
        torch.testing.assert_close(log_evidence(model, images, responses), found)


@pytest.mark.parametrize("widths", [(0.0, 1.0), (1.0, 0.0, 0.4), (0.7, 1.0), (0.0,)])
def test_constant_noise_evidence_is_that_of_all_features_for_any_number_of_neurons_at_once(
    widths: tuple[float, ...], images: torch.Tensor, responses: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the widths are ordered, and whether one of them is sharp or not."""
    model = build(noise="constant", prior_ridges=(0.3, 2.0), widths=widths)
    at = torch.from_numpy(features(model, images))
    moments = FeatureMoments(2, len(widths) * MAP[0] * MAP[1], responses)
    moments.add(at)
    cross = torch.einsum("bka,bn->akn", at, responses - responses.mean(0))
    expected = constant_noise_evidence(moments, cross, responses.var(0, correction=0), (0.3, 2.0))
    with torch.no_grad():
        for at_once in (1, 600, 10**9):  # numbers: one neuron, some, all
            monkeypatch.setattr(place_evidence, "_MOST_NUMBERS", at_once)
            found = log_evidence(model, images, responses)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_it_is_due_from_the_first_step_on_at_its_interval() -> None:
    model = build(locate_from=7, locate_every=5)
    assert [step for step in range(30) if is_due(model, step)] == [7, 12, 17, 22, 27]
    other = Model("fixed-mask", replace(options(), readout=ReadoutOptions()), Shapes(1, HEIGHT, WIDTH, 2))
    assert not any(is_due(other, step) for step in range(300))


@pytest.mark.parametrize("training", [True, False])
def test_locate_leaves_the_mode_and_needs_no_gradient(
    training: bool, images: torch.Tensor, responses: torch.Tensor
) -> None:
    model = build().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    locate(model, images, responses, step=150, seed=1)
    assert all(module.training is training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    of_noise = {"readout.dispersion", "readout.coefficients", "readout.noise_number"}
    assert changed == {"readout.posterior", "readout.mask"} | of_noise
    assert model.readout.posterior.sum((1, 2, 3)).tolist() == pytest.approx([1.0] * N_NEURONS)


def test_the_same_seed_draws_the_same_places(images: torch.Tensor, responses: torch.Tensor) -> None:
    found = []
    for seed, global_seed in ((1, 0), (1, 5), (2, 5)):
        torch.manual_seed(global_seed)
        model = build(noise="estimated")
        locate(model, images, responses, step=200, seed=seed)
        found.append(model.readout.posterior)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("since", "anneal_steps", "temperature"),
    [(0, 100, 5.0), (34, 100, 3.0), (85, 100, 1.0), (300, 100, 1.0), (0, 0, 1.0)],
)
def test_the_temperature_falls_to_1_while_it_anneals(
    since: int, anneal_steps: int, temperature: float, images: torch.Tensor, responses: torch.Tensor
) -> None:
    model = build(noise="poisson", anneal_steps=anneal_steps, temperature=5.0, locate_from=40)
    locate(model, images, responses, step=40 + since, seed=0)
    with torch.no_grad():
        evidence = log_evidence(model, images, responses)
    expected = posterior(evidence, temperature).view_as(model.readout.posterior)
    torch.testing.assert_close(model.readout.posterior, expected, rtol=1e-6, atol=1e-9)


def points(model: Model) -> np.ndarray:
    """Sets each neuron's posterior to one place, so that every draw is that place; returns the places."""
    n_neurons, n_atoms = len(model.bias), model.readout.posterior[0].numel()
    places = np.random.default_rng(1).choice(MAP[0] * MAP[1], n_neurons)
    point = torch.zeros(n_neurons, n_atoms, dtype=torch.float64)
    point[torch.arange(n_neurons), torch.from_numpy(places)] = 1.0
    model.readout.set_posterior(point)
    return places


@pytest.mark.parametrize("n_maps", [1, 2])
def test_weights_and_bias_are_solved_for_under_the_noise_as_it_was(
    n_maps: int, images: torch.Tensor, responses: torch.Tensor
) -> None:
    """With places that are certain: weighted least squares in NumPy, drawn together by the normal hierarchy."""
    model = build("identity", n_maps, noise="rate", widths=(0.0,))
    places = points(model)
    at = features(model, images)[:, :, places]  # (n_images, K, n_neurons)
    weights, bias = model.readout.weights.detach().numpy(), model.bias.detach().numpy()
    rates = np.einsum("bkn,nk->bn", at, weights) + bias
    precision = 1 / (model.readout.dispersion.numpy() * (0.3 + 0.5 * np.abs(rates)))
    terms = np.concatenate([at, np.ones_like(at[:, :1])], 1)
    gram = np.einsum("bkn,bn,bln->nkl", terms, precision, terms)
    cross = np.einsum("bkn,bn,bn->nk", terms, precision, responses.numpy())
    expected = shrunken(torch.from_numpy(gram), torch.from_numpy(cross))[0]
    locate(model, images, responses, step=400, seed=0)
    torch.testing.assert_close(model.readout.weights.detach(), expected[:, :-1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(model.bias.detach(), expected[:, -1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("since", "used"), [(0, "constant"), (25, "constant"), (50, "rate"), (900, "rate")])
def test_the_noise_is_constant_at_first_and_then_estimated_at_the_places(
    since: int, used: str, images: torch.Tensor, responses: torch.Tensor
) -> None:
    model = build(noise="rate", widths=(0.0,), locate_from=10, locate_every=25, anneal_steps=100)
    places = points(model)
    at = features(model, images)[:, :, places]
    drive = np.einsum("bkn,nk->bn", at, model.readout.weights.detach().numpy()) + model.bias.detach().numpy()
    floor = max(0.1, 0.9 * (1 - min(since / 100, 1.0))) * responses.numpy().var(0).mean()
    rates = torch.from_numpy(np.logaddexp(0, drive)).repeat_interleave(4, 0)  # four draws of each image, all alike
    expected = fit_noise(used, rates, responses.repeat_interleave(4, 0), floor)
    locate(model, images, responses, step=10 + since, seed=0)
    torch.testing.assert_close(model.readout.coefficients, expected.coefficients, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(model.readout.dispersion, expected.dispersion, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("nonlinearity", "noise"), [("identity", "rate"), ("softplus", "poisson")])
def test_permuted_neurons_have_permuted_places(
    nonlinearity: str, noise: str, images: torch.Tensor, responses: torch.Tensor
) -> None:
    order = [3, 0, 4, 1, 2]
    before, after = (build(nonlinearity, noise=noise, widths=(0.0,)) for _ in range(2))
    points(before)
    with torch.no_grad():
        for name, tensor in after.state_dict().items():
            source = before.state_dict()[name]
            of_neurons = name == "bias" or (name.startswith("readout.") and name not in SHARED)
            tensor.copy_(source[order] if of_neurons else source)
    for model, wanted in ((before, responses), (after, responses[:, order])):
        locate(model, images, wanted, step=400, seed=0)
    torch.testing.assert_close(after.readout.posterior, before.readout.posterior[order], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(after.readout.weights, before.readout.weights[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["constant", "rate", "estimated"])
def test_the_squared_error_of_varying_noise_is_its_likelihood(kind: str, rng: np.random.Generator) -> None:
    predictions, responses = (torch.from_numpy(rng.uniform(0.5, 4, (20, N_NEURONS))) for _ in range(2))
    model = build("identity", noise=kind)
    squared = LOSSES["squared"](predictions, responses)
    likelihood = model.readout.noise().negative_log_likelihood(predictions, responses).mean()
    expected = squared if kind == "constant" else likelihood
    torch.testing.assert_close(training_loss(model, predictions, responses), expected)
    assert abs(squared - likelihood) > 0.01, "the two can be told apart"
    other = build("softplus", noise=kind)  # the loss asked for, whatever the evidence counts with
    torch.testing.assert_close(training_loss(other, predictions, responses), LOSSES["poisson"](predictions, responses))


def test_auto_noise_is_chosen_by_the_responses(rng: np.random.Generator) -> None:
    rates = torch.from_numpy(rng.uniform(0.1, 4, (3_000, N_NEURONS)))
    noise = torch.from_numpy(rng.normal(size=rates.shape))
    model = build("softplus")
    for kind, variance in (("constant", 1 + 0 * rates), ("rate", 0.5 + rates), ("poisson", 2 * rates)):
        responses = rates + variance.sqrt() * noise
        assert noise_kind(model, rates, responses) == kind
        assert noise_kind(build("softplus", noise="estimated"), rates, responses) == "estimated"
    assert noise_kind(build("identity"), rates, responses) != "poisson", "rates that may be negative have none"


def test_auto_noise_is_kept_with_the_model(images: torch.Tensor) -> None:
    truth = build("identity", n_maps=1, n_neurons=30, widths=(0.0,))
    points(truth)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        rates = 5 * truth(images)
    loud = rates + 0.3 * rates.abs().sqrt() * torch.randn(rates.shape, generator=generator, dtype=torch.float64)
    even = rates + 0.3 * torch.randn(rates.shape, generator=generator, dtype=torch.float64)
    for wanted, kind in ((loud, "rate"), (even, "constant")):
        model = build("identity", n_maps=1, n_neurons=30, widths=(0.0,))
        model.readout.posterior.copy_(truth.readout.posterior)
        locate(model, images, wanted, step=100, seed=0)
        assert model.readout.noise().kind == "constant", "at first nothing is known"
        for seed in range(2):
            locate(model, images, wanted, step=500, seed=seed)
        assert model.readout.noise().kind == kind
        other = build("identity", n_maps=1, n_neurons=30, widths=(0.0,))
        other.load_state_dict(model.state_dict())
        assert other.readout.noise().kind == kind


def test_settle_is_locate_after_annealing(images: torch.Tensor, responses: torch.Tensor) -> None:
    settled, located = (build(noise="poisson", temperature=9.0, anneal_steps=100) for _ in range(2))
    settle(settled, images, responses, seed=3)
    locate(located, images, responses, step=100_000, seed=3)
    assert torch.equal(settled.readout.posterior, located.readout.posterior)
    with torch.no_grad():
        expected = posterior(log_evidence(settled, images, responses)).view_as(settled.readout.posterior)
    torch.testing.assert_close(settled.readout.posterior, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("widths", [(0.0,), (0.0, 1.5)])
def test_the_sampled_loss_is_on_average_the_expected_loss_over_places(
    widths: tuple[float, ...], images: torch.Tensor, responses: torch.Tensor
) -> None:
    """E_q[-log p], the first term of the objective, not -log p of the expectation: within five standard errors."""
    model = build(noise="poisson", widths=widths)
    readout = model.readout
    readout.set_noise(NoiseModel("poisson", readout.coefficients, torch.ones(N_NEURONS)))
    likelihoods = log_likelihoods(model, "poisson", images, responses)
    expected = -(readout.posterior.flatten(1).numpy() * likelihoods).sum(1).mean() / N_IMAGES
    with torch.no_grad():
        of_expectation = training_loss(model, model(images), responses).item()
        maps = model.core(images)
        readout.train()
        losses = []
        for readout.step_seed in range(1_000):
            rates = model.nonlinearity(readout(maps) + model.bias)
            losses.append(training_loss(model, rates, responses).item())
    error = np.std(losses) / np.sqrt(len(losses))
    assert np.mean(losses) == pytest.approx(expected, abs=5 * error)
    assert abs(of_expectation - expected) > 10 * error, "the two can be told apart"


def objective(model: Model, images: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
    """F = sum_n E_q_n[log p(y_n | place, w_n, core)] - KL(q_n | uniform), with a gradient for the core."""
    readout = model.readout
    assert isinstance(readout, PosteriorReadout)
    maps = model.core(images)
    n_images, n_features = maps.shape[:2]
    places = []
    for width in model.options.readout.widths:
        if width == 0:
            places.append(maps.flatten(2))
            continue
        steps = torch.arange(-int(np.ceil(3 * width)), int(np.ceil(3 * width)) + 1).double()
        line = torch.exp(-(steps**2) / (2 * width**2))
        kernel = (line[:, None] * line / line.sum() ** 2)[None, None]
        planes = maps.reshape(-1, 1, *maps.shape[2:])
        blurred = torch.nn.functional.conv2d(planes, kernel, padding=len(line) // 2)
        places.append(blurred.view(n_images, n_features, -1))
    at = torch.cat(places, 2)  # (n_images, K, n_atoms)
    rates = torch.einsum("nk,bka->bna", readout.weights, at) + model.bias[:, None]
    y, phi = responses[:, :, None], readout.dispersion[:, None]
    variance = phi * (readout.coefficients[0] + readout.coefficients[1] * rates.abs())
    likelihood = -0.5 * ((y - rates) ** 2 / variance + variance.log())
    q = readout.posterior.flatten(1)
    divergence = torch.special.xlogy(q, q * q.shape[1]).sum()
    return (q * likelihood.sum(0)).sum() - divergence


def test_steps_of_core_and_places_never_lower_the_objective(rng: np.random.Generator) -> None:
    """Noise fixed, temperature 1: gradient steps of the core on all images, and the places from their likelihood."""
    truth, model = build("identity", n_neurons=8), build("identity", noise="rate", n_neurons=8)
    points(truth)
    images = torch.from_numpy(rng.normal(size=(120, 1, HEIGHT, WIDTH)))
    with torch.no_grad():
        rates = truth(images).numpy()
    responses = torch.from_numpy(rates + np.sqrt(np.abs(rates)) * rng.normal(size=rates.shape))
    with torch.no_grad():
        model.readout.weights.copy_(truth.readout.weights)
        model.bias.copy_(truth.bias)
        weight = model.core.layers[0].convolution.weight
        weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(9))  # another core
        model.readout.set_posterior(torch.full_like(model.readout.posterior, 1 / model.readout.posterior[0].numel()))
        model.readout.dispersion.fill_(1.0)
    values, of_places, of_core = [objective(model, images, responses).item()], [], []
    for _ in range(12):
        with torch.no_grad():
            evidence = log_evidence(model, images, responses)
            model.readout.set_posterior(posterior(evidence))
            values.append(objective(model, images, responses).item())
        of_places.append(values[-1] - values[-2])
        evidence_of_all = torch.logsumexp(evidence - np.log(evidence.shape[1]), 1).sum().item()
        assert values[-1] == pytest.approx(evidence_of_all, rel=1e-9), "the bound is tight: F is the log evidence"
        for _ in range(5):
            (gradient,) = torch.autograd.grad(objective(model, images, responses), weight)
            with torch.no_grad():
                weight += 4e-3 * gradient / gradient.norm()
            values.append(objective(model, images, responses).item())
        of_core.append(values[-1] - values[-6])
    assert np.diff(values).min() > -1e-9 * abs(values[0])
    assert max(of_places[1:]) > 1e-3
    assert min(of_core) > 1e-3
    assert values[-1] - values[1] > 10, "it rises by more than the first step of the places"


@pytest.mark.parametrize("n_neurons", [1, 5])
@pytest.mark.parametrize("nonlinearity", ["identity", "softplus"])
def test_a_neuron_that_never_responds_gives_finite_numbers(
    nonlinearity: str, n_neurons: int, images: torch.Tensor, responses: torch.Tensor
) -> None:
    responses = responses[:, :n_neurons].clone()
    responses[:, 0] = 0.0
    for kind in ("constant", "rate", "estimated"):
        model = build(nonlinearity, n_neurons=n_neurons, noise=kind)
        for step in (100, 125, 150, 500):
            locate(model, images, responses, step=step, seed=step)
        for name, tensor in model.state_dict().items():
            assert torch.isfinite(tensor).all(), name
        assert model.readout.posterior.sum((1, 2, 3)).tolist() == pytest.approx([1.0] * n_neurons)


def test_one_linear_feature_has_its_weight_integrated_out(images: torch.Tensor, responses: torch.Tensor) -> None:
    model = build("identity", n_maps=1, noise="rate")
    mean, covariance = torch.tensor([0.7, 0.2]).double(), torch.tensor([[0.3, 0.1], [0.1, 0.2]]).double()
    covariance[0, 0] = 0.004  # narrow enough for a single step
    varying = VaryingNoiseEvidence(model.readout.noise(), mean[0], covariance[0, 0], mean[1])
    varying.add(torch.from_numpy(features(model, images)), responses)
    with torch.no_grad():
        found = log_evidence(model, images, responses, (mean, covariance))
        given = log_evidence(model, images, responses)
    torch.testing.assert_close(found, varying.evidence(), rtol=1e-9, atol=1e-9)
    assert (found - given).std() > 0.1
    with torch.no_grad():
        wide = log_evidence(model, images, responses, (mean, 10 * covariance))
    parts = []
    for share, at, narrow in narrow_priors(mean[0], 10 * covariance[0, 0]):
        part = VaryingNoiseEvidence(model.readout.noise(), at, narrow, mean[1])
        part.add(torch.from_numpy(features(model, images)), responses)
        parts.append(np.log(share) + part.evidence())
    torch.testing.assert_close(wide, torch.stack(parts).logsumexp(0), rtol=1e-9, atol=1e-9)
