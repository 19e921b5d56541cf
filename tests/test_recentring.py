"""Recentring: the same model, seen from the middle of the kernel's window."""

import pytest
import torch

from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.model import Model, Shapes
from whatwhere.readouts import PosteriorReadout
from whatwhere.recentring import recentre

SIZE = (9, 7)  # of the kernel
N_CHANNELS, HEIGHT, WIDTH = 2, 22, 25
PLACES = [[6, 7], [6, 11], [8, 9], [7, 6]]  # inside by more than any shift below


def build(
    shift: tuple[int, int], n_maps: int = 2, n_layers: int = 1, widths: tuple[float, ...] = (0.0,), **core: object
) -> Model:
    """Kernels with all their energy in 3 x 3 pixels around a point `shift` off the middle; a place for each neuron."""
    sizes = (SIZE, (3, 3))[:n_layers]
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=sizes, n_maps=n_maps, kernel_std=1.0, **core),  # type: ignore[arg-type]
        readout=ReadoutOptions(nonlinearity="identity", widths=widths),
        training=TrainingOptions(loss="squared"),
    )
    model = Model("posterior", options, Shapes(N_CHANNELS, HEIGHT, WIDTH, len(PLACES))).double().eval()
    assert isinstance(model.readout, PosteriorReadout)
    generator = torch.Generator().manual_seed(1)
    middle = torch.randn(3, 3, generator=generator).abs().double()
    middle = middle + middle.flip(0) + middle.flip(1) + middle.flip(0, 1)  # symmetric: its centre of mass is its middle
    row, column = SIZE[0] // 2 + shift[0], SIZE[1] // 2 + shift[1]
    model.core.initialize(generator)
    with torch.no_grad():
        kernels = model.core.layers[0].spatial_kernels()
        kernels.zero_()
        scale = torch.randn(kernels.shape[:2], generator=generator).double()[:, :, None, None]
        kernels[:, :, row - 1 : row + 2, column - 1 : column + 2] = scale * middle
        model.readout.weights.normal_(generator=generator)
    point = torch.zeros_like(model.readout.posterior)
    for n, (i, j) in enumerate(PLACES):
        point[n, n % len(widths), i, j] = 0.75
        point[n, 0, i + 1, j - 1] += 0.25
    model.readout.set_posterior(point)
    return model


def images(n: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, N_CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shift", [(3, 0), (-2, 1), (0, -2), (-3, -2)])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "same"}, {"separable": True}, {"widths": (0.0, 0.7)}, {"n_maps": 1, "batch_norm": False}],
    ids=str,
)
def test_kernels_move_to_the_middle_and_predictions_stay(shift: tuple[int, int], options: dict) -> None:
    model = build(shift, **options)
    kernels, places = model.core.layers[0].spatial_kernels().clone(), model.readout.posterior.clone()
    with torch.no_grad():
        before = model(images())
    assert before.std(0).min() > 0.1
    recentre(model)
    moved = model.core.layers[0].spatial_kernels()
    torch.testing.assert_close(moved, kernels.roll((-shift[0], -shift[1]), (2, 3)), rtol=0, atol=0)
    torch.testing.assert_close(model.readout.posterior, places.roll(shift, (2, 3)), rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(model(images()), before, rtol=1e-9, atol=1e-9)
    again = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recentre(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again[name]), name


def unchanged(model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recentre(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_kernels_in_the_middle_deeper_cores_and_empty_kernels_stay() -> None:
    unchanged(build((0, 0)))
    unchanged(build((2, 1), n_layers=2))
    empty = build((2, 1))
    with torch.no_grad():
        empty.core.layers[0].spatial_kernels().zero_()
    unchanged(empty)


def test_every_map_counts_alike_whatever_its_scale() -> None:
    model = build((2, 0))
    with torch.no_grad():
        kernels = model.core.layers[0].spatial_kernels()
        kernels[1] = 1e3 * kernels[1].roll(-4, 1)  # the second map 2 above the middle, the first 2 below it
    unchanged(model)


def test_a_neuron_whose_places_would_leave_the_map_keeps_them() -> None:
    model = build((3, -2))
    height = model.readout.map_shape[1]
    leaving, partly = torch.zeros(2, 1, *model.readout.map_shape[1:], dtype=torch.float64)
    leaving[0, height - 2, 10], leaving[0, 5, 5] = 0.6, 0.4
    partly[0, height - 2, 10], partly[0, 5, 5] = 0.2, 0.8
    model.readout.set_posterior(torch.stack([leaving, partly, leaving, partly]))
    recentre(model)
    torch.testing.assert_close(model.readout.posterior[0], leaving)
    expected = torch.zeros_like(partly)
    expected[0, 8, 3] = 1.0  # what stayed inside, again of sum 1
    torch.testing.assert_close(model.readout.posterior[1], expected)


def test_a_shift_larger_than_the_map_moves_the_kernel_alone() -> None:
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(SIZE,), n_maps=1),
        readout=ReadoutOptions(nonlinearity="identity"),
        training=TrainingOptions(loss="squared"),
    )
    model = Model("posterior", options, Shapes(1, SIZE[0] + 1, SIZE[1] + 1, 2))  # maps of 2 x 2 pixels
    with torch.no_grad():
        kernels = model.core.layers[0].spatial_kernels()
        kernels.zero_()
        kernels[0, 0, 0, 6] = 1.0
    places = torch.full((2, 1, 2, 2), 0.25)
    model.readout.set_posterior(places)
    recentre(model)
    assert model.core.layers[0].spatial_kernels()[0, 0].nonzero().tolist() == [[4, 3]]
    assert torch.equal(model.readout.posterior, places)
