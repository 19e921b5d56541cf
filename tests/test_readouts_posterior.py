"""The posterior readout: its expectation against an einsum, its draws against the posterior that they come from."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare

from whatwhere.config import ReadoutOptions
from whatwhere.errors import OptionError
from whatwhere.noise_models import NoiseModel
from whatwhere.readouts import PosteriorReadout, Start

N_IMAGES, N_NEURONS, N_FEATURES, HEIGHT, WIDTH = 6, 5, 3, 5, 8
WIDTHS = (0.0, 1.0, 2.0)


def build(widths: tuple[float, ...] = WIDTHS, **options: object) -> PosteriorReadout:
    """Random weights and a random posterior over all places, in double precision."""
    chosen = ReadoutOptions(widths=widths, **options)  # type: ignore[arg-type]
    readout = PosteriorReadout(N_NEURONS, (N_FEATURES, HEIGHT, WIDTH), chosen).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        readout.weights.normal_(generator=generator)
    odds = torch.rand(N_NEURONS, len(widths), HEIGHT, WIDTH, generator=generator, dtype=torch.float64) ** 6
    readout.set_posterior(odds / odds.sum((1, 2, 3), keepdim=True))
    return readout


@pytest.fixture
def maps(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(N_IMAGES, N_FEATURES, HEIGHT, WIDTH)))


def blurred(planes: np.ndarray, width: float) -> np.ndarray:
    """Planes (..., h, w) under a Gaussian cut at three widths, zeros beyond the border."""
    if not width:
        return planes
    sigma, reach = [0.0] * (planes.ndim - 2) + [width] * 2, int(np.ceil(3 * width))
    return gaussian_filter(planes, sigma, mode="constant", radius=[0] * (planes.ndim - 2) + [reach] * 2)


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("widths", [(0.0,), (2.0,), WIDTHS])
def test_evaluation_is_the_expectation_over_places_of_blurred_features(
    widths: tuple[float, ...], sampled: bool, maps: torch.Tensor
) -> None:
    readout = build(widths, sampled=sampled).eval()
    features = np.stack([blurred(maps.numpy(), width) for width in widths])  # (n_widths, n_images, K, h, w)
    weights = readout.weights.detach().numpy()
    expected = np.einsum("nsij,sbkij,nk->bn", readout.posterior.numpy(), features, weights)
    np.testing.assert_allclose(readout(maps).detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    if not sampled:
        torch.testing.assert_close(readout.train()(maps), readout.eval()(maps), rtol=0, atol=0)


def test_masks_are_the_posteriors_blurred_and_positions_their_peaks() -> None:
    readout = build()
    expected = sum(blurred(readout.posterior.numpy()[:, i], width) for i, width in enumerate(WIDTHS))
    np.testing.assert_allclose(readout.masks().numpy(), expected, rtol=1e-10, atol=1e-12)
    peaks = np.stack(np.unravel_index(expected.reshape(N_NEURONS, -1).argmax(1), (HEIGHT, WIDTH)), 1)
    np.testing.assert_array_equal(readout.positions().numpy(), peaks)
    assert (readout.masks().sum((1, 2)) < 1).all(), "Gaussians reach beyond the border"


def drawn(readout: PosteriorReadout, n: int, seed: int = 0) -> np.ndarray:
    places = readout.draw_places(n, torch.Generator().manual_seed(seed))
    assert places.shape == (n, readout.n_neurons)
    return places.numpy()


@pytest.mark.parametrize("widths", [(0.0,), WIDTHS])
def test_draws_have_the_frequencies_of_the_posterior(widths: tuple[float, ...]) -> None:
    readout, n = build(widths), 20_000
    places = drawn(readout, n)
    for neuron in range(N_NEURONS):
        expected = n * readout.posterior[neuron].flatten().numpy()
        observed = np.bincount(places[:, neuron], minlength=len(expected))
        assert len(observed) == len(expected)
        likely = expected >= 5  # the rest together, as the test's approximation wants
        observed, expected = (np.append(some[likely], some[~likely].sum()) for some in (observed, expected))
        assert chisquare(observed, expected).pvalue > 1e-4


def test_a_certain_place_is_read_under_its_gaussian_in_training_too(maps: torch.Tensor) -> None:
    """No draw but one: in the midst, on an edge and in a corner, where the Gaussian reaches beyond the border."""
    readout = build()
    point = torch.zeros_like(readout.posterior)
    for neuron, (i, row, column) in enumerate([(0, 2, 4), (1, 2, 4), (2, 2, 4), (1, 0, 5), (2, 4, 7)]):
        point[neuron, i, row, column] = 1.0
    readout.set_posterior(point)
    torch.testing.assert_close(readout.train()(maps), readout.eval()(maps), rtol=1e-10, atol=1e-12)


def test_neurons_and_images_are_drawn_each_for_itself() -> None:
    readout = build((0.0,))
    readout.set_posterior(readout.posterior[:1].expand(N_NEURONS, -1, -1, -1).clone())  # all alike
    places = drawn(readout, 20_000)
    share = readout.posterior[0].flatten().numpy()
    for first, second in ((places[:, 0], places[:, 3]), (places[:-1, 1], places[1:, 1])):
        assert (first == second).mean() == pytest.approx((share**2).sum(), abs=0.02)


@pytest.mark.parametrize("widths", [(0.0,), WIDTHS])
def test_the_mean_of_the_sampled_forward_is_that_of_evaluation(widths: tuple[float, ...], maps: torch.Tensor) -> None:
    """Within five standard errors of 1,500 draws."""
    readout = build(widths)
    outputs = []
    with torch.no_grad():
        for step_seed in range(1_500):
            readout.step_seed = step_seed
            outputs.append(readout.train()(maps))
        expected = readout.eval()(maps)
    some = torch.stack(outputs)
    errors = (some.mean(0) - expected) / (some.std(0) / len(some) ** 0.5)
    assert errors.abs().max() < 5
    assert errors.square().mean() == pytest.approx(1.0, abs=0.8), "30 means, each with its standard error"


def test_a_step_draws_by_its_seed_alone(maps: torch.Tensor) -> None:
    readout = build().train()
    outputs = []
    for step_seed, global_seed in ((3, 0), (3, 1), (4, 1)):
        readout.step_seed = step_seed
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        outputs.append(readout(maps))
        assert torch.equal(torch.get_rng_state(), before), "it took numbers of the global generator"
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_finite_differences(training: bool, maps: torch.Tensor) -> None:
    readout = build().train(training)
    assert [name for name, _ in readout.named_parameters()] == ["weights"], "the posterior is set, not trained"

    def forward(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(readout, {"weights": weights}, inputs)

    assert torch.autograd.gradcheck(forward, (maps.requires_grad_(), readout.weights))


def test_state_comes_back_whole(maps: torch.Tensor) -> None:
    readout = build()
    noise = NoiseModel("rate", torch.tensor([0.1, 0.2, 0.3]), torch.linspace(0.5, 2.0, N_NEURONS))
    readout.set_noise(noise)
    other = PosteriorReadout(N_NEURONS, (N_FEATURES, HEIGHT, WIDTH), readout.options).double()
    other.load_state_dict(readout.state_dict())
    for training in (True, False):
        assert torch.equal(other.train(training)(maps), readout.train(training)(maps))
    for name in ("coefficients", "dispersion"):
        torch.testing.assert_close(getattr(other.noise(), name), getattr(noise, name).double())
    assert torch.equal(other.masks(), readout.masks())


def test_it_starts_at_the_peak_of_the_first_width_and_knows_no_noise() -> None:
    readout = build()
    readout.set_noise(NoiseModel("rate", torch.tensor([0.1, 0.2, 0.3]), torch.full((N_NEURONS,), 2.0)))
    peaks, amplitudes = torch.tensor([9, 4, 0, 39, 20]), torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25])
    readout.initialize(Start(peaks, amplitudes, 0.7), torch.Generator().manual_seed(0))
    assert readout.posterior.sum().item() == N_NEURONS
    assert readout.posterior[:, 0].flatten(1).argmax(1).tolist() == peaks.tolist()
    np.testing.assert_allclose(readout.feature_weights().sum(1), amplitudes, rtol=0.1)
    assert readout.feature_weights().std(1).min() > 0
    assert readout.noise().coefficients.tolist() == [1.0, 0.0, 0.0]
    assert readout.noise().dispersion.tolist() == [1.0] * N_NEURONS


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(OptionError, match="widths is empty: a place needs at least one, 0 for a single pixel"):
        build(())
    with pytest.raises(OptionError, match="the poisson noise needs predictions of 0 or more, but the output nonlin"):
        build(noise="poisson", nonlinearity="identity")
    assert build(noise="poisson", nonlinearity="relu").options.noise == "poisson"


def test_project_keeps_feature_weights_at_or_above_zero_where_asked() -> None:
    for asked in (True, False):
        readout = build(nonnegative_features=asked)
        before = readout.feature_weights().clone()
        readout.project()
        expected = before.clamp(min=0) if asked else before
        torch.testing.assert_close(readout.feature_weights(), expected, rtol=0, atol=0)
