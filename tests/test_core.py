"""The core against scipy's correlation, layer by layer, and where its maps look."""

import re

import numpy as np
import pytest
import torch
from scipy.signal import correlate
from scipy.special import expit

from whatwhere.config import CoreOptions
from whatwhere.core import Core, UnitBatchNorm, fourier_correlation, map_offset, output_shape
from whatwhere.errors import InputError

CHANNELS, HEIGHT, WIDTH = 2, 11, 14
FUNCTIONS = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: -np.log(expit(-x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
SHAPES = {
    "one layer": {"kernel_sizes": (3,), "n_maps": 4, "padding": "valid"},
    "non-square": {"kernel_sizes": ((3, 5),), "n_maps": 4, "padding": "valid"},
    "even valid": {"kernel_sizes": ((4, 2),), "n_maps": 3, "padding": "valid"},
    "one large kernel": {"kernel_sizes": ((9, 10),), "n_maps": 1, "padding": "valid"},
    "even same": {"kernel_sizes": ((4, 6),), "n_maps": 3, "padding": "same"},
    "mixed": {
        "kernel_sizes": (5, (3, 4), (2, 3)),
        "n_maps": (3, 5, 2),
        "padding": ("valid", "same", "valid"),
    },
    "separable": {
        "kernel_sizes": ((3, 4), 3),
        "n_maps": (3, 4),
        "padding": ("valid", "same"),
        "separable": True,
    },
}


def build(**options: object) -> Core:
    """A core of random parameters and running statistics, in evaluation mode and double precision."""
    core = Core(CoreOptions(**options), CHANNELS, HEIGHT, WIDTH).double().eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.normal_(0, 0.5, generator=generator)
        for name, buffer in core.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=generator)
    return core


def convolved(maps: np.ndarray, kernels: np.ndarray, same: bool) -> np.ndarray:
    """sum_l (c_l correlated with W_kl), zeros around the maps; an even kernel's extra zero is last."""
    height, width = kernels.shape[2:]
    if same:
        top, left = (height - 1) // 2, (width - 1) // 2
        maps = np.pad(maps, ((0, 0), (0, 0), (top, height - 1 - top), (left, width - 1 - left)))
    return np.array(
        [
            [sum(correlate(plane, w, mode="valid") for plane, w in zip(image, k, strict=True)) for k in kernels]
            for image in maps
        ]
    )


def full_kernels(layer: torch.nn.Module) -> np.ndarray:
    """(K, K_in, height, width), a separable layer's multiplied out."""
    weights = layer.convolution.weight.detach().numpy()
    if layer.depthwise is None:
        return weights
    return np.einsum("kl,lij->klij", weights[:, :, 0, 0], layer.depthwise.weight.detach().numpy()[:, 0])


def by_hand(core: Core, images: np.ndarray) -> np.ndarray:
    maps = images
    for number, (layer, shape) in enumerate(zip(core.layers, core.options.layers(), strict=True), start=1):
        maps = convolved(maps, full_kernels(layer), shape.padding == "same")
        if core.options.batch_norm:
            mean, variance, shift = (
                values.detach().numpy()[None, :, None, None]
                for values in (
                    layer.normalize.running_mean,
                    layer.normalize.running_var,
                    layer.normalize.shift,
                )
            )
            maps = (maps - mean) / np.sqrt(variance + 1e-5) + shift
        else:
            maps = maps + layer.convolution.bias.detach().numpy()[None, :, None, None]
        last = number == core.options.n_layers
        maps = FUNCTIONS[core.options.last_nonlinearity if last else core.options.nonlinearity](maps)
    return maps


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_correlation_then_normalisation_then_nonlinearity(
    shape: str, batch_norm: bool, rng: np.random.Generator
) -> None:
    core = build(batch_norm=batch_norm, nonlinearity="elu", last_nonlinearity="softplus", **SHAPES[shape])
    images = rng.normal(size=(3, CHANNELS, HEIGHT, WIDTH))
    got = core(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(got, by_hand(core, images), rtol=1e-10, atol=1e-12)
    assert got.shape[1:] == core.output_shape == output_shape(core.options, HEIGHT, WIDTH)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_nonlinearity_inside_and_at_the_end(name: str, rng: np.random.Generator) -> None:
    images = rng.normal(size=(2, CHANNELS, HEIGHT, WIDTH))
    for place in ("nonlinearity", "last_nonlinearity"):
        options = {"nonlinearity": "identity", "last_nonlinearity": "identity", place: name}
        core = build(kernel_sizes=(3, 3), n_maps=2, padding="valid", **options)
        np.testing.assert_allclose(core(torch.from_numpy(images)).detach().numpy(), by_hand(core, images), atol=1e-10)


def test_batch_norm_gives_unit_variance_and_the_shift_as_mean_in_training() -> None:
    norm = UnitBatchNorm(3, shift=True, momentum=0.25).double()
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        norm.shift.copy_(shift)
    generator = torch.Generator().manual_seed(0)
    maps = 7 * torch.randn(6, 3, 4, 5, generator=generator, dtype=torch.float64) + 3
    out = norm(maps)
    torch.testing.assert_close(out.mean((0, 2, 3)), shift)
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones_like(shift), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_mean, 0.25 * maps.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * maps.var((0, 2, 3)))


def test_batch_norm_makes_the_kernels_scale_irrelevant(rng: np.random.Generator) -> None:
    core = build(kernel_sizes=(3,), n_maps=3, padding="valid").train()
    images = torch.from_numpy(rng.normal(size=(4, CHANNELS, HEIGHT, WIDTH)))
    before = core(images)
    with torch.no_grad():
        core.layers[0].convolution.weight.mul_(5.0)
    torch.testing.assert_close(core(images), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"convolution.weight": (3, 2, 3, 5), "normalize.shift": (3,)}),
        ({"batch_norm_shift": False}, {"convolution.weight": (3, 2, 3, 5)}),
        ({"batch_norm": False}, {"convolution.weight": (3, 2, 3, 5), "convolution.bias": (3,)}),
        ({"batch_norm": False, "batch_norm_shift": False}, {"convolution.weight": (3, 2, 3, 5)}),
        (
            {"separable": True},
            {"depthwise.weight": (2, 1, 3, 5), "convolution.weight": (3, 2, 1, 1), "normalize.shift": (3,)},
        ),
    ],
)
def test_parameters_hold_no_learned_scale(options: dict, expected: dict) -> None:
    core = build(kernel_sizes=((3, 5),), n_maps=3, padding="valid", **options)
    assert {name: tuple(p.shape) for name, p in core.layers[0].named_parameters()} == expected


def test_group_norms_are_those_of_the_explicit_kernels() -> None:
    for separable in (False, True):
        core = build(kernel_sizes=((3, 4),), n_maps=3, padding="valid", separable=separable)
        norms = np.sqrt((full_kernels(core.layers[0]) ** 2).sum((2, 3)))
        np.testing.assert_allclose(core.layers[0].group_norms().detach().numpy(), norms, rtol=1e-9)


def test_group_sparsity_sums_over_the_later_layers_alone() -> None:
    core = build(kernel_sizes=((3, 4), 3, 2), n_maps=(3, 4, 2), padding="valid", separable=(False, True, False))
    absolute = relative = 0.0
    for layer in core.layers[1:]:
        for kernel in full_kernels(layer):
            groups = sum(np.linalg.norm(plane) for plane in kernel)
            absolute, relative = absolute + groups, relative + groups / np.linalg.norm(kernel)
    assert core.group_sparsity(relative=False).item() == pytest.approx(absolute, rel=1e-8)
    assert core.group_sparsity(relative=True).item() == pytest.approx(relative, rel=1e-8)
    assert build(kernel_sizes=(3,), padding="valid").group_sparsity(relative=False).item() == 0.0


def test_smoothness_is_of_the_first_layer_alone() -> None:
    core = build(kernel_sizes=((3, 4), 3), n_maps=(3, 2), padding="valid")
    before = core.smoothness(relative=False).item(), core.smoothness(relative=True).item()
    with torch.no_grad():
        core.layers[1].convolution.weight.normal_()
    assert (core.smoothness(relative=False).item(), core.smoothness(relative=True).item()) == before
    delta = torch.zeros(3, CHANNELS, 3, 4)
    delta[:, 0, 1, 1] = 2.0
    with torch.no_grad():
        core.layers[0].convolution.weight.copy_(delta)
    assert core.smoothness(relative=False).item() == pytest.approx(3 * 4 * 41)
    assert core.smoothness(relative=True).item() == pytest.approx(3 * 41)


@pytest.mark.parametrize("options", [{}, {"separable": True}, {"batch_norm": False}])
def test_initial_parameters_depend_on_the_seed_alone(options: dict) -> None:
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # a global seed must not matter
        core = Core(CoreOptions(kernel_sizes=(7,), n_maps=40, padding="valid", **options), 5, 9, 10)
        core.initialize(torch.Generator().manual_seed(0))
        drawn.append(dict(core.named_parameters()))
    for name, parameter in drawn[0].items():
        torch.testing.assert_close(parameter, drawn[1][name], rtol=0, atol=0, msg=f"{name} is not from the seed")
    kernels = drawn[0]["layers.0.depthwise.weight" if "separable" in options else "layers.0.convolution.weight"]
    assert kernels.std().item() == pytest.approx(0.01, rel=0.15)
    assert abs(kernels.mean().item()) < 0.003


def test_initialize_sets_every_parameter_again() -> None:
    core = build(kernel_sizes=(3,), n_maps=2, padding="valid")
    core.initialize(torch.Generator().manual_seed(0))
    assert core.layers[0].normalize.shift.abs().max().item() == 0.0


OFFSETS = {
    "odd valid": {"kernel_sizes": (5,), "padding": "valid"},
    "even valid": {"kernel_sizes": (4,), "padding": "valid"},
    "odd same": {"kernel_sizes": (5,), "padding": "same"},
    "even same": {"kernel_sizes": (4,), "padding": "same"},
    "non-square valid": {"kernel_sizes": ((3, 6),), "padding": "valid"},
    "non-square same": {"kernel_sizes": ((2, 5),), "padding": "same"},
    "even same twice": {"kernel_sizes": (4, (2, 4)), "padding": "same"},
    "mixed": {"kernel_sizes": ((5, 2), (4, 3), (2, 4)), "padding": ("valid", "same", "valid")},
    "separable": {"kernel_sizes": ((5, 2), (4, 3)), "padding": ("valid", "same"), "separable": True},
}


@pytest.mark.parametrize("case", OFFSETS)
def test_map_offset_is_the_centroid_of_what_a_map_pixel_sees(case: str) -> None:
    height, width = 17, 22
    options = CoreOptions(n_maps=1, batch_norm=False, nonlinearity="identity", **OFFSETS[case])
    core = Core(options, 1, height, width).double()
    for parameter in core.parameters():
        torch.nn.init.ones_(parameter)
    images = torch.zeros(1, 1, height, width, dtype=torch.float64, requires_grad=True)
    pixel = (5, 8)  # far from the border for every case
    core(images)[0, 0][pixel].backward()
    seen = images.grad[0, 0].numpy()
    centroid = [(np.arange(size) * seen.sum(1 - axis)).sum() / seen.sum() for axis, size in enumerate(seen.shape)]
    np.testing.assert_allclose(np.subtract(centroid, pixel), map_offset(options), atol=1e-12)


def test_a_delta_image_lights_the_map_where_map_offset_says() -> None:
    options = CoreOptions(kernel_sizes=((5, 3), (3, 7)), n_maps=1, padding=("valid", "same"), batch_norm=False)
    core = Core(options, 1, 12, 15)
    with torch.no_grad():
        for layer in core.layers:
            kernel = layer.convolution.weight
            kernel.zero_()
            kernel[0, 0, kernel.shape[2] // 2, kernel.shape[3] // 2] = 1.0
            layer.convolution.bias.zero_()
    image = torch.zeros(1, 1, 12, 15)
    image[0, 0, 7, 9] = 1.0
    lit = np.argwhere(core(image)[0, 0].detach().numpy() > 0)
    np.testing.assert_array_equal(lit + map_offset(options), [[7, 9]])


def test_even_kernels_with_same_padding_do_not_warn() -> None:
    core = build(**SHAPES["even same"])
    torch.set_warn_always(True)  # torch says it once a process
    try:
        core(torch.zeros(1, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64))
    finally:
        torch.set_warn_always(False)


def test_a_kernel_larger_than_its_map_is_refused_with_the_layers_number() -> None:
    options = CoreOptions(kernel_sizes=(9, (3, 7)), n_maps=2, padding="valid")
    message = "the kernel of layer 2 (3 x 7 pixels) is larger than the map that it meets (3 x 6)"
    with pytest.raises(InputError, match=re.escape(message)):
        Core(options, 1, 11, 14)
    assert output_shape(options, 11, 15) == (2, 1, 1)


@pytest.mark.parametrize("separable", [False, True])
def test_gradients_are_those_of_finite_differences(separable: bool, rng: np.random.Generator) -> None:
    core = build(kernel_sizes=((2, 3), 2), n_maps=2, padding=("valid", "same"), separable=separable)
    names, parameters = zip(*core.named_parameters(), strict=True)
    images = torch.from_numpy(rng.normal(size=(2, CHANNELS, 4, 5))).requires_grad_()

    def forward(inputs: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(core, dict(zip(names, values, strict=True)), inputs)

    assert torch.autograd.gradcheck(forward, (images, *parameters), fast_mode=True)


@pytest.mark.parametrize("shape", [(1, 1, 17, 17), (2, 3, 9, 4), (3, 1, 11, 14), (1, 2, 1, 1)])
def test_the_correlation_by_fourier_transforms_is_the_direct_one(shape: tuple, rng: np.random.Generator) -> None:
    """In value and in both gradients; images of a prime height are padded for the transform, which must not show."""
    maps = torch.from_numpy(rng.normal(size=(4, shape[1], 19, 23))).requires_grad_()
    kernels = torch.from_numpy(rng.normal(size=shape)).requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(4, shape[0], 20 - shape[2], 24 - shape[3])))
    results = []
    for correlated in (fourier_correlation(maps, kernels), torch.nn.functional.conv2d(maps, kernels)):
        results.append((correlated, *torch.autograd.grad((correlated * weights).sum(), (maps, kernels))))
    for by_fourier, direct in zip(*results, strict=True):
        torch.testing.assert_close(by_fourier, direct, rtol=1e-10, atol=1e-10)


def test_few_large_kernels_are_correlated_by_fourier_transforms() -> None:
    def layers(**options: object) -> list[bool]:
        core = Core(CoreOptions(padding="valid", **options), 1, 40, 44)  # type: ignore[arg-type]
        return [layer.by_fourier for layer in core.layers]

    assert layers(kernel_sizes=(17,), n_maps=2) == [True]
    assert layers(kernel_sizes=(17,), n_maps=16) == [False]
    assert layers(kernel_sizes=(5,), n_maps=1) == [False]
    assert layers(kernel_sizes=(17,), n_maps=1, separable=True) == [False]
    assert layers(kernel_sizes=(17, 3), n_maps=(4, 2)) == [True, False]
