"""The Gaussian point readout against bilinear interpolation by hand, its draws against their moments."""

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.errors import TrainingError
from whatwhere.model import Model, Shapes, initialize
from whatwhere.readouts import FixedMaskReadout, GaussianReadout, Start
from whatwhere.readouts.gaussian import SPREADS
from whatwhere.training import Trainer, TrainingData, train

N_IMAGES, N_NEURONS, N_FEATURES, HEIGHT, WIDTH = 6, 5, 3, 4, 7
HALF = (WIDTH - 1) / 2  # pixels a unit of mean and spread
CENTRE = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])


def build(covariance: str = "full", std: float = 0.3, **options: object) -> GaussianReadout:
    """Random weights, means inside the map, A near `std` in units of the longer side; double precision."""
    chosen = ReadoutOptions(covariance=covariance, **options)  # type: ignore[arg-type]
    readout = GaussianReadout(N_NEURONS, (N_FEATURES, HEIGHT, WIDTH), chosen).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        readout.weights.normal_(generator=generator)
        readout.mean.uniform_(-0.45, 0.45, generator=generator)
        readout.spread.normal_(0, std, generator=generator)
    return readout


@pytest.fixture
def maps(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(N_IMAGES, N_FEATURES, HEIGHT, WIDTH)))


def bilinear(plane: np.ndarray, row: float, column: float) -> float:
    """The value of a plane (h, w) between its pixels; beyond the border the border's."""
    row, column = np.clip(row, 0, plane.shape[0] - 1), np.clip(column, 0, plane.shape[1] - 1)
    i, j = min(int(row), plane.shape[0] - 2), min(int(column), plane.shape[1] - 2)
    down, right = row - i, column - j
    return float(
        (1 - down) * (1 - right) * plane[i, j]
        + (1 - down) * right * plane[i, j + 1]
        + down * (1 - right) * plane[i + 1, j]
        + down * right * plane[i + 1, j + 1]
    )


def read(maps: np.ndarray, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_k w_kn c_k(p_bn) for points (n_images, n_neurons, 2: row, column) in pixels: (n_images, n_neurons)."""
    return np.array(
        [
            [sum(w * bilinear(plane, *p) for w, plane in zip(weights[n], image, strict=True)) for n, p in enumerate(of)]
            for image, of in zip(maps, points, strict=True)
        ]
    )


def pixels(readout: GaussianReadout, noise: np.ndarray | None = None) -> np.ndarray:
    """mu + A z in pixels, (n_images, n_neurons, 2), from the parameters; z (n_images, n_neurons, 2)."""
    mean, spread = readout.mean.detach().numpy(), readout.spread.detach().numpy()
    points = np.broadcast_to(mean, (N_IMAGES, N_NEURONS, 2)).copy()
    if noise is not None:
        for n in range(N_NEURONS):
            matrix = spread[n] if spread.ndim == 3 else np.diag(np.broadcast_to(spread[n], 2))
            points[:, n] += noise[:, n] @ matrix.T
    return CENTRE + HALF * points


def drawn(seed: int) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N_IMAGES, N_NEURONS, 2, generator=generator, dtype=torch.float64).numpy()


def test_evaluation_reads_the_mean_position_by_bilinear_interpolation(maps: torch.Tensor) -> None:
    readout = build().eval()
    expected = read(maps.numpy(), pixels(readout), readout.weights.detach().numpy())
    np.testing.assert_allclose(readout(maps).detach().numpy(), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(readout.positions().numpy(), pixels(readout)[0], rtol=1e-14)


@pytest.mark.parametrize("std", [0.03, 2.0], ids=["inside", "beyond the border"])
@pytest.mark.parametrize("covariance", SPREADS)
def test_training_reads_a_draw_for_each_image_and_neuron(covariance: str, std: float, maps: torch.Tensor) -> None:
    readout = build(covariance, std)
    readout.step_seed = 9
    points = pixels(readout, drawn(9))
    outside = ((points < 0) | (points > [HEIGHT - 1, WIDTH - 1])).mean()
    assert outside > 0.2 if std == 2.0 else outside < 0.05
    expected = read(maps.numpy(), points, readout.weights.detach().numpy())
    np.testing.assert_allclose(readout(maps).detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_on_a_pixel_and_without_spread_it_is_the_fixed_mask(training: bool, maps: torch.Tensor) -> None:
    gaussian = build().train(training)
    fixed = FixedMaskReadout(N_NEURONS, (N_FEATURES, HEIGHT, WIDTH), ReadoutOptions()).double()
    looks = torch.tensor([[0, 0], [3, 6], [1, 4], [2, 0], [0, 6]])  # corners, an edge, the midst
    with torch.no_grad():
        gaussian.move_to(looks)
        gaussian.spread.zero_()
        fixed.pixels.copy_(looks[:, 0] * WIDTH + looks[:, 1])
        fixed.weights.copy_(gaussian.weights)
    torch.testing.assert_close(gaussian(maps), fixed(maps))
    torch.testing.assert_close(gaussian.masks(), fixed.masks(), rtol=0, atol=1e-12)
    torch.testing.assert_close(gaussian.positions(), fixed.positions(), rtol=0, atol=1e-12)


SLOPES = torch.stack(
    torch.meshgrid(torch.arange(30, dtype=torch.float64), torch.arange(50, dtype=torch.float64), indexing="ij")
)  # maps whose value is the row, and the column: interpolated exactly, so they tell where they were read


def draws(readout: GaussianReadout, n_images: int) -> np.ndarray:
    """The positions that a readout of 30 x 50 pixels draws in one step: (n_images, n_neurons, 2), seen from outside."""
    maps = SLOPES.expand(n_images, 2, 30, 50)
    seen = []
    for axis in (0, 1):
        with torch.no_grad():
            readout.weights.copy_(torch.eye(2)[axis].expand_as(readout.weights))
            seen.append(readout(maps))
    return torch.stack(seen, 2).numpy()


SPREAD = {
    "isotropic": torch.tensor([[0.08], [-0.03]]),
    "uncorrelated": torch.tensor([[0.08, 0.02], [0.01, -0.09]]),
    "full": torch.tensor([[[0.08, 0.0], [0.05, 0.02]], [[0.02, -0.06], [0.01, 0.03]]]),
}


@pytest.mark.parametrize("covariance", SPREADS)
def test_draws_have_the_mean_and_covariance_that_it_states(covariance: str) -> None:
    readout = GaussianReadout(2, (2, 30, 50), ReadoutOptions(covariance=covariance)).double()  # type: ignore[arg-type]
    readout.move_to(torch.tensor([[12.25, 21.0], [16.0, 30.5]]))
    with torch.no_grad():
        readout.spread.copy_(SPREAD[covariance])
    n_images = 20_000
    positions, stated = draws(readout, n_images), readout.covariances().numpy()
    for n in range(2):
        std = np.sqrt(np.diag(stated[n]))
        np.testing.assert_allclose(positions[:, n].mean(0), readout.positions()[n], atol=5 * std.max() / 141)
        np.testing.assert_allclose(np.cov(positions[:, n].T), stated[n], atol=0.05 * std.max() ** 2)
    between = np.corrcoef(positions[:, 0].T, positions[:, 1].T)[:2, 2:]
    assert np.abs(between).max() < 0.04, "neurons draw each for itself"
    a = (49 / 2) * SPREAD[covariance].double().numpy()  # halves of the longer side, on both axes
    if covariance == "isotropic":
        np.testing.assert_allclose(stated, [a[0, 0] ** 2 * np.eye(2), a[1, 0] ** 2 * np.eye(2)])
    elif covariance == "uncorrelated":
        np.testing.assert_allclose(stated, [np.diag(a[0] ** 2), np.diag(a[1] ** 2)])
    else:
        np.testing.assert_allclose(stated, a @ a.transpose(0, 2, 1))
        assert np.corrcoef(positions[:, 0].T)[0, 1] > 0.8


def test_draws_depend_on_the_steps_seed_alone(maps: torch.Tensor) -> None:
    readout = build()
    outputs = []
    for step_seed, global_seed in ((3, 0), (3, 1), (4, 1)):
        readout.step_seed = step_seed
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        outputs.append(readout(maps))
        assert torch.equal(torch.get_rng_state(), before), "it took numbers of the global generator"
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.isclose(outputs[0], outputs[2]).any()


def test_forward_changes_no_parameter(maps: torch.Tensor) -> None:
    readout = build(std=3.0)
    with torch.no_grad():
        readout.mean[0] = torch.tensor([4.0, -5.0])  # outside of the map
    before = {name: value.clone() for name, value in readout.state_dict().items()}
    for training in (True, False):
        readout.train(training)(maps)
    for name, value in readout.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_project_brings_means_back_to_the_border_and_leaves_the_others(maps: torch.Tensor) -> None:
    readout = build().eval()
    with torch.no_grad():
        readout.mean[:2] = torch.tensor([[4.0, -5.0], [0.1, 1.5]])
    before, outputs = readout.positions(), readout(maps)
    readout.project()
    after = readout.positions()
    torch.testing.assert_close(after[0], torch.tensor([HEIGHT - 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(after[1], torch.tensor([before[1, 0], WIDTH - 1.0], dtype=torch.float64))
    assert torch.equal(after[2:], before[2:])
    torch.testing.assert_close(readout(maps), outputs)  # beyond the border it reads the border
    negative = build(nonnegative_features=True)
    weights = negative.feature_weights().clone()
    negative.project()
    torch.testing.assert_close(negative.feature_weights(), weights.clamp(min=0), rtol=0, atol=0)


def test_masks_are_the_shares_of_the_four_pixels() -> None:
    readout = build()
    readout.move_to(torch.tensor([[1.25, 4.5], [3.0, 6.0], [0.0, 2.75], [9.0, 3.0], [2.5, -1.0]]))
    masks = readout.masks().numpy()
    expected = np.zeros((N_NEURONS, HEIGHT, WIDTH))
    expected[0, 1:3, 4:6] = [[0.375, 0.375], [0.125, 0.125]]
    expected[1, 3, 6] = 1.0
    expected[2, 0, 2:4] = [0.25, 0.75]
    expected[3, 3, 3] = 1.0
    expected[4, 2:4, 0] = [0.5, 0.5]
    np.testing.assert_allclose(masks, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1)])
def test_maps_of_one_row_or_column(size: tuple[int, int], rng: np.random.Generator) -> None:
    readout = GaussianReadout(2, (N_FEATURES, *size), ReadoutOptions()).double()
    last = size[0] * size[1] - 1
    readout.initialize(Start(torch.tensor([0, last]), torch.ones(2), 0.0), torch.Generator().manual_seed(0))
    maps = torch.from_numpy(rng.normal(size=(4, N_FEATURES, *size)))
    expected = (maps.flatten(2)[:, :, [0, last]] * readout.weights.T).sum(1)
    torch.testing.assert_close(readout.eval()(maps), expected)
    with torch.no_grad():
        readout.spread.zero_()
    torch.testing.assert_close(readout.train()(maps), expected)


@pytest.mark.parametrize("covariance", SPREADS)
def test_it_starts_at_the_peak_with_the_given_width(covariance: str) -> None:
    readout = build(covariance, position_std=0.2)
    peaks, amplitudes = torch.tensor([9, 4, 0, 27, 20]), torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25])
    readout.initialize(Start(peaks, amplitudes, 0.7), torch.Generator().manual_seed(0))
    expected = np.stack(np.unravel_index(peaks.numpy(), (HEIGHT, WIDTH)), 1)
    np.testing.assert_allclose(readout.positions().numpy(), expected, atol=1e-12)
    widths = np.broadcast_to((0.2 * HALF) ** 2 * np.eye(2), (N_NEURONS, 2, 2))
    np.testing.assert_allclose(readout.covariances().numpy(), widths, rtol=1e-6)
    np.testing.assert_allclose(readout.feature_weights().sum(1), amplitudes, rtol=0.1)
    assert readout.feature_weights().std() > 0


@pytest.mark.parametrize("covariance", SPREADS)
def test_gradients_in_training_are_those_of_finite_differences(covariance: str, maps: torch.Tensor) -> None:
    readout = build(covariance)
    names, parameters = zip(*readout.named_parameters(), strict=True)
    assert set(names) == {"mean", "spread", "weights"}

    def forward(inputs: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(readout, dict(zip(names, values, strict=True)), inputs)

    assert torch.autograd.gradcheck(forward, (maps.requires_grad_(), *parameters))
    for parameter in torch.autograd.grad(forward(maps, *parameters).square().sum(), parameters):
        assert parameter.abs().max() > 1e-3


def test_second_derivatives_in_evaluation_are_those_of_finite_differences(maps: torch.Tensor) -> None:
    readout = build().eval()

    def forward(inputs: torch.Tensor, mean: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(readout, {"mean": mean, "weights": weights}, inputs)

    assert torch.autograd.gradgradcheck(forward, (maps.requires_grad_(), readout.mean, readout.weights))


def smooth_maps(n_images: int, seed: int) -> torch.Tensor:
    noise = torch.randn(n_images, 2, 16, 20, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool2d(noise, 5, stride=1)  # 12 x 16 pixels


def test_positions_are_found_between_pixels_from_some_way_off() -> None:
    """Two features of known weights, read without noise at known points; the readout starts two pixels off."""
    truth = GaussianReadout(3, (2, 12, 16), ReadoutOptions())
    truth.move_to(torch.tensor([[3.3, 10.6], [8.0, 4.25], [5.5, 7.5]]))
    with torch.no_grad():
        truth.weights.copy_(torch.tensor([[2.0, 1.0], [-1.0, 2.0], [1.5, -1.5]]))
    maps = smooth_maps(600, seed=0)
    responses = truth.eval()(maps).detach()
    readout = GaussianReadout(3, (2, 12, 16), ReadoutOptions())
    starts = torch.tensor([[5, 9], [6, 4], [5, 10]])
    readout.initialize(Start(starts[:, 0] * 16 + starts[:, 1], torch.ones(3), 0.0), torch.Generator().manual_seed(0))
    wide = readout.covariances().diagonal(dim1=1, dim2=2)
    optimizer = torch.optim.Adam(readout.parameters(), lr=0.01)
    for step in range(600):
        readout.step_seed = step
        optimizer.zero_grad()
        (readout(maps) - responses).square().mean().backward()
        optimizer.step()
        readout.project()
    assert (readout.positions() - truth.positions()).abs().max() < 0.1
    torch.testing.assert_close(readout.feature_weights(), truth.feature_weights(), rtol=0.05, atol=0.05)
    assert (readout.covariances().diagonal(dim1=1, dim2=2) < 0.2 * wide).all(), "certain of the place, it narrows"


# ------------------------------------------------------------------------------------------------ inside a model

SHAPES = Shapes(n_channels=2, height=12, width=17, n_neurons=4)


def data(n_images: int = 60) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images + 20, 2, 12, 17, generator=generator)
    rates = torch.nn.functional.softplus(images[:, :, 3:7, 4:8].mean((2, 3)).sum(1, keepdim=True)).expand(-1, 4)
    responses = torch.poisson(rates, generator=generator)
    return TrainingData(images[20:], responses[20:], images[:20], responses[:20], fingerprint="these")


def model(**training: object) -> Model:
    defaults = {"batch_size": 16, "check_every": 5, "max_steps": 20, "learning_rate": 1e-2}
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=3, padding="valid"),
        training=TrainingOptions(**defaults | training),  # type: ignore[arg-type]
    )
    made = Model("gaussian", options, SHAPES)
    initialize(made, data().images, data().responses, seed=0)
    return made


def test_each_step_of_training_has_draws_of_its_own() -> None:
    fitted, seeds = model(), []
    run = Trainer(fitted, data(), seed=7)
    fitted.train()
    for _ in range(6):
        run.step()
        seeds.append(fitted.readout.step_seed)
    assert len(set(seeds)) == 6
    again = Trainer(model(), data(), seed=7)
    again.schedule.step = 3
    again.step()
    assert again.model.readout.step_seed == seeds[3], "the step's number decides, not how it was come to"
    other = Trainer(model(), data(), seed=8)
    other.step()
    assert other.model.readout.step_seed not in seeds


def test_training_holds_the_means_inside_the_map() -> None:
    fitted = model(learning_rate=1.0)
    train(fitted, data(), seed=0)
    positions = fitted.readout.positions()
    assert (positions >= -1e-4).all()
    assert (positions <= torch.tensor([7.0, 12.0]) + 1e-4).all()
    assert ((positions < 1e-4) | (positions > torch.tensor([7.0, 12.0]) - 1e-4)).any(), "none was held"


def test_a_mean_that_is_no_number_is_diagnosed() -> None:
    broken = model()
    run = Trainer(broken, data(), seed=0)
    with torch.no_grad():
        broken.readout.mean[1, 0] = torch.nan
    with pytest.raises(TrainingError, match=r"not finite at step 0 .*; readout\.mean hold values that are not finite"):
        run.train(False, lambda: False)


def test_bf16_is_close_to_float32() -> None:
    losses = [
        train(model(precision=precision), data(), seed=0).history[-1].training_loss for precision in ("float32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.gpu
def test_on_a_gpu_the_draws_repeat_and_the_mean_is_the_cpus(maps: torch.Tensor) -> None:
    readout = build()
    evaluated = readout.eval()(maps)
    on_gpu = readout.cuda().train()
    first, second = on_gpu(maps.cuda()), on_gpu(maps.cuda())
    assert torch.equal(first, second)
    assert not torch.isclose(first.cpu(), evaluated).any()
    torch.testing.assert_close(on_gpu.eval()(maps.cuda()).cpu(), evaluated)
