"""The generalised linear model: its gradient, its optimiser, and other libraries' answers."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import PoissonRegressor

import whatwhere as ww
from whatwhere.baselines import GLM, Ridge
from whatwhere.baselines.families import MOST_DRIVE, Family
from whatwhere.baselines.glm import GLMSolver, PenalisedLoss
from whatwhere.baselines.lbfgs import minimise
from whatwhere.errors import InputError, OptionError
from whatwhere.losses import LOSSES

FAMILIES = [
    ("identity", "squared"),
    ("relu", "squared"),
    ("exponential", "squared"),
    ("softplus", "squared"),
    ("relu", "poisson"),
    ("exponential", "poisson"),
    ("softplus", "poisson"),
]
N_PIXELS = 2 * 4 * 7


def problem(n_images: int, nonlinearity: str = "exponential") -> tuple[np.ndarray, np.ndarray]:
    """Correlated, centred pixels of two channels of 4 x 7, and counts."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(n_images, 2, 4, 7)).cumsum(3).reshape(n_images, -1)
    pixels -= pixels.mean(0)
    drive = pixels @ rng.normal(size=(N_PIXELS, 3)) * 0.05 + [-1, 0, 0.5]
    return pixels, rng.poisson(Family(nonlinearity).rate(drive)).astype(float)


def recording(n_images: int = 300) -> ww.Recording:
    pixels, responses = problem(n_images)
    return ww.Recording(pixels.reshape(-1, 2, 4, 7) * 20 + 100, responses)


# ------------------------------------------------------------------------------------------------ losses, gradients


@pytest.mark.parametrize(("nonlinearity", "loss"), FAMILIES)
def test_losses_and_slopes(nonlinearity: str, loss: str, rng: np.random.Generator) -> None:
    family = Family(nonlinearity, loss)
    drive, responses = rng.normal(size=(8, 3)), rng.poisson(1.5, (8, 3)).astype(float)
    losses, slopes = family.losses(drive, responses)
    rate = {"identity": drive, "relu": drive.clip(0), "exponential": np.exp(drive), "softplus": np.log1p(np.exp(drive))}
    np.testing.assert_allclose(family.rate(drive), rate[nonlinearity], rtol=1e-12)
    theirs = LOSSES[loss](torch.from_numpy(rate[nonlinearity]), torch.from_numpy(responses)).item()
    assert losses.mean() == pytest.approx(theirs, abs=2e-3 if nonlinearity == "exponential" else 1e-12)
    step = 1e-6
    numeric = (family.losses(drive + step, responses)[0] - family.losses(drive - step, responses)[0]) / (2 * step)
    np.testing.assert_allclose(slopes, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("nonlinearity", "loss"), FAMILIES)
def test_the_start_has_the_mean_rate(nonlinearity: str, loss: str) -> None:
    family, means = Family(nonlinearity, loss), np.array([0.01, 0.7, 30.0])
    drive, slope = family.start(means)
    np.testing.assert_allclose(family.rate(drive), means, rtol=1e-9)
    np.testing.assert_allclose(slope, (family.rate(drive + 1e-6) - family.rate(drive - 1e-6)) / 2e-6, rtol=1e-5)
    assert np.isfinite(family.start(np.zeros(1))).all(), "a silent neuron"


def test_an_exponential_stays_finite() -> None:
    family = Family("exponential", "poisson")
    drive = np.array([MOST_DRIVE + 1000])
    assert np.isfinite(family.rate(drive.astype(np.float32))).all()
    losses, slopes = family.losses(drive, np.array([2.0]))
    assert np.isfinite(losses).all()
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("nonlinearity", "loss", "message"),
    [
        ("identity", "poisson", "the poisson loss needs predictions of 0 or more, but the nonlinearity is 'identity'"),
        ("exponent", "poisson", r"unknown nonlinearity 'exponent': .* Did you mean 'exponential'\?"),
        ("relu", "poison", r"unknown loss 'poison': .* Did you mean 'poisson'\?"),
    ],
)
def test_families_that_do_not_fit_are_refused(nonlinearity: str, loss: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Family(nonlinearity, loss)
    with pytest.raises(OptionError, match=message):
        GLM(nonlinearity=nonlinearity, loss=loss).fit(recording(20))


@pytest.mark.parametrize("n_images", [40, 200], ids=["fewer images than pixels", "more images than pixels"])
@pytest.mark.parametrize(("nonlinearity", "loss"), FAMILIES)
def test_the_gradient_is_that_of_finite_differences(
    n_images: int, nonlinearity: str, loss: str, rng: np.random.Generator
) -> None:
    pixels, responses = problem(n_images)
    features = GLMSolver(pixels, Family()).ridge.features()
    scaling = rng.uniform(0.5, 2, features.shape[1]) / features.std(0)
    objective = PenalisedLoss(features, scaling, responses, Family(nonlinearity, loss), 0.3)
    points = rng.normal(size=(3, features.shape[1] + 1)) * 0.1 + np.eye(features.shape[1] + 1)[-1] * 0.7
    which = np.array([2, 0, 1])
    _, gradients = objective(points, which)
    for point, neuron, gradient in zip(points, which, gradients, strict=True):
        step = 1e-6 * np.eye(len(point))
        many = np.full(len(point), neuron)
        numeric = (objective(point + step, many)[0] - objective(point - step, many)[0]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())


# -------------------------------------------------------------------------------------------------------- optimiser


def valleys(points: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rosenbrock's valley, shifted and stretched for each problem; the minimum is at (shift, shift^2)."""
    shift, stretch = 1 + 0.3 * which, 10.0 * (1 + which)
    x, y = points.T
    values = (shift - x) ** 2 + stretch * (y - x**2) ** 2
    gradients = np.stack([-2 * (shift - x) - 4 * stretch * x * (y - x**2), 2 * stretch * (y - x**2)], 1)
    return values, gradients


def test_curved_valleys_are_followed_to_their_ends() -> None:
    start = np.tile([-1.2, 1.0], (6, 1))
    ends, converged = minimise(valleys, start, tolerance=1e-8)
    shift = 1 + 0.3 * np.arange(6)
    np.testing.assert_allclose(ends, np.stack([shift, shift**2], 1), rtol=1e-6)
    assert converged.all()
    np.testing.assert_array_equal(start, np.tile([-1.2, 1.0], (6, 1)), "the start is left as it was")


def test_each_problem_ends_as_if_alone() -> None:
    together, _ = minimise(valleys, np.tile([-1.2, 1.0], (6, 1)))
    for number in range(6):
        alone, _ = minimise(lambda p, which, n=number: valleys(p, which + n), np.array([[-1.2, 1.0]]))
        np.testing.assert_array_equal(alone[0], together[number])


def test_it_ends_where_scipys_does(rng: np.random.Generator) -> None:
    pixels, responses = problem(200)
    scaling = np.ones(N_PIXELS)
    objective = PenalisedLoss(pixels, scaling, responses, Family("softplus", "poisson"), 0.01)
    ends, converged = minimise(objective, np.zeros((3, N_PIXELS + 1)), tolerance=1e-8)
    assert converged.all()
    for neuron in range(3):

        def one(point: np.ndarray, neuron: int = neuron) -> tuple[float, np.ndarray]:
            value, gradient = objective(point[None], np.array([neuron]))
            return value[0], gradient[0]

        options = {"maxiter": 10_000, "ftol": 1e-15, "gtol": 1e-9}
        theirs = minimize(one, np.zeros(N_PIXELS + 1), jac=True, method="L-BFGS-B", options=options)
        np.testing.assert_allclose(ends[neuron], theirs.x, atol=1e-5)


def test_too_few_steps_are_told() -> None:
    start = np.array([[-1.2, 1.0], [1.3, 1.3**2]])
    ends, converged = minimise(valleys, start, most_steps=3)
    assert converged.tolist() == [False, True], "the second one started at its end"
    np.testing.assert_array_equal(ends[1], start[1])
    assert valleys(ends, np.arange(2))[0][0] < valleys(start, np.arange(2))[0][0]


def test_where_nothing_goes_down_is_an_end_only_where_nothing_should() -> None:
    def upwards(points: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The second one's gradient is wrong, the third has no value."""
        values = 1e9 + (points**2).sum(1)
        values[which == 2] = np.nan
        gradients = 2 * points
        gradients[which == 1] = -1e6
        return values, gradients

    ends, converged = minimise(upwards, np.full((3, 2), [1e-3, 2e-3]), tolerance=1e-12)
    assert converged.tolist() == [True, False, False], "the first is lost in the rounding of 1e9"
    assert np.abs(ends[1:]).max() < 1e-2
    assert minimise(upwards, np.ones((2, 2)), tolerance=1e-12, least_gain=1e-4)[1].all(), "a kink is an end"


def test_kinks_do_not_keep_it_going() -> None:
    slopes = np.random.default_rng(0).normal(size=(2, 40, 5))

    def corners(points: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A parabola with 40 kinks; the minimum lies on some of them."""
        drive = np.einsum("nks,ns->nk", slopes[which], points) - 1
        values = np.maximum(drive, 0).sum(1) + ((points - 1) ** 2).sum(1)
        return values, np.einsum("nks,nk->ns", slopes[which], (drive > 0).astype(float)) + 2 * (points - 1)

    best, converged = minimise(corners, np.zeros((2, 5)), most_steps=20_000)
    assert np.abs(corners(best, np.arange(2))[1]).max() > 0.1, "the gradient does not vanish"
    calls = []

    def counted(points: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        calls.append(len(which))
        return corners(points, which)

    ends, converged = minimise(counted, np.zeros((2, 5)), least_gain=1e-4, most_steps=20_000)
    assert converged.all()
    assert len(calls) < 1000
    values, least = corners(ends, np.arange(2))[0], corners(best, np.arange(2))[0]
    assert (values < least + 1e-2 * np.abs(least)).all()


# ------------------------------------------------------------------------------------------------------------ model


@pytest.mark.parametrize("n_images", [40, 300], ids=["fewer images than pixels", "more images than pixels"])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_exponential_poisson_is_sklearns(n_images: int, strength: float) -> None:
    pixels, responses = problem(n_images)
    (found,) = GLMSolver(pixels, Family("exponential", "poisson")).path(responses, np.array([strength]))
    assert found.solved.all()
    penalty = strength * np.mean(pixels**2)
    for neuron in range(3):
        theirs = PoissonRegressor(alpha=2 * penalty, tol=1e-10, max_iter=10_000).fit(pixels, responses[:, neuron])
        np.testing.assert_allclose(found.filters[:, neuron], theirs.coef_, atol=1e-4 * np.abs(theirs.coef_).max())
        np.testing.assert_allclose(found.offset[neuron], theirs.intercept_, atol=1e-4)


def sparse_problem() -> tuple[np.ndarray, np.ndarray]:
    """Neurons with 1, 2, 3 and 30 spikes in 300 images, and one with 500 in one image; of unit variance."""
    rng = np.random.default_rng(0)
    pixels, responses = rng.normal(size=(300, 80)), np.zeros((300, 5))
    for neuron, n_spikes in enumerate((1, 2, 3, 30)):
        responses[rng.choice(300, n_spikes, replace=False), neuron] = 1
    responses[5, 4] = 500
    return pixels - pixels.mean(0), responses / responses.std(0)


@pytest.mark.parametrize("strengths", [[0.01], [1.0, 0.01]])
def test_neurons_with_few_spikes_are_fitted_too(strengths: list[float]) -> None:
    """Ridge's solution divided by the slope at their mean response is far off where that is nearly 0."""
    pixels, responses = sparse_problem()
    found = list(GLMSolver(pixels, Family("exponential", "poisson")).path(responses, np.array(strengths)))[-1]
    assert found.solved.all()
    penalty = strengths[-1] * np.mean(pixels**2)
    for neuron in range(5):
        theirs = PoissonRegressor(alpha=2 * penalty, tol=1e-10, max_iter=10_000).fit(pixels, responses[:, neuron])
        np.testing.assert_allclose(found.filters[:, neuron], theirs.coef_, atol=1e-3 * np.abs(theirs.coef_).max())


@pytest.mark.parametrize(("nonlinearity", "loss"), FAMILIES)
def test_no_fit_is_worse_than_no_filter(nonlinearity: str, loss: str) -> None:
    pixels, responses = sparse_problem()
    family = Family(nonlinearity, loss)
    flat = np.tile(family.start(responses.mean(0))[0], (300, 1))
    for found in GLMSolver(pixels, family).path(responses, np.array([10.0, 0.1, 1e-3])):
        losses = family.losses(pixels @ found.filters + found.offset, responses)[0].mean(0)
        assert (losses <= family.losses(flat, responses)[0].mean(0) + 1e-9).all()


def test_the_fitted_model_is_sklearns_in_the_datas_units() -> None:
    data = recording()
    model = GLM(strengths=[0.1], nonlinearity="exponential").fit(data)
    rows, _ = data.split(0.2, seed=0)
    pixels = data.read_images().reshape(len(data.responses), -1).astype(float)
    pixels = (pixels - pixels[rows].mean()) / pixels[rows].std()
    unit = pixels[rows].var(0).mean()
    for neuron in range(3):
        response = data.responses[rows, neuron].astype(float)
        alpha = 2 * 0.1 * unit * response.std()  # theirs is of unscaled responses, and half the square
        theirs = PoissonRegressor(alpha=alpha, tol=1e-10, max_iter=10_000).fit(pixels[rows], response)
        np.testing.assert_allclose(model.predict(data.images)[:, neuron], theirs.predict(pixels), rtol=1e-3)
        assert model.scale_[neuron] == pytest.approx(response.std(), rel=1e-6)


def test_identity_with_squared_error_is_ridge() -> None:
    data = recording()
    ours = GLM(nonlinearity="identity", loss="squared", strengths=[0.1, 3]).fit(data)
    ridge = Ridge(strengths=[0.1, 3]).fit(data)
    np.testing.assert_allclose(ours.predict(data.images), ridge.predict(data.images), atol=1e-4)
    np.testing.assert_allclose(ours.filters_, ridge.filters_, atol=1e-4 * ridge.filters_.std())
    np.testing.assert_allclose(ours.history_["validation_loss"], ridge.history_["validation_loss"], rtol=1e-6)


@pytest.mark.parametrize("loss", ["squared", "poisson"])
@pytest.mark.parametrize("nonlinearity", ["relu", "softplus", "exponential"])
def test_it_recovers_the_filter_and_beats_ridge_where_the_truth_is_nonlinear(nonlinearity: str, loss: str) -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(3000, 4, 7)).astype(np.float32)
    truth = np.zeros((2, 4, 7))
    truth[0, 1, 2:4], truth[1, 2, 4:6] = [1.0, -0.8], [0.9, 0.9]
    rates = Family(nonlinearity).rate(images.reshape(3000, -1) @ truth.reshape(2, -1).T)
    held_out = ww.HeldOut(images[2000:], rates[2000:], np.arange(1000), rates[2000:])
    data = ww.Recording(images[:2000], rng.poisson(rates[:2000]), test=held_out)
    model = GLM(nonlinearity=nonlinearity, loss=loss).fit(data)
    found, ridge = (one.evaluate(data).summary["fev"]["mean"] for one in (model, Ridge().fit(data)))
    assert found > 0.95
    assert found > ridge + 0.02
    for filters, true in zip(model.filters_[:, 0], truth, strict=True):
        assert np.corrcoef(filters.ravel(), true.ravel())[0, 1] > 0.97


def test_the_best_strength_is_that_of_the_lowest_loss() -> None:
    data = recording(120)
    model = GLM(strengths=[1e-3, 0.1, 1000]).fit(data)
    rows, validation = data.split(0.2, seed=0)
    scale = data.responses[rows].std(0)
    losses = []
    for strength in (1e-3, 0.1, 1000):
        rates = GLM(strengths=[strength]).fit(data).predict(data.images[validation]) / scale
        losses.append(np.mean(rates - data.responses[validation] / scale * np.log(rates + 1e-5)))
    np.testing.assert_allclose(model.history_["validation_loss"], losses, atol=1e-4)
    assert model.strength_ == [1e-3, 0.1, 1000][int(np.argmin(losses))] == 0.1


def test_the_poisson_loss_needs_responses_of_0_or_more() -> None:
    data = recording(60)
    dusty = ww.Recording(data.images, np.where(data.responses == 0, np.float32(-1e-9), data.responses))
    np.testing.assert_array_equal(GLM().fit(dusty).predict(data.images), GLM().fit(data).predict(data.images))
    with pytest.raises(InputError, match="the Poisson loss needs rates of 0 or more"):
        GLM().fit(data.images, data.responses - 1)
    assert np.isfinite(GLM(loss="squared", nonlinearity="relu").fit(data.images, data.responses - 1).offset_).all()
