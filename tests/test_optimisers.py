"""Full-batch minimisation: known optima by every method, Hessian products, limits kept, parameters left at best."""

import copy
import math
import re
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    OptimiserOptions,
    PenaltyOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.errors import InputError, OptionError, TrainingError
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes, initialize
from whatwhere.optimisers import METHODS, fit_full_batch, flatten, hessian_products, minimise, split, write

GRADIENTS = [method for method in METHODS if method != "Nelder-Mead"]
SECOND = ["L-BFGS-B", "Newton-CG"]


def quadratic() -> tuple[Callable[[], Tensor], list[nn.Parameter], list[np.ndarray]]:
    """1/2 v^T A v - b^T v over a vector and a matrix, with its optimum A^-1 b in their shapes."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    a, b = root @ root.T / 5 + np.eye(5), rng.normal(size=5)
    parameters = [nn.Parameter(torch.full((3,), 0.5).double()), nn.Parameter(torch.zeros(2, 1).double())]
    matrix, vector = torch.from_numpy(a), torch.from_numpy(b)

    def loss() -> Tensor:
        point = torch.cat([parameter.flatten() for parameter in parameters])
        return 0.5 * point @ matrix @ point - vector @ point

    best = np.linalg.solve(a, b)
    return loss, parameters, [best[:3], best[3:, None]]


STEPS = {"adam": {"learning_rate": 0.02}, "sgd": {"learning_rate": 0.05, "momentum": 0.8}}


@pytest.mark.parametrize("method", METHODS)
def test_a_quadratic_is_solved_by_every_method(method: str) -> None:
    loss, parameters, best = quadratic()
    start = loss().item()
    result = minimise(loss, parameters, method, OptimiserOptions(tolerance=1e-6, **STEPS.get(method, {})))
    assert result.converged, result.message
    assert result.method == method
    for parameter, expected in zip(parameters, best, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-5)
        assert parameter.grad is None
    assert result.values[0] == start
    assert result.best_value == pytest.approx(loss().item(), abs=1e-15)
    assert len(result.values) == len(result.seconds) == result.n_iterations + 1
    assert (np.diff(result.seconds) >= 0).all()
    assert result.n_evaluations > result.n_iterations
    assert (result.n_products > 0) == (method == "Newton-CG")
    gradient = flatten(torch.autograd.grad(loss(), parameters))
    if method == "Nelder-Mead":
        assert math.isnan(result.largest_gradient)
    else:
        assert result.largest_gradient == pytest.approx(np.abs(gradient).max(), rel=1e-9)
        assert result.largest_gradient <= 1e-6


def rosenbrock(dtype: torch.dtype = torch.float64) -> tuple[Callable[[], Tensor], nn.Parameter]:
    point = nn.Parameter(torch.tensor([-1.2, 1.0, -0.5, 0.8], dtype=dtype))

    def loss() -> Tensor:
        return (100 * (point[1:] - point[:-1] ** 2) ** 2 + (1 - point[:-1]) ** 2).sum()

    return loss, point


@pytest.mark.parametrize("method", SECOND)
def test_rosenbrocks_valley_is_followed_to_its_end(method: str) -> None:
    loss, point = rosenbrock()
    result = minimise(loss, [point], method, OptimiserOptions(tolerance=1e-8))
    assert result.converged, result.message
    np.testing.assert_allclose(point.detach(), np.ones(4), atol=1e-7)


@pytest.mark.parametrize("method", GRADIENTS)
def test_the_trace_is_that_of_the_loss_at_the_iterations(method: str) -> None:
    loss, point = rosenbrock()
    told: list[tuple[int, float, float]] = []
    options = OptimiserOptions(max_iterations=7, **({"learning_rate": 1e-4} if method in STEPS else {}))
    result = minimise(loss, [point], method, options, callback=lambda *args: told.append(args))
    assert not result.converged
    assert "stopped after 7 iterations, the most allowed; the largest |derivative| is" in result.message
    assert [number for number, _, _ in told] == list(range(1, 8))
    assert [value for _, value, _ in told] == result.values[1:].tolist()
    assert [seconds for _, _, seconds in told] == result.seconds[1:].tolist()
    fewer = minimise(*again(lambda: rosenbrock()), method, OptimiserOptions(**vars(options) | {"max_iterations": 3}))
    np.testing.assert_array_equal(fewer.values, result.values[:4])


def again(make: Callable[[], tuple[Callable[[], Tensor], nn.Parameter]]) -> tuple[Callable[[], Tensor], list]:
    loss, point = make()
    return loss, [point]


@pytest.mark.parametrize(("method", "momentum"), [("adam", None), ("sgd", 0.6), ("sgd", None)])
def test_steps_are_torchs(method: str, momentum: float | None) -> None:
    loss, point = rosenbrock()
    other_loss, other = rosenbrock()
    kinds = {
        "adam": lambda: torch.optim.Adam([other], lr=1e-3),
        "sgd": lambda: torch.optim.SGD([other], lr=1e-3, momentum=0.9 if momentum is None else momentum),
    }
    options = OptimiserOptions(max_iterations=12, learning_rate=1e-3, momentum=momentum)
    result = minimise(loss, [point], method, options)
    optimizer, values = kinds[method](), [other_loss().item()]
    for _ in range(12):
        optimizer.zero_grad()
        other_loss().backward()
        optimizer.step()
        values.append(other_loss().item())
    np.testing.assert_allclose(result.values, values, rtol=1e-12)


# --------------------------------------------------------------------------------------------- vectors and products


def test_vectors_and_parameters_are_exact_copies_of_each_other(rng: np.random.Generator) -> None:
    parameters = [nn.Parameter(torch.from_numpy(rng.normal(size=shape))) for shape in ((2, 3), (), (4,))]
    parameters.append(nn.Parameter(torch.tensor([[0.1], [1 / 3]])))  # float32
    before = [parameter.detach().clone() for parameter in parameters]
    vector = flatten(parameters)
    assert vector.dtype == np.float64
    assert len(vector) == 13
    np.testing.assert_array_equal(vector[:6], before[0].flatten().numpy())
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    assert vector.any(), "the vector is a copy"
    write(vector, parameters)
    for parameter, value in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.dtype == value.dtype
    for part, value in zip(split(vector, parameters), before, strict=True):
        assert torch.equal(part, value)


def network() -> tuple[Callable[[], Tensor], list[nn.Parameter]]:
    """A small nonlinear network with one parameter that the loss does not see and one that it is linear in."""
    generator = torch.Generator().manual_seed(0)
    first, second, slope, unseen = (
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in ((3, 4), (4, 1), (2,), (2, 2))
    )
    inputs = torch.randn(6, 3, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return (torch.tanh(inputs @ first) @ second).square().mean() + slope.sum()

    return loss, [first, unseen, second, slope]


def explicit_hessian(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> np.ndarray:
    """Row by row, each a derivative of one entry of the gradient, by central differences of the gradient."""
    point, rows = flatten(parameters), []
    for number in range(len(point)):
        sides = []
        for step in (1e-5, -1e-5):
            moved = point.copy()
            moved[number] += step
            write(moved, parameters)
            sides.append(flatten(torch.autograd.grad(loss(), parameters, materialize_grads=True)))
        rows.append((sides[0] - sides[1]) / 2e-5)
    write(point, parameters)
    return np.array(rows)


def test_hessian_products_are_those_of_the_explicit_hessian(rng: np.random.Generator) -> None:
    loss, parameters = network()
    hessian, product = explicit_hessian(loss, parameters), hessian_products(loss, parameters)
    assert np.abs(hessian).max() > 0.1
    for _ in range(3):  # the graph serves more than once
        vector = rng.normal(size=len(hessian))
        np.testing.assert_allclose(product(vector), hessian @ vector, atol=1e-7)


def test_a_linear_loss_has_no_curvature() -> None:
    slope = nn.Parameter(torch.tensor([1.0, 2.0]))
    assert hessian_products(lambda: slope.sum(), [slope])(np.ones(2)).tolist() == [0.0, 0.0]


# ---------------------------------------------------------------------------------------------- limits and errors


def slow_quadratic(seconds: float) -> tuple[Callable[[], Tensor], nn.Parameter]:
    point = nn.Parameter(torch.full((30,), 5.0).double())
    scale = torch.logspace(-3, 3, 30, dtype=torch.float64)

    def loss() -> Tensor:
        time.sleep(seconds)
        return (scale * (point - 1).square()).sum()

    return loss, point


@pytest.mark.parametrize("method", METHODS)
def test_it_ends_when_the_time_is_up(method: str) -> None:
    loss, point = slow_quadratic(0.01)
    rates = {"learning_rate": 1e-5} if method in STEPS else {}
    options = OptimiserOptions(max_seconds=0.2, max_iterations=10_000, tolerance=1e-12, **rates)
    started = time.perf_counter()
    result = minimise(loss, [point], method, options)
    taken = time.perf_counter() - started
    assert 0.2 <= taken < 0.6
    assert not result.converged
    assert result.message.startswith("stopped after 0.2 seconds, the most allowed")
    assert result.n_evaluations <= 21
    with torch.no_grad():
        assert loss().item() == result.best_value


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_left_at_the_best_value_met(method: str) -> None:
    loss, point = rosenbrock()
    seen: list[float] = []

    def watched() -> Tensor:
        value = loss()
        seen.append(value.item())
        return value

    rates = {"learning_rate": 2.0} if method == "adam" else {"learning_rate": 1e-4} if method == "sgd" else {}
    result = minimise(watched, [point], method, OptimiserOptions(max_iterations=5, **rates))
    assert loss().item() == result.best_value == min(seen)
    if method == "adam":
        assert result.values[-1] > result.best_value, "the last step must not be the best one here"


@pytest.mark.parametrize("method", METHODS)
def test_every_evaluation_is_counted(method: str) -> None:
    loss, point = rosenbrock()
    calls: list[int] = []

    def counted() -> Tensor:
        calls.append(1)
        return loss()

    options = OptimiserOptions(max_iterations=15, **({"learning_rate": 1e-4} if method in STEPS else {}))
    assert minimise(counted, [point], method, options).n_evaluations == len(calls)


@pytest.mark.parametrize("method", METHODS)
def test_frozen_parameters_are_left_alone(method: str) -> None:
    loss, parameters, best = quadratic()
    parameters[1].requires_grad_(False)
    before = parameters[1].clone()
    minimise(loss, parameters, method, OptimiserOptions(**STEPS.get(method, {})))
    assert torch.equal(parameters[1], before)
    assert not np.allclose(parameters[0].detach(), 0.5)
    assert not np.allclose(parameters[0].detach(), best[0], atol=1e-3), "with one frozen the optimum is another"


@pytest.mark.parametrize("method", GRADIENTS)
def test_an_optimum_is_known_at_once(method: str) -> None:
    point = nn.Parameter(torch.zeros(3))
    result = minimise(lambda: point.square().sum(), [point], method)
    assert (result.converged, result.n_iterations, result.n_evaluations) == (True, 0, 1)


@pytest.mark.parametrize("method", SECOND)
def test_where_precision_ends_it_says_so(method: str) -> None:
    point, target = nn.Parameter(torch.zeros(3)), torch.tensor([0.1, 0.2, 0.7])  # float32
    scale = torch.tensor([1.0, 30.0, 900.0])
    options = OptimiserOptions(tolerance=1e-30, max_iterations=3000)
    result = minimise(
        lambda: (scale * (point - target).square()).sum() + (point * point).sum(), [point], method, options
    )
    assert not result.converged
    assert re.match(rf"{method}: .*; the largest \|derivative\| is .*, 1e-30 was asked for\.$", result.message)
    torch.testing.assert_close(point.detach(), scale * target / (scale + 1), rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(method: str, bad: float) -> None:
    point = nn.Parameter(torch.tensor([2.0, 3.0]).double())
    calls: list[int] = []

    def loss() -> Tensor:
        calls.append(1)
        value = (point**4).sum()
        return value * bad if len(calls) > 3 else value

    with pytest.raises(TrainingError, match=r"the (loss|gradient|Hessian) is not finite at evaluation \d \(loss"):
        minimise(loss, [point], method)
    assert torch.isfinite(point).all()
    with pytest.raises(TrainingError, match=r"the loss is not finite at evaluation 1 .*or where they started"):
        minimise(lambda: (point * bad).sum(), [point], method)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    point = nn.Parameter(torch.zeros(2).double())
    with pytest.raises(TrainingError, match="the gradient is not finite at evaluation 1"):
        minimise(lambda: point.sum().abs().sqrt(), [point], "L-BFGS-B")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("LBFGS-B", {}, r"unknown method 'LBFGS-B': expected one of .* Did you mean 'L-BFGS-B'\?"),
        ("newton-cg", {}, r"unknown method 'newton-cg': .* Did you mean 'Newton-CG'\?"),
        ("L-BFGS-B", {"learning_rate": 0.1}, r"the method 'L-BFGS-B' has no learning_rate \(=0\.1\): leave it out"),
        ("adam", {"momentum": 0.5}, r"the method 'adam' has no momentum \(=0\.5\): leave it out"),
    ],
)
def test_names_and_options_that_do_not_fit_are_refused(method: str, options: dict, message: str) -> None:
    loss, point = rosenbrock()
    with pytest.raises(OptionError, match=message):
        minimise(loss, [point], method, OptimiserOptions(**options))


def test_more_parameters_than_nelder_mead_can_hold_points_of_are_refused() -> None:
    point = nn.Parameter(torch.zeros(200, 300))
    with pytest.raises(OptionError, match=r"keeps 60,001 points of 60,000 parameters, 26\.8 GiB: choose a method with"):
        minimise(lambda: point.square().sum(), [point], "Nelder-Mead")
    assert minimise(lambda: point.square().sum(), [point], "L-BFGS-B").converged


def test_nothing_to_train_is_refused() -> None:
    point = nn.Parameter(torch.ones(2), requires_grad=False)
    with pytest.raises(InputError, match="no parameter requires a gradient"):
        minimise(lambda: point.sum(), [point])


# ------------------------------------------------------------------------------------------------ models of ours

SHAPES = Shapes(n_channels=1, height=7, width=10, n_neurons=3)


def data(n_images: int = 120) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 1, 7, 10, generator=generator, dtype=torch.float64)
    spots = torch.stack([images[:, 0, i : i + 2, j : j + 2].sum((1, 2)) for i, j in ((2, 3), (3, 5), (1, 6))], 1)
    noise = torch.randn(n_images, 3, generator=generator, dtype=torch.float64)
    return images, torch.relu(spots) + 0.3 * noise + 1.0


def model(
    readout: str = "fully-connected", penalties: dict | None = None, loss: str = "squared", **options: object
) -> Model:
    chosen = ModelOptions(
        core=CoreOptions(kernel_sizes=((3, 4),), n_maps=1, padding="valid", kernel_std=0.3),
        readout=ReadoutOptions(**{"nonlinearity": "identity" if loss == "squared" else "softplus"} | options),
        penalties=PenaltyOptions(**(penalties or {})),
        training=TrainingOptions(loss=loss),  # type: ignore[arg-type]
    )
    made = Model(readout, chosen, SHAPES)
    initialize(made, *(part.float() for part in data()), seed=0)
    return made.double()


def ridge(features: Tensor, responses: Tensor, strength: float) -> Tensor:
    """argmin over (n_neurons, n_features) of the squared error averaged over images, plus strength |q_n|^2."""
    centred = features - features.mean(0)
    gram = centred.T @ centred / len(features) + strength * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(gram, centred.T @ (responses - responses.mean(0)) / len(features)).T


@pytest.mark.parametrize("method", SECOND)
def test_a_convex_fit_is_ridge_in_closed_form(method: str) -> None:
    """Squared error and L2 with a frozen core; the penalty is averaged over neurons as the error is."""
    images, responses = data()
    fitted = model(penalties={"weight_l2": 0.05})
    fitted.core.requires_grad_(False)
    kernels = fitted.core.layers[0].convolution.weight.clone()
    result = fit_full_batch(fitted, images, responses, method, OptimiserOptions(tolerance=1e-8))
    assert result.converged, result.message
    with torch.no_grad():
        maps = fitted.core.train()(images).flatten(1)  # normalised by the statistics of all images, as in the fit
    expected = ridge(maps, responses, 0.05)
    torch.testing.assert_close(fitted.readout.weights.detach().flatten(1), expected, rtol=0, atol=1e-6)
    bias = responses.mean(0) - maps.mean(0) @ expected.T
    torch.testing.assert_close(fitted.bias.detach(), bias, rtol=0, atol=1e-6)
    error = (maps @ expected.T + bias - responses).square().mean()
    optimum = error + 0.05 * expected.square().sum() / SHAPES.n_neurons
    assert result.best_value == pytest.approx(optimum.item(), rel=1e-10)
    assert torch.equal(fitted.core.layers[0].convolution.weight, kernels)


@pytest.mark.parametrize("readout", ["factorized", "fixed-mask", "fully-connected", "gaussian"])
def test_every_readout_can_be_fitted_with_its_core(readout: str) -> None:
    """Two methods from one start come to one optimum of the whole smooth objective, which Adam approaches."""
    images, responses = data()
    responses = responses.clamp(min=0)
    penalties = {"smoothness": 0.1} | ({"weight_l2": 0.1} if readout == "fully-connected" else {})
    start = model(readout, penalties, loss="poisson")
    ends = {}
    for method, options in (
        ("L-BFGS-B", OptimiserOptions(max_iterations=400)),
        ("adam", OptimiserOptions(max_iterations=600, learning_rate=0.02)),
        ("Newton-CG", OptimiserOptions(max_iterations=12)),
    ):
        fitted = copy.deepcopy(start)
        ends[method] = fit_full_batch(fitted, images, responses, method, options)
        with torch.no_grad():
            fitted.train()
            fitted.readout.eval()
            predictions = fitted(images)
            value = LOSSES["poisson"](predictions, responses) + fitted.penalty(fitted.options.penalties, predictions)
        assert value.item() == pytest.approx(ends[method].best_value, rel=1e-12), method
    gain = ends["L-BFGS-B"].values[0] - ends["L-BFGS-B"].best_value
    assert gain > 0.05
    for method, result in ends.items():
        assert result.best_value == pytest.approx(ends["L-BFGS-B"].best_value, abs=0.02 * gain), method


def test_the_fitted_model_evaluates_as_it_was_fitted() -> None:
    """Running statistics are those of all images, the unbiased variance apart; predictions in evaluation mode agree."""
    images, responses = data()
    fitted = model(penalties={"weight_l2": 0.05})
    result = fit_full_batch(fitted, images, responses, options=OptimiserOptions(max_iterations=30))
    assert not any(module.training for module in fitted.modules())
    with torch.no_grad():
        predictions = fitted(images)
        value = LOSSES["squared"](predictions, responses) + fitted.penalty(fitted.options.penalties, predictions)
    assert value.item() == pytest.approx(result.best_value, rel=1e-3)
    assert value.item() < 0.9 * result.values[0]


def test_images_in_float32_are_fitted_in_the_models_precision() -> None:
    images, responses = data()
    ends = [
        fit_full_batch(model(penalties={"weight_l2": 0.05}), *given, options=OptimiserOptions(max_iterations=5))
        for given in ((images.float(), responses.float()), (images.float().double(), responses.float().double()))
    ]
    np.testing.assert_array_equal(ends[0].values, ends[1].values)


@pytest.mark.parametrize(
    ("readout", "options", "named"),
    [
        ("factorized", {"nonnegative_masks": True}, "nonnegative_masks"),
        ("gaussian", {"nonnegative_features": True}, "nonnegative_features"),
        ("factorized", {"hold_masks": 5}, "hold_masks"),
    ],
)
def test_constraints_that_only_projection_holds_are_refused(readout: str, options: dict, named: str) -> None:
    with pytest.raises(OptionError, match=rf"holds no constraint \({named}\): its methods know of none"):
        fit_full_batch(model(readout, **options), *data())


def test_a_unit_norm_is_refused_where_there_is_something_to_norm() -> None:
    fit_full_batch(model("factorized", feature_norm="unit"), *data(), options=OptimiserOptions(max_iterations=1))
    for norm in ("feature_norm", "mask_norm"):
        chosen = ModelOptions(
            core=CoreOptions(kernel_sizes=(3,), n_maps=2, padding="valid"),
            readout=ReadoutOptions(**{norm: "unit"}),  # type: ignore[arg-type]
        )
        with pytest.raises(OptionError, match=rf"{norm}='unit'"):
            fit_full_batch(Model("factorized", chosen, SHAPES), *data())
