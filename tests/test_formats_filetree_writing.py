"""Writing the file tree: what is saved is what is loaded, and what other loaders find there."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from whatwhere import formats
from whatwhere.errors import FormatError, OptionError, WriteError
from whatwhere.formats.hdf5 import StoredRows
from whatwhere.recording import HeldOut, Recording


def recording(ids=None, *, names=("a", "b"), dtype=np.uint8, channels=3, test=True, validation=True, rates=False):
    """Not square, ragged repeats, two test images of the very same pixels, metadata of every kind."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (9, channels, 5, 8)).astype(dtype)
    n = len(names)
    shown = images[[7, 2, 7]]
    held = HeldOut(shown, rng.random((6, n)), [2, 1, 1, 0, 1, 2], rates=rng.random((3, n)) if rates else None)
    neurons = pd.DataFrame(
        {
            "z": np.arange(n) * 2.5,
            "layer": ["L2/3", "Schicht ä"][:n],
            "x": np.arange(n) * 1.5,
            "tuned": [True, False][:n],
            "y": np.arange(n) * -1.0,
            "depth": [1.5, np.nan][:n],
        },
        index=list(names),
    )
    return Recording(
        images,
        rng.random((9, n)),
        test=held if test else None,
        neurons=neurons,
        validation=np.arange(9) > 6 if validation else None,
        image_ids=ids,
        name="session 3",
    )


MADE = {
    "all of it": recording(list("aabbccdde"), rates=True),
    "no identifiers of images": recording(),
    "identifiers that fill their dtype": recording(np.array([255, 0, 1, 2, 3, 4, 5, 6, 7], np.uint8), names=(7, 3)),
    "identifiers that look like ours": recording(["test0", "test_", "testa", *"bcdefg"]),
    "floats of one channel": recording(dtype=np.float64, channels=1, names=(20, 10)),
    "one neuron, no test": recording(names=("only",), test=False),
    "no split": recording(np.arange(9) * -3, validation=False),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_tree_that_is_saved_is_what_is_loaded(tmp_path, made):
    path = formats.save(made, tmp_path / "tree", "filetree")
    loaded = formats.load(path)
    assert loaded.fingerprint() == made.fingerprint()
    assert (loaded.name, loaded.images.dtype) == (made.name, made.images.dtype)
    pd.testing.assert_frame_equal(loaded.neurons, made.neurons, check_names=False, check_dtype=False)
    np.testing.assert_array_equal(loaded.split()[1], made.split()[1])
    assert [folder.name for folder in tmp_path.iterdir()] == ["tree"]
    assert formats.load(formats.save(loaded, tmp_path / "again.h5")).fingerprint() == made.fingerprint()


def test_images_and_test_images_keep_each_their_dtype(tmp_path):
    test = HeldOut(np.linspace(0, 1, 16).reshape(2, 2, 4), np.ones((2, 1)), [0, 1])
    made = Recording(np.zeros((3, 2, 4), np.uint8), np.arange(3.0), test=test)
    loaded = formats.load(formats.save(made, tmp_path / "tree", "filetree"))
    assert (loaded.images.dtype, loaded.test.images.dtype) == (np.uint8, np.float64)
    assert loaded.fingerprint() == made.fingerprint()


def test_what_a_loader_of_the_field_finds(tmp_path):
    made = recording()
    path = formats.save(made, tmp_path / "tree", "filetree")
    train = ~made.validation
    at = path / "meta" / "statistics"
    for name, values, axis in (("images", made.images, None), ("responses", made.responses, 0)):
        found = {file.stem: np.load(file) for file in (at / name / "all").iterdir()}
        assert set(found) == {"mean", "std"}
        np.testing.assert_allclose(found["mean"], values[train].astype(float).mean(axis), rtol=1e-6)
        np.testing.assert_allclose(found["std"], values[train].astype(float).std(axis), rtol=1e-6)
        assert found["mean"].shape == (() if axis is None else (2,))
    tiers, ids = (np.load(path / "meta" / "trials" / f"{name}.npy") for name in ("tiers", "frame_image_id"))
    assert list(tiers) == ["train"] * 7 + ["validation"] * 2 + ["test"] * 6
    np.testing.assert_array_equal(ids, [*range(9), 11, 10, 10, 9, 10, 11])
    for trial, shown in enumerate([7, 2, 7][i] for i in made.test.image_index):
        np.testing.assert_array_equal(np.load(path / f"data/images/{9 + trial}.npy"), made.images[shown])
    coordinates = np.load(path / "meta/neurons/cell_motor_coordinates.npy")
    np.testing.assert_array_equal(coordinates, [[0, 0, 0], [1.5, -1, 2.5]])
    assert list(np.load(path / "meta/neurons/unit_ids.npy")) == ["a", "b"]
    assert not (path / "meta/neurons/x.npy").exists()


def test_pixels_that_never_vary_have_a_spread_to_divide_by(tmp_path):
    path = formats.save(Recording(np.full((3, 2, 4), 7), np.ones((3, 1))), tmp_path / "tree", "filetree")
    assert np.load(path / "meta/statistics/images/all/std.npy") == 1
    assert np.load(path / "meta/statistics/responses/all/std.npy") == 0


def test_images_on_disk_are_never_held_whole(tmp_path):
    rng = np.random.default_rng(0)
    made = Recording(rng.integers(0, 255, (96, 3, 1024, 512), np.uint8), rng.random((96, 2)))  # 144 MiB
    stored = formats.load(formats.save(made, tmp_path / "a.h5"))
    assert isinstance(stored.images, StoredRows)
    kept = made.images[95].copy()
    del made
    tracemalloc.start()
    path = formats.save(stored, tmp_path / "tree", "filetree")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.75 * stored.summary()["images_bytes"]
    np.testing.assert_array_equal(np.load(path / "data/images/95.npy"), kept)


def test_a_folder_is_replaced_only_where_it_was_saved_here(tmp_path, monkeypatch):
    made = recording()
    path = formats.save(made, tmp_path / "tree", "filetree")
    with pytest.raises(FormatError, match="exists already"):
        formats.save(made, path, "filetree")
    other = recording(channels=1)
    assert formats.load(formats.save(other, path, "filetree", overwrite=True)).fingerprint() == other.fingerprint()
    (tmp_path / "mine").mkdir()
    formats.save(made, tmp_path / "mine", "filetree", overwrite=True)  # an empty folder is nobody's loss
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("all of it")
    with pytest.raises(FormatError, match="holds other things than a recording saved here"):
        formats.save(made, foreign, "filetree", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(FormatError, match="file is a file, filetree is not"):
        formats.save(made, tmp_path / "file", "filetree", overwrite=True)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(WriteError, match=r"No space left on device.* unharmed"):
        formats.save(made, path, "filetree", overwrite=True)
    monkeypatch.undo()
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: full() if str(a).endswith(".tmp") else replace(a, b))
    with pytest.raises(WriteError, match="No space left"):
        formats.save(made, path, "filetree", overwrite=True)
    monkeypatch.undo()
    assert formats.load(path).fingerprint() == other.fingerprint()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "foreign", "mine", "tree"]


def test_the_format_of_a_destination(tmp_path):
    made = recording()
    with pytest.raises(FormatError, match=r"tree ends in '': expected one of .*or for a folder the format 'filetree'"):
        formats.save(made, tmp_path / "tree")
    with pytest.raises(OptionError, match="Did you mean 'filetree'"):
        formats.save(made, tmp_path / "tree", "file-tree")
    with pytest.raises(FormatError, match=r"ends in '\.h5', as hdf5 does, but filetree was asked for"):
        formats.save(made, tmp_path / "tree.h5", "filetree")
    with pytest.raises(FormatError, match="antolik can only be read: expected one of nwb, hdf5, npz, filetree"):
        formats.save(made, tmp_path / "tree", "antolik")
    with pytest.raises(OptionError, match="cannot be compressed"):
        formats.save(made, tmp_path / "tree", "filetree", compress=True)
    with pytest.raises(OptionError, match="hdf5 is written without options: got 'delay'"):
        formats.save(made, tmp_path / "a.h5", delay=1)
    assert not list(tmp_path.iterdir())
    path = formats.save(made, tmp_path / "tree", "hdf5")
    with pytest.raises(OptionError, match="hdf5 is read without options: got 'delay'"):
        formats.load(path, delay=1)


@pytest.mark.parametrize("column", ["unit_ids", "cell_motor_coordinates", "a/b", "a\\b"])
def test_a_column_that_has_no_place_is_named(tmp_path, column):
    made = Recording(np.zeros((3, 2, 4)), np.ones((3, 1)), neurons=pd.DataFrame({column: [1]}))
    with pytest.raises(FormatError, match=r"the neurons' column '.*' (has no place|cannot be stored)"):
        formats.save(made, tmp_path / "tree", "filetree")
    assert not list(tmp_path.iterdir())


def test_what_is_written_beside_may_be_partial_or_broken(tmp_path):
    path = formats.save(recording(rates=True), tmp_path / "tree", "filetree")
    (path / "data/images/12.npy").unlink()  # the only trial of the first test image
    made = formats.load(path)
    assert made.test.n_images == 2
    assert made.test.rates is None
    assert "test_rates.npy was not used: shape (3, 2) for 2 test images" in " ".join(made.notes)
    description = Path(path / "meta/whatwhere/description.json")
    assert json.loads(description.read_text())["name"] == "session 3"
    description.write_text("[]")
    with pytest.raises(FormatError, match=r"description\.json holds list: expected an object"):
        formats.load(path)
    description.write_text("{")
    with pytest.raises(FormatError, match=r"description\.json is not whole"):
        formats.load(path)
