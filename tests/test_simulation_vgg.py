"""Units of VGG-19: dense evaluation against the published network, weights from files, the population and its file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.simulation import LinearPopulation, load_vgg, simulate, simulate_to_file, vgg_population
from whatwhere.simulation.vgg import CAFFE, HUB, LAYERS, PLAIN, POOLED, TORCHVISION, VGG, reach

NORMALISED = Path(__file__).parents[2] / "shared" / "data" / "vgg19_normalised_conv3_1.safetensors"
ALL = range(7)  # some maps


@pytest.fixture(scope="module")
def network() -> VGG:
    """The stand-in with biases that matter."""
    generator = torch.Generator().manual_seed(1)
    weights = {
        layer: (kernels, 0.2 * torch.randn(len(biases), generator=generator))
        for layer, (kernels, biases) in load_vgg("seeded").weights.items()
    }
    return VGG(weights, PLAIN, "test")


@pytest.fixture
def images(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(-1, 1, (2, 3, 33, 38)).astype(np.float32))


def published(network: VGG, images: torch.Tensor, layer: str) -> torch.Tensor:
    """The network as it is published but for the padding, pooling in steps of two: all maps of a layer."""
    out = images
    for name, (kernels, biases) in network.weights.items():
        out = torch.relu(functional.conv2d(out, kernels, biases))
        if name == layer:
            return out
        if name in POOLED:
            out = functional.max_pool2d(out, 2)
    raise AssertionError


@pytest.mark.parametrize(("layer", "step"), [("conv1_2", 1), ("conv2_1", 2), ("conv2_2", 2), ("conv3_1", 4)])
def test_every_second_or_fourth_pixel_is_the_published_network(
    layer: str, step: int, network: VGG, images: torch.Tensor
) -> None:
    expected = published(network, images, layer)
    found = network.maps(images, layer, list(ALL))
    assert found.shape[2:] == (33 - reach(layer), 38 - reach(layer))
    some = found[:, :, ::step, ::step]
    expected = expected[:, : len(ALL), : some.shape[2], : some.shape[3]]
    torch.testing.assert_close(some[:, :, : expected.shape[2], : expected.shape[3]], expected, rtol=1e-4, atol=1e-5)
    assert (expected > 0).float().mean() > 0.1


@pytest.mark.parametrize("layer", LAYERS)
def test_a_shifted_image_gives_exactly_a_shifted_map(layer: str, network: VGG, images: torch.Tensor) -> None:
    whole = network.maps(images, layer, list(ALL))
    shifted = network.maps(images[:, :, 1:, 3:], layer, list(ALL))
    torch.testing.assert_close(shifted, whole[:, :, 1:, 3:], rtol=0, atol=1e-5)
    assert (shifted - whole[:, :, :-1, :-3]).abs().max() > 0.1


def test_a_unit_sees_its_window_and_nothing_else(network: VGG, images: torch.Tensor) -> None:
    for layer in LAYERS:
        seen = reach(layer) + 1
        images.requires_grad_(True)
        unit = network.maps(images, layer, range(LAYERS[layer][1]))[:, :, 4, 6].sum()
        (gradient,) = torch.autograd.grad(unit, images)
        rows, columns = (torch.nonzero(gradient.abs().sum((0, 1)).sum(axis)).flatten() for axis in (1, 0))
        assert rows.min() >= 4
        assert rows.max() < 4 + seen
        assert columns.min() >= 6
        assert columns.max() < 6 + seen
        assert rows.max() - rows.min() > 0.8 * (seen - 1)


def test_the_reach_of_the_layers() -> None:
    assert [reach(layer) for layer in LAYERS] == [2, 4, 9, 13, 23]


# ------------------------------------------------------------------------------------------------------- weights


def test_the_same_weights_in_both_conventions_respond_alike(network: VGG, images: torch.Tensor, tmp_path: Path) -> None:
    """A network for blue, green, red of 0 to 255, written for red, green, blue of unit variance."""
    caffe, torchvision = {}, {}
    numbers = dict(zip(LAYERS, (0, 2, 5, 7, 10), strict=True))
    std = torch.tensor(TORCHVISION.std) * 255
    lag = torch.tensor(TORCHVISION.mean) * 255 - torch.tensor(CAFFE.mean)[[2, 1, 0]]
    for layer, (kernels, biases) in network.weights.items():
        if layer == "conv1_1":
            kernels = kernels / 50
        caffe[f"{layer}.weight"], caffe[f"{layer}.bias"] = kernels, biases
        if layer == "conv1_1":
            kernels = kernels[:, [2, 1, 0]]
            biases = biases + (kernels.sum((2, 3)) * lag).sum(1)
            kernels = kernels * std[:, None, None]
        torchvision[f"features.{numbers[layer]}.weight"] = kernels.contiguous()
        torchvision[f"features.{numbers[layer]}.bias"] = biases
    save_file(caffe, tmp_path / "caffe.safetensors")
    torch.save(torchvision | {"classifier.0.bias": torch.zeros(3)}, tmp_path / "vgg19.pth")
    first, second = (load_vgg(tmp_path / name) for name in ("caffe.safetensors", "vgg19.pth"))
    assert (first.convention, second.convention) == (CAFFE, TORCHVISION)
    expected = first.maps(images, "conv2_2", list(ALL))
    torch.testing.assert_close(second.maps(images, "conv2_2", list(ALL)), expected, rtol=1e-3, atol=1e-3)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert (first.maps(grey, "conv2_2", list(ALL)) - expected).abs().max() > 0.1


@pytest.mark.skipif(not NORMALISED.exists(), reason="the weights are not here")
def test_normalised_weights_respond_with_about_one_on_natural_values() -> None:
    """As their name says, on photographs; noise of their spectrum does for the order of magnitude."""
    network = load_vgg(NORMALISED)
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)) + 1 / 64
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(16, 1, 64, 64))) / frequency).real
    grey = 0.5 * noise / noise.std() + 0.1 * rng.normal(size=(16, 3, 1, 1))
    shown = torch.from_numpy(np.clip(grey, -1, 1).astype(np.float32))
    mean = network.maps(shown, "conv2_2", range(128)).mean().item()
    wrong = VGG(network.weights, TORCHVISION, "wrong").maps(shown, "conv2_2", range(128)).mean().item()
    assert 0.4 < mean < 2.5
    assert wrong < 0.4


def test_the_stand_in_is_the_same_everywhere_and_no_two_maps_are_alike(images: torch.Tensor) -> None:
    first, second = load_vgg("seeded"), load_vgg("seeded")
    for layer, (kernels, biases) in first.weights.items():
        assert torch.equal(kernels, second.weights[layer][0])
        assert not biases.any()
        flat = kernels.flatten(1)
        cosines = flat @ flat.T / 2 - torch.eye(len(flat))
        assert cosines.abs().max() < 1.0001
        assert cosines.max() < 0.99
    assert first.weights["conv1_1"][0][5, 0, 0, 0].item() == pytest.approx(
        first.weights["conv1_1"][0][5, 1, 0, 0].item()
    )
    assert first.weights["conv2_2"][0].count_nonzero().item() == 128 * 8 * 9
    deep = first.maps(images, "conv3_1", range(256))
    assert 0.1 < deep.mean() < 1.5
    assert (deep.amax((0, 2, 3)) > 0).all(), "no unit is silent"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no file"),
        ("broken.safetensors", b"not tensors", "cannot be read as tensors"),
        ("broken.pth", b"not tensors", "cannot be read as tensors"),
        ("other.safetensors", {"conv1_1.weight": torch.zeros(1)}, "has no conv1_1.bias"),
        ("list.pth", [1, 2], "holds a list"),
    ],
)
def test_weights_that_are_none_are_refused(name: str, content: object, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif isinstance(content, dict):
        save_file(content, tmp_path / name)
    elif content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(FormatError, match=message):
        load_vgg(tmp_path / name)


def test_weights_of_another_shape_are_refused(network: VGG, tmp_path: Path) -> None:
    tensors = {f"{layer}.weight": kernels for layer, (kernels, _) in network.weights.items()}
    tensors |= {f"{layer}.bias": biases for layer, (_, biases) in network.weights.items()}
    tensors["conv2_1.weight"] = torch.zeros(128, 64, 5, 5)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match=r"conv2_1 has kernels of shape \(128, 64, 5, 5\)"):
        load_vgg(tmp_path / "other.safetensors")


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(FormatError, match="cannot be read as tensors"):
        load_vgg(tmp_path / "trap.pth")
    assert not (tmp_path / "run").exists()


def test_the_hub_download_is_checked_and_its_failure_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fail(url: str, **options: object) -> None:
        asked.update(options, url=url)
        raise RuntimeError("invalid hash value")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    with pytest.raises(FormatError, match=r"cannot be downloaded \(invalid hash value\).*seeded"):
        load_vgg("hub")
    assert asked["url"] == HUB
    assert asked["check_hash"] is True
    assert asked["weights_only"] is True


# ---------------------------------------------------------------------------------------------------- population


def test_rates_are_the_units_at_their_places(rng: np.random.Generator) -> None:
    population = vgg_population(9, maps=(3, 70, 12), image_size=(20, 26), seed=3)
    assert population.field_size == (21, 27)
    assert population.map_size == (8, 14)
    images = rng.uniform(-1, 1, (70, 3, 21, 27)).astype(np.float32)
    rates = population.rates(images)
    maps = population.network.maps(torch.from_numpy(images), "conv2_2", (3, 70, 12)).numpy()
    for n in range(9):
        row, column = population.positions[n]
        np.testing.assert_allclose(rates[:, n], maps[:, n % 3, row, column], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(population.types, np.arange(9) % 3)
    np.testing.assert_array_equal(population.locations, population.positions + 6.5)
    assert rates.any(axis=0).all()
    np.testing.assert_array_equal(population.rates(images[:5]), rates[:5])


def test_the_papers_population_has_32_by_32_places() -> None:
    population = vgg_population(20_000)
    assert population.map_size == (32, 32)
    assert population.field_size == (45, 45)
    assert len(np.unique(population.positions, axis=0)) == 32 * 32
    assert len(set(population.maps)) == 4
    assert population.maps != vgg_population(10, seed=1).maps
    other = vgg_population(10, layer="conv3_1", image_size=(30, 40), beyond=0)
    assert other.map_size == (7, 17)


def test_a_recording_shows_less_than_the_neurons_see() -> None:
    population = vgg_population(6, image_size=(18, 24), seed=2)
    recording = simulate(population, 40, n_test_images=12, n_repeats=2, stimuli="pink-noise", mean_rate=0.1, seed=5)
    assert recording.image_shape == (3, 18, 24)
    assert recording.test.images.shape == (12, 3, 18, 24)
    assert recording.truth.kernels is None
    larger = simulate(
        LinearPopulation(np.zeros((1, 3, 19, 25)), np.zeros((1, 2), int), np.zeros(1, int), (19, 25)),
        40,
        n_test_images=12,
        stimuli="pink-noise",
        seed=5,
    )
    np.testing.assert_array_equal(recording.images[:], larger.images[:][:, :, :18, :24])
    rates = population.rates(larger.images[:])
    gains = (recording.truth.rates[:] / np.where(rates > 0, rates, np.nan))[rates.argmax(0), np.arange(6)]
    np.testing.assert_allclose(recording.truth.rates[:], rates * gains, rtol=1e-4, atol=1e-6)
    assert recording.truth.rates[:].mean() == pytest.approx(0.1, rel=0.5)


def test_a_file_is_the_recording_and_any_chunks_give_it(tmp_path: Path) -> None:
    population = vgg_population(5, image_size=(18, 22), seed=1)
    options = {"n_test_images": 7, "n_repeats": 2, "stimuli": "pink-noise", "mean_rate": 0.1, "seed": 3}
    recording = simulate(population, 23, **options)  # type: ignore[arg-type]
    for at_once in (4, 1000):
        path = simulate_to_file(tmp_path / f"{at_once}.h5", population, 23, images_at_once=at_once, **options)  # type: ignore[arg-type]
        with h5py.File(path) as file:
            assert file["images"].shape == (23, 3, 18, 22)
            np.testing.assert_allclose(file["truth/rates"][:], recording.truth.rates[:], rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(file["test/images"][:], recording.test.images)


def test_bad_options_are_refused(rng: np.random.Generator) -> None:
    for options, message in (
        ({"n_channels": 1}, "see 3, red, green and blue"),
        ({"layer": "conv2_3"}, "conv2_2"),
        ({"n_types": 129}, "has 128 feature maps"),
        ({"maps": (1, 128)}, "0 to 127"),
        ({"maps": (5, 5)}, "different feature maps"),
        ({"maps": ()}, "different feature maps"),
        ({"image_size": (12, 40)}, "sees 14 pixels"),
    ):
        with pytest.raises(OptionError, match=message):
            vgg_population(5, **options)  # type: ignore[arg-type]
    population = vgg_population(5, image_size=(18, 22))
    with pytest.raises(InputError, match=r"expected \(n_images, 3, 19, 23\)"):
        population.rates(rng.normal(size=(4, 3, 18, 22)))
    with pytest.raises(InputError, match="finite"):
        population.rates(np.full((4, 3, 19, 23), np.nan))


def test_a_linear_model_explains_little_of_the_stand_in() -> None:
    """Of conv2_2 units on pink noise: held-out variance explained by ridge on the pixels that a unit sees."""
    population = vgg_population(24, n_types=8, image_size=(13, 13), seed=0)
    recording = simulate(population, 4000, n_test_images=800, stimuli="pink-noise", mean_rate=0.1, seed=0)
    x, y = recording.images[:].reshape(4000, -1), recording.truth.rates[:]
    centre, mean = x.mean(0), y.mean(0)
    gram = (x - centre).T @ (x - centre)
    weights = np.linalg.solve(gram + 0.01 * np.trace(gram) / len(gram) * np.eye(len(gram)), (x - centre).T @ (y - mean))
    test, rates = recording.test.images[:].reshape(800, -1), recording.test.rates
    explained = 1 - ((rates - mean - (test - centre) @ weights) ** 2).mean(0) / rates.var(0)
    assert np.median(explained) < 0.5
