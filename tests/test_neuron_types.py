"""Codes of what neurons weigh around their places, and the types that they fall into."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.core import Core, map_offset, receptive_field
from whatwhere.errors import OptionError
from whatwhere.model import Model, Shapes, check_options, initialize
from whatwhere.neuron_types import align_types, codes_to_types, framed, start_features, window_codes
from whatwhere.readouts.base import draw_features
from whatwhere.training import Trainer, TrainingData


def test_codes_are_the_averages_around_their_places() -> None:
    averages = torch.randn(4, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    averages[3] = 0.0
    codes = window_codes(averages, torch.tensor([0, 2 * 5 + 4, 1 * 5 + 2, 3]), (3, 4)).view(4, 2, 3, 4)
    for neuron, (row, column) in enumerate([(0, 0), (2, 4), (1, 2)]):
        seen = averages[neuron, :, row : row + 3, column : column + 4]
        torch.testing.assert_close(codes[neuron], seen / seen.norm())
    assert (codes[3] == 0).all()


@pytest.mark.parametrize("padding", ["valid", "same", ("same", "valid")])
@pytest.mark.parametrize("sizes", [((3, 5), (1, 1)), ((4, 2), (3, 3)), ((2, 6), (4, 4))])
def test_framed_averages_are_what_each_pixel_of_the_map_sees(
    padding: str | tuple[str, str], sizes: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """The pixels of the image that move a pixel of the map, found by its gradient, are those of its window."""
    options = CoreOptions(kernel_sizes=sizes, n_maps=(2, 1), padding=padding, batch_norm=False, nonlinearity="identity")
    image = torch.zeros(1, 1, 9, 11, requires_grad=True)
    core = Core(options, 1, 9, 11)
    with torch.no_grad():
        for parameter in core.parameters():
            parameter.fill_(0.1)
    maps = core(image)[0, 0]
    places = torch.arange(1.0, 1 + 9 * 11).view(1, 1, 9, 11)
    field = receptive_field(options)
    seen = framed(places, tuple(maps.shape), map_offset(options), field)
    assert seen.shape[2:] == (maps.shape[0] + field[0] - 1, maps.shape[1] + field[1] - 1)
    for row, column in [(0, 0), (maps.shape[0] - 1, maps.shape[1] - 1), (2, 1)]:
        (gradient,) = torch.autograd.grad(maps[row, column], image, retain_graph=True)
        window = seen[0, 0, row : row + field[0], column : column + field[1]]
        assert set(places[gradient != 0].tolist()) <= set(window[window > 0].tolist())
        if padding != ("same", "valid"):  # which sees nothing beyond what the first layer's zeros hide
            assert int((gradient != 0).sum()) == int((window > 0).sum())


def test_places_and_types_explain_each_other() -> None:
    """Bars of rows and of columns, first guesses a pixel off: every place and type is right in the end."""
    rng = np.random.default_rng(5)
    averages, places, types = torch.zeros(30, 1, 14, 17), [], torch.arange(30) % 2
    for neuron, kind in enumerate(types):
        row, column = rng.integers(0, 10), rng.integers(0, 13)
        along = (slice(row, row + 5), column + 2) if kind else (row + 2, slice(column, column + 5))
        averages[neuron, 0, *along] = rng.uniform(0.5, 2)
        places.append(row * 13 + column)
    noisy = averages + 0.05 * torch.from_numpy(rng.normal(size=averages.shape)).float()
    true = torch.tensor(places)
    guesses = (true + torch.from_numpy(rng.integers(-1, 2, 30))).clamp(0, 129)
    found = align_types(noisy, guesses, (5, 5), 2, seed=0)
    assert len(torch.stack([found.types, types]).unique(dim=1).T) == 2
    shifts = found.places - true
    for kind in (0, 1):  # a bar and what all of its type see it as may be off by one, but then all are
        assert len(shifts[types == kind].unique()) == 1
    torch.testing.assert_close(found.kernels.flatten(1).norm(dim=1), torch.ones(2))
    crops = window_codes(noisy, found.places, (5, 5))
    assert (crops * found.kernels.flatten(1)[found.types]).sum(1).min() > 0.95


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
    assert (usual.readout.feature_weights().abs().amax(1) < 1.3 * usual.readout.feature_weights().abs().amin(1)).all()


@pytest.mark.parametrize("readout", ["factorized", "posterior"])
def test_a_core_of_one_layer_starts_with_the_kernels_of_the_types(readout: str) -> None:
    images, responses, _ = two_types()
    model = Model(readout, chosen("types", nonlinearity="relu"), Shapes(2, 11, 14, 24))
    initialize(model, images, responses, seed=0)
    kernels = model.core.layers[0].spatial_kernels().detach()
    assert kernels.flatten(1).std(1).numpy() == pytest.approx(model.options.core.kernel_std, rel=0.2)
    reads = model.readout.feature_weights().argmax(1)
    of_rows, of_columns = kernels[reads[0]], kernels[reads[1]]
    bar = torch.zeros(2, 3, 3)
    bar[0, 1] = 1.0
    assert torch.corrcoef(torch.stack([of_rows.flatten(), bar.flatten()]))[0, 1] > 0.9
    assert torch.corrcoef(torch.stack([of_columns.flatten(), bar.mT.flatten()]))[0, 1] > 0.9


def test_types_that_nothing_could_read_are_refused() -> None:
    with pytest.raises(OptionError, match="start 'types' has nothing to act on: with one feature map all neurons"):
        check_options("factorized", chosen("types", n_maps=1))
    with pytest.raises(OptionError, match="start 'types' is for neurons with an output nonlinearity: with 'identity'"):
        check_options("posterior", chosen("types"))
    check_options("posterior", chosen("types", nonlinearity="relu"))


@pytest.mark.parametrize("readout", ["factorized", "fixed-mask", "gaussian"])
def test_held_feature_weights_keep_their_proportions_and_then_go_free(readout: str) -> None:
    images, responses, _ = two_types(400)
    options = chosen("types")
    options = replace(options, readout=replace(options.readout, hold_features=6))
    options = replace(options, training=replace(options.training, learning_rate=0.05, batch_size=50))
    model = Model(readout, options, Shapes(2, 11, 14, 24))
    initialize(model, images, responses, seed=0)
    start = model.readout.feature_weights().clone()
    trainer = Trainer(model, TrainingData(images, responses, images[:20], responses[:20]), seed=0)
    model.train()

    def turned() -> float:
        return float((functional.cosine_similarity(model.readout.feature_weights(), start, dim=1) - 1).abs().max())

    for _ in range(6):
        trainer.step()
        assert turned() < 1e-6
    sizes = model.readout.feature_weights().norm(dim=1) / start.norm(dim=1)
    assert ((sizes - 1).abs().max() > 0.01) or readout == "factorized", "what is held is the direction"
    trainer.step()
    assert turned() > 1e-4


def test_holding_what_starts_from_no_types_is_refused() -> None:
    for start, n_maps in (("average", 2), ("features", 1)):
        options = chosen(start, n_maps, "relu")
        options = replace(options, readout=replace(options.readout, hold_features=5))
        with pytest.raises(OptionError, match=r"hold_features \(=5\) has nothing to act on: it is for feature weights"):
            check_options("factorized", options)


def test_of_many_features_most_of_the_weight_is_the_types_own() -> None:
    for n_features in (2, 4, 128):
        given = start_features(torch.arange(n_features), n_features)
        drawn = draw_features(n_features, n_features, given, torch.Generator().manual_seed(0))
        own = torch.eye(n_features)
        assert functional.cosine_similarity(drawn, own, dim=1).min() > 0.95
        torch.testing.assert_close(given.sum(1), torch.ones(n_features))


def test_neurons_that_differ_by_rounding_need_no_types_of_their_own() -> None:
    codes = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    codes = codes + 1e-8 * torch.arange(12)[:, None]
    found = codes_to_types(codes, 12, seed=0)  # without k-means' warning that there are fewer points than clusters
    assert len(torch.stack([found, torch.arange(12) % 3]).unique(dim=1).T) == found.unique().numel()
