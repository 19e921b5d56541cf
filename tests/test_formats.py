"""Choosing a reader, and the formats that can be written: what is saved is what is loaded."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest

from whatwhere import formats
from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.recording import HeldOut, Recording

SUFFIXES = (".h5", ".npz")


def full(seed=0, dtype=np.uint8):
    """Not square, three channels, ragged repeats, metadata of every kind."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 255, (9, 3, 5, 8)).astype(dtype)
    test = HeldOut(images[:2], rng.random((5, 2)), [0, 1, 1, 0, 1], rates=rng.random((2, 2)))
    neurons = pd.DataFrame(
        {"depth": [1.5, np.nan], "layer": ["L2/3", "Schicht ä"], "tuned": [True, False], "n": [3, 4]},
        index=["a", "b"],
    )
    ids = np.array(list("aabbccdde"))
    mask = np.arange(9) > 6
    return Recording(
        images, rng.random((9, 2)), test=test, neurons=neurons, validation=mask, image_ids=ids, name="full"
    )


def plain():
    return Recording(np.random.default_rng(0).random((9, 1, 5, 8)), np.arange(18.0).reshape(9, 2), name="plain")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("made", [full(), full(dtype=np.float64), plain()], ids=["uint8", "float64", "plain"])
def test_what_is_saved_is_what_is_loaded(tmp_path, made, suffix, compress):
    path = formats.save(made, tmp_path / f"recording{suffix}", compress=compress)
    loaded = formats.load(path)
    assert loaded.fingerprint() == made.fingerprint()
    assert loaded.name == made.name
    assert loaded.notes == ()
    assert loaded.images.dtype == made.images.dtype
    pd.testing.assert_frame_equal(loaded.neurons, made.neurons, check_index_type=False, check_dtype=False)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_select_then_save_equals_save_then_select(tmp_path, suffix):
    made = full()
    path = formats.save(made, tmp_path / f"all{suffix}")
    some = formats.save(made.select_images([8, 2, 3]).select_neurons([1]), tmp_path / f"some{suffix}")
    selected = formats.load(path).select_images([8, 2, 3]).select_neurons([1])
    assert formats.load(some).fingerprint() == selected.fingerprint()


def test_hdf5_images_stay_on_disk_and_travel_between_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("whatwhere.formats.hdf5.DISK_CHUNK_BYTES", 240)
    loaded = formats.load(formats.save(full(), tmp_path / "a.h5", compress=True))
    assert loaded.summary()["images_on_disk"]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["images"].chunks == (2, 3, 5, 8)
        assert dict(file.attrs) == {"format": "whatwhere-recording", "version": 1, "name": "full"}
    assert pickle.loads(pickle.dumps(loaded)).fingerprint() == full().fingerprint()
    again = formats.save(loaded, tmp_path / "a.h5", overwrite=True)
    assert formats.load(again).fingerprint() == full().fingerprint()


def test_saving_never_overwrites_unasked_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = formats.save(plain(), tmp_path / "a.npz")
    with pytest.raises(FormatError, match="exists already"):
        formats.save(full(), path)
    monkeypatch.setattr(np, "savez", lambda *args, **arrays: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        formats.save(full(), path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    assert formats.load(path).fingerprint() == plain().fingerprint()
    with pytest.raises(FormatError, match=r"expected one of \.nwb, \.h5, \.hdf5, \.npz"):
        formats.save(full(), tmp_path / "a.mat")
    with pytest.raises(FormatError, match="does not exist: make it first"):
        formats.save(full(), tmp_path / "b" / "a.h5")


def test_the_reader_is_chosen_by_looking_or_by_name(tmp_path):
    path = formats.save(plain(), tmp_path / "a.h5").rename(tmp_path / "a.session")
    assert formats.load(path).fingerprint() == plain().fingerprint()
    with pytest.raises(OptionError, match="Did you mean 'hdf5'"):
        formats.load(path, "hdf")
    with pytest.raises(FormatError, match=r"not a whole \.npz file"):
        formats.load(path, "npz")


def test_paths_that_hold_no_recording(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        formats.load(tmp_path / "a.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(FormatError, match="is empty"):
        formats.load(tmp_path / "empty.h5")
    assert "is empty" in formats.inspect(tmp_path / "empty.h5").problem
    for known in ("hdf5: ", "npz: ", "antolik: ", "filetree: "):
        with pytest.raises(FormatError, match=known):
            formats.load(tmp_path)
    assert formats.inspect(tmp_path).format is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path, suffix, share):
    path = formats.save(full(), tmp_path / f"cut{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=f"cut{suffix} is not a whole"):
        formats.load(path)
    assert "is not a whole" in formats.inspect(path).problem


def test_inspect_lists_the_arrays_and_sums_up(tmp_path):
    for suffix in SUFFIXES:
        found = formats.inspect(formats.save(full(), tmp_path / f"a{suffix}"))
        assert found.summary["n_images"] == 9
        assert found.problem is None
        assert ("images", "(9, 3, 5, 8) uint8") in [(item.name, item.detail) for item in found.items]


def test_values_that_are_not_finite_name_the_file_and_can_be_left_out(tmp_path):
    responses = np.ones((4, 2))
    responses[1, 0] = np.nan
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 5, 8)), responses=responses)
    with pytest.raises(InputError, match=r"a\.npz: responses holds 1 value .* neuron 0 in row 1"):
        formats.load(tmp_path / "a.npz")
    assert formats.load(tmp_path / "a.npz", nonfinite="rows").n_images == 3
    assert formats.load(tmp_path / "a.npz", nonfinite="neurons").n_neurons == 1


BASE = {"images": np.zeros((4, 5, 8)), "responses": np.ones((4, 2))}
TEST = {"test_images": np.zeros((3, 5, 8))}


def load_npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **BASE | arrays)
    return formats.load(tmp_path / "a.npz")


def test_npz_accepts_repeats_and_single_trials(tmp_path):
    repeats = np.random.default_rng(0).random((2, 3, 2))
    repeats[0, 2] = np.nan
    made = load_npz(tmp_path, **TEST, test_repeats=repeats)
    np.testing.assert_array_equal(made.test.n_repeats, [2, 2, 1])
    np.testing.assert_allclose(made.test.mean_responses(), np.nanmean(repeats, axis=0), rtol=1e-6)
    made = load_npz(tmp_path, **TEST, test_responses=repeats[1], neuron_depth=[3.0, 4.0], behaviour=np.zeros(4))
    np.testing.assert_array_equal(made.test.image_index, [0, 1, 2])
    assert list(made.neurons["depth"]) == [3, 4]
    assert made.notes == ("not part of the format, not read: behaviour",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"responses": np.array([None] * 4)},
            "array 'responses' in .*Python objects, which are never loaded",
        ),
        ({"respones": np.ones(4)}, "'respones'.*Did you mean 'responses'"),
        ({"test_responses": np.ones((3, 2))}, "a test set needs test_images"),
        (TEST | {"test_responses": np.ones((6, 2))}, "no test_image_index"),
        (TEST | {"test_repeats": np.ones((3, 4, 2))}, "n_repeats, n_images, n_neurons"),
        ({"neuron_x": np.ones(2), "neuron_y": np.ones(3)}, "one value per neuron each"),
    ],
)
def test_npz_refuses(tmp_path, arrays, message):
    with pytest.raises((FormatError, InputError), match=message):
        load_npz(tmp_path, **arrays)


def test_npz_without_images_is_an_error(tmp_path):
    np.savez(tmp_path / "a.npz", responses=np.ones(4))
    with pytest.raises(FormatError, match="holds no 'images', only responses"):
        formats.load(tmp_path / "a.npz")


def test_hdf5_refuses(tmp_path):
    path = formats.save(full(), tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(FormatError, match=r"version 2 .* up to version 1: update whatwhere"):
        formats.load(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 1
        file["test"].move("responses", "respones")
    with pytest.raises(FormatError, match="Did you mean 'responses'"):
        formats.load(path)
    with h5py.File(path, "a") as file:
        del file["test/respones"]
    with pytest.raises(FormatError, match="without 'test/responses'"):
        formats.load(path)
    with h5py.File(path, "a") as file:
        del file["images"]
    with pytest.raises(FormatError, match="no dataset 'images'"):
        formats.load(path)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "another"
    with pytest.raises(FormatError, match="says that it is a 'another'"):
        formats.load(path)


def test_a_column_that_cannot_be_stored_is_named(tmp_path):
    made = Recording(np.zeros((4, 5, 8)), np.ones(4), neurons={"a/b": [1]})
    with pytest.raises(FormatError, match="column 'a/b' cannot be stored"):
        formats.save(made, tmp_path / "a.h5")


def test_npz_with_a_flipped_bit_names_the_array(tmp_path):
    np.savez(tmp_path / "a.npz", **BASE)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(b"NUMPY") + 400] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"array 'images' in .* is not a whole"):
        formats.load(tmp_path / "a.npz")
