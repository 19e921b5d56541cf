"""Experiments on models: each against a closed form, on simulated neurons and on small fitted networks and filters."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.errors import InputError, OptionError
from whatwhere.insilico import (
    GratingOptions,
    ImageStatistics,
    LinearFields,
    MostExcitingOptions,
    SizeOptions,
    find_places,
    grating_tuning,
    linear_fields,
    most_exciting_images,
    size_tuning,
)
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.gratings import painted
from whatwhere.insilico.subjects import images_at_once
from whatwhere.rows import LazyRows
from whatwhere.simulation import (
    LinearPopulation,
    MixedPopulation,
    complex_population,
    gabor,
    gabor_population,
)
from whatwhere.storage import MODEL, MODEL_FILE, MODEL_VERSION, read_tensors, write_tensors

SIZE = (28, 36)  # height, width
TINY = 1e-6  # GiB: an image at a time
NETWORKS = ("factorized", "fixed-mask", "fully-connected", "gaussian", "posterior")


def recording(n_channels: int = 2, n_neurons: int = 4) -> ww.Recording:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, n_channels, 12, 17), dtype=np.uint8)
    drive = (images[:, 0, 5, 6:9] / 100.0).sum(1)
    return ww.Recording(images, rng.poisson(drive[:, None] * np.linspace(1, 2, n_neurons)))


def network(kind: str, shown: ww.Recording, **options: Any) -> ww.estimators.CNN:
    values = {
        "core": {"kernel_sizes": [5, 3], "n_maps": [4, 3]},
        "training": {"batch_size": 20, "max_steps": 12, "check_every": 6},
    }
    model = ww.make_model(kind, {**values, **options})
    assert isinstance(model, ww.estimators.CNN)
    return model.fit(shown)


@pytest.fixture(scope="module")
def networks() -> dict[str, ww.estimators.CNN]:
    return {kind: network(kind, recording()) for kind in NETWORKS}


def mixture(**options: Any) -> MixedPopulation:
    """Linear, half-rectified and complex cells, four of each."""
    common = {"image_size": SIZE, "kernel_size": 13, "variation": 0.0, "mean_rate": 0.3, **options}
    return MixedPopulation(
        (
            gabor_population(4, seed=1, **common),
            gabor_population(4, seed=2, nonlinearity="relu", **common),
            complex_population(4, seed=3, **common),
        )
    )


# ------------------------------------------------------------------------------------------------------------ subjects
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_neuron_sees_its_own_images_as_the_model_would(kind: str, networks: dict[str, Any]) -> None:
    model, rng = networks[kind], np.random.default_rng(1)
    subject = as_subject(model)
    images = rng.uniform(0, 255, (3, 2, 2, 12, 17)).astype(np.float32)  # three neurons, two images each
    neurons = np.array([3, 0, 2])
    found = subject.rates_of(torch.from_numpy(neurons), torch.from_numpy(images)).detach().numpy()
    expected = model.predict(images.reshape(6, 2, 12, 17)).reshape(3, 2, 4)[np.arange(3), :, neurons]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    everyone = subject.rates(torch.from_numpy(images[0])).numpy()
    np.testing.assert_allclose(everyone, model.predict(images[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [ww.Ridge(strengths=[1.0], crop=5), ww.LNP([0.1], [0.01]), ww.GLM([1.0])])
def test_filter_models_see_their_own_images_as_they_would(model: ww.Ridge) -> None:
    model.fit(recording())
    subject, images = as_subject(model), np.random.default_rng(1).uniform(0, 255, (2, 1, 2, 12, 17)).astype(np.float32)
    neurons = np.array([2, 1])
    found = subject.rates_of(torch.from_numpy(neurons), torch.from_numpy(images)).numpy()[:, 0]
    np.testing.assert_allclose(found, model.predict(images[:, 0])[np.arange(2), neurons], rtol=1e-4)


def test_simulated_neurons_see_their_own_images_as_they_would() -> None:
    population, images = mixture(), np.random.default_rng(1).normal(size=(3, 1, 1, *SIZE)).astype(np.float32)
    neurons = np.array([11, 2, 6])
    found = as_subject(population).rates_of(torch.from_numpy(neurons), torch.from_numpy(images)).numpy()[:, 0]
    np.testing.assert_allclose(found, population.rates(images[:, 0])[np.arange(3), neurons], rtol=1e-4, atol=1e-6)


def test_what_has_no_neurons_is_refused() -> None:
    with pytest.raises(OptionError, match=r"a list has no neurons .* expected a fitted network or filter model"):
        grating_tuning([1, 2])
    with pytest.raises(OptionError, match=r"name the recording, model\['scan1'\]"):
        linear_fields(ww.SharedCoreCNN("gaussian"))
    with pytest.raises(InputError, match=r"neurons holds 12, out of range: expected positions of neurons, 0 to 11"):
        grating_tuning(mixture(), neurons=[0, 12])
    with pytest.raises(OptionError, match=r"memory_gib must be above 0"):
        grating_tuning(mixture(), memory_gib=0)
    wrong = ImageStatistics(np.zeros((1, 36, 28)), 1.0)
    with pytest.raises(InputError, match=r"of images of \(1, 36, 28\), the model is for \(1, 28, 36\)"):
        grating_tuning(mixture(), statistics=wrong)


def test_less_memory_means_fewer_images_at_once(networks: dict[str, Any]) -> None:
    subject = as_subject(networks["factorized"])
    assert images_at_once(subject, TINY) == 1
    some = 10.5 * 4 * subject.numbers / 2**30
    assert images_at_once(subject, some) == 10
    assert images_at_once(subject, 100.0) == 64


# ---------------------------------------------------------------------------------------------------------- statistics
def test_statistics_are_those_of_the_images(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (50, 2, 6, 9), dtype=np.uint8)
    for given in (images, LazyRows(images)):
        found = ImageStatistics.of(given)
        np.testing.assert_allclose(found.mean, images.mean(0))
        deviations = images - images.mean((2, 3), keepdims=True)
        assert found.contrast == pytest.approx(np.sqrt((deviations**2.0).mean()))
        np.testing.assert_allclose(found.grey[:, 0, 0], images.mean((0, 2, 3)))


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"contrast is 0.0: expected a standard deviation above 0"):
        ImageStatistics.of(np.ones((3, 4, 5)))
    with pytest.raises(InputError, match=r"images holds values that are not finite in 1 of the rows read: row 1"):
        ImageStatistics.of(np.stack([np.ones((4, 5)), np.full((4, 5), np.nan)]))


@pytest.mark.parametrize("standardize", ["global", "pixel", "none"])
def test_a_model_knows_its_training_images_by_whatever_it_standardises(standardize: str, tmp_path: Path) -> None:
    """A border that never varies has no contrast, nor has a model that takes images as they are that of white noise."""
    shown = recording()
    images = np.array(shown.images)
    images[:, :, 0], images[:, 1] = 7, images[:, 1] // 4 + 90
    given = ww.Recording(images, shown.responses)
    expected = ImageStatistics.of(images[given.split(0.2, 0)[0]])
    model = ww.Ridge(strengths=[1.0], standardize=standardize).fit(given)
    for known in (model, ww.load_model(model.save(tmp_path))):
        found = as_subject(known).statistics
        assert found is not None
        assert found.contrast == pytest.approx(expected.contrast, rel=1e-9)
        np.testing.assert_allclose(found.grey, expected.grey, rtol=1e-9)
        if standardize == "pixel":
            np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
        np.testing.assert_allclose(find_places(known), find_places(model), equal_nan=True)


def of_an_earlier_version(model: ww.Ridge, folder: Path) -> Any:
    """The model without what is kept beside its standardisation."""
    file = model.save(folder) / MODEL_FILE
    tensors, description = read_tensors(file, MODEL, MODEL_VERSION)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(("/grey", "/contrast"))}
    assert len(kept) == len(tensors) - 2
    write_tensors(file, kept, description)
    return ww.load_model(folder)


def test_a_model_of_an_earlier_version_knows_what_it_standardises_by(tmp_path: Path) -> None:
    images = np.array(recording().images)
    images[:, :, 0] = 7  # never varies: of no contrast
    given = ww.Recording(images, recording().responses)
    rows, _ = given.split(0.2, 0)
    old = of_an_earlier_version(ww.Ridge(strengths=[1.0], standardize="pixel").fit(given), tmp_path / "pixel")
    assert as_subject(old).statistics.contrast == pytest.approx(np.sqrt(images[rows, :, 1:].var(0).mean()))
    np.testing.assert_allclose(as_subject(old).statistics.mean, images[rows].mean(0))
    bare = of_an_earlier_version(ww.Ridge(strengths=[1.0], standardize="none").fit(given), tmp_path / "none")
    for ask in (linear_fields, grating_tuning, find_places):
        with pytest.raises(
            InputError, match=r"does not know which grey and contrast .*: give the recording \(--recording"
        ):
            ask(bare)
    assert linear_fields(bare, statistics=ImageStatistics.of(images)).values.shape == (4, 2, 12, 17)


def test_of_flat_images_nothing_is_asked() -> None:
    flat = np.arange(40.0)[:, None, None, None] * np.ones((1, 1, 6, 7))
    model = ww.Ridge(strengths=[1.0], standardize="global").fit(ww.Recording(flat, np.arange(40.0)[:, None]))
    assert model.standardisation_.contrast == 0
    with pytest.raises(InputError, match="its training images were all flat"):
        grating_tuning(model)


# -------------------------------------------------------------------------------------------------------------- fields
def test_the_field_of_a_linear_network_is_its_masks_convolved_with_its_kernels() -> None:
    model = ww.make_model(
        "factorized",
        {
            "core": {"kernel_sizes": [(5, 4)], "n_maps": 3, "padding": "same"},
            "preprocessing": {"standardize": "global"},
            "penalties": {"mask_l1": 0.01},
            "training": {"max_steps": 12, "check_every": 6},
        },
        preset="simulation",
    ).fit(recording())
    layer = model.model_.core.layers[0]
    kernels = layer.convolution.weight.detach().double().numpy()  # (3, 2, 5, 4)
    kernels = kernels / np.sqrt(layer.normalize.running_var.double().numpy() + layer.normalize.eps)[:, None, None, None]
    expected = np.zeros((4, 2, 12 + 4, 17 + 3))  # with the padding: two rows above, one column before
    for neuron, (mask, weights) in enumerate(zip(model.masks_, model.feature_weights_, strict=True)):
        kernel = np.tensordot(weights, kernels, 1)
        for row, column in np.ndindex(*mask.shape):
            expected[neuron, :, row : row + 5, column : column + 4] += mask[row, column] * kernel
    expected = expected[:, :, 2:14, 1:18] * model.response_scale_[:, None, None, None] / model.standardisation_.std
    found = linear_fields(model)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert found.values.dtype == np.float32
    assert (found.corners == 0).all()
    assert found.names == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", NETWORKS)
def test_fields_are_finite_differences_per_grey_value(kind: str, networks: dict[str, Any]) -> None:
    model, shown = networks[kind], recording()
    over = shown.images[:3]
    fields = linear_fields(model, over)
    direction = np.random.default_rng(2).normal(size=(2, 12, 17)).astype(np.float32)
    step = 0.5  # grey values of 255
    ahead, behind = (model.predict(over + sign * step * direction).astype(float).mean(0) for sign in (1, -1))
    expected = (ahead - behind) / (2 * step)
    found = np.tensordot(fields.values, direction, 3)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.01 * np.abs(expected).max())


def test_fields_of_filter_models_are_their_filters() -> None:
    ridge = ww.Ridge(strengths=[1.0], crop=5, standardize="pixel").fit(recording())
    np.testing.assert_allclose(
        linear_fields(ridge).values, ridge.whole_filters() / ridge.standardisation_.std, rtol=1e-4, atol=1e-7
    )
    lnp = ww.LNP([0.1], [0.01]).fit(recording())  # at the mean image the rate is s exp(b)
    slope = (lnp.scale_ * np.exp(lnp.offset_))[:, None, None, None]
    np.testing.assert_allclose(
        linear_fields(lnp).values, slope * lnp.whole_filters() / lnp.standardisation_.std, rtol=1e-3, atol=1e-6
    )


def test_sprites_are_windows_of_the_whole_fields_around_each_place(networks: dict[str, Any]) -> None:
    for model in (networks["gaussian"], mixture()):
        whole, sprites = linear_fields(model), linear_fields(model, crop=(7, 9), memory_gib=TINY)
        assert sprites.values.shape[2:] == (7, 9)
        for field, sprite, (row, column), place in zip(
            whole.values, sprites.values, sprites.corners, sprites.places, strict=True
        ):
            np.testing.assert_allclose(sprite, field[:, row : row + 7, column : column + 9], rtol=1e-4, atol=1e-7)
            middle = np.clip(place - [3, 4], 0, np.subtract(whole.image_size, (7, 9)))
            assert np.abs([row, column] - middle).max() <= 0.5
    with pytest.raises(OptionError, match=r"crop \(=30 x 30\) does not fit in images of 28 x 36 pixels"):
        linear_fields(mixture(), crop=30)
    with pytest.raises(InputError, match=r"average_over has shape \(2, 1, 36, 28\): expected \(n_images, 1, 28, 36\)"):
        linear_fields(mixture(), np.zeros((2, 1, 36, 28)))


def test_fields_averaged_over_images_are_the_mean_of_their_fields() -> None:
    population, images = mixture(), np.random.default_rng(1).normal(size=(3, 1, *SIZE))
    singles: list[LinearFields] = [linear_fields(population, image[None]) for image in images]
    for memory in (1.0, TINY):
        found = linear_fields(population, images, neurons=[9, 1], memory_gib=memory)
        expected = np.mean([single.values[[9, 1]] for single in singles], axis=0)
        np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
        assert found.neurons.tolist() == [9, 1]


# -------------------------------------------------------------------------------------------------------------- places
def test_places_are_those_of_the_kernels() -> None:
    population = mixture(positions="random")
    found = find_places(population)
    assert np.abs(found - population.locations).max() < 0.7
    np.testing.assert_allclose(find_places(population, neurons=[5, 2], memory_gib=TINY), found[[5, 2]], atol=1e-3)


def test_a_neuron_that_no_pixel_moves_has_no_place_and_no_preference() -> None:
    kernels = np.stack([gabor(9), np.zeros((9, 9))])
    silent = LinearPopulation(kernels, np.array([[2, 3], [4, 4]]), np.array([0, 1]), (20, 24))
    places = find_places(silent)
    assert np.isnan(places[1]).all()
    assert np.abs(places[0] - [6, 7]).max() < 0.5
    fields = linear_fields(silent, crop=6)
    assert fields.corners[1].tolist() == [7, 9]  # the middle of the image
    assert (fields.values[1] == 0).all()
    tuning = grating_tuning(silent)
    row = tuning.table().iloc[1]
    assert row[["orientation", "frequency", "best_frequency", "phase_invariance", "f1_f0"]].isna().all()
    assert row["orientation_selectivity"] == row["grating_response"] == 0
    sizes = size_tuning(silent, tuning)
    assert np.isnan(sizes.preferred_radius[1])
    assert np.isnan(sizes.suppression[1])
    assert np.isfinite(sizes.table().iloc[0, 1:].astype(float)).all()


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(networks: dict[str, Any]) -> None:
    model = networks["factorized"]
    options = GratingOptions(3, (0.1, 0.2))

    def everything() -> list[np.ndarray]:
        tuning = grating_tuning(model, options)
        placed = grating_tuning(model, GratingOptions(3, (0.1, 0.2), aperture=4.0))
        exciting = most_exciting_images(model, MostExcitingOptions(steps=3))
        sizes = size_tuning(model, tuning)
        return [
            *(find_places(model), linear_fields(model, crop=5).values, tuning.mean, placed.modulation),
            *(sizes.modulation, exciting.responses),
        ]

    on_cpu = everything()
    model.model_.to("cuda")
    try:
        on_gpu = everything()
    finally:
        model.model_.to("cpu")
    for one, other in zip(on_cpu, on_gpu, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-2, atol=1e-2 * np.abs(one).max())


# ------------------------------------------------------------------------------------------------------------ gratings
def transfer(kernel: np.ndarray, orientation: float, frequency: float) -> float:
    """|sum k exp(2 pi i f u)|, the amplitude of a linear neuron's response to a grating of amplitude 1."""
    rows, columns = np.indices(kernel.shape)
    across = rows * np.cos(orientation) + columns * np.sin(orientation)
    return float(np.abs((kernel * np.exp(2j * np.pi * frequency * across)).sum()))


def test_linear_neurons_are_modulated_by_their_kernels_fourier_transform() -> None:
    population = gabor_population(3, image_size=SIZE, kernel_size=13, n_channels=1, seed=4)
    options = GratingOptions(n_orientations=6, frequencies=(0.05, 0.13, 0.3), contrast=0.7)
    found = grating_tuning(population, options)
    expected = [
        [[transfer(kernel, angle, frequency) for frequency in options.frequencies] for angle in options.orientations()]
        for kernel in population.kernels
    ]
    np.testing.assert_allclose(found.modulation, np.sqrt(2) * 0.7 * np.array(expected), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.mean, 0, atol=1e-5)
    np.testing.assert_allclose(found.phase_invariance, 0, atol=1e-4)


def test_simulated_simple_and_complex_cells_have_the_orientations_frequencies_and_phases_that_are_theirs() -> None:
    population = mixture()
    found = grating_tuning(population)
    true = np.degrees(np.pi * (population.types % 4) / 4)
    apart = np.abs((np.degrees(found.orientation) - true + 90) % 180 - 90)
    assert apart.max() < 2.5
    np.testing.assert_allclose(found.frequency, 0.125, rtol=0.15)
    assert (np.abs(np.log(found.best_frequency / 0.125)) < 0.15).all()
    assert (found.selectivity > 0.5).all()
    np.testing.assert_allclose(found.phase_invariance[:4], 0, atol=1e-4)
    half_rectified = (1 / np.pi) / (1 / np.pi + 0.5)
    np.testing.assert_allclose(found.phase_invariance[4:8], half_rectified, atol=0.02)
    np.testing.assert_allclose(found.f1_f0[4:8], np.pi / 2, rtol=0.1)
    np.testing.assert_allclose(found.phase_invariance[8:], 1, atol=1e-3)


def test_an_unoriented_neuron_is_not_selective() -> None:
    distance = np.hypot(*(np.indices((17, 17)) - 8.0))
    round_one = LinearPopulation(np.exp(-(distance**2) / 8)[None], np.array([[3, 9]]), np.zeros(1, int), (30, 41))
    found = grating_tuning(round_one, GratingOptions(frequencies=(0.1,)))
    assert found.selectivity[0] < 1e-3


def test_gratings_are_the_same_for_some_neurons_little_memory_and_wide_apertures() -> None:
    population = mixture()
    options = GratingOptions(n_orientations=3, frequencies=(0.1, 0.2))
    found = grating_tuning(population, options)
    some = grating_tuning(population, options, neurons=[10, 0, 5], memory_gib=TINY)
    wide = grating_tuning(population, GratingOptions(3, (0.1, 0.2), aperture=99.0), neurons=[10, 0, 5])
    narrow = grating_tuning(population, GratingOptions(3, (0.1, 0.2), aperture=2.0), neurons=[10, 0, 5])
    for other in (some, wide):
        assert other.names == ["10", "0", "5"]
        exact = slice(None) if other is some else slice(2)  # eight phases meet a rectified response here or there
        np.testing.assert_allclose(other.response[exact], found.response[[10, 0, 5]][exact], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other.response, found.response[[10, 0, 5]], rtol=0.05, atol=1e-4)
        np.testing.assert_allclose(other.phase_invariance, found.phase_invariance[[10, 0, 5]], atol=0.02)
    assert (narrow.peak < 0.8 * some.peak).all()


def test_gratings_are_grey_in_all_channels_about_the_recordings_grey() -> None:
    subject = as_subject(LinearPopulation(np.ones((1, 2, 3, 3)), np.zeros((1, 2), int), np.zeros(1, int), (8, 9)))
    mean = np.stack([np.full((8, 9), 100.0), np.full((8, 9), 50.0)])
    pattern = torch.linspace(-1, 1, 72, dtype=torch.float64).view(1, 8, 9)
    images = painted(subject, ImageStatistics(mean, 10.0), 0.5, pattern).numpy()[0]
    np.testing.assert_allclose(images - mean, np.sqrt(2) * 0.5 * 10 * np.stack([pattern[0]] * 2), rtol=1e-4, atol=1e-4)


def test_contrast_and_grey_follow_the_recordings_units() -> None:
    """The same images in other units: a model fitted to them responds alike to the same experiment."""
    shown = recording(n_channels=1)
    found = [
        grating_tuning(ww.Ridge(strengths=[1.0]).fit(images, shown.responses), statistics=ImageStatistics.of(images))
        for images in (shown.images, shown.images / 255.0 - 3)
    ]
    np.testing.assert_allclose(found[0].response, found[1].response, rtol=1e-2, atol=1e-2 * found[0].response.max())


def test_gratings_that_cannot_be_shown_are_refused() -> None:
    for options, message in (
        ({"frequencies": (0.1, 0.7)}, r"each of frequencies must be a number above 0 and at most 0.5, got 0.7"),
        ({"frequencies": (0.2, 0.1)}, r"frequencies must rise from one to the next, got \(0.2, 0.1\)"),
        ({"n_phases": 3}, r"n_phases must be a whole number of at least 4, got 3"),
        ({"n_orientations": 1}, r"n_orientations must be a whole number of at least 2"),
        ({"contrast": 0}, r"contrast must be a number above 0"),
        ({"aperture": -1}, r"aperture must be a number above 0"),
    ):
        with pytest.raises(OptionError, match=message):
            GratingOptions(**options)


# --------------------------------------------------------------------------------------------------------------- sizes
def test_size_tuning_is_the_kernel_under_the_aperture() -> None:
    rows, columns = np.indices((21, 21)) - 10.0
    surround = np.exp(-(rows**2 + columns**2) / 72) * np.cos(2 * np.pi * 0.15 * rows)
    kernel = gabor(21, frequency=0.15) - 0.12 * surround
    population = LinearPopulation(kernel[None], np.array([[3, 9]]), np.zeros(1, int), (30, 41))
    tuning = grating_tuning(population, GratingOptions(frequencies=(0.15,)))
    radii = (1.0, 2.0, 3.0, 5.0, 8.0, 30.0)
    for memory in (1.0, TINY):
        found = size_tuning(population, tuning, SizeOptions(radii), places=population.locations, memory_gib=memory)
        distance = np.hypot(rows, columns)
        angle = float(tuning.orientation[0])
        expected = [
            np.sqrt(2) * transfer(kernel * np.clip(radius - distance + 0.5, 0, 1), angle, 0.15) for radius in radii
        ]
        np.testing.assert_allclose(found.response[0], expected, rtol=1e-3)
        assert found.suppression[0] == pytest.approx(1 - expected[-1] / max(expected), rel=1e-3)
        assert found.suppression[0] > 0.2
        assert found.preferred_radius[0] == radii[int(np.argmax(np.array(expected) >= 0.95 * max(expected)))] < 8


def test_sizes_need_the_tuning_of_the_same_neurons() -> None:
    tuning = grating_tuning(mixture(), GratingOptions(2, (0.1,)))
    other = gabor_population(3, image_size=SIZE, kernel_size=13)
    with pytest.raises(InputError, match=r"gratings hold other neurons than the model"):
        size_tuning(other, tuning)
    with pytest.raises(InputError, match=r"places has 3 rows but gratings has 12"):
        size_tuning(mixture(), tuning, places=np.zeros((3, 2)))
    with pytest.raises(OptionError, match=re.escape("radii must rise from one to the next, got (3, 2).")):
        SizeOptions(radii=(3, 2))
