"""Populations: Gabor and complex cells by their spectra, colours, mixtures, and where neurons look."""

import numpy as np
import pytest

from whatwhere.errors import InputError, OptionError
from whatwhere.simulation import (
    EnergyPopulation,
    JitteredGrid,
    LinearPopulation,
    MixedPopulation,
    PoissonNoise,
    RandomPositions,
    Retinotopic,
    complex_population,
    gabor,
    gabor_population,
    make_population,
    make_positions,
    mixed_population,
    nonlinearity_for,
    simulate,
    simulate_population,
    white_noise,
)

SIZE = (24, 33)  # height, width
KINDS = {
    "dog": lambda **options: simulate_population(60, **options),
    "rectified": lambda **options: simulate_population(60, nonlinearity="relu", **options),
    "gabor": lambda **options: gabor_population(60, **options),
    "complex": lambda **options: complex_population(60, **options),
    "mixture": lambda **options: mixed_population(60, **options),
}


def grating(frequency: float, orientation: float, phase: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    across = rows * np.cos(orientation) + columns * np.sin(orientation)
    return np.cos(2 * np.pi * frequency * across + phase).astype(np.float32)[None, None]


def peak(kernel: np.ndarray) -> tuple[float, float]:
    """Frequency (row, column) of the largest Fourier amplitude, cycles per pixel, the row's not negative."""
    shape = (600, 800)
    spectrum = np.abs(np.fft.fft2(kernel, shape))[: shape[0] // 2]
    row, column = np.unravel_index(spectrum.argmax(), spectrum.shape)
    return np.fft.fftfreq(shape[0])[row], np.fft.fftfreq(shape[1])[column]


# ----------------------------------------------------------------------------------------------- linear, in colour


@pytest.mark.parametrize("nonlinearity", ["identity", "relu"])
def test_rates_are_the_correlation_with_the_kernels_of_all_channels(
    nonlinearity: str, rng: np.random.Generator
) -> None:
    kernels = rng.standard_normal((3, 2, 5, 3))
    positions = np.array([[0, 0], [19, 30], [7, 1]])  # the second touches the far corner
    population = LinearPopulation(kernels, positions, np.zeros(3, int), SIZE, nonlinearity)
    images = rng.standard_normal((6, 2, *SIZE)).astype(np.float32)
    expected = np.zeros((6, 3))
    for b, n in np.ndindex(6, 3):
        row, column = positions[n]
        for c, i, j in np.ndindex(2, 5, 3):
            expected[b, n] += kernels[n, c, i, j] * images[b, c, row + i, column + j]
    if nonlinearity == "relu":
        assert (expected < 0).any()
        expected = np.maximum(expected, 0)
    np.testing.assert_allclose(population.rates(images), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(population.locations, positions + np.array([2, 1]))
    with pytest.raises(InputError, match=r"expected \(n_images, 2, 24, 33\)"):
        population.rates(images[:, :1])


def test_one_neuron_of_one_channel_is_the_same_with_or_without_the_axis(rng: np.random.Generator) -> None:
    kernel, images = rng.standard_normal((1, 5, 3)), rng.standard_normal((4, 1, *SIZE))
    flat = LinearPopulation(kernel, [[3, 4]], [0], SIZE)
    deep = LinearPopulation(kernel[:, None], [[3, 4]], [0], SIZE)
    np.testing.assert_array_equal(flat.rates(images), deep.rates(images))
    assert (flat.n_channels, deep.n_channels) == (1, 1)


def test_a_type_has_one_colour_of_length_1() -> None:
    coloured = simulate_population(40, n_channels=3, image_size=SIZE, seed=2)
    grey = simulate_population(40, image_size=SIZE, seed=2)
    assert coloured.kernels.shape == (40, 3, 17, 17)
    colours = coloured.kernels[:, :, 8, 8] / grey.kernels[:, None, 8, 8]
    np.testing.assert_allclose(coloured.kernels, colours[:, :, None, None] * grey.kernels[:, None], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(colours, axis=1), 1)
    for kind in (0, 1):
        np.testing.assert_allclose(colours[grey.types == kind], colours[kind][None].repeat(20, axis=0))
    assert np.abs(colours[0] @ colours[1]) < 0.999
    few = simulate_population(3, n_channels=3, image_size=SIZE, seed=2)
    np.testing.assert_array_equal(few.kernels, coloured.kernels[:3])


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_rate_under_white_noise_is_as_asked(kind: str, n_channels: int) -> None:
    population = KINDS[kind](image_size=SIZE, n_channels=n_channels, mean_rate=0.3, seed=4)
    rates = np.abs(population.rates(white_noise(4000, SIZE, n_channels=n_channels, seed=9))).astype(float)
    error = rates.std(axis=0) / np.sqrt(4000)
    assert (np.abs(rates.mean(axis=0) - 0.3) < 4.5 * error).all()
    assert error.max() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_rescaled_has_the_mean_rate_exactly_and_only_scales(kind: str) -> None:
    population = KINDS[kind](image_size=SIZE, seed=4)
    images = 2 * white_noise(100, SIZE)
    scaled = population.rescaled(images, 0.7)
    before, after = population.rates(images), scaled.rates(images)
    np.testing.assert_allclose(np.abs(after).mean(axis=0, dtype=float), 0.7, rtol=1e-5)
    ratio = np.abs(after).sum(axis=0) / np.abs(before).sum(axis=0)
    np.testing.assert_allclose(after, before * ratio, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(scaled.locations, population.locations)
    with pytest.raises(OptionError, match="mean_rate must be a number above 0, got -1"):
        population.rescaled(images, -1)


def test_a_rectified_neuron_is_never_negative_and_has_the_kernel_of_the_linear_one() -> None:
    linear, rectified = (simulate_population(20, image_size=SIZE, nonlinearity=f) for f in ("identity", "relu"))
    np.testing.assert_allclose(rectified.kernels, 2 * linear.kernels)  # half of the rates are 0
    images = white_noise(50, SIZE)
    np.testing.assert_allclose(rectified.rates(images), np.maximum(2 * linear.rates(images), 0), rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------------------- Gabor neurons


@pytest.mark.parametrize("phase", [0.0, 1.1, np.pi / 2])
@pytest.mark.parametrize(("frequency", "orientation"), [(0.2, 0.0), (0.2, np.pi / 2), (0.15, 0.6), (0.25, 2.2)])
def test_gabor_peaks_at_its_frequency_and_orientation(frequency: float, orientation: float, phase: float) -> None:
    kernel = gabor(41, frequency=frequency, orientation=orientation, phase=phase, wavelengths=0.8)
    row, column = peak(kernel)
    sign = 1 if np.cos(orientation) > -1e-9 else -1
    assert row == pytest.approx(abs(frequency * np.cos(orientation)), abs=0.002)
    found = column if row > 0 else abs(column)
    assert found == pytest.approx(sign * frequency * np.sin(orientation), abs=0.002)


def test_gabor_of_two_phases_has_a_gaussian_envelope() -> None:
    rows, columns = np.mgrid[-8:9, -8:9]
    angle, width = 0.7, 0.4 / 0.2
    even, odd = (gabor(frequency=0.2, orientation=angle, phase=p, aspect_ratio=1.5) for p in (0.0, -np.pi / 2))
    across = rows * np.cos(angle) + columns * np.sin(angle)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    np.testing.assert_allclose(even**2 + odd**2, np.exp(-(across**2 + (along / 1.5) ** 2) / width**2), atol=1e-15)
    assert even[8, 8] == 1
    np.testing.assert_allclose(odd, -odd[::-1, ::-1], atol=1e-15)
    assert gabor(orientation=0.0)[8, 12] > 0.4  # stripes of orientation 0 lie horizontally
    assert gabor(orientation=0.0)[12, 8] < -0.3


def test_types_of_gabor_neurons_are_their_orientations_and_frequencies() -> None:
    population = gabor_population(
        90, orientations=(0.0, 0.5), frequencies=(0.12, 0.2), phases=(0.0, 1.0), kernel_size=21, image_size=SIZE
    )
    assert np.bincount(population.types).tolist() == [12, 12, 11, 11, 11, 11, 11, 11]
    for kernel, kind in zip(population.kernels, population.types, strict=True):
        row, column = peak(kernel)
        assert np.hypot(row, column) == pytest.approx((0.12, 0.2)[kind // 2 % 2], rel=0.15)
        assert np.arctan2(column, row) == pytest.approx((0.0, 0.5)[kind // 4], abs=0.05 * np.pi + 0.06)
    assert len(np.unique(population.kernels[:, 10, 10])) == 90  # each varies
    still = gabor_population(8, variation=0, image_size=SIZE)
    np.testing.assert_allclose(still.kernels[:4], still.kernels[4:])
    np.testing.assert_array_equal(gabor_population(5, image_size=SIZE).kernels, population_start(5))


def population_start(n_neurons: int) -> np.ndarray:
    return gabor_population(50, image_size=SIZE).kernels[:n_neurons]


# --------------------------------------------------------------------------------------------------- complex cells


def test_energy_is_the_sum_of_two_squares(rng: np.random.Generator) -> None:
    even, odd = (
        LinearPopulation(rng.standard_normal((3, 2, 5, 4)), [[0, 0], [3, 4], [19, 29]], [0, 1, 0], SIZE) for _ in "ab"
    )
    images = rng.standard_normal((7, 2, *SIZE)).astype(np.float32)
    population = EnergyPopulation(even, odd)
    expected = np.zeros((7, 3))
    for b, n in np.ndindex(7, 3):
        row, column = even.positions[n]
        window = images[b, :, row : row + 5, column : column + 4]
        expected[b, n] = (even.kernels[n] * window).sum() ** 2 + (odd.kernels[n] * window).sum() ** 2
    np.testing.assert_allclose(population.rates(images), expected, rtol=1e-4)


def test_complex_cells_ignore_the_phase_of_a_grating_but_not_its_orientation() -> None:
    population = complex_population(8, orientations=(0.0, 1.0), variation=0, kernel_size=21, image_size=SIZE)
    for kind, orientation in enumerate((0.0, 1.0)):
        phases = np.linspace(0, 2 * np.pi, 17)[:-1]
        moved = np.concatenate([grating(0.125, orientation, phase) for phase in phases])
        rates = population.rates(moved)[:, population.types == kind].astype(float)
        linear = population.even.rates(moved)[:, population.types == kind].astype(float)
        modulation = np.abs(np.fft.fft(rates, axis=0)[1:]).max(axis=0) / rates.sum(axis=0)  # largest harmonic
        assert modulation.max() < 0.01
        assert (linear.min(axis=0) < -0.9 * linear.max(axis=0)).all()  # one filter alone follows the phase
        across = population.rates(grating(0.125, orientation + np.pi / 2, 0.3))[0, population.types == kind]
        assert (across < 0.02 * rates.mean(axis=0)).all()


def test_filters_of_complex_cells_are_in_quadrature() -> None:
    population = complex_population(30, image_size=SIZE, seed=3)
    assert population.kernels.shape == population.quadrature.shape == (30, 17, 17)
    products = (population.kernels * population.quadrature).sum(axis=(1, 2))
    norms = (population.kernels**2).sum(axis=(1, 2))
    assert np.abs(products / norms).max() < 2e-3
    still = complex_population(4, image_size=SIZE, variation=0)  # one filter symmetric, the other not
    np.testing.assert_allclose((still.kernels * still.quadrature).sum(axis=(1, 2)), 0, atol=1e-15)
    np.testing.assert_allclose(norms + (population.quadrature**2).sum(axis=(1, 2)), 0.1)


def test_complex_cells_of_two_parts_that_do_not_fit_are_refused() -> None:
    even = gabor_population(4, image_size=SIZE)
    for odd, message in (
        (gabor_population(5, image_size=SIZE), "expected the same"),
        (gabor_population(4, image_size=SIZE, seed=1), "even and odd differ in positions or types"),
        (gabor_population(4, image_size=SIZE, nonlinearity="relu"), "expected 'identity' for both"),
    ):
        with pytest.raises(InputError, match=message):
            EnergyPopulation(even, odd)


# ---------------------------------------------------------------------------------------------------------- mixtures


def test_a_mixture_is_its_parts_side_by_side() -> None:
    parts = (
        simulate_population(5, image_size=SIZE, size_factors=(0.5, 1.0)),
        complex_population(4, image_size=SIZE, kernel_size=20, orientations=(0.0, 0.5, 1.0)),
        gabor_population(2, image_size=SIZE, kernel_size=9),
    )
    mixture = MixedPopulation(parts)
    images = white_noise(6, SIZE)
    np.testing.assert_array_equal(mixture.rates(images), np.hstack([part.rates(images) for part in parts]))
    np.testing.assert_array_equal(mixture.locations, np.vstack([part.locations for part in parts]))
    assert mixture.types.tolist() == [0, 1, 0, 1, 0, 2, 3, 4, 2, 5, 6]
    assert mixture.kernels.shape == mixture.quadrature.shape == (11, 20, 20)
    assert mixture.cortex is None
    np.testing.assert_array_equal(mixture.kernels[:5, 1:18, 1:18], parts[0].kernels)
    np.testing.assert_allclose((mixture.kernels[:5] ** 2).sum(axis=(1, 2)), (parts[0].kernels ** 2).sum(axis=(1, 2)))
    np.testing.assert_array_equal(mixture.kernels[5:9], parts[1].kernels)
    np.testing.assert_array_equal(mixture.quadrature[5:9], parts[1].quadrature)
    assert not mixture.quadrature[:5].any()
    assert not mixture.quadrature[9:].any()


def test_a_mixture_of_one_channel_with_and_without_the_axis(rng: np.random.Generator) -> None:
    flat = LinearPopulation(rng.standard_normal((2, 5, 3)), [[0, 0], [1, 1]], [4, 7], SIZE, cortex=[[1, 2], [3, 4]])
    deep = LinearPopulation(rng.standard_normal((1, 1, 3, 6)), [[0, 0]], [2], SIZE)
    mixture = MixedPopulation((flat, deep))
    assert mixture.kernels.shape == (3, 1, 5, 6)
    assert mixture.quadrature is None
    assert mixture.types.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(mixture.cortex, [[1, 2], [3, 4], [np.nan, np.nan]])
    with pytest.raises(InputError, match=r"are for images of \(1, 24, 33\) and \(1, 33, 24\): expected one"):
        MixedPopulation((flat, simulate_population(2, image_size=SIZE[::-1])))
    with pytest.raises(InputError, match="a mixture of no populations"):
        MixedPopulation(())


# --------------------------------------------------------------------------------------------------------- positions


def test_a_jittered_grid_covers_the_image_evenly() -> None:
    room, n_neurons = (30, 52), 66  # 6 x 11 cells
    corners = JitteredGrid().place(n_neurons, room, seed=3).corners
    cells = (corners // (30 / 6, 52 / 11)).astype(int)
    assert len(np.unique(cells, axis=0)) == 66
    offsets = corners + 0.5 - (cells + 0.5) * (5, 52 / 11)
    assert np.abs(offsets).max(axis=0) == pytest.approx([1.25, 1.18], abs=0.6)
    assert len(np.unique(corners[:, 0])) > 12  # jittered
    rows = np.unique(JitteredGrid(jitter=0).place(66, room, seed=3).corners[:, 0])
    assert rows.tolist() == [2, 7, 12, 17, 22, 27]
    assert not (corners[:-1] <= corners[1:]).all(axis=1).all()  # in random order, so that types mix
    some = JitteredGrid().place(50, room, seed=3).corners
    assert len(np.unique(some, axis=0)) == 50


@pytest.mark.parametrize("positions", [RandomPositions(), JitteredGrid(jitter=1), Retinotopic(scatter=9)])
def test_all_arrangements_stay_inside_and_reach_the_edges(positions: object) -> None:
    corners = positions.place(4000, (8, 17), seed=1).corners
    assert tuple(corners.min(axis=0)) == (0, 0)
    assert tuple(corners.max(axis=0)) == (7, 16)
    counts = np.unique(corners, axis=0, return_counts=True)[1]
    assert len(counts) == 8 * 17
    assert counts.min() > 8  # 29 expected


def test_retinotopic_neurons_look_where_they_lie_up_to_their_scatter() -> None:
    room = (300, 400)
    corners, cortex = Retinotopic(scatter=5).place(3000, room, seed=2)
    expected = cortex / 1000 * room
    inner = ((expected > 20) & (expected < np.subtract(room, 20))).all(axis=1)
    residual = (corners + 0.5 - expected)[inner]  # of the pixel's middle
    assert residual.std(axis=0) == pytest.approx([5, 5], rel=0.06)
    assert np.abs(residual.mean(axis=0)).max() < 4.5 * 5 / np.sqrt(inner.sum())
    assert abs(np.corrcoef(residual.T)[0, 1]) < 0.08
    few = Retinotopic(scatter=5).place(10, room, seed=2)
    np.testing.assert_array_equal(few.corners, corners[:10])
    exact = Retinotopic(scatter=0).place(50, room, seed=2)
    np.testing.assert_array_equal(exact.corners, np.floor(exact.cortex / 1000 * room))


def test_where_neurons_lie_is_kept_with_them() -> None:
    population = gabor_population(12, image_size=SIZE, positions="retinotopic", seed=1)
    table = simulate(population, 3, n_test_images=2).neurons
    np.testing.assert_array_equal(table[["cortex_row", "cortex_column"]], population.cortex)
    assert "cortex_row" not in simulate(gabor_population(2, image_size=SIZE), 3, n_test_images=2).neurons
    with pytest.raises(InputError, match=r"cortex has shape \(2,\): expected \(1, 2\)"):
        LinearPopulation(np.ones((1, 3, 3)), [[0, 0]], [0], SIZE, cortex=[1.0, 2.0])


# ------------------------------------------------------------------------------------------------------------ by name


def test_populations_by_name_have_the_types_asked_for() -> None:
    for kind, n_types in (("dog", 1), ("dog", 2), ("dog", 5), ("gabor", 3), ("complex", 3), ("mixture", 8)):
        population = make_population(kind, 40, n_types=n_types, image_size=SIZE, positions="jittered-grid")
        assert len(np.unique(population.types)) == n_types
        assert population.image_size == SIZE
    np.testing.assert_array_equal(
        make_population("dog", 6, n_types=2, image_size=SIZE).kernels, simulate_population(6, image_size=SIZE).kernels
    )
    sizes = [
        (np.abs(k) * sum(g**2 for g in np.mgrid[-8:9, -8:9])).sum() / np.abs(k).sum()
        for k in make_population("dog", 5, n_types=5, variation=0, image_size=SIZE).kernels
    ]
    assert (np.diff(sizes) > 2).all()  # squared pixels


def test_unknown_kinds_options_and_numbers_are_named() -> None:
    for build, message in (
        (lambda: make_population("gabors"), r"unknown kind of population 'gabors'.*Did you mean 'gabor'\?"),
        (
            lambda: make_population("dog", size_factor=(1,)),
            r"option of the population 'dog' 'size_factor'.*size_factors",
        ),
        (lambda: make_population("complex", nonlinearity="relu"), "option of the population 'complex' 'nonlinearity'"),
        (
            lambda: simulate_population(3, positions="jitter-grid"),
            r"arrangement of positions 'jitter-grid'.*mean 'jittered-grid'\?",
        ),
        (lambda: make_positions("retinotopic", jitter=1), "unknown option of the arrangement of positions"),
        (lambda: make_positions("jittered-grid", jitter=2), "jitter must be a number at least 0 and at most 1, got 2"),
        (lambda: Retinotopic(scatter=-1), "scatter must be a number at least 0, got -1"),
        (lambda: simulate_population(3, nonlinearity="rely"), r"unknown nonlinearity 'rely'.*Did you mean 'relu'\?"),
        (lambda: simulate_population(3, n_channels=0), "n_channels must be a whole number of at least 1, got 0"),
        (lambda: simulate_population(3, size_factors=()), "size_factors is empty"),
        (lambda: simulate_population(3, size_factors=0.5), "size_factors must be one or more numbers, for example"),
        (lambda: simulate_population(3, size_factors=("a",)), "each of size_factors must be a number above 0, got 'a'"),
        (lambda: gabor_population(3, orientations="0"), "orientations must be one or more numbers, for example"),
        (lambda: complex_population(3, frequencies=(0.1, 0.7)), "each of frequencies must be a number above 0 and at"),
        (
            lambda: make_population("dog", 9, n_types=3, size_factors=(1.0,)),
            r"n_types \(=3\) and size_factors \(=\(1\.0,\)\) both name the types: leave one of them out",
        ),
        (lambda: gabor_population(3, frequencies=()), "frequencies is empty: expected at least one value"),
        (lambda: gabor_population(3, variation=1), "variation must be a number at least 0 and below 1, got 1"),
        (lambda: gabor(frequency=0.6), "frequency must be a number above 0 and at most 0.5, got 0.6"),
        (lambda: mixed_population(2), "n_neurons is 2: a mixture of 3 kinds of neurons needs at least 3"),
        (lambda: mixed_population(9, n_types=2), "n_types is 2: a mixture of 3 kinds"),
    ):
        with pytest.raises(OptionError, match=message):
            build()


def test_neurons_that_could_be_negative_are_rectified_for_noises_that_count() -> None:
    for kind in ("dog", "gabor", "complex", "mixture"):
        population = make_population(kind, 9, image_size=SIZE, **nonlinearity_for(kind, PoissonNoise()))
        assert simulate(population, 30, n_test_images=5, noise="poisson").responses.min() == 0
