"""Images read as a fit needs them: the same values, an order that is shuffled well, and a fit that goes on exactly."""

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.batches import Batches
from whatwhere.errors import InputError
from whatwhere.metrics import fev
from whatwhere.simulation import simulate, simulate_population
from whatwhere.standardisation import Standardisation
from whatwhere.stored_images import BLOCK, StoredImages, joined, streamed_order

STANDARDISE = Standardisation(np.full((1, 1, 1), 100.0), np.full((1, 1, 1), 30.0))
CPU = torch.device("cpu")


def on_disk(tmp_path: Path, images: np.ndarray) -> Any:
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(7, *images.shape[1:]))
    return h5py.File(path)["images"]


def numbered(n: int) -> np.ndarray:
    """Unsigned bytes (n, 2, 3, 5), the first two pixels of each image its number."""
    images = np.random.default_rng(0).integers(0, 256, (n, 2, 3, 5)).astype(np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) // 256, np.arange(n) % 256
    return images


def number_of(images: torch.Tensor) -> list[int]:
    back = (images[:, 0, 0, :2] * 30 + 100).round().long()
    return (back[:, 0] * 256 + back[:, 1]).tolist()


def test_stored_images_are_what_a_tensor_of_them_would_be(tmp_path: Path) -> None:
    values = numbered(300)
    rows = np.arange(300)[np.arange(300) % 5 != 0]
    stored = StoredImages(on_disk(tmp_path, values), rows, STANDARDISE, CPU, memory=1 << 20)
    whole = torch.from_numpy(STANDARDISE.apply(values[rows]))
    assert (len(stored), stored.shape, stored.device) == (240, whole.shape, whole.device)
    which = torch.tensor([200, 3, 3, 17])
    for chosen in (which, slice(5, 40), slice(None), torch.arange(240) % 3 == 0):
        torch.testing.assert_close(stored[chosen], whole[chosen], rtol=0, atol=0)
    assert [len(some) for some in stored.split(100)] == [100, 100, 40]
    torch.testing.assert_close(torch.cat(list(stored.split(100))), whole, rtol=0, atol=0)
    torch.testing.assert_close(stored.mean(0), whole.mean(0), rtol=1e-5, atol=1e-5)
    other = stored.at(np.array([0, 5]))
    torch.testing.assert_close(joined(stored, other)[:], torch.cat([whole, other[:]]), rtol=0, atol=0)
    assert stored.nbytes == 240 * 30, "bytes as stored, no more than there are"


def test_values_that_are_not_finite_are_named_by_their_row(tmp_path: Path) -> None:
    values = np.zeros((50, 1, 4, 4), np.float32)
    values[37, 0, 1, 1] = np.nan
    stored = StoredImages(on_disk(tmp_path, values), np.arange(20, 50), STANDARDISE, CPU, memory=1 << 20)
    with pytest.raises(InputError, match=r"images holds values that are not finite in 1 of the rows read: row 37"):
        stored[torch.tensor([16, 17])]


@pytest.mark.parametrize(("n", "at_once"), [(1, 1), (31, 5), (1000, 128), (1003, 100_000), (997, 32)])
def test_an_epoch_shows_every_image_once_in_groups(n: int, at_once: int) -> None:
    order, bounds = streamed_order(n, at_once, torch.Generator().manual_seed(0))
    assert order.sort().values.tolist() == list(range(n))
    assert (bounds[0], bounds[-1]) == (0, n)
    for first, last in itertools.pairwise(bounds):
        assert last - first <= max(BLOCK, at_once)
        blocks = {int(row) // BLOCK for row in order[first:last]}
        members = [row for row in range(n) if row // BLOCK in blocks]
        assert sorted(order[first:last].tolist()) == members, "whole blocks, shuffled among themselves"


def test_the_order_has_no_bias() -> None:
    """Over 400 epochs of 1,024 images: where an image comes, what it comes with, and what the first batch is of."""
    n, size, n_epochs = 1024, 64, 400
    generator = torch.Generator().manual_seed(1)
    positions, together, first = torch.zeros(n), torch.zeros(n // 2), torch.zeros(n)
    for _ in range(n_epochs):
        order = streamed_order(n, 512, generator)[0]
        place = order.argsort()
        positions += place
        batch = place // size
        together += batch[0::2] == batch[1::2]  # neighbours of one block
        first[order[:size]] += 1
    mean = positions / n_epochs
    deviation = n / 12**0.5 / n_epochs**0.5
    assert abs(mean.mean().item() - (n - 1) / 2) < 1e-3
    assert (mean - (n - 1) / 2).abs().max() < 4.5 * deviation, "no image is early or late"
    assert mean[: n // 2].mean().item() == pytest.approx(mean[n // 2 :].mean().item(), abs=6 * deviation / BLOCK**0.5)
    share = (together / n_epochs).mean().item()
    assert share == pytest.approx(size / 512, rel=0.1), "as likely together as any two images of a group"
    expected = n_epochs * size / n
    assert first.max() < expected + 6 * expected**0.5
    assert first.std().item() == pytest.approx((expected * (1 - size / n)) ** 0.5, rel=0.35)


@pytest.mark.parametrize("memory", [4 * BLOCK * 30, 4 * 100 * 30, 1 << 24])
def test_batches_are_read_in_their_order_whatever_the_memory(memory: int, tmp_path: Path) -> None:
    values = numbered(333)
    rows = np.arange(300) + 33
    stored = StoredImages(on_disk(tmp_path, values), rows, STANDARDISE, CPU, memory)
    batches = Batches(stored, 40, seed=3)
    assert batches.n_batches == 7
    epochs = []
    for epoch in range(3):
        seen = []
        for batch in range(7):
            which, images = batches.of_step(7 * epoch + batch)
            assert number_of(images) == (which + 33).tolist()
            seen += which.tolist()
        assert len(set(seen)) == 280
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    again = Batches(stored, 40, seed=3)
    for step in (16, 5, 20):  # a fit that goes on in the midst of an epoch
        epoch, batch = divmod(step, 7)
        assert again.of_step(step)[0].tolist() == epochs[epoch][40 * batch : 40 * (batch + 1)]
    for opened in (batches, again):
        opened.close()


def recording(tmp_path: Path) -> tuple[ww.Recording, ww.Recording]:
    """The same recording with its images in memory and on disk."""
    population = simulate_population(30, image_size=(24, 29), seed=0)
    held = simulate(population, 1200, n_test_images=100, seed=0)
    return held, ww.load(ww.save(held, tmp_path / "recording.h5"))


def model(kind: type = ww.FactorizedCNN, **training: Any) -> Any:
    options = {"memory_gib": 1e-3, "max_steps": 150, "batch_size": 64, "check_every": 25, **training}
    return kind("simulation", training=options, penalties={"mask_l1": 0.02}, seed=0)


@pytest.mark.parametrize("kind", [ww.FactorizedCNN, ww.PosteriorCNN])
def test_a_fit_from_disk_is_as_good_and_says_so(kind: type, tmp_path: Path) -> None:
    held, stored = recording(tmp_path)
    penalties = {"mask_l1": 0.02} if kind is ww.FactorizedCNN else {"smoothness": 0.007}
    common = {"max_steps": 300 if kind is ww.FactorizedCNN else 100, "batch_size": 64, "check_every": 25}
    fits = []
    for given, memory in ((held, 4.0), (stored, 1e-3), (held, 1e-3)):
        fit = kind(
            "simulation",
            training={**common, "memory_gib": memory},
            penalties=penalties,
            seed=0,
        ).fit(given)
        fits.append(fit)
    whole, read = fits[:2]
    assert any("they are read as they are needed" in note for note in read.notes_)
    assert not any("they are read as they are needed" in note for note in whole.notes_)
    rates = [fit.predict(held.test.images) for fit in fits]
    np.testing.assert_array_equal(rates[1], rates[2])  # from disk or from memory, the order is the same
    found = [fev(rate, held.test.rates).mean() for rate in rates]
    assert found[0] > 0.5
    assert found[1] == pytest.approx(found[0], abs=0.05)


def test_a_fit_from_disk_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    _, stored = recording(tmp_path)
    undisturbed = model().fit(stored)
    stop = iter(range(10))

    def observer(event: Any) -> None:
        if hasattr(event, "check") and next(stop) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model(checkpoint_seconds=0.0).fit(stored, folder=tmp_path / "run", observer=observer)
    resumed = model(checkpoint_seconds=0.0).fit(stored, folder=tmp_path / "run", resume=True)
    for name, tensor in undisturbed.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name
