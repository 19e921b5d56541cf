"""The formats that are folders of .npy files: the published layouts, whole, partial and broken."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from whatwhere import formats
from whatwhere.errors import FormatError
from whatwhere.formats import antolik

DATA = Path(os.environ.get("WHATWHERE_DATA") or Path(__file__).parents[2] / "shared" / "data")


def region(folder, side=6, n_neurons=3):
    """A tiny region: every array random, with its published shape's axes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays = {
        "training_inputs": rng.random((7, side * side)),
        "training_set": rng.random((7, n_neurons)),
        "validation_inputs": rng.random((4, side * side)),
        "raw_validation_set": rng.random((2, 4, n_neurons)),
    }
    arrays["validation_set"] = arrays["raw_validation_set"].mean(axis=0)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return arrays


def test_antolik_region(tmp_path):
    arrays = region(tmp_path / "region1")
    made = formats.load(tmp_path / "region1")
    np.testing.assert_allclose(made.read_images()[:, 0, 2, 5], arrays["training_inputs"][:, 2 * 6 + 5], rtol=1e-6)
    np.testing.assert_allclose(made.responses, arrays["training_set"], rtol=1e-6)
    np.testing.assert_array_equal(made.test.n_repeats, 2)
    np.testing.assert_allclose(made.test.mean_responses(), arrays["validation_set"], rtol=1e-6)
    assert made.name == "region1"


def test_antolik_without_single_trials_or_test_set_says_so(tmp_path):
    arrays = region(tmp_path / "a")
    (tmp_path / "a" / "raw_validation_set.npy").unlink()
    made = formats.load(tmp_path / "a")
    np.testing.assert_allclose(made.test.responses, arrays["validation_set"], rtol=1e-6)
    assert "averages over repeats" in made.notes[0]
    (tmp_path / "a" / "validation_inputs.npy").unlink()
    made = formats.load(tmp_path / "a")
    assert made.test is None
    assert made.notes == ("no test set: validation_inputs.npy, raw_validation_set.npy is missing",)


def test_antolik_without_training_images_says_where_they_belong(tmp_path):
    region(tmp_path / "region2")
    missing = tmp_path / "region2" / "training_inputs.npy"
    missing.unlink()
    with pytest.raises(FormatError) as caught:
        formats.load(tmp_path / "region2")
    for part in (
        str(missing),
        "supplement S1",
        "10.1371/journal.pcbi.1004927",
        "whatwhere data fetch antolik2016",
    ):
        assert part in str(caught.value)
    found = formats.inspect(tmp_path / "region2")
    assert [item.status for item in found.items] == ["missing"] + ["present"] * 4
    assert "(7, 3) float64, not a published file" in found.items[1].detail
    assert str(missing) in found.problem


def test_antolik_parent_folders_ask_for_one_region(tmp_path):
    for number in (1, 2, 3):
        region(tmp_path / "Data" / f"region{number}")
    for path in (tmp_path, tmp_path / "Data"):
        with pytest.raises(FormatError, match=r"name one of them, .*Data/region1"):
            formats.load(path)
        assert len(formats.inspect(path).items) == 15


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("training_inputs", np.zeros((7, 35)), "35 pixels an image, not a square"),
        ("training_inputs", np.zeros(36), "expected .n_images, n_pixels."),
        ("raw_validation_set", np.zeros((2, 5, 3)), "expected .n_repeats, 4, n_neurons."),
        ("training_set", np.zeros((6, 3)), "responses has 6 rows but images has 7"),
        (
            "training_set",
            np.array([None, 1]),
            "training_set.npy holds Python objects, which are never loaded",
        ),
    ],
)
def test_antolik_refuses(tmp_path, name, array, message):
    region(tmp_path / "a")
    np.save(tmp_path / "a" / f"{name}.npy", array)
    with pytest.raises(ValueError, match=message):
        formats.load(tmp_path / "a")
    assert formats.inspect(tmp_path / "a").problem


def test_a_truncated_npy_is_named(tmp_path):
    region(tmp_path / "a")
    path = tmp_path / "a" / "training_set.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"training_set\.npy is not a whole \.npy array"):
        formats.load(tmp_path / "a")
    assert formats.inspect(tmp_path / "a").items[1].status == "unreadable"


def tree(folder, tiers="ttvtttess", ids=(0, 1, 2, 0, 4, 5, 9, 7, 7), seed=0):
    """A tiny file tree of nine trials: t train, v validation, s test, e another tier."""
    rng = np.random.default_rng(seed)
    names = {"t": "train", "v": "validation", "s": "test", "e": "final_test"}
    for name in ("data/images", "data/responses", "meta/trials", "meta/neurons"):
        (folder / name).mkdir(parents=True)
    pixels = rng.integers(0, 255, (10, 1, 5, 8)).astype(np.uint8)
    responses = rng.random((9, 3))
    for trial, image in enumerate(ids):
        np.save(folder / f"data/images/{trial}.npy", pixels[image])
        np.save(folder / f"data/responses/{trial}.npy", responses[trial])
    np.save(folder / "meta/trials/tiers.npy", np.array([names[tier] for tier in tiers]))
    np.save(folder / "meta/trials/frame_image_id.npy", np.array(ids))
    np.save(folder / "meta/neurons/unit_ids.npy", np.array([7, 3, 5], np.uint16))
    np.save(folder / "meta/neurons/cell_motor_coordinates.npy", np.arange(9.0).reshape(3, 3))
    np.save(folder / "meta/neurons/layer.npy", np.array(["L2/3", "L4", "L4"]))
    return pixels, responses


def test_file_tree(tmp_path):
    pixels, responses = tree(tmp_path / "scan")
    made = formats.load(tmp_path / "scan")
    np.testing.assert_array_equal(made.images, pixels[[0, 1, 2, 0, 4, 5]])
    np.testing.assert_array_equal(made.responses, responses[:6].astype(np.float32))
    np.testing.assert_array_equal(made.split()[1], [2])
    np.testing.assert_array_equal(made.image_ids, [0, 1, 2, 0, 4, 5])
    np.testing.assert_array_equal(made.test.images, pixels[[7]])
    np.testing.assert_array_equal(made.test.image_index, [0, 0])
    np.testing.assert_array_equal(made.test.responses, responses[7:].astype(np.float32))
    assert list(made.neurons.index) == [7, 3, 5]
    assert list(made.neurons.columns) == ["x", "y", "z", "layer"]
    assert list(made.neurons["y"]) == [1, 4, 7]
    assert made.notes == ("trials of other tiers were not read: {'final_test': 1}",)


def test_a_partial_file_tree_is_read_as_far_as_it_goes(tmp_path):
    tree(tmp_path, tiers="ttvtttsss")
    for file in ("images/6", "responses/6", "responses/1"):
        (tmp_path / "data" / f"{file}.npy").unlink()
    made = formats.load(tmp_path)
    assert (made.n_images, made.test.n_trials) == (5, 2)
    assert "1 trials have an image or a response but not both" in made.notes[0]
    assert "7 of the 9 trials listed are here (4 of 5 train, 1 of 1 validation, 2 of 3 test)" in made.notes[1]
    found = formats.inspect(tmp_path)
    assert ("data/responses", "7 trials") in [(item.name, item.detail) for item in found.items]


def test_file_tree_groups_repeats_by_pixels_where_identifiers_fail(tmp_path):
    pixels, _ = tree(tmp_path / "a", tiers="ttvtttsss")
    np.save(tmp_path / "a/meta/trials/frame_image_id.npy", np.zeros(9, int))
    made = formats.load(tmp_path / "a")
    assert sorted(made.test.n_repeats) == [1, 2]
    np.testing.assert_array_equal(made.test.read_images()[made.test.image_index], pixels[[9, 7, 7]])
    assert "grouped by their pixels" in made.notes[0]
    (tmp_path / "a/meta/trials/frame_image_id.npy").unlink()
    assert sorted(formats.load(tmp_path / "a").test.n_repeats) == [1, 2]


def test_file_tree_never_unpickles_and_says_so(tmp_path):
    tree(tmp_path)
    np.save(tmp_path / "meta/neurons/area.npy", np.array(["V1", None, {}]))
    np.save(tmp_path / "meta/neurons/unit_ids.npy", np.array([1, 1, 2]))
    np.save(tmp_path / "meta/neurons/odd.npy", np.zeros(4))
    made = formats.load(tmp_path)
    assert list(made.neurons.index) == [0, 1, 2]
    assert list(made.neurons["unit_ids"]) == [1, 1, 2]
    assert "area.npy was not read: Python objects are never loaded" in " ".join(made.notes)
    assert "odd.npy was not read: shape (4,)" in " ".join(made.notes)


def test_file_tree_refuses(tmp_path):
    tree(tmp_path / "a")
    np.save(tmp_path / "a/data/images/3.npy", np.zeros((1, 8, 5)))
    with pytest.raises(FormatError, match=r"images/3\.npy has shape \(1, 8, 5\), but 0\.npy \(1, 5, 8\)"):
        formats.load(tmp_path / "a")
    tree(tmp_path / "b", tiers="sssssssss")
    with pytest.raises(FormatError, match="no trial of the tiers 'train' and 'validation'"):
        formats.load(tmp_path / "b")
    (tmp_path / "b/meta/trials/tiers.npy").unlink()
    with pytest.raises(FormatError, match=r"tiers\.npy is missing"):
        formats.load(tmp_path / "b")
    assert "missing" in [item.status for item in formats.inspect(tmp_path / "b").items]
    shutil.rmtree(tmp_path / "b/data/images")
    with pytest.raises(FormatError, match="images is missing"):
        formats.load(tmp_path / "b")
    tree(tmp_path / "c", tiers="ttvtttess"[:5])
    with pytest.raises(FormatError, match="for trials up to 8"):
        formats.load(tmp_path / "c")


def test_file_tree_survives_conversion(tmp_path):
    tree(tmp_path / "scan")
    made = formats.load(tmp_path / "scan")
    for suffix in (".h5", ".npz"):
        saved = formats.save(made, tmp_path / f"scan{suffix}")
        assert formats.load(saved).fingerprint() == made.fingerprint()


@pytest.mark.data
@pytest.mark.parametrize("name", antolik.REGIONS)
def test_the_published_regions_are_recognised(name):
    path = DATA / "antolik2016" / "Data" / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    found = formats.inspect(path)
    assert found.format == "antolik"
    for item in found.items:
        assert item.status == "missing" or f"as published for {name}" in item.detail or name in item.detail
    if found.summary is None:
        assert "training_inputs.npy is missing" in found.problem


@pytest.mark.data
def test_the_partial_file_tree_of_lurz_2021():
    path = DATA / "lurz2020" / "static20457-5-9-preproc0"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    made = formats.load(path)
    assert (made.n_images, made.n_neurons, made.image_shape) == (1210, 5335, (1, 36, 64))
    assert made.validation.sum() == 131
    assert made.test.n_images == 29
    np.testing.assert_array_equal(made.test.n_repeats, 10)
    assert "1,500 of the 5,993 trials" in made.notes[0]
    clean = made.check_nonnegative()
    assert "18,220 responses negative by rounding" in clean.notes[-1]
    assert clean.responses.min() >= 0
