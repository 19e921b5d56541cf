"""Responses that stay the recording's: the tensor that they stand for, row by row, and the same fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.config import ModelOptions
from whatwhere.estimators.preparation import prepare
from whatwhere.initialisation import spike_triggered_averages
from whatwhere.stored_images import StoredImages
from whatwhere.stored_responses import Responses, StoredResponses, joined_responses, mean_of, std_of


@pytest.fixture
def pair(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> tuple[StoredResponses, torch.Tensor]:
    """Eight rows of ten, three neurons, and the tensor; statistics are of one neuron at a time."""
    monkeypatch.setattr("whatwhere.rows.COLUMN_BYTES", 1)
    source = rng.normal(size=(10, 3)).astype(np.float32)
    rows, scale = np.array([0, 1, 3, 4, 5, 7, 8, 9]), np.array([1.0, 0.5, 3.0], np.float32)
    return StoredResponses(source, rows, scale, torch.device("cpu")), torch.from_numpy(source[rows] / scale)


def test_they_are_the_tensor_of_scaled_rows(pair: tuple[StoredResponses, torch.Tensor]) -> None:
    stored, tensor = pair
    source = stored.source.copy()
    assert stored.shape == tensor.shape
    assert len(stored) == 8
    assert stored.nbytes == tensor.nbytes
    for which in (slice(None), slice(2, 5), torch.tensor([6, 0, 0, 3])):
        assert torch.equal(stored[which], tensor[which])
    for statistic in (mean_of, std_of):
        torch.testing.assert_close(statistic(stored).float(), statistic(tensor).float())
    assert mean_of(stored).dtype == mean_of(tensor).dtype == torch.float64
    np.testing.assert_array_equal(stored.source, source)


def test_joined_they_are_rows_of_the_recording_still(pair: tuple[StoredResponses, torch.Tensor]) -> None:
    stored, tensor = pair
    others = stored.at(np.array([2, 6]))
    both = joined_responses(stored, others)
    assert isinstance(both, StoredResponses)
    assert torch.equal(both[:], torch.cat([tensor, others[:]]))
    mixed: Responses = joined_responses(tensor, others)
    assert torch.equal(mixed[:], both[:])


def test_averages_are_those_of_the_tensor(pair: tuple[StoredResponses, torch.Tensor], rng: np.random.Generator) -> None:
    stored, tensor = pair
    images = torch.from_numpy(rng.normal(size=(8, 2, 4, 5))).float()
    torch.testing.assert_close(spike_triggered_averages(images, stored), spike_triggered_averages(images, tensor))


def test_a_fit_keeps_them_so_where_images_are_read_as_they_are_needed(rng: np.random.Generator) -> None:
    recording = ww.Recording(rng.normal(size=(40, 1, 9, 11)), rng.random((40, 3)))
    rows = recording.split(0.25, 0)
    options = ModelOptions()
    streamed = replace(options, training=replace(options.training, memory_gib=1e-6))
    whole, stored = (prepare(recording, some, *rows, torch.device("cpu"), "").data for some in (options, streamed))
    assert isinstance(stored.images, StoredImages)
    assert isinstance(stored.responses, StoredResponses)
    assert isinstance(whole.responses, torch.Tensor)
    assert np.shares_memory(stored.responses.source, recording.responses), "no copy"
    assert torch.equal(stored.responses[:], whole.responses)
    assert torch.equal(stored.validation_responses[:], whole.validation_responses[:])
