"""The whole model: its equation, its penalties, what it refuses, where it looks and how it starts."""

import re

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.core import output_shape
from whatwhere.errors import OptionError
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes, check_options, initialize, spread
from whatwhere.parallel import Part
from whatwhere.readouts import READOUTS, FullyConnectedReadout

SHAPES = Shapes(n_channels=2, height=9, width=13, n_neurons=4)
FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.logaddexp(0, x),
}


LAYERS = {"kernel_sizes": ((3, 5), 3), "n_maps": (3, 2), "padding": ("valid", "same")}


def options(core: dict | None = None, readout: dict | None = None, **penalties: object) -> ModelOptions:
    """A small model of two layers, the first with an uneven kernel."""
    return ModelOptions(
        core=CoreOptions(**LAYERS | (core or {})),
        readout=ReadoutOptions(**(readout or {})),
        penalties=PenaltyOptions(**penalties),  # type: ignore[arg-type]
        training=TrainingOptions(loss="squared"),  # suits every output nonlinearity
    )


def build(name: str, chosen: ModelOptions, seed: int = 1) -> Model:
    """A model of random parameters, in evaluation mode and double precision."""
    model = Model(name, chosen, SHAPES).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        if name == "fixed-mask":
            model.readout.pixels.copy_(torch.tensor([3, 11, 0, 20]))
        if name == "posterior":
            odds = torch.rand(model.readout.posterior.shape, generator=generator, dtype=torch.float64)
            model.readout.set_posterior(odds / odds.sum((1, 2, 3), keepdim=True))
        model.readout.project()  # means inside the map
    return model


def rebuilt(model: Model) -> np.ndarray:
    """q (n_neurons, K, h, w)."""
    if hasattr(model.readout, "mask"):
        return torch.einsum("nij,nk->nkij", model.readout.mask, model.readout.weights).detach().numpy()
    if not isinstance(model.readout, FullyConnectedReadout):
        return torch.einsum("nij,nk->nkij", model.readout.masks(), model.readout.weights).detach().numpy()
    return model.readout.weights.detach().numpy()


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
@pytest.mark.parametrize("name", READOUTS)
def test_forward_is_the_models_equation(name: str, nonlinearity: str, rng: np.random.Generator) -> None:
    model = build(name, options(readout={"nonlinearity": nonlinearity}))
    images = torch.from_numpy(rng.normal(size=(5, 2, 9, 13)))
    maps = model.core(images).detach().numpy()
    drive = np.einsum("bkij,nkij->bn", maps, rebuilt(model)) + model.bias.detach().numpy()
    got = model(images).detach().numpy()
    np.testing.assert_allclose(got, FUNCTIONS[nonlinearity](drive), rtol=1e-10, atol=1e-12)
    assert got.shape == (5, 4)


@pytest.mark.parametrize("relative", [True, False])
def test_penalty_is_the_sum_of_readout_and_core(relative: bool, rng: np.random.Generator) -> None:
    chosen = options(mask_l1=0.3, feature_l1=0.2, smoothness=0.7, group_sparsity=0.11, relative=relative)
    model, predictions = build("factorized", chosen), torch.from_numpy(rng.normal(size=(5, 4)))
    expected = (
        0.3 * model.readout.masks().abs().sum() / 4
        + 0.2 * model.readout.feature_weights().abs().sum() / 4
        + 0.7 * model.core.smoothness(relative)
        + 0.11 * model.core.group_sparsity(relative)
    )
    torch.testing.assert_close(model.penalty(chosen.penalties, predictions), expected)
    assert model.penalty(PenaltyOptions(), predictions).item() == 0.0


@pytest.mark.parametrize("name", READOUTS)
def test_gradients_of_the_objective_are_those_of_finite_differences(name: str, rng: np.random.Generator) -> None:
    strengths = dict.fromkeys(READOUTS[name].strengths, 0.3)
    chosen = options({"nonlinearity": "softplus"}, smoothness=0.2, group_sparsity=0.1, **strengths)
    model = build(name, chosen)
    images = torch.from_numpy(rng.normal(size=(3, 2, 9, 13)))
    responses = torch.from_numpy(rng.poisson(1.0, (3, 4)).astype(float))

    class Objective(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self) -> torch.Tensor:
            predictions = self.model(images)
            return LOSSES["poisson"](predictions, responses) + self.model.penalty(chosen.penalties, predictions)

    objective = Objective()
    names, parameters = zip(*objective.named_parameters(), strict=True)
    assert any("normalize.shift" in name for name in names)

    def at(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(objective, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(at, parameters, fast_mode=True)


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize(
    "core",
    [
        {"kernel_sizes": (5,), "padding": "valid"},
        {"kernel_sizes": ((3, 5),), "padding": "same"},
        {"kernel_sizes": ((4, 2),), "padding": "same"},
        {"kernel_sizes": ((3, 4), (2, 5)), "padding": ("valid", "same")},
    ],
)
def test_locations_are_the_centroid_of_the_image_that_each_neuron_sees(name: str, core: dict) -> None:
    shapes = Shapes(n_channels=1, height=15, width=19, n_neurons=3)
    chosen = options({**core, "n_maps": 2, "batch_norm": False}, {"nonlinearity": "identity"})
    model = Model(name, chosen, shapes).double()
    _, h, w = model.core.output_shape
    looks = [(3, 5), (6, 8), (5, 11)]  # pixels of the map, away from its border
    with torch.no_grad():
        for parameter in model.core.parameters():
            parameter.fill_(1.0)
        for n, (i, j) in enumerate(looks):
            if name == "fixed-mask":
                model.readout.pixels[n] = i * w + j
            elif name == "gaussian":
                model.readout.move_to(torch.tensor(looks) + torch.tensor([[0.25, -0.5], [0.0, 0.125], [-0.75, 0.0]]))
            elif name == "posterior":
                model.readout.posterior[n, 0, i, j] = 1.0
                model.readout.set_posterior(model.readout.posterior.clone())
            elif name == "factorized":
                model.readout.mask[n, i, j] = -2.0  # the peak is that of the magnitude
            else:
                model.readout.weights[n, :, i, j] = torch.tensor([-1.0, -2.0])
    assert (h, w) == output_shape(chosen.core, 15, 19)[1:]
    locations = model.locations()
    assert locations.shape == (3, 2)
    for n in range(3):
        images = torch.zeros(1, 1, 15, 19, dtype=torch.float64, requires_grad=True)
        model(images)[0, n].backward()
        seen = images.grad[0, 0].abs().numpy()
        centroid = [(np.arange(len(line)) * line).sum() / line.sum() for line in (seen.sum(1), seen.sum(0))]
        np.testing.assert_allclose(locations[n], centroid, atol=1e-9)


def test_an_unknown_readout_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"unknown readout 'factorised': .* Did you mean 'factorized'\?"):
        Model("factorised", options(), SHAPES)


ALLOWED = {
    "factorized": {"mask_l1", "feature_l1", "product_l1"},
    "fixed-mask": {"feature_l1"},
    "fully-connected": {"weight_l2", "activity_l1"},
    "gaussian": {"feature_l1"},
    "posterior": {"feature_l1"},
}


@pytest.mark.parametrize("name", READOUTS)
@pytest.mark.parametrize("strength", ["mask_l1", "feature_l1", "product_l1", "weight_l2", "activity_l1"])
def test_a_strength_that_the_readout_lacks_is_refused(name: str, strength: str) -> None:
    for value in (0.5, (0.0, 0.5)):
        chosen = options(readout={"feature_norm": "unit"} if name == "factorized" else {}, **{strength: value})
        if strength in ALLOWED[name]:
            Model(name, chosen, SHAPES)
            continue
        message = f"the {name} readout has no penalty {strength!r} (=0.5): it has "
        with pytest.raises(OptionError, match=re.escape(message)):
            Model(name, chosen, SHAPES)


@pytest.mark.parametrize("name", READOUTS)
def test_penalties_of_the_core_and_zeros_suit_every_readout(name: str) -> None:
    check_options(name, options(smoothness=1.0, group_sparsity=(0.1, 1.0), weight_l2=0.0, mask_l1=(0.0, 0.0)))


FREE = "or the reverse, is no penalty while both norms are 'free': the other factor grows"


@pytest.mark.parametrize(
    "strengths",
    [
        {"mask_l1": 0.1},
        {"feature_l1": 0.1},
        {"mask_l1": (0.1, 1.0)},
        {"mask_l1": 0.1, "product_l1": 0.1},
        {"mask_l1": (0.0, 1.0), "feature_l1": 1.0},
        {"mask_l1": (0.0, 1.0), "feature_l1": (0.0, 1.0)},  # searched, so one of the four is one-sided
    ],
)
def test_a_free_scale_is_refused_under_a_one_sided_penalty(strengths: dict) -> None:
    with pytest.raises(OptionError, match=re.escape(FREE)):
        check_options("factorized", options(**strengths))


@pytest.mark.parametrize(
    "chosen",
    [
        options(mask_l1=0.1, feature_l1=0.1),
        options(mask_l1=(0.1, 1.0), feature_l1=(0.2, 2.0)),
        options(product_l1=0.1),
        options(readout={"feature_norm": "unit"}, mask_l1=0.1),
        options({"n_maps": (3, 1)}, mask_l1=0.1),
        options(),
    ],
)
def test_a_scale_that_cannot_escape_is_accepted(chosen: ModelOptions) -> None:
    check_options("factorized", chosen)


def test_feature_l1_is_refused_where_there_are_no_feature_weights() -> None:
    with pytest.raises(OptionError, match="feature_l1"):
        check_options("factorized", options({"n_maps": (3, 1)}, feature_l1=0.1))


def recording(n_images: int = 700) -> tuple[torch.Tensor, torch.Tensor]:
    """White noise, and responses of three neurons that each see a spot in it, and of a silent one."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(n_images, 2, 9, 13, generator=generator)
    spots = [images[:, 0, i - 1 : i + 2, j - 1 : j + 2].mean((1, 2)) for i, j in [(3, 4), (5, 8), (4, 9)]]
    noise = 0.1 * torch.randn(n_images, 3, generator=generator)
    responses = torch.relu(torch.stack(spots, 1) * torch.tensor([3.0, 1.0, 2.0]) + noise)
    return images, torch.cat([responses, torch.zeros(n_images, 1)], 1)


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
@pytest.mark.parametrize("name", READOUTS)
def test_initial_mean_prediction_is_the_mean_response(name: str, nonlinearity: str) -> None:
    images, responses = recording()
    model = Model(name, options(readout={"nonlinearity": nonlinearity}), SHAPES)
    initialize(model, images, responses, seed=0)
    with torch.no_grad():
        predicted = model.eval()(images).mean(0)
    wanted = responses.mean(0) if nonlinearity == "identity" else responses.mean(0).clamp(min=1e-3)
    torch.testing.assert_close(predicted, wanted, rtol=1e-3, atol=1e-4)


def test_initial_values_do_not_rest_on_the_first_images_alone() -> None:
    images, responses = recording(6000)
    images[:2048] *= 0.2  # a recording that begins at low contrast
    model = Model("factorized", options({"kernel_sizes": (3,), "n_maps": 2, "padding": "valid"}), SHAPES)
    initialize(model, images, responses, seed=0)
    with torch.no_grad():
        predicted = model.eval()(images).mean(0)
        variances = model.core(images).var((0, 2, 3))
    torch.testing.assert_close(predicted, responses.mean(0).clamp(min=1e-3), rtol=0.1, atol=0.01)
    torch.testing.assert_close(variances, torch.ones(2), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("name", READOUTS)
def test_initial_locations_and_amplitudes_are_the_neurons_own(name: str) -> None:
    images, responses = recording()
    chosen = options({"kernel_sizes": ((3, 3),), "n_maps": 1, "padding": "valid"}, {"sta_smoothing": 1.0})
    model = Model(name, chosen, SHAPES)
    initialize(model, images, responses, seed=0)
    assert np.abs(model.locations()[:3] - [(3, 4), (5, 8), (4, 9)]).max() <= 1
    peaks = model.readout.masks()[:3].flatten(1).abs().amax(1) * model.readout.feature_weights()[:3, 0].abs()
    assert (peaks > 0.7 * responses.std(0)[:3]).all()
    assert (peaks < 1.05 * responses.std(0)[:3]).all()


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel_size", [(5, 5), (5, 3)])
def test_the_posterior_starts_with_the_kernel_that_its_neurons_see(padding: str, kernel_size: tuple[int, int]) -> None:
    images, responses = recording()
    responses[:, 1] *= -1  # a neuron of the other sign shares the kernel
    core = {"kernel_sizes": (kernel_size,), "n_maps": 1, "padding": padding, "kernel_std": 0.3}
    model = Model("posterior", options(core, {"sta_smoothing": 1.0, "nonlinearity": "identity"}), SHAPES)
    initialize(model, images, responses, seed=0)
    kernel = model.core.layers[0].convolution.weight.detach().numpy()[0]
    spot = np.zeros((2, *kernel_size))
    row, column = kernel_size[0] // 2, kernel_size[1] // 2
    spot[0, row - 1 : row + 2, column - 1 : column + 2] = 1
    assert np.corrcoef(kernel.ravel(), spot.ravel())[0, 1] > 0.8
    assert np.linalg.norm(kernel) == pytest.approx(0.3 * kernel.size**0.5, rel=1e-4)
    assert np.abs(model.locations()[:3] - [(3, 4), (5, 8), (4, 9)]).max() <= 1
    assert model.readout.posterior[3].max() < 0.05, "nothing is known of the silent neuron"


def test_what_is_solved_for_takes_no_gradient_step() -> None:
    for n_maps, nonlinearity, solved in ((1, "identity", True), (1, "relu", False), (2, "identity", False)):
        core = {"kernel_sizes": (3,), "n_maps": n_maps, "padding": "valid"}
        model = Model("posterior", options(core, {"nonlinearity": nonlinearity}), SHAPES)
        assert model.readout.solved is solved
        assert model.readout.weights.requires_grad is not solved
        assert model.bias.requires_grad is not solved
    assert Model("factorized", options(), SHAPES).bias.requires_grad


def test_a_penalty_on_weights_that_are_solved_for_is_refused() -> None:
    chosen = options({"n_maps": (3, 2)}, {"nonlinearity": "identity"}, feature_l1=(0.0, 0.1))
    message = r"feature_l1 \(=\(0.0, 0.1\)\) has nothing to act on: with the output nonlinearity 'identity' the post"
    with pytest.raises(OptionError, match=message):
        check_options("posterior", chosen)
    check_options("gaussian", chosen)


@pytest.mark.parametrize("core", [{}, {"batch_norm": False}, {"separable": True}])
def test_initialize_depends_on_the_seed_alone(core: dict) -> None:
    images, responses = recording()
    states = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 5)):
        torch.manual_seed(global_seed)
        model = Model("factorized", options(core), SHAPES)
        initialize(model, images, responses, seed=seed)
        states.append(model.state_dict())
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=0, atol=0, msg=f"{key} is not from the seed")
    assert not torch.equal(states[2]["core.layers.0.convolution.weight"], states[0]["core.layers.0.convolution.weight"])


def test_initialize_again_forgets_the_fit() -> None:
    images, responses = recording(200)
    model = Model("factorized", options(), SHAPES)
    initialize(model, images, responses, seed=0)
    first = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    initialize(model, images, responses, seed=0)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, first[key], msg=f"{key} is left from before")


def test_initial_statistics_are_those_of_the_data() -> None:
    images, responses = recording(400)
    model = Model("factorized", options(), SHAPES)
    initialize(model, images, responses, seed=0)
    met: list[torch.Tensor] = []
    for layer in model.core.layers:
        layer.normalize.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))
    momenta = [layer.normalize.momentum for layer in model.core.layers]
    statistics = [
        (layer.normalize.running_mean.clone(), layer.normalize.running_var.clone()) for layer in model.core.layers
    ]
    model.train()(images)
    for maps, (mean, variance) in zip(met, statistics, strict=True):
        torch.testing.assert_close(mean, maps.mean((0, 2, 3)), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(variance, maps.var((0, 2, 3)), rtol=1e-3, atol=1e-6)
    assert momenta == [0.1, 0.1]


def test_poisson_loss_of_a_prediction_that_may_be_negative_is_refused() -> None:
    chosen = ModelOptions(
        core=CoreOptions(kernel_sizes=(3,), padding="valid"),
        readout=ReadoutOptions(nonlinearity="identity"),
        training=TrainingOptions(loss="poisson"),
    )
    with pytest.raises(OptionError, match="poisson"):
        Model("factorized", chosen, SHAPES)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("fixed-mask", {"nonnegative_masks": True}),
        ("fixed-mask", {"mask_noise": 0.01}),
        ("fixed-mask", {"feature_norm": "unit"}),
        ("fully-connected", {"nonnegative_masks": True}),
        ("fully-connected", {"nonnegative_features": True}),
        ("fully-connected", {"feature_norm": "unit"}),
        ("gaussian", {"nonnegative_masks": True}),
        ("gaussian", {"mask_noise": 0.01}),
        ("gaussian", {"feature_norm": "unit"}),
        ("posterior", {"nonnegative_masks": True}),
        ("factorized", {"covariance": "isotropic"}),
        ("fixed-mask", {"noise": "rate"}),
        ("gaussian", {"widths": (0.0, 1.0)}),
        ("fixed-mask", {"position_std": 0.2}),
        ("posterior", {"dropout": 0.5}),
    ],
)
def test_a_choice_that_the_readout_would_ignore_is_refused(name: str, choice: dict) -> None:
    with pytest.raises(OptionError, match=rf"the {name} readout has no option '{next(iter(choice))}'"):
        Model(name, options(readout=choice), SHAPES)
    owner = next(kind for kind in ("posterior", "gaussian", "factorized") if set(choice) <= READOUTS[kind].choices)
    Model(owner, options(readout=choice), SHAPES)


def test_group_sparsity_is_refused_where_there_is_one_layer() -> None:
    one = {"kernel_sizes": (3,), "n_maps": 2, "padding": "valid"}
    with pytest.raises(OptionError, match=r"group_sparsity .* has nothing to act on"):
        Model("factorized", options(one, group_sparsity=0.1), SHAPES)


def test_a_readout_penalty_that_the_core_can_escape_is_refused() -> None:
    free = {"batch_norm": False}
    with pytest.raises(OptionError, match="without batch normalisation is no penalty: the kernels grow"):
        Model("factorized", options(free, product_l1=0.1), SHAPES)
    Model("factorized", options(free, product_l1=0.1, smoothness=0.1, relative=False), SHAPES)
    Model("factorized", options(free), SHAPES)


def test_a_neuron_whose_mask_is_zero_looks_nowhere() -> None:
    model = build("factorized", options())
    with torch.no_grad():
        model.readout.mask[2] = 0.0
    assert np.isnan(model.locations()[2]).all()
    assert np.isfinite(np.delete(model.locations(), 2, 0)).all()


def test_padding_is_valid_then_same_where_it_is_not_given() -> None:
    layers = CoreOptions(kernel_sizes=(5, 3, 3)).layers()
    assert [layer.padding for layer in layers] == ["valid", "same", "same"]


@pytest.mark.parametrize("name", sorted(set(READOUTS) - {"posterior"}))
def test_dropout_sets_features_to_zero_and_keeps_their_mean(name: str) -> None:
    images, responses = recording(40)
    readout = {"dropout": 0.25, "nonlinearity": "identity"}
    model = Model(name, options(readout=readout), Shapes(images.shape[1], *images.shape[2:], responses.shape[1]))
    maps = torch.rand(4, *model.core.output_shape) + 1
    model.eval()
    torch.testing.assert_close(model._dropped(maps), maps)
    model.train()
    model.readout.step_seed = 7
    once, again = model._dropped(maps), model._dropped(maps)
    torch.testing.assert_close(once, again)
    kept = once != 0
    torch.testing.assert_close(once[kept], maps[kept] / 0.75)
    assert abs(float(kept.float().mean()) - 0.75) < 4 * (0.25 * 0.75 / maps.numel()) ** 0.5
    model.readout.step_seed = 8
    assert not torch.equal(model._dropped(maps), once)
    draws = []
    for seed in range(400):
        model.readout.step_seed = seed
        draws.append(model._dropped(maps[:1]))
    torch.testing.assert_close(torch.stack(draws).mean(0), maps[:1], atol=0.25, rtol=0)  # 4.3 standard errors
    model.readout.step_seed, model.readout.step_part = 7, Part(1, 3, 4)  # two of the four images of a step
    torch.testing.assert_close(model._dropped(maps[1:3]), once[1:3])


def test_what_stands_for_all_images_is_spread_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.arange(1000.0)[:, None, None, None].expand(-1, 2, 3, 5)
    assert spread(images, 4)[:, 0, 0, 0].tolist() == [0, 333, 666, 999]
    assert len(spread(images, 2000)) == 1000
    monkeypatch.setattr("whatwhere.model._MOST_SPREAD", 4 * 30 * 400)
    assert len(spread(images, 2000)) == 400
    monkeypatch.setattr("whatwhere.model._MOST_SPREAD", 1)
    assert len(spread(images, 2000)) == 256, "never fewer than statistics need"
