"""Stimuli: any stretch of a sequence, and their statistics against closed forms."""

import numpy as np
import pytest
from scipy.integrate import quad

from whatwhere.errors import OptionError
from whatwhere.simulation import STIMULI, Checkerboard, DeadLeaves, PinkNoise, make_stimuli, make_stimulus, white_noise

SYNTHETIC = [name for name in STIMULI if name != "photographs"]
SIZE = (21, 30)  # height, width


def pooled(values: np.ndarray) -> tuple[float, float]:
    """The mean over images, one value each, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("name", SYNTHETIC)
def test_images_are_the_same_in_chunks_of_any_size(name: str) -> None:
    whole = make_stimuli(name, 23, SIZE, n_channels=3, seed=5)
    assert whole.shape == (23, 3, *SIZE)
    assert whole.dtype == np.float32
    for step in (1, 4, 23):
        chunks = [
            make_stimuli(name, min(step, 23 - i), SIZE, n_channels=3, seed=5, first=i) for i in range(0, 23, step)
        ]
        assert np.array_equal(np.concatenate(chunks), whole)
    assert len(np.unique(whole.reshape(69, -1), axis=0)) == 69  # no image and no channel twice
    assert not np.array_equal(make_stimuli(name, 23, SIZE, n_channels=3, seed=6), whole)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_every_stimulus_has_mean_0_and_variance_1_in_every_channel(name: str) -> None:
    images = make_stimuli(name, 1500, (12, 17), n_channels=2, seed=3).astype(float)
    for channel in (0, 1):
        for value, expected in ((images[:, channel], 0), (images[:, channel] ** 2, 1)):
            mean, error = pooled(value.mean(axis=(1, 2)))
            assert abs(mean - expected) < 4.5 * error + 1e-6  # pink noise: the mean is 0 but for rounding
            assert error < 0.04
    mean, error = pooled((images[:, 0] * images[:, 1]).mean(axis=(1, 2)))
    assert abs(mean) < 4.5 * error  # channels are independent


def test_one_channel_of_white_noise_is_as_it_was() -> None:
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(2,))).standard_normal(SIZE, np.float32)
    np.testing.assert_array_equal(white_noise(4, SIZE, seed=5)[2, 0], expected)


# ----------------------------------------------------------------------------------------------------- checkerboard


def test_checkerboard_is_binary_with_covariance_1_within_a_block_and_0_between() -> None:
    n, height, width = 6000, 7, 10
    images = make_stimuli(Checkerboard(block_size=3), n, (height, width), seed=2)
    assert set(np.unique(images)) == {-1.0, 1.0}
    pixels = images.reshape(n, -1).astype(float)
    rows, columns = np.divmod(np.arange(height * width), width)
    block = rows // 3 * 100 + columns // 3  # blocks begin at the first pixel, the last are cut
    same = block[:, None] == block
    covariance = pixels.T @ pixels / n
    np.testing.assert_array_equal(covariance[same], 1)
    assert np.abs(covariance[~same]).max() < 5 / np.sqrt(n)
    assert np.abs(pixels.mean(axis=0)).max() < 4.5 / np.sqrt(n)


def test_blocks_larger_than_the_image_take_no_more_room_than_the_image() -> None:
    images = make_stimuli(Checkerboard(block_size=10**9), 40, (7, 10), n_channels=2)
    assert (images == images[:, :, :1, :1]).all()
    assert len(np.unique(images[:, :, 0, 0], axis=0)) == 4


# ------------------------------------------------------------------------------------------------------- pink noise


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.4])
def test_amplitude_of_pink_noise_falls_as_a_power_of_frequency_in_all_directions(exponent: float) -> None:
    height, width = 41, 56
    images = make_stimuli(PinkNoise(exponent), 400, (height, width), seed=1)[:, 0].astype(float)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0).ravel()[1:]
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    frequency = np.hypot(rows, columns).ravel()[1:]  # cycles per pixel, not per image
    slope = np.polyfit(np.log(frequency), np.log(power), 1)[0]
    assert slope / 2 == pytest.approx(-exponent, abs=0.01)
    flat = power * frequency ** (2 * exponent)
    upright = (np.abs(rows) > np.abs(columns)).ravel()[1:]
    assert flat[upright].mean() / flat[~upright].mean() == pytest.approx(1, abs=0.02)


def test_pink_noise_has_no_mean_and_the_same_variance_everywhere() -> None:
    images = make_stimuli("pink-noise", 3000, (5, 8), seed=4)[:, 0].astype(float)
    assert np.abs(images.mean(axis=(1, 2))).max() < 1e-6
    assert np.abs(images.var(axis=0) - 1).max() < 4.5 * np.sqrt(2 / 3000)
    steep = make_stimuli(PinkNoise(exponent=1000), 50, (6, 9))[:, 0].astype(float)  # the lowest frequency alone
    assert steep.var() == pytest.approx(1, abs=4.5 * np.sqrt(2 / 100))
    np.testing.assert_allclose(steep, steep[:, :1].repeat(6, axis=1), atol=1e-6)
    with pytest.raises(OptionError, match="pink noise of one pixel has no frequency above 0"):
        make_stimuli("pink-noise", 1, (1, 1))


# ------------------------------------------------------------------------------------------------------ dead leaves


def shared_area(distance: float, radius: float) -> float:
    """Of a disc and itself moved by a distance."""
    if distance >= 2 * radius:
        return 0.0
    half = distance / 2
    return 2 * radius**2 * np.arccos(half / radius) - 2 * half * np.sqrt(radius**2 - half**2)


def covariance_of_leaves(distance: float, leaves: DeadLeaves) -> float:
    """g(d) / (2 g(0) - g(d)), g averaged over the power law of the radii."""

    def g(d: float) -> float:
        low, high = leaves.smallest_radius, leaves.largest_radius
        kinks = [d / 2] if low < d / 2 < high else None
        return quad(lambda r: shared_area(d, r) * r**-leaves.exponent, low, high, points=kinks)[0]

    return g(distance) / (2 * g(0.0) - g(distance))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 2.5, 3.0])
def test_covariance_of_dead_leaves_is_that_of_the_model(exponent: float) -> None:
    leaves = DeadLeaves(1.5, 9.0, exponent)
    images = make_stimuli(leaves, 700, (20, 31), seed=6)[:, 0].astype(float)
    for distance in (1, 2, 4, 7, 12):
        expected = covariance_of_leaves(distance, leaves)
        pairs = [
            images[:, distance:] * images[:, :-distance],
            images[:, :, distance:] * images[:, :, :-distance],
            images[:, :1, distance:] * images[:, :1, :-distance],  # along the edge: as frequent as in the middle
            images[:, distance:, -1:] * images[:, :-distance, -1:],
        ]
        for products in pairs:
            mean, error = pooled(products.mean(axis=(1, 2)))
            assert abs(mean - expected) < 4.5 * error
            assert error < 0.06


@pytest.mark.parametrize("exponent", [-20.0, 20.0])
def test_extreme_exponents_are_discs_of_one_size(exponent: float) -> None:
    leaves, one = DeadLeaves(4.0, 24.0, exponent), (4.0, 4.001) if exponent > 0 else (23.999, 24.0)
    found, expected = (
        make_stimuli(some, 500, (12, 17), seed=2)[:, 0].astype(float) for some in (leaves, DeadLeaves(*one))
    )
    for distance in (1, 6):
        pairs = [pooled((a[:, :, distance:] * a[:, :, :-distance]).mean(axis=(1, 2))) for a in (found, expected)]
        assert pairs[0][0] == pytest.approx(pairs[1][0], abs=4.5 * pairs[0][1] + 0.05)


@pytest.mark.parametrize("laid", [1, 128])
def test_leaves_laid_together_or_one_by_one_are_the_same(laid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make_stimuli("dead-leaves", 20, SIZE, n_channels=2)
    monkeypatch.setattr("whatwhere.simulation.dead_leaves.LEAVES_LAID", laid)
    np.testing.assert_array_equal(make_stimuli("dead-leaves", 20, SIZE, n_channels=2), expected)


def test_dead_leaves_twice_as_large_look_the_same_from_twice_as_far() -> None:
    """Occlusion keeps the scale: the law of radii r^-3 has no size of its own but for its two ends."""
    small = make_stimuli(DeadLeaves(1.5, 8.0), 700, (20, 31), seed=1)[:, 0].astype(float)
    large = make_stimuli(DeadLeaves(3.0, 16.0), 700, (40, 62), seed=2)[:, 0].astype(float)
    for distance in (1, 3, 6):
        near, near_error = pooled((small[:, :, distance:] * small[:, :, :-distance]).mean(axis=(1, 2)))
        far, far_error = pooled((large[:, :, 2 * distance :] * large[:, :, : -2 * distance]).mean(axis=(1, 2)))
        assert abs(near - far) < 4.5 * np.hypot(near_error, far_error)


def test_values_of_dead_leaves_are_uniform_and_discs_are_of_one_colour() -> None:
    images = make_stimuli(DeadLeaves(1.5, 6.0), 300, (18, 27), n_channels=3, seed=7).astype(float)
    assert np.abs(images).max() <= np.sqrt(3)
    mean, error = pooled((images**4).mean(axis=(1, 2, 3)))
    assert abs(mean - 9 / 5) < 4.5 * error
    for image in images[:20].reshape(20, 3, -1):
        partitions = [np.unique(channel, return_inverse=True)[1] for channel in image]
        n_leaves = len(np.unique(partitions[0]))
        assert 3 < n_leaves < 18 * 27 / 2
        assert len(np.unique(np.stack(partitions), axis=1).T) == n_leaves  # the same discs in all channels


# ---------------------------------------------------------------------------------------------------------- options


def test_options_are_checked_by_name_and_value() -> None:
    assert make_stimulus("dead-leaves", exponent=2.5) == DeadLeaves(exponent=2.5)
    for name, options, message in (
        ("dead-leafs", {}, r"unknown stimulus 'dead-leafs'.*Did you mean 'dead-leaves'\?"),
        ("checkerboard", {"blocksize": 3}, r"option of the stimulus 'checkerboard' 'blocksize'.*mean 'block_size'\?"),
        ("white-noise", {"contrast": 2}, "the stimulus 'white-noise' has no options, but got contrast: leave them out"),
        ("checkerboard", {"block_size": 2.5}, "block_size must be a whole number of at least 1, got 2.5"),
        ("checkerboard", {"block_size": "big"}, "block_size must be a whole number of at least 1, got 'big'"),
        ("pink-noise", {"exponent": -1}, "exponent must be a number at least 0, got -1"),
        ("dead-leaves", {"smallest_radius": 30}, r"largest_radius \(=24.0\) must be above smallest_radius \(=30\)"),
        ("dead-leaves", {"smallest_radius": 0}, "smallest_radius must be a number above 0, got 0"),
        ("dead-leaves", {"exponent": np.nan}, "exponent must be a number at least -20 and at most 20, got nan"),
        ("dead-leaves", {"exponent": 21}, "exponent must be a number at least -20 and at most 20, got 21"),
        ("pink-noise", {"exponent": np.inf}, "exponent must be a number at least 0, got inf"),
    ):
        with pytest.raises(OptionError, match=message):
            make_stimulus(name, **options)
    with pytest.raises(OptionError, match="n_channels must be a whole number of at least 1, got 0"):
        make_stimuli("white-noise", 3, SIZE, n_channels=0)
