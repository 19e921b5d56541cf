"""The linear-nonlinear-Poisson model: its gradient, its proximal step, and where other solvers end."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from scipy.optimize import minimize
from sklearn.linear_model import PoissonRegressor

import whatwhere as ww
from whatwhere.baselines import LNP
from whatwhere.baselines.families import Family
from whatwhere.baselines.fista import minimise, shrunken
from whatwhere.baselines.lnp import LNPSolver, SmoothedLoss, laplacian, largest_variance
from whatwhere.baselines.search import Solution
from whatwhere.errors import InputError, OptionError
from whatwhere.penalties import smoothness as roughness

SHAPE = (2, 5, 8)
N_PIXELS = 2 * 5 * 8
LAPLACE = np.array([[0.5, 1, 0.5], [1, -6, 1], [0.5, 1, 0.5]])
BOTH = pytest.mark.parametrize("nonlinearity", ["exponential", "softplus"])
SIZES = pytest.mark.parametrize("n_images", [50, 250], ids=["fewer images than pixels", "more images than pixels"])


def problem(n_images: int, nonlinearity: str = "exponential") -> tuple[np.ndarray, np.ndarray]:
    """Correlated, centred pixels of two channels of 5 x 8, and counts of unit variance of three neurons."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(n_images, *SHAPE)).cumsum(3).cumsum(2).reshape(n_images, -1)
    pixels = 3 * (pixels - pixels.mean(0)) / pixels.std()
    filters = np.zeros((3, *SHAPE))
    filters[0, 0, 1:3, 2:4], filters[1, 1, 2, 3:6], filters[2, :, 3, 5:7] = 0.1, [-0.2, 0.3, -0.2], 0.05
    responses = rng.poisson(Family(nonlinearity).rate(pixels @ filters.reshape(3, -1).T + [0, -0.5, 1]))
    return pixels, responses / responses.std(0)


def recording(n_images: int = 250) -> ww.Recording:
    pixels, responses = problem(n_images)
    return ww.Recording(pixels.reshape(-1, *SHAPE) * 20 + 100, responses * [3, 1, 0.5])


def objective(
    pixels: np.ndarray, responses: np.ndarray, found: Solution, family: Family, smoothness: float, sparsity: float
) -> np.ndarray:
    """The loss and both penalties written out, (n_neurons,), of filters on pixels of any variance."""
    unit = np.sqrt(np.mean(pixels**2))
    rates = family.rate(pixels @ found.filters + found.offset)
    tiny = 1e-5 if family.nonlinearity == "softplus" else 1e-300
    losses = (rates - responses * np.log(rates + tiny)).mean(0)
    filters = unit * found.filters.T.reshape(-1, *SHAPE)
    rough = [sum((convolve(plane, LAPLACE, mode="constant") ** 2).sum() for plane in planes) for planes in filters]
    return losses + smoothness * np.array(rough) + sparsity * np.abs(filters).sum((1, 2, 3))


def solved(
    n_images: int, strengths: Any, nonlinearity: str = "exponential", tolerance: float = 1e-6
) -> tuple[np.ndarray, np.ndarray, list[Solution]]:
    pixels, responses = problem(n_images, nonlinearity)
    solver = LNPSolver(pixels, SHAPE, Family(nonlinearity, "poisson"), tolerance)
    return pixels, responses, list(solver.path(responses, np.array(strengths, float)))


# ------------------------------------------------------------------------------------------------ the parts of a step


def test_the_laplacian_is_that_of_the_cores_penalty(rng: np.random.Generator) -> None:
    filters = rng.normal(size=(4, 3, 5, 7))
    expected = [[convolve(plane, LAPLACE, mode="constant") for plane in planes] for planes in filters]
    np.testing.assert_allclose(laplacian(filters), expected, atol=1e-12)
    theirs = roughness(torch.from_numpy(filters), relative=False).item()
    assert np.square(laplacian(filters)).sum() == pytest.approx(theirs, rel=1e-12)
    for shape in ((1, 1, 1, 6), (1, 1, 6, 1), (1, 1, 1, 1)):
        thin = rng.normal(size=shape)
        np.testing.assert_allclose(laplacian(thin)[0, 0], convolve(thin[0, 0], LAPLACE, mode="constant"), atol=1e-12)
    board = (-1.0) ** np.add.outer(np.arange(30), np.arange(30))
    assert np.abs(laplacian(board[None, None])).max() == 8  # _MOST_CURVED is its square


@BOTH
@pytest.mark.parametrize("smoothness", [0.0, 0.3])
def test_the_gradient_is_that_of_finite_differences(
    nonlinearity: str, smoothness: float, rng: np.random.Generator
) -> None:
    pixels, responses = problem(60, nonlinearity)
    loss = SmoothedLoss(pixels, SHAPE, responses.T.copy(), Family(nonlinearity, "poisson"), smoothness)
    points, which = rng.normal(size=(3, N_PIXELS + 1)) * 0.05, np.array([2, 0, 1])
    gradients = loss.gradients(loss.mapped(points), which)
    for point, neuron, gradient in zip(points, which, gradients, strict=True):
        step, many = 1e-6 * np.eye(len(point)), np.full(len(point), neuron)
        numeric = (loss.values(loss.mapped(point + step), many) - loss.values(loss.mapped(point - step), many)) / 2e-6
        np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())
    unit = float(np.sqrt(np.mean(pixels**2)))
    found = Solution(points[:, :-1].T, points[:, -1], np.ones(3, bool))
    expected = objective(pixels, responses[:, which], found, Family(nonlinearity), smoothness / unit**2, 0.0)
    np.testing.assert_allclose(loss.values(loss.mapped(points), which), expected, rtol=1e-12)


def test_the_proximal_step_is_the_minimum(rng: np.random.Generator) -> None:
    points, thresholds = rng.normal(size=50), rng.uniform(0, 1.5, 50)
    grid = np.linspace(-5, 5, 100_001)
    best = [grid[np.argmin((grid - p) ** 2 / 2 + t * np.abs(grid))] for p, t in zip(points, thresholds, strict=True)]
    np.testing.assert_allclose(shrunken(points, thresholds), best, atol=1e-4)
    assert np.count_nonzero(shrunken(points, thresholds)) < 40


def test_the_largest_variance_is_that_of_the_first_component() -> None:
    pixels, _ = problem(250)
    expected = np.linalg.eigvalsh(pixels.T @ pixels / len(pixels))[-1]
    assert largest_variance(pixels) == pytest.approx(expected, rel=0.03)
    assert largest_variance(np.zeros((5, 3))) == 1


# ------------------------------------------------------------------------------------------------------- the optimiser


class Parabolas:
    """|A x - b_i|^2 / 2 of each problem, with as many variables as b_i has numbers."""

    def __init__(self, matrix: np.ndarray, wanted: np.ndarray) -> None:
        self.matrix, self.wanted = matrix, wanted

    def mapped(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix.T

    def values(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.square(mapped - self.wanted[which]).sum(1) / 2

    def gradients(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        return (mapped - self.wanted[which]) @ self.matrix


def test_parabolas_have_a_closed_form(rng: np.random.Generator) -> None:
    wanted, weights = rng.normal(size=(5, 4)), np.array([0.0, 0.3, 0.6, 3.0])
    start = rng.normal(size=(5, 4))
    before = start.copy()
    ends, converged = minimise(Parabolas(np.eye(4), wanted), weights, np.ones((5, 4)), start, tolerance=1e-10)
    np.testing.assert_allclose(ends, np.sign(wanted) * np.maximum(np.abs(wanted) - weights, 0), atol=1e-9)
    assert converged.all()
    assert (ends[:, 3] == 0).all()
    np.testing.assert_array_equal(start, before)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_narrow_valleys_are_followed_whatever_the_metrics_scale(scale: float, rng: np.random.Generator) -> None:
    """Curvatures from 1 to 900, so that plain gradient steps would need some ten thousand."""
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    matrix = np.diag(np.geomspace(1, 30, 6)) @ rotation
    target = rng.normal(size=(3, 6))
    ends, converged = minimise(
        Parabolas(matrix, target @ matrix.T), np.zeros(6), np.full((3, 6), scale), np.zeros((3, 6)), tolerance=1e-6
    )
    assert converged.all()
    np.testing.assert_allclose(ends, target, atol=1e-5)


def test_each_problem_ends_as_if_alone(rng: np.random.Generator) -> None:
    matrix, wanted = rng.normal(size=(6, 4)) * [1, 5, 1, 20], rng.normal(size=(7, 6)) * 10
    weights, metric = np.full(4, 0.5), rng.uniform(0.5, 2, (7, 4))
    together, _ = minimise(Parabolas(matrix, wanted), weights, metric, np.zeros((7, 4)))
    for number in range(7):
        one = Parabolas(matrix, wanted[number : number + 1])
        alone, _ = minimise(one, weights, metric[number : number + 1], np.zeros((1, 4)))
        np.testing.assert_allclose(alone[0], together[number], rtol=1e-6, atol=1e-8)


def test_too_few_steps_and_what_has_no_value_are_told() -> None:
    matrix = np.diag([1.0, 30.0])
    wanted = np.array([[1.0, 30.0], [0.0, 0.0], [np.nan, 1.0]])
    metric, start = np.ones((3, 2)), np.array([[5.0, 5.0], [0.0, 0.0], [1.0, 2.0]])
    ends, converged = minimise(Parabolas(matrix, wanted), np.zeros(2), metric, start, most_steps=3)
    assert converged.tolist() == [False, True, False], "the second one started at its end"
    np.testing.assert_array_equal(ends[2], [1, 2])
    assert Parabolas(matrix, wanted).values(ends @ matrix.T, np.arange(3))[0] < 25 * 901 / 2


# ------------------------------------------------------------------------------------------------ other libraries' ends


def theirs(pixels: np.ndarray, response: np.ndarray, family: Family, smoothness: float, sparsity: float) -> Solution:
    """By scipy's L-BFGS-B, the filter split into what is above 0 and what is below."""
    unit = float(np.sqrt(np.mean(pixels**2)))
    loss = SmoothedLoss(pixels / unit, SHAPE, response[None], family, smoothness)

    def value(split: np.ndarray) -> tuple[float, np.ndarray]:
        above, below, offset = split[:N_PIXELS], split[N_PIXELS:-1], split[-1:]
        mapped = loss.mapped(np.concatenate([above - below, offset])[None])
        gradient = loss.gradients(mapped, np.zeros(1, int))[0]
        slopes = np.concatenate([gradient[:-1] + sparsity, sparsity - gradient[:-1], gradient[-1:]])
        return float(loss.values(mapped, np.zeros(1, int))[0] + sparsity * split[:-1].sum()), slopes

    bounds = [(0, None)] * (2 * N_PIXELS) + [(None, None)]
    options = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 30}
    found = minimize(value, np.zeros(2 * N_PIXELS + 1), jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    filters = (found[:N_PIXELS] - found[N_PIXELS:-1])[:, None] / unit
    return Solution(filters, found[-1:], np.ones(1, bool))


@BOTH
@SIZES
@pytest.mark.parametrize("pair", [(0.1, 0.03), (0.003, 0.01), (0.0, 0.03), (1.0, 0.0)])
def test_the_optimum_is_scipys(nonlinearity: str, n_images: int, pair: tuple[float, float]) -> None:
    family = Family(nonlinearity, "poisson")
    for tolerance, in_objective, in_filters in ((1e-4, 1e-5, 0.15), (1e-6, 1e-8, 3e-3)):
        pixels, responses, (found,) = solved(n_images, [pair], nonlinearity, tolerance)
        assert found.solved.all()
        ours = objective(pixels, responses, found, family, *pair)
        for neuron in range(3):
            other = theirs(pixels, responses[:, neuron], family, *pair)
            least = objective(pixels, responses[:, neuron, None], other, family, *pair)[0]
            assert ours[neuron] <= least + in_objective * abs(least)
            largest = np.abs(other.filters).max()
            np.testing.assert_allclose(found.filters[:, neuron], other.filters[:, 0], atol=in_filters * largest)


def test_without_penalties_it_is_sklearns(rng: np.random.Generator) -> None:
    pixels = rng.normal(size=(400, 6)) * [1, 2, 1, 0.5, 1, 1]
    pixels -= pixels.mean(0)
    responses = rng.poisson(np.exp(pixels @ rng.normal(size=(6, 4)) * 0.3)).astype(float)
    solver = LNPSolver(pixels, (1, 2, 3), Family("exponential", "poisson"), 1e-8)
    (found,) = solver.path(responses, np.zeros((1, 2)))
    assert found.solved.all()
    for neuron in range(4):
        model = PoissonRegressor(alpha=0, tol=1e-10, max_iter=10_000).fit(pixels, responses[:, neuron])
        np.testing.assert_allclose(found.filters[:, neuron], model.coef_, atol=1e-5)
        np.testing.assert_allclose(found.offset[neuron], model.intercept_, atol=1e-5)


@BOTH
def test_a_path_ends_where_each_pair_alone_does(nonlinearity: str) -> None:
    pairs = [(1.0, 0.1), (1.0, 0.01), (0.01, 0.1), (0.01, 0.01)]
    _, _, path = solved(100, pairs, nonlinearity)
    for pair, found in zip(pairs, path, strict=True):
        _, _, (alone,) = solved(100, [pair], nonlinearity)
        np.testing.assert_allclose(found.filters, alone.filters, atol=2e-4 * np.abs(alone.filters).max())


def test_sparsity_makes_zeros_and_smoothness_makes_smooth() -> None:
    _, _, path = solved(250, [(0.0, 10.0), (0.0, 0.1), (0.0, 0.03), (0.0, 0.01)])
    n_nonzero = [np.count_nonzero(found.filters) for found in path]
    assert n_nonzero[0] == 0
    assert 0 < n_nonzero[1] < n_nonzero[2] < n_nonzero[3] < 3 * N_PIXELS
    _, responses, (none,) = solved(250, [(0.0, 10.0)])
    np.testing.assert_allclose(none.offset, np.log(responses.mean(0)), atol=1e-5)
    relative = []
    for smoothness in (1.0, 0.01):
        _, _, (found,) = solved(250, [(smoothness, 0.0)])
        filters = found.filters.T.reshape(-1, *SHAPE)
        relative.append(np.square(laplacian(filters)).sum() / np.square(filters).sum())
    assert relative[0] < relative[1] / 2


# --------------------------------------------------------------------------------------------------------------- model


def test_strengths_mean_the_same_for_other_units_and_twice_the_images() -> None:
    data, pair = recording(), {"smoothness": [0.03], "sparsity": [0.03]}
    whole = np.zeros(250, bool)
    whole[::5] = True  # judged
    plain = LNP(**pair).fit(ww.Recording(data.images, data.responses, validation=whole))
    expected = plain.predict(data.images)
    twice = [np.concatenate([part, part]) for part in (data.images, data.responses, whole)]
    doubled = LNP(**pair).fit(ww.Recording(twice[0], twice[1], validation=twice[2]))
    np.testing.assert_allclose(doubled.predict(data.images), expected, rtol=1e-3)
    again = ww.Recording(data.images, np.hstack([data.responses, data.responses]), validation=whole)
    np.testing.assert_allclose(LNP(**pair).fit(again).predict(data.images), np.hstack([expected, expected]), rtol=1e-5)
    for standardize in ("global", "none"):
        dark = ww.Recording(data.images * 0.01, data.responses * 7, validation=whole)
        found = LNP(**pair, standardize=standardize).fit(dark).predict(dark.images)
        np.testing.assert_allclose(found, 7 * expected, rtol=1e-3)


def test_a_population_is_fitted_as_each_neuron_alone() -> None:
    data = recording()
    model = LNP().fit(data)
    pair = {"smoothness": [model.smoothness_], "sparsity": [model.sparsity_]}
    together = LNP(**pair).fit(data)
    for neuron in range(3):
        alone = LNP(**pair).fit(data.images, data.responses[:, neuron])
        np.testing.assert_allclose(alone.filters_[0], together.filters_[neuron], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(together.predict(data.images), model.predict(data.images), rtol=2e-3)


def test_every_combination_is_tried_and_the_best_taken() -> None:
    data = recording(120)
    smoothness, sparsity = [1.0, 0.01], [0.001, 0.03, 1.0]
    model = LNP(smoothness, sparsity).fit(data)
    pairs = [(one, other) for one in smoothness for other in sparsity]
    assert list(model.history_.columns) == ["smoothness", "sparsity", "validation_loss"]
    np.testing.assert_array_equal(model.history_[["smoothness", "sparsity"]], pairs)
    rows, validation = data.split(0.2, seed=0)
    scale, losses = data.responses[rows].std(0), []
    for one, other in pairs:
        rates = LNP(one, other).fit(data).predict(data.images[validation]) / scale
        losses.append(np.mean(rates - data.responses[validation] / scale * np.log(rates)))
    np.testing.assert_allclose(model.history_["validation_loss"], losses, atol=2e-4)
    best = pairs[int(np.argmin(losses))]
    assert (model.smoothness_, model.sparsity_) == best
    shuffled = LNP(smoothness[::-1], [sparsity[i] for i in (2, 0, 1)]).fit(data)
    np.testing.assert_array_equal(shuffled.filters_, model.filters_)
    assert (shuffled.smoothness_, shuffled.sparsity_) == best


@pytest.mark.parametrize("options", [{}, {"crop": (3, 4)}, {"folds": 3}, {"refit": True}])
def test_each_neuron_can_have_its_own_pair(options: dict[str, Any]) -> None:
    data = recording(150)
    grid: dict[str, Any] = {"smoothness": [0.003, 0.3], "sparsity": [0.003, 0.03, 0.3]}
    model = LNP(**grid, per_neuron=True, **options).fit(data)
    assert model.smoothness_.shape == model.sparsity_.shape == (3,)
    pairs = list(zip(model.smoothness_, model.sparsity_, strict=True))
    assert len(set(pairs)) > 1
    for neuron, pair in enumerate(pairs):
        alone = LNP(**grid, **options).fit(data.images, data.responses[:, neuron])
        assert (alone.smoothness_, alone.sparsity_) == pair
        expected = alone.predict(data.images)[:, 0]
        np.testing.assert_allclose(model.predict(data.images)[:, neuron], expected, rtol=3e-3)


def test_it_finds_sparse_filters_and_beats_the_glm() -> None:
    rng = np.random.default_rng(1)
    images = rng.normal(size=(1600, 9, 14)).astype(np.float32)
    truth = np.zeros((2, 9, 14))
    truth[0, 3:5, 5:8], truth[1, 5:8, 9:11] = [[0.4, 0.5, 0.4]] * 2, [[0.4, -0.4]] * 3
    rates = np.exp(images.reshape(1600, -1) @ truth.reshape(2, -1).T - 0.5)
    held_out = ww.HeldOut(images[600:], rates[600:], np.arange(1000), rates[600:])
    data = ww.Recording(images[:600], rng.poisson(rates[:600]), test=held_out)
    model, glm = LNP().fit(data), ww.GLM(nonlinearity="exponential").fit(data)
    found, theirs = (one.evaluate(data).summary["fev"]["mean"] for one in (model, glm))
    assert found > max(0.7, theirs + 0.05)
    for filters, true in zip(model.filters_[:, 0], truth, strict=True):
        assert np.corrcoef(filters.ravel(), true.ravel())[0, 1] > 0.95
        assert np.mean(filters[true == 0] == 0) > 0.5


def test_filters_that_do_not_converge_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recording(60)
    assert LNP(smoothness=0.1, sparsity=0.01).fit(data).notes_ == ()
    monkeypatch.setattr("whatwhere.baselines.lnp.MOST_STEPS", 2)
    notes = LNP(smoothness=0.1, sparsity=0.01).fit(data).notes_
    assert notes == ("the proximal gradient method stopped before it converged for 3 of 3 neurons",)


def test_neurons_with_few_spikes_are_fitted_too() -> None:
    """1, 2 and 30 spikes in 300 images, 500 in one image, and none."""
    rng = np.random.default_rng(0)
    images, responses = rng.normal(size=(300, 8, 10)), np.zeros((300, 5))
    for neuron, n_spikes in enumerate((1, 2, 30)):
        responses[rng.choice(240, n_spikes, replace=False), neuron] = 1
    responses[5, 3] = 500
    for nonlinearity in ("exponential", "softplus"):
        data = ww.Recording(images, responses, validation=np.arange(300) >= 240)
        model = LNP(nonlinearity=nonlinearity).fit(data)
        assert not any("converged" in note for note in model.notes_)
        predictions = model.predict(images)
        assert np.isfinite(predictions).all()
        assert predictions[:, 4].max() < 1e-3
        if nonlinearity == "exponential":  # the optimum for the offset
            np.testing.assert_allclose(predictions[:240].mean(0), responses[:240].mean(0), rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonlinearity": "relu"}, "unknown nonlinearity 'relu': expected one of 'exponential', 'softplus'."),
        ({"nonlinearity": "exponent"}, "unknown nonlinearity 'exponent': expected one of 'exponential', 'softplus'."),
        ({"smoothness": [-1]}, "smoothness must be 0 or more, got -1.0"),
        ({"sparsity": [0.1, np.nan]}, "sparsity must be 0 or more, got nan"),
        ({"sparsity": np.inf}, "sparsity must be 0 or more, got inf"),
        ({"smoothness": "much"}, "smoothness must be numbers of 0 or more, got 'much'"),
        ({"sparsity": []}, "sparsity is empty: give at least one strength, [0] for none of this penalty"),
        ({"per_neuron": 1}, "per_neuron must be True or False, got 1"),
        ({"folds": 1}, "folds must be None or a whole number of at least 2, got 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        LNP(**options).fit(recording(20))


def test_responses_below_0_are_refused() -> None:
    data = recording(30)
    with pytest.raises(InputError, match="the Poisson loss needs rates of 0 or more"):
        LNP().fit(data.images, data.responses - 1)
