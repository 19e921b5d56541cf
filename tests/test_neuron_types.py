"""Codes of what neurons weigh around their places, and the types that they fall into."""

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.errors import OptionError
from whatwhere.model import Model, Shapes, check_options, initialize
from whatwhere.neuron_types import codes_to_types, window_codes


def test_codes_are_the_averages_around_their_places_and_zero_beyond_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    averages = torch.randn(4, 2, 5, 7, generator=generator)
    averages[3] = 0.0
    places = np.array([[2, 3], [0, 6], [4, 0], [2, 2]])
    codes = window_codes(averages, places, 1).view(4, 2, 3, 3)
    inside = averages[0, :, 1:4, 2:5]
    torch.testing.assert_close(codes[0], inside / inside.norm())
    corner = torch.zeros(2, 3, 3)
    corner[:, 1:, :2] = averages[1, :, 0:2, 5:7]
    torch.testing.assert_close(codes[1], corner / corner.norm())
    corner = torch.zeros(2, 3, 3)
    corner[:, :2, 1:] = averages[2, :, 3:5, 0:2]
    torch.testing.assert_close(codes[2], corner / corner.norm())
    assert (codes[3] == 0).all()


def test_the_same_neuron_elsewhere_has_the_same_code() -> None:
    generator = torch.Generator().manual_seed(1)
    kernel = torch.randn(1, 3, 3, generator=generator)
    averages = torch.zeros(2, 1, 9, 12)
    averages[0, :, 1:4, 2:5], averages[1, :, 5:8, 7:10] = kernel, 3 * kernel
    codes = window_codes(averages, np.array([[2, 3], [6, 8]]), 2)
    torch.testing.assert_close(codes[0], codes[1])


def test_neurons_of_a_type_are_found_whatever_their_order_and_never_more_types_than_neurons() -> None:
    generator = torch.Generator().manual_seed(2)
    types = torch.arange(90) % 3
    codes = torch.eye(3)[types] @ torch.randn(3, 20, generator=generator) + 0.3 * torch.randn(
        90, 20, generator=generator
    )
    found = codes_to_types(codes, 3, seed=0)
    assert len(torch.stack([types, found]).unique(dim=1).T) == 3
    assert codes_to_types(codes[:2], 5, seed=0).unique().numel() == 2
    assert codes_to_types(torch.zeros(4, 6), 3, seed=0).tolist() == [0, 0, 0, 0]


def two_types(n_images: int = 3000) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """White images (n_images, 2, 11, 14), neurons that each see a bar of rows or of columns somewhere, their types."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(n_images, 2, 11, 14)).astype(np.float32)
    types = np.arange(24) % 2
    responses = np.zeros((n_images, 24), np.float32)
    for neuron, kind in enumerate(types):
        row, column = rng.integers(1, 10), rng.integers(1, 13)
        along = (slice(row - 1, row + 2), column) if kind else (row, slice(column - 1, column + 2))
        responses[:, neuron] = images[:, 0, *along].sum(1)
    noisy = responses + rng.normal(size=responses.shape)
    return torch.from_numpy(images), torch.from_numpy(noisy).float(), types


def chosen(start: str, n_maps: int = 2, nonlinearity: str = "identity") -> ModelOptions:
    return ModelOptions(
        core=CoreOptions(kernel_sizes=(3,), n_maps=n_maps, padding="valid"),
        readout=ReadoutOptions(nonlinearity=nonlinearity, sta_smoothing=1.0, start=start),
        training=TrainingOptions(loss="squared"),
    )


@pytest.mark.parametrize("readout", ["factorized", "fixed-mask", "fully-connected", "gaussian"])
def test_neurons_of_a_type_begin_with_one_feature_map_in_common(readout: str) -> None:
    images, responses, types = two_types()
    model = Model(readout, chosen("types"), Shapes(2, 11, 14, 24))
    initialize(model, images, responses, seed=0)
    weights = model.readout.feature_weights().abs()
    assert len(np.unique([weights.argmax(1).numpy(), types], axis=1).T) == 2
    assert (weights.amax(1) > 5 * weights.amin(1)).all()
    usual = Model(readout, chosen("average"), Shapes(2, 11, 14, 24))
    initialize(usual, images, responses, seed=0)
    np.testing.assert_array_equal(model.locations(), usual.locations())
    assert (usual.readout.feature_weights().abs().amax(1) < 1.3 * usual.readout.feature_weights().abs().amin(1)).all()


def test_types_that_nothing_could_read_are_refused() -> None:
    with pytest.raises(OptionError, match="start 'types' has nothing to act on: with one feature map all neurons"):
        check_options("factorized", chosen("types", n_maps=1))
    with pytest.raises(OptionError, match="start 'types' is for neurons with an output nonlinearity: with 'identity'"):
        check_options("posterior", chosen("types"))
    check_options("posterior", chosen("types", nonlinearity="relu"))
