"""The fixed bank of local features: what it is, and neurons found by it that averages do not find."""

import numpy as np
import pytest
import torch
from torch import Tensor

from whatwhere import local_features
from whatwhere.initialisation import mask_peaks, spike_triggered_averages
from whatwhere.local_features import LocalFeatures, fit_local_features

RIDGES = (0.01, 0.1, 1.0, 10.0)


def noise_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, *shape)).astype(np.float32))


def test_features_are_the_positive_and_negative_parts_of_derivatives_of_unit_variance() -> None:
    images = noise_images(50, (2, 15, 22))
    bank = LocalFeatures(images, (9, 12), (3.0, 5.0))
    features = bank(images)
    assert bank.n_features == 24
    assert features.shape == (50, 24, 9, 12)
    positive, negative = features.split(12, 1)
    assert (features >= 0).all()
    assert (positive * negative == 0).all()
    np.testing.assert_allclose(features.std((0, 2, 3), correction=0), 1.0, rtol=1e-4)


def test_derivatives_of_a_ramp_and_a_parabola() -> None:
    """Along columns: order (0, 1) of a ramp is its slope everywhere, (0, 2) of a parabola its curvature."""
    columns = torch.arange(30.0) - 15
    ramp, parabola = columns.expand(24, 30), columns.square().expand(24, 30)
    bank = LocalFeatures(noise_images(4, (1, 24, 30)), (6, 8), (9.0, 11.0))
    bank.means, bank.colours = torch.zeros(1, 1, 1, 1), torch.ones(1, 1)
    bank.scales = torch.ones(())
    signed = [part[:6] - part[6:] for part in bank(torch.stack([ramp, parabola])[:, None])]
    for image, order, value in ((0, 2, 1.0), (1, 5, 2.0)):
        np.testing.assert_allclose(signed[image][order], value, rtol=0.02)
    for image, orders in ((0, (1, 3, 4, 5)), (1, (1, 3, 4))):
        np.testing.assert_allclose(signed[image][list(orders)], 0.0, atol=1e-3)


def test_a_shifted_image_has_shifted_features() -> None:
    images = noise_images(3, (3, 26, 31))
    bank = LocalFeatures(images, (10, 12), (7.0, 8.0))
    moved = bank(torch.roll(images, (2, -3), (2, 3)))
    np.testing.assert_allclose(moved[:, :, 2:, :-3], bank(images)[:, :, :-2, 3:], atol=1e-5)


def test_the_map_offset_says_which_pixels_are_kept() -> None:
    images = noise_images(20, (1, 18, 20))
    whole, part = LocalFeatures(images, (18, 20), (0.0, 0.0)), LocalFeatures(images, (5, 7), (4.0, 6.0))
    wanted = whole(images)[:, :, 4:9, 6:13]
    scales = part.scales / whole.scales
    np.testing.assert_allclose(part(images), wanted * scales, rtol=1e-4, atol=1e-6)


def test_grey_images_in_three_channels_have_one_colour_and_constant_ones_none() -> None:
    grey = noise_images(10, (1, 12, 13)).expand(-1, 3, -1, -1)
    assert LocalFeatures(grey, (4, 5), (4.0, 4.0)).n_features == 12
    constant = torch.full((10, 2, 12, 13), 0.5)
    assert (LocalFeatures(constant, (4, 5), (4.0, 4.0))(constant) == 0).all()
    found = fit_local_features(constant, noise_images(10, (1, 1, 3))[:, 0, 0], (4, 5), (4.0, 4.0), RIDGES, 2, 0)
    assert torch.isfinite(found.evidence).all()
    assert found.types.max() <= 1


def test_many_channels_are_reduced_to_the_three_strongest_colours() -> None:
    images = noise_images(30, (7, 10, 11)) * torch.tensor([1, 2, 3, 4, 5, 6, 7.0])[:, None, None]
    bank = LocalFeatures(images, (4, 5), (3.0, 3.0))
    assert bank.n_features == 36
    assert bank.colours.abs().argmax(1).tolist() == [6, 5, 4]


def energy_neurons(n_images: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Twelve neurons that respond to the contrast across columns at their place, whatever its sign."""
    images = noise_images(n_images, (2, 20, 27), seed)
    rng = np.random.default_rng(seed)
    places = np.stack([rng.integers(0, 10, 12), rng.integers(0, 15, 12)], 1)
    rows, columns = torch.from_numpy(places.T + 5)
    contrast = (images[:, 0, rows, columns + 1] - images[:, 0, rows, columns - 1]).abs()
    return images, contrast + 0.5 * noise_images(n_images, (1, 1, 12), seed + 1)[:, 0, 0], places


@pytest.mark.parametrize("seed", range(3))
def test_neurons_without_an_average_are_found(seed: int) -> None:
    images, responses, places = energy_neurons(500, seed)
    by_evidence = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0).evidence.argmax(1)
    by_average = mask_peaks(spike_triggered_averages(images, responses), (10, 15), (5.0, 5.0), 1.0)
    near = [
        (np.abs(np.stack(np.unravel_index(found.numpy(), (10, 15)), 1) - places).max(1) <= 1).sum()
        for found in (by_evidence, by_average)
    ]
    assert near[0] == 12
    assert near[1] < 4


def test_evidence_is_the_same_for_any_number_of_neurons_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, responses, _ = energy_neurons(300, 0)
    whole = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0)
    monkeypatch.setattr(local_features, "_MOST_NUMBERS", 5 * 24 * 150)
    parts = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0)
    np.testing.assert_allclose(parts.evidence, whole.evidence, rtol=1e-4, atol=1e-3)
    assert torch.equal(parts.places, whole.places)
    assert len(torch.stack([parts.types, whole.types]).unique(dim=1).T) == 2


def test_evidence_of_silent_neurons_is_finite_and_of_noise_prefers_nothing() -> None:
    images = noise_images(400, (1, 16, 17))
    responses = torch.cat([torch.zeros(400, 1), noise_images(400, (1, 1, 5), 7)[:, 0, 0]], 1)
    evidence = fit_local_features(images, responses, (8, 9), (4.0, 4.0), RIDGES, 2, 0).evidence
    assert torch.isfinite(evidence).all()
    assert (evidence.logsumexp(1) - np.log(72) < 2).all()  # no more than no weights at all, but for chance


@pytest.mark.parametrize("seed", range(4))
def test_types_and_places_find_each_other(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One type responds to contrast across columns, the other across rows; alone, some neurons look at wrong places."""
    images = noise_images(900, (1, 20, 27), 2 + seed)
    rng = np.random.default_rng(2 + seed)
    places = np.stack([rng.integers(0, 10, 30), rng.integers(0, 15, 30)], 1)
    rows, columns = torch.from_numpy(places.T + 5)
    across_columns = (images[:, 0, rows, columns + 1] - images[:, 0, rows, columns - 1]).abs()
    across_rows = (images[:, 0, rows + 1, columns] - images[:, 0, rows - 1, columns]).abs()
    types = torch.arange(30) % 2
    responses = torch.where(types.bool(), across_rows, across_columns)
    responses = responses + 1.2 * noise_images(900, (1, 1, 30), 40 + seed)[:, 0, 0]

    def found() -> tuple[float, float]:
        fit = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0)
        right = (fit.types == types).float().mean().item()
        at = np.stack(np.unravel_index(fit.evidence.argmax(1).numpy(), (10, 15)), 1)
        return max(right, 1 - right), float((np.abs(at - places).max(1) <= 1).mean())

    right, near = found()
    assert right > 0.9
    assert near > 0.9
    monkeypatch.setattr(local_features, "_ROUNDS", 1)
    assert found()[0] < right


@pytest.mark.parametrize(
    ("offset", "size"), [((1.0, 1.0), (16, 18)), ((1.5, 0.5), (13, 17)), ((0.5, 4.5), (16, 9)), ((0.0, 0.0), (16, 18))]
)
def test_maps_of_even_kernels_lie_between_pixels_and_may_reach_the_border(
    offset: tuple[float, float], size: tuple[int, int]
) -> None:
    images = noise_images(6, (1, 16, 18))
    whole = LocalFeatures(images, (16, 18), (0.0, 0.0))
    part = LocalFeatures(images, size, offset)
    part.scales = whole.scales = torch.ones(())
    signed, found = (values[:, :6] - values[:, 6:] for values in (whole(images), part(images)))
    assert found.shape[2:] == size
    row, column = int(offset[0]), int(offset[1])
    corner = signed[:, :, row : row + 1 + (offset[0] % 1 > 0), column : column + 1 + (offset[1] % 1 > 0)].mean((2, 3))
    np.testing.assert_allclose(found[:, :, 0, 0], corner, atol=1e-5)


def test_constant_responses_have_no_evidence_and_one_type() -> None:
    images = noise_images(200, (1, 14, 15))
    found = fit_local_features(images, torch.full((200, 2), 3.3), (6, 7), (4.0, 4.0), RIDGES, 2, 0)
    assert (found.evidence <= 0).all()
    assert (found.types == 0).all()


def test_evidence_of_long_recordings_is_that_of_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images, responses, _ = energy_neurons(1600, 0)
    whole = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0).evidence.max(1).values
    monkeypatch.setattr(local_features, "_MOST_IMAGES", 800)
    part = fit_local_features(images, responses, (10, 15), (5.0, 5.0), RIDGES, 2, 0).evidence.max(1).values
    np.testing.assert_allclose(part.mean(), whole.mean(), rtol=0.3)
