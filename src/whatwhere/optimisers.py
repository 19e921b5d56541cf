"""Any differentiable loss minimised on all of its data at once, by a method of SciPy or torch chosen by name."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from whatwhere.checks import check_choice
from whatwhere.config import SGD_MOMENTUM, OptimiserOptions
from whatwhere.errors import InputError, OptionError, TrainingError
from whatwhere.losses import LOSSES
from whatwhere.model import Model, set_statistics

Loss = Callable[[], Tensor]
"""A scalar computed from the parameters as they are; called twice, it must give the same."""

Callback = Callable[[int, float, float], None]
"""Told after each iteration its number, the loss, and the seconds since the start."""

LEARNING_RATE = 1e-2
MOST_SIMPLEX = 2**31  # bytes


@dataclass(frozen=True, eq=False)
class OptimisationResult:
    """How a minimisation went; the parameters are left where the loss was `best_value`.

    values, seconds: (n_iterations + 1,), the loss and the wall time, at the start and after each iteration.
    n_evaluations: of the loss, with its gradient where the method asks for one; n_products: of the Hessian with a
    vector. largest_gradient: the largest |derivative| at the best value, NaN for a method without gradients.
    """

    method: str
    values: np.ndarray
    seconds: np.ndarray
    best_value: float
    largest_gradient: float
    n_evaluations: int
    n_products: int
    converged: bool
    message: str

    @property
    def n_iterations(self) -> int:
        return len(self.values) - 1


def flatten(tensors: Iterable[Tensor]) -> np.ndarray:
    """All entries of all tensors as one float64 vector, which holds float32 exactly.

    >>> flatten([torch.tensor([[1.0, 2.0]]), torch.tensor(3.0)])
    array([1., 2., 3.])
    """
    return torch.cat([tensor.detach().flatten().double().cpu() for tensor in tensors]).numpy()


def split(vector: np.ndarray, like: Sequence[Tensor]) -> list[Tensor]:
    """The parts of a vector in the shapes, dtypes and on the devices of the tensors: undoes `flatten`."""
    parts = torch.from_numpy(np.array(vector, np.float64)).split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape).to(tensor) for part, tensor in zip(parts, like, strict=True)]


@torch.no_grad()
def write(vector: np.ndarray, parameters: Sequence[Tensor]) -> None:
    """Gives the parameters the values of a vector, in place."""
    for parameter, part in zip(parameters, split(vector, parameters), strict=True):
        parameter.copy_(part)


def hessian_products(loss: Loss, parameters: Sequence[Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """v to H v, with H the Hessian of the loss where the parameters are now; both vectors are as of `flatten`.

    The gradient g is computed once and its graph kept; each product is the derivative of g^T v (Pearlmutter 1994), at
    the cost of a gradient. H itself is never made.

    >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> hessian_products(lambda: x[0] ** 2 * x[1], [x])(np.array([1.0, 0.0]))
    array([4., 2.])
    """
    parameters = list(parameters)
    gradients = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
    curved = [number for number, gradient in enumerate(gradients) if gradient.requires_grad]

    def product(vector: np.ndarray) -> np.ndarray:
        if not curved:  # the loss is linear
            return np.zeros(len(vector))
        parts = split(vector, parameters)
        products = torch.autograd.grad(
            [gradients[number] for number in curved],
            parameters,
            [parts[number] for number in curved],
            retain_graph=True,
            materialize_grads=True,
        )
        return flatten(products)

    return product


def minimise(
    loss: Loss,
    parameters: Iterable[Tensor],
    method: str = "L-BFGS-B",
    options: OptimiserOptions | None = None,
    callback: Callback | None = None,
) -> OptimisationResult:
    """Changes the parameters in place until the loss is least, by one of `METHODS`.

    "L-BFGS-B" (quasi-Newton), "Newton-CG" (Hessian by its products with vectors) and "Nelder-Mead" (no gradient) are
    SciPy's, in float64 whatever the parameters are; "adam" and "sgd" (with momentum) take one step of torch's an
    iteration. Parameters that do not require a gradient are left alone, the others at the best value met, also where
    an error is raised. Converged is where no derivative is larger than `tolerance`, or Nelder-Mead's simplex.

    Raises `OptionError` for a method that is not known, naming the nearest, an option that it does not have, or more
    parameters than Nelder-Mead can hold points of (about 16,000); `InputError` where there is nothing to train;
    `TrainingError` where the loss or its gradient is not finite.

    >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    >>> result = minimise(lambda: (x - 1).square().sum(), [x], "Newton-CG")
    >>> result.converged, x.detach().round(decimals=6).tolist()
    (True, [1.0, 1.0])
    """
    solve = METHODS[check_choice("method", method, METHODS)]
    options = OptimiserOptions() if options is None else options
    _check_steps(method, options)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise InputError("no parameter requires a gradient: expected at least one to train. Call requires_grad_(True).")
    run = _Run(loss, trained, options, callback)
    try:
        converged, message = solve(run)
    except _FinishedError as finished:
        converged, message = finished.converged, finished.message
    finally:
        write(run.best_point, trained)
    return OptimisationResult(
        method,
        np.array(run.values),
        np.array(run.seconds),
        run.best_value,
        run.best_gradient,
        run.n_evaluations,
        run.n_products,
        converged,
        message,
    )


def fit_full_batch(
    model: Model,
    images: Tensor,
    responses: Tensor,
    method: str = "L-BFGS-B",
    options: OptimiserOptions | None = None,
    callback: Callback | None = None,
) -> OptimisationResult:
    """Minimises a model's own loss and penalties over all images at once; no validation part, no early stopping.

    images (n_images, C, H, W) and responses (n_images, n_neurons) in the units of the fit. Of the training options the
    loss alone is used. Batch normalisation normalises by the statistics of all images, the same at each call, so the
    loss is a function of the parameters alone; its running statistics are those of all images afterwards. A Gaussian
    readout reads its mean positions. The model ends in evaluation mode, with the best parameters met.

    The methods expect a smooth loss: at corners, of L1 penalties or of a Gaussian readout's interpolation, a line
    search may end early. In float32 it ends where the loss changes in its seventh digit; `model.double()` takes it
    further. Losses are averages over neurons, so a population of thousands needs a smaller `tolerance`. Memory is that
    of one batch of all images. Raises as `minimise`, and `OptionError` for constraints that only projection holds.
    """
    _check_unconstrained(model)
    images, responses = images.to(model.bias), responses.to(model.bias)
    loss = LOSSES[model.options.training.loss]

    def objective() -> Tensor:
        predictions = model(images)  # (n_images, n_neurons)
        return loss(predictions, responses) + model.penalty(model.options.penalties, predictions)

    model.train()
    model.readout.eval()
    try:
        return minimise(objective, model.parameters(), method, options, callback)
    finally:
        model.readout.project()
        set_statistics(model, images)
        model.eval()


class _FinishedError(Exception):
    """Ends a method from inside a call that it made."""

    def __init__(self, converged: bool, message: str) -> None:
        self.converged, self.message = converged, message


class _Run:
    """One minimisation under way: the loss as a function of a vector, its limits, its trace and its best point."""

    def __init__(
        self, loss: Loss, parameters: list[Tensor], options: OptimiserOptions, callback: Callback | None
    ) -> None:
        self.loss, self.parameters, self.options, self.callback = loss, parameters, options, callback
        self.start = flatten(parameters)
        self.values: list[float] = []
        self.seconds: list[float] = []
        self.best_point, self.best_value, self.best_gradient = self.start, math.inf, math.nan
        self.n_evaluations = self.n_products = 0
        self.last: tuple[np.ndarray, float, np.ndarray] | None = None
        self.curvature: tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]] | None = None
        self.started = time.perf_counter()

    def value(self, point: np.ndarray) -> float:
        self._move(point)
        with torch.no_grad():
            value = float(self.loss())
        self._count(point, value)
        return value

    def value_and_gradient(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        if self.last is not None and np.array_equal(point, self.last[0]):
            return self.last[1], self.last[2].copy()
        self._move(point)
        loss = self.loss()
        gradient = flatten(torch.autograd.grad(loss, self.parameters, materialize_grads=True))
        value = float(loss.detach())
        self.last = point.copy(), value, gradient
        self._count(point, value, gradient)
        return value, gradient.copy()

    def product(self, point: np.ndarray, vector: np.ndarray) -> np.ndarray:
        if self.curvature is None or not np.array_equal(point, self.curvature[0]):
            self._move(point)
            self.n_evaluations += 1
            self.curvature = point.copy(), hessian_products(self.loss, self.parameters)
        self._check_time()
        self.n_products += 1
        product = self.curvature[1](vector)
        if not np.isfinite(product).all():
            raise self._not_finite("Hessian", self.best_value)
        return product

    def iteration(self, value: float, gradient: np.ndarray | None = None) -> None:
        """Notes the end of an iteration, and ends the run where it has converged or is used up."""
        self.values.append(value)
        self.seconds.append(self._elapsed())
        number = len(self.values) - 1
        if self.callback is not None:
            self.callback(number, value, self.seconds[-1])
        self._check_converged(gradient)
        if number >= self.options.max_iterations:
            raise _FinishedError(False, f"stopped after {number:,} iterations, the most allowed{self.slope()}.")
        self._check_time()

    def slope(self) -> str:
        """What the best point's gradient says, for a message."""
        if math.isnan(self.best_gradient):
            return ""
        return f"; the largest |derivative| is {self.best_gradient:.3g}, {self.options.tolerance:g} was asked for"

    def _move(self, point: np.ndarray) -> None:
        self._check_time()
        write(point, self.parameters)

    def _count(self, point: np.ndarray, value: float, gradient: np.ndarray | None = None) -> None:
        """Notes an evaluation, the first of which is the start, and whether it is the best."""
        self.n_evaluations += 1
        if not (math.isfinite(value) and (gradient is None or np.isfinite(gradient).all())):
            what = "loss" if gradient is None or not math.isfinite(value) else "gradient"
            raise self._not_finite(what, value)
        if value < self.best_value:
            steepest = math.nan if gradient is None else float(np.abs(gradient).max())
            self.best_point, self.best_value, self.best_gradient = point.copy(), value, steepest
        if not self.values:
            self.values.append(value)
            self.seconds.append(self._elapsed())
            self._check_converged(gradient)

    def _not_finite(self, what: str, value: float) -> TrainingError:
        return TrainingError(
            f"the {what} is not finite at evaluation {self.n_evaluations:,} (loss {value:g}): the parameters are left"
            " at the best of those before, or where they started. Look for extreme values in the data, start elsewhere,"
            " or take smaller steps."
        )

    def _check_converged(self, gradient: np.ndarray | None) -> None:
        if gradient is not None and np.abs(gradient).max() <= self.options.tolerance:
            raise _FinishedError(True, f"converged: the largest |derivative| is {np.abs(gradient).max():.3g}.")

    def _check_time(self) -> None:
        limit = self.options.max_seconds
        if limit is not None and self.values and self._elapsed() >= limit:
            raise _FinishedError(False, f"stopped after {limit:g} seconds, the most allowed{self.slope()}.")

    def _elapsed(self) -> float:
        return time.perf_counter() - self.started


def _by_scipy(run: _Run, method: str, **asked: Any) -> tuple[bool, str]:
    """One of `scipy.optimize.minimize`, its own criteria switched off but where it cannot go on."""
    with_gradient = asked.get("jac", False)

    def after(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        gradient = run.value_and_gradient(intermediate_result.x)[1] if with_gradient else None
        run.iteration(float(intermediate_result.fun), gradient)

    function = run.value_and_gradient if with_gradient else run.value
    result = scipy.optimize.minimize(function, run.start, method=method, callback=after, **asked)
    converged = bool(result.success) and not with_gradient
    return converged, f"{method}: {str(result.message).strip().rstrip('.')}{run.slope()}."


def _l_bfgs_b(run: _Run) -> tuple[bool, str]:
    most = run.options.max_iterations + 1  # the run itself stops one earlier
    options = {"maxiter": most, "maxfun": 100 * most, "ftol": 0.0, "gtol": 0.0}
    return _by_scipy(run, "L-BFGS-B", jac=True, options=options)


def _newton_cg(run: _Run) -> tuple[bool, str]:
    options = {"maxiter": run.options.max_iterations + 1, "xtol": 0.0}
    return _by_scipy(run, "Newton-CG", jac=True, hessp=run.product, options=options)


def _nelder_mead(run: _Run) -> tuple[bool, str]:
    _check_simplex(len(run.start))
    size = run.options.tolerance
    most = run.options.max_iterations + 2  # it counts from one
    options = {"maxiter": most, "maxfev": math.inf, "xatol": size, "fatol": size, "adaptive": True}
    return _by_scipy(run, "Nelder-Mead", options=options)


def _by_torch(run: _Run, optimizer: torch.optim.Optimizer) -> tuple[bool, str]:
    """Steps until the run ends itself."""
    gradient = run.value_and_gradient(run.start)[1]
    try:
        while True:
            for parameter, part in zip(run.parameters, split(gradient, run.parameters), strict=True):
                parameter.grad = part
            optimizer.step()
            value, gradient = run.value_and_gradient(flatten(run.parameters))
            run.iteration(value, gradient)
    finally:
        optimizer.zero_grad(set_to_none=True)


def _adam(run: _Run) -> tuple[bool, str]:
    return _by_torch(run, torch.optim.Adam(run.parameters, lr=run.options.learning_rate or LEARNING_RATE))


def _sgd(run: _Run) -> tuple[bool, str]:
    rate = run.options.learning_rate or LEARNING_RATE
    momentum = SGD_MOMENTUM if run.options.momentum is None else run.options.momentum
    return _by_torch(run, torch.optim.SGD(run.parameters, lr=rate, momentum=momentum))


METHODS: dict[str, Callable[[_Run], tuple[bool, str]]] = {
    "L-BFGS-B": _l_bfgs_b,
    "Newton-CG": _newton_cg,
    "Nelder-Mead": _nelder_mead,
    "adam": _adam,
    "sgd": _sgd,
}


def _check_simplex(n_parameters: int) -> None:
    """Nelder-Mead's points must fit into memory."""
    n_bytes = 8 * n_parameters * (n_parameters + 1)
    if n_bytes > MOST_SIMPLEX:
        raise OptionError(
            f"Nelder-Mead keeps {n_parameters + 1:,} points of {n_parameters:,} parameters, {n_bytes / 2**30:.1f} GiB:"
            " choose a method with gradients, for example 'L-BFGS-B'."
        )


def _check_steps(method: str, options: OptimiserOptions) -> None:
    """No option that the method would ignore."""
    of_method = {"adam": ("learning_rate",), "sgd": ("learning_rate", "momentum")}.get(method, ())
    for name in ("learning_rate", "momentum"):
        value = getattr(options, name)
        if value is not None and name not in of_method:
            raise OptionError(f"the method {method!r} has no {name} (={value}): leave it out.")


def _check_unconstrained(model: Model) -> None:
    """No constraint that only projection after each step would hold."""
    readout, n_features = model.options.readout, model.readout.map_shape[0]
    held = [name for name in ("nonnegative_masks", "nonnegative_features", "hold_masks") if getattr(readout, name)]
    held += ["feature_norm='unit'"] * (readout.feature_norm == "unit" and n_features > 1)
    held += ["mask_norm='unit'"] * (readout.mask_norm == "unit")
    if held:
        raise OptionError(
            f"a fit of all images at once holds no constraint ({', '.join(held)}): its methods know of none. Leave it"
            " out, or use `training.train`, which projects after each step."
        )
