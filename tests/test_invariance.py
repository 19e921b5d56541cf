"""Metamorphic relations: the order and number of neurons, and the size of a batch, do not change the fit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes
from whatwhere.readouts import READOUTS

N_NEURONS, HEIGHT, WIDTH = 3, 7, 9
ORDER = [2, 0, 1]
TWICE = [0, 1, 2, 0, 1, 2]


SHARED = ("readout.coefficients", "readout.noise_number")  # by all neurons


def options(name: str) -> ModelOptions:
    strengths = dict.fromkeys(READOUTS[name].strengths, 0.3)
    return ModelOptions(
        core=CoreOptions(kernel_sizes=((3, 4), 2), n_maps=(3, 2), padding="valid", nonlinearity="softplus"),
        readout=ReadoutOptions(sampled=name != "posterior"),  # draws of one neuron are not those of another
        penalties=PenaltyOptions(smoothness=0.2, group_sparsity=0.1, **strengths),
    )


def population(name: str, which: list[int]) -> Model:
    """Neurons `which` of one and the same random model, evaluation mode, double precision."""
    model = Model(name, options(name), Shapes(1, HEIGHT, WIDTH, N_NEURONS)).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        if name == "fixed-mask":
            model.readout.pixels.copy_(torch.tensor([3, 11, 0]))
        if name == "gaussian":  # without draws: those of one neuron are not those of another
            model.readout.move_to(torch.tensor([[0.25, 3.5], [2.75, 1.0], [1.5, 4.125]]))
            model.readout.spread.zero_()
        if name == "posterior":
            odds = torch.rand(model.readout.posterior.shape, generator=generator, dtype=torch.float64)
            model.readout.set_posterior(odds / odds.sum((1, 2, 3), keepdim=True))
    chosen = Model(name, options(name), Shapes(1, HEIGHT, WIDTH, len(which))).double()
    state = {
        key: value[which] if (key == "bias" or key.startswith("readout.")) and key not in SHARED else value
        for key, value in model.state_dict().items()
    }
    chosen.load_state_dict(state)
    if name == "gaussian":
        chosen.readout.spread.requires_grad_(False)
    return chosen.eval()


def objective(model: Model, images: Tensor, responses: Tensor, loss: str = "poisson") -> Tensor:
    predictions = model(images)
    return LOSSES[loss](predictions, responses) + model.penalty(model.options.penalties, predictions)


def gradients(model: Model, images: Tensor, responses: Tensor, loss: str) -> tuple[Tensor, dict[str, Tensor]]:
    value = objective(model, images, responses, loss)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    names, parameters = zip(*trained, strict=True)
    return value.detach(), dict(zip(names, torch.autograd.grad(value, parameters), strict=True))


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(rng.normal(size=(8, 1, HEIGHT, WIDTH)))
    return images, torch.from_numpy(rng.poisson(1.0, (8, N_NEURONS)).astype(float))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize(("which", "share"), [(ORDER, 1.0), (TWICE, 0.5)], ids=["permuted", "doubled"])
def test_gradients_follow_the_neurons(
    which: list[int], share: float, name: str, loss: str, training: bool, data: tuple[Tensor, Tensor]
) -> None:
    """Permuted neurons: permuted gradients. Doubled: the core's stay, each copy of a neuron has half."""
    images, responses = data
    before, after = (population(name, chosen).train(training) for chosen in (list(range(N_NEURONS)), which))
    value, gradient = gradients(before, images, responses, loss)
    other_value, other = gradients(after, images, responses[:, which], loss)
    torch.testing.assert_close(other_value, value)
    for key, part in gradient.items():
        expected = part if key.startswith("core.") else share * part[which]
        torch.testing.assert_close(other[key], expected, msg=lambda text, key=key: f"{key}: {text}")
        assert part.abs().max() > 1e-6, f"{key} has no gradient: this test could not fail"


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("name", READOUTS)
def test_the_mean_over_two_halves_of_a_batch_is_the_whole(name: str, loss: str, data: tuple[Tensor, Tensor]) -> None:
    images, responses = data
    model = population(name, list(range(N_NEURONS)))
    whole = gradients(model, images, responses, loss)
    halves = [gradients(model, images[rows], responses[rows], loss) for rows in (slice(4), slice(4, 8))]
    torch.testing.assert_close((halves[0][0] + halves[1][0]) / 2, whole[0])
    for key, part in whole[1].items():
        torch.testing.assert_close((halves[0][1][key] + halves[1][1][key]) / 2, part)


def linear_model(name: str, n_neurons: int, **penalties: float) -> Model:
    """One frozen random map, identity output: with it the fit of the readout is convex."""
    chosen = ModelOptions(
        core=CoreOptions(kernel_sizes=((3, 4),), n_maps=1, padding="valid"),
        readout=ReadoutOptions(nonlinearity="identity", nonnegative_masks=name == "factorized"),
        penalties=PenaltyOptions(**penalties),  # type: ignore[arg-type]
        training=TrainingOptions(loss="squared"),
    )
    model = Model(name, chosen, Shapes(1, 5, 7, n_neurons)).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        model.core.layers[0].convolution.weight.normal_(0, 0.3, generator=generator)
    model.core.requires_grad_(False)
    return model


def by_lbfgs(model: Model, images: Tensor, responses: Tensor) -> Tensor:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(model, images, responses, "squared")
        value.backward()
        return value

    optimizer.step(closure)
    return model.readout.weights.detach().flatten(1)


_ABOVE_ZERO = 1e-30
"""Torch's |m| has slope 0 at 0, from where an entry would hop off at every other step; above, it has 1."""


def by_projected_gradient(model: Model, images: Tensor, responses: Tensor) -> Tensor:
    """Steps down the gradient, each followed by `project`: L1 is linear where masks are not negative."""
    parameters = [model.readout.mask, model.bias]
    for _ in range(400):
        steps = torch.autograd.grad(objective(model, images, responses, "squared"), parameters)
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.sub_(0.1 * model.shapes.n_neurons * step)
        model.readout.project()
        with torch.no_grad():
            model.readout.mask.clamp_(min=_ABOVE_ZERO)
    return model.readout.masks().flatten(1)


@pytest.mark.parametrize(
    ("name", "penalties", "solve"),
    [
        ("fully-connected", {"weight_l2": 0.05}, by_lbfgs),
        ("factorized", {"mask_l1": 0.1}, by_projected_gradient),
    ],
)
def test_the_optimum_of_a_permuted_or_doubled_population_is_the_same(
    name: str,
    penalties: dict[str, float],
    solve: Callable[[Model, Tensor, Tensor], Tensor],
    rng: np.random.Generator,
) -> None:
    images = torch.from_numpy(rng.normal(size=(150, 1, 5, 7)))
    maps = linear_model(name, 1).core(images)[:, 0].flatten(1)  # (n_images, 12)
    truth = torch.zeros(N_NEURONS, 12, dtype=torch.float64)
    truth[[0, 1, 2], [4, 7, 9]] = torch.tensor([1.0, 2.0, 1.5], dtype=torch.float64)
    responses = maps @ truth.T + torch.from_numpy(rng.normal(0, 0.5, (150, N_NEURONS))) + 1.0
    fits = {}
    for case, which in {"as is": list(range(N_NEURONS)), "permuted": ORDER, "doubled": TWICE}.items():
        fits[case] = solve(linear_model(name, len(which), **penalties), images, responses[:, which])
    torch.testing.assert_close(fits["permuted"], fits["as is"][ORDER], rtol=0, atol=1e-6)
    torch.testing.assert_close(fits["doubled"], fits["as is"][TWICE], rtol=0, atol=1e-6)
    assert fits["as is"].argmax(1).tolist() == [4, 7, 9]
    if name == "fully-connected":  # ridge regression in closed form: half the gradient of the objective is zero
        centred = maps - maps.mean(0)
        gram = centred.T @ centred / 150 + 0.05 * torch.eye(12, dtype=torch.float64)
        ridge = torch.linalg.solve(gram, centred.T @ (responses - responses.mean(0)) / 150).T
        torch.testing.assert_close(fits["as is"], ridge, rtol=0, atol=1e-6)
    else:  # the optimality conditions of the lasso with weights that are not negative
        mask = fits["as is"]
        error = maps @ mask.T - responses
        slope = 2 * maps.T @ (error - error.mean(0)) / 150 + 0.1  # (12, n_neurons)
        zero = mask <= _ABOVE_ZERO
        assert zero.sum() > 10
        assert slope.T[zero].min() > -1e-6
        assert slope.T[~zero].abs().max() < 1e-6
