"""Several recordings, one core: the loss, its gradient and its statistics are those of all neurons together."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from whatwhere.alignment import off_centre
from whatwhere.batches import draw_seed, mixed_seed
from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.cost import make_plan
from whatwhere.gradients import backpropagate
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes, initialize, initialize_together
from whatwhere.proximal import shrink
from whatwhere.recentring import recentre
from whatwhere.shared_model import SharedModel, mean_over_neurons, predict_together, shares
from whatwhere.training import OPTIMIZERS, Trainer
from whatwhere.training_data import SharedData, TrainingData

HEIGHT, WIDTH, N_NEURONS, FIRST = 12, 17, 6, 2
PENALTIES = {
    "factorized": {"mask_l1": 0.1, "feature_l1": 0.2, "product_l1": 0.05},
    "fixed-mask": {"feature_l1": 0.2},
    "fully-connected": {"weight_l2": 0.3, "activity_l1": 0.1},
    "gaussian": {"feature_l1": 0.2},
    "posterior": {"feature_l1": 0.2},
}


def options(name: str = "factorized", **training: object) -> ModelOptions:
    defaults = {"batch_size": 16, "check_every": 5, "max_steps": 20, "learning_rate": 1e-2}
    return ModelOptions(
        core=CoreOptions(kernel_sizes=(5, 3), n_maps=3, padding=("valid", "same"), nonlinearity="softplus"),
        readout=ReadoutOptions(sampled=False) if name == "posterior" else ReadoutOptions(),
        penalties=PenaltyOptions(smoothness=0.02, group_sparsity=0.01, **PENALTIES[name]),  # type: ignore[arg-type]
        training=TrainingOptions(**defaults | training),  # type: ignore[arg-type]
    )


def shapes(n_neurons: int) -> Shapes:
    return Shapes(1, HEIGHT, WIDTH, n_neurons)


def part(n_images: int = 60, n_neurons: int = N_NEURONS, seed: int = 0) -> TrainingData:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n_images + 20, 1, HEIGHT, WIDTH, generator=generator)
    filters = torch.randn(HEIGHT * WIDTH, n_neurons, generator=generator) / 12
    responses = torch.poisson(torch.nn.functional.softplus(images.flatten(1) @ filters), generator=generator)
    return TrainingData(images[20:], responses[20:], images[:20], responses[:20], fingerprint=str(seed))


def divided(whole: TrainingData) -> SharedData:
    """Its first two neurons, and the others, with the same images."""
    halves = [slice(0, FIRST), slice(FIRST, None)]
    return SharedData(
        tuple(
            TrainingData(
                *(whole.images, whole.responses[:, some]),
                *(whole.validation_images, whole.validation_responses[:, some]),
            )
            for some in halves
        )
    )


def of_whole(model: Model) -> SharedModel:
    """The same model, its neurons divided as in `divided`."""
    name = {type(readout): key for key, readout in READOUT_TYPES.items()}[type(model.readout)]
    sizes = FIRST, model.shapes.n_neurons - FIRST
    shared = SharedModel(name, model.options, [shapes(size) for size in sizes])
    shared.core.load_state_dict(model.core.state_dict())
    for member, some in zip(shared.members, (slice(0, FIRST), slice(FIRST, None)), strict=True):
        state = {
            key: value[some] if value.ndim and len(value) == model.shapes.n_neurons else value
            for key, value in model.readout.state_dict().items()
        }
        member.readout.load_state_dict(state)
        with torch.no_grad():
            member.bias.copy_(model.bias[some])
    return shared.train(model.training)


READOUT_TYPES = {name: Model(name, options(name), shapes(2)).readout for name in PENALTIES}


def joined(shared: SharedModel, values: Callable[[Model], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What belongs to neurons, of all members; what belongs to the core, once."""
    first, second = (values(member) for member in shared.members)
    return {
        name: value if name.startswith("core.") else torch.cat([value, second[name]]) for name, value in first.items()
    }


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", PENALTIES)
def test_a_recording_divided_in_two_has_the_gradient_of_the_whole(name: str) -> None:
    """Of unequal parts: the mean over neurons, not over recordings."""
    whole = part()
    model = Model(name, options(name), shapes(N_NEURONS))
    initialize(model, whole.images, whole.responses, seed=0)
    model.train()
    if name == "gaussian":  # without draws, which differ
        with torch.no_grad():
            model.readout.get_parameter("spread").zero_()
    shared = of_whole(model)
    halves = divided(whole).parts
    loss = backpropagate(model, [whole.images[:16]], [whole.responses[:16]])
    both = backpropagate(shared, [half.images[:16] for half in halves], [half.responses[:16] for half in halves])
    torch.testing.assert_close(both, loss)
    expected, found = gradients(model), joined(shared, gradients)
    if name == "gaussian":
        expected.pop("readout.spread")
    assert {"core.layers.0.convolution.weight", "bias"} <= expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6, msg=key)


def test_proximal_steps_of_the_parts_are_those_of_the_whole() -> None:
    whole, moved = part(), []
    chosen = replace(
        options(proximal=True),
        penalties=PenaltyOptions(mask_l1=0.3, feature_l1=0.2, product_l1=0.2, group_sparsity=0.1),
    )
    model = Model("factorized", chosen, shapes(N_NEURONS))
    initialize(model, whole.images, whole.responses, seed=0)
    for network in (model, of_whole(model)):
        optimizer = OPTIMIZERS["sgd"](list(network.parameters()), TrainingOptions(optimizer="sgd", learning_rate=0.01))
        shrink(network, optimizer)
        moved.append(network)
    found = joined(moved[1], lambda member: dict(member.named_parameters()))
    assert (model.readout.get_parameter("mask") == 0).any()
    for key, value in model.named_parameters():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7)


def test_normalisation_is_by_the_statistics_of_all_images() -> None:
    """In training and, by the running ones, in evaluation: as of one batch that holds both."""
    shared = SharedModel("factorized", options(), [shapes(2), shapes(3)])
    some, others = torch.randn(9, 1, HEIGHT, WIDTH) * 3, torch.randn(9, 1, HEIGHT, WIDTH) + 2
    plain = Model("factorized", options(), shapes(5))
    plain.core.load_state_dict(shared.core.state_dict())
    for network in (shared, plain):
        network.train()
    predictions = shared([some, others])
    maps = plain.core(torch.cat([some, others]))
    torch.testing.assert_close(predictions[1], shared.members[1].respond(maps[9:]))
    for key, value in plain.core.state_dict().items():
        torch.testing.assert_close(shared.core.state_dict()[key], value)
    shared.eval()
    torch.testing.assert_close(predict_together(shared, [some])[0], shared.members[0](some))


def test_means_are_over_neurons() -> None:
    shared = SharedModel("factorized", options(), [shapes(2), shapes(6)])
    assert shares(shared) == [0.25, 0.75]
    assert mean_over_neurons(shared, [torch.tensor(4.0), torch.tensor(0.0)]).item() == 1.0


def started(sizes: tuple[int, ...] = (60, 40), neurons: tuple[int, ...] = (2, 5), **training: object) -> Trainer:
    data = SharedData(
        tuple(part(n, n_neurons, seed) for seed, (n, n_neurons) in enumerate(zip(sizes, neurons, strict=True)))
    )
    model = SharedModel("factorized", options(**training), [shapes(n) for n in neurons])
    initialize_together(model.members, [(one.images, one.responses) for one in data.parts], 0)
    return Trainer(model.train(), data, seed=0)


def test_a_step_takes_as_many_images_of_each_and_shorter_recordings_begin_again() -> None:
    run = started((60, 40))
    drawn = [[batches.of_step(step)[0] for step in range(6)] for batches in run.of_recordings]
    assert {len(rows) for rows in (*drawn[0], *drawn[1])} == {16}
    assert len(torch.cat(drawn[0][:3]).unique()) == 48, "three batches an epoch"
    assert [len(torch.cat(drawn[1][first : first + 2]).unique()) for first in (0, 2, 4)] == [32] * 3, "two"
    small = started((60, 7))
    assert {batches.batch_size for batches in small.of_recordings} == {7}


def test_the_validation_loss_is_the_mean_over_all_neurons() -> None:
    run = started()
    expected = 0.0
    for member, one in zip(run.model.members, run.data.parts, strict=True):
        with torch.no_grad():
            loss = LOSSES["poisson"](member.eval()(one.validation_images), one.validation_responses)
        expected += member.shapes.n_neurons * loss.item() / 7
    assert run._validation_loss() == pytest.approx(expected, rel=1e-6)


def test_core_and_statistics_start_from_all_recordings() -> None:
    """Kernels are those of one recording alone; statistics those of both."""
    run = started()
    alone = Model("factorized", options(), shapes(2))
    first, second = run.data.parts
    initialize(alone, first.images, first.responses, seed=0)
    core, other = run.model.core.state_dict(), alone.core.state_dict()
    assert torch.equal(core["layers.0.convolution.weight"], other["layers.0.convolution.weight"])
    layer = run.model.core.layers[0]
    maps = layer.convolution(torch.cat([first.images[:40], second.images[:40]]))
    torch.testing.assert_close(core["layers.0.normalize.running_mean"], maps.mean((0, 2, 3)), rtol=0.2, atol=1e-3)
    for member, one in zip(run.model.members, run.data.parts, strict=True):
        with torch.no_grad():
            mean = member.eval()(one.images).mean(0)
        torch.testing.assert_close(mean, one.responses.mean(0), rtol=0.3, atol=0.3)


def test_kernels_move_to_the_middle_with_the_places_of_all() -> None:
    """A pixel to the side, on maps without a border, the predictions of both recordings stay what they were."""
    one_layer = replace(
        options("posterior"),
        core=CoreOptions(kernel_sizes=(7,), n_maps=1, batch_norm=False, padding="valid"),
        readout=ReadoutOptions(nonlinearity="identity"),
        penalties=PenaltyOptions(),
        training=TrainingOptions(loss="squared"),
    )
    shared = SharedModel("posterior", one_layer, [shapes(2), shapes(3)]).eval()
    kernels = torch.zeros(1, 1, 7, 7)
    kernels[0, 0, 4:6, 3] = torch.tensor([1.0, 0.5])
    with torch.no_grad():
        shared.core.layers[0].convolution.weight.copy_(kernels)
    shift = off_centre(kernels)
    assert shift != (0, 0)
    for member in shared.members:
        places = torch.zeros(member.shapes.n_neurons, 1, 6, 11)
        places[:, 0, 2, 4] = 1.0
        member.readout.set_posterior(places)  # type: ignore[operator]
    images = [torch.randn(4, 1, HEIGHT, WIDTH), torch.randn(5, 1, HEIGHT, WIDTH)]
    with torch.no_grad():
        before = shared(images)
        recentre(shared.members[0], shared.members)
        after = shared(images)
    assert off_centre(shared.core.layers[0].convolution.weight.detach()) == (0, 0)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, one)


def test_seeds_of_draws_differ_between_recordings_and_the_first_is_that_of_one() -> None:
    steps = [(seed, -1 - step) for seed in range(3) for step in range(9)]
    assert len({draw_seed(*step, number) for step in steps for number in range(4)}) == 4 * len(steps)
    assert all(draw_seed(*step, 0) == mixed_seed(*step) for step in steps)


def test_a_plan_counts_all_recordings() -> None:
    run = started()
    plan = make_plan(run.model, run.data, 2)
    assert (plan.n_images, plan.n_validation) == (100, 40)
    assert plan.n_parameters == sum(value.numel() for value in run.model.parameters())
    parts = [
        make_plan(Model("factorized", options(), shapes(n)), one, 2).memory
        for n, one in zip((2, 5), run.data.parts, strict=True)
    ]
    assert max(parts) < plan.memory < sum(parts)


def test_a_frozen_core_has_no_penalty_no_gradient_and_no_new_statistics() -> None:
    chosen = options()
    free, frozen = (Model("factorized", chosen, shapes(3), frozen=choice) for choice in (False, True))
    frozen.load_state_dict(free.state_dict())
    images = torch.randn(8, 1, HEIGHT, WIDTH)
    before = {key: value.clone() for key, value in frozen.core.state_dict().items()}
    predictions = frozen.train()(images)
    readout = frozen.readout_penalty(chosen.penalties, predictions)
    assert frozen.penalty(chosen.penalties, predictions).item() == readout.item()
    assert free.penalty(chosen.penalties, predictions).item() > readout.item()
    predictions.sum().backward()
    assert all(value.grad is None for value in frozen.core.parameters())
    assert all(torch.equal(value, before[key]) for key, value in frozen.core.state_dict().items())
    assert free.train()(images).requires_grad
