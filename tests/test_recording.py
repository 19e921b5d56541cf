"""The recording: what it accepts and refuses, splits, selections, rounding dust, and standardisation."""

import h5py
import numpy as np
import pandas as pd
import pytest

from whatwhere.errors import InputError, OptionError
from whatwhere.recording import HeldOut, Recording, Standardisation

HEIGHT, WIDTH = 5, 8


def held_out(rng, n_neurons=4, **more):
    index = np.array([0, 1, 1, 2, 2, 2])
    return HeldOut(rng.random((3, 1, HEIGHT, WIDTH)), rng.random((6, n_neurons)), index, **more)


def recording(seed=0, n_images=12, n_neurons=4, **more):
    rng = np.random.default_rng(seed)
    images = rng.random((n_images, 1, HEIGHT, WIDTH))
    return Recording(images, rng.random((n_images, n_neurons)), test=held_out(rng, n_neurons), **more)


def on_disk(tmp_path, images):
    file = h5py.File(tmp_path / "images.h5", "w")
    return file.create_dataset("images", data=images)


def test_properties_keep_height_before_width_and_the_stored_dtype():
    images = np.zeros((6, 3, HEIGHT, WIDTH), np.uint8)
    made = Recording(images, np.arange(6))
    assert (made.n_images, made.n_neurons, made.n_channels, made.height, made.width) == (6, 1, 3, 5, 8)
    assert made.image_shape == (3, 5, 8)
    assert made.images.dtype == np.uint8
    assert made.read_images([2]).dtype == np.float32
    assert made.responses.dtype == np.float32


def test_three_dimensional_images_get_one_channel():
    assert Recording(np.zeros((6, HEIGHT, WIDTH)), np.arange(6)).image_shape == (1, HEIGHT, WIDTH)


def test_the_users_arrays_are_neither_changed_nor_shared():
    images, responses = np.zeros((4, HEIGHT, WIDTH)), np.zeros((4, 2), np.float32)
    made = Recording(images, responses)
    images[:] = responses[:] = 7
    assert made.read_images().max() == made.responses.max() == 0
    with pytest.raises(ValueError, match="read-only"):
        made.responses[0] = 1


@pytest.mark.parametrize(
    ("images", "responses", "message"),
    [
        (np.zeros((5, 5, 8)), np.zeros((4, 2)), "responses has 4 rows but images has 5"),
        (np.zeros((5, 8)), np.zeros((5, 2)), "images has 2 dimensions"),
        (np.zeros((5, 5, 8)), np.zeros((5, 2, 2)), "responses has 3 dimensions"),
        (np.zeros((5, 5, 8), complex), np.zeros(5), "images has dtype complex128"),
        (np.zeros((5, 5, 8)), np.array(["a"] * 5), "responses has dtype <U1"),
        (np.zeros((5, 5, 8)), np.array([None] * 5), "responses has dtype object"),
        (np.zeros((0, 5, 8)), np.zeros((0, 2)), "images is empty"),
        (np.zeros((5, 5, 8)), np.zeros((5, 0)), "responses is empty, shape .5, 0.: expected at least one"),
    ],
)
def test_wrong_arrays_are_refused(images, responses, message):
    with pytest.raises(InputError, match=message):
        Recording(images, responses)


def test_values_that_are_not_finite_are_named_by_neuron_and_row():
    responses = np.zeros((6, 2))
    responses[3, 1], responses[4, 0] = np.nan, np.inf
    neurons = pd.DataFrame(index=["a", "b"])
    with pytest.raises(InputError, match="holds 2 values that are not finite: neuron b in row 3, neuron a in row 4"):
        Recording(np.zeros((6, 5, 8)), responses, neurons=neurons)
    with pytest.raises(InputError, match="neuron 0 in row 1"):
        Recording(np.zeros((2, 5, 8)), np.array([0, 1e300]))


def test_images_that_are_not_finite_are_named_by_row(tmp_path):
    images = np.zeros((6, 1, 5, 8))
    images[4, 0, 1, 1] = np.nan
    with pytest.raises(InputError, match="1 of the rows read: row 4"):
        Recording(images, np.zeros(6))
    lazy = Recording(on_disk(tmp_path, images), np.zeros(6))
    assert lazy.read_images([0, 5]).shape == (2, 1, 5, 8)
    with pytest.raises(InputError, match="row 4"):
        lazy.read_images([5, 4])


def test_nonfinite_rows_are_left_out_with_a_note(tmp_path):
    rng = np.random.default_rng(0)
    images, responses = rng.random((6, 1, 5, 8)), rng.random((6, 3))
    images[1, 0, 0, 0] = responses[2, 0] = np.nan
    trials = rng.random((6, 3))
    trials[0, 1] = np.nan  # the only trial of the first test image
    test = HeldOut(rng.random((3, 1, 5, 8)), trials, [0, 1, 1, 2, 2, 2], nonfinite="keep")
    for stored in (images, on_disk(tmp_path, images)):
        made = Recording(stored, responses, test=test, nonfinite="rows")
        np.testing.assert_array_equal(made.responses, responses[[0, 3, 4, 5]].astype(np.float32))
        np.testing.assert_array_equal(made.read_images(), images[[0, 3, 4, 5]].astype(np.float32))
        assert "left out 2 of 6 images" in made.notes[0]
        assert "left out 1 of 6 test trials" in made.notes[1]
        assert (made.test.n_images, made.test.n_trials) == (2, 5)


def test_nonfinite_neurons_are_left_out_with_a_note():
    responses = np.ones((6, 4))
    responses[2, 0] = np.nan
    trials = np.ones((2, 4))
    trials[1, 3] = np.inf
    test = HeldOut(np.zeros((1, 5, 8)), trials, [0, 0], nonfinite="keep")
    made = Recording(np.zeros((6, 5, 8)), responses, test=test, neurons={"x": range(4)}, nonfinite="neurons")
    assert list(made.neurons["x"]) == [1, 2]
    assert made.test.n_neurons == 2
    assert "left out 2 of 4 neurons that hold values that are not finite: 0, 3" in made.notes[0]


def test_everything_nonfinite_is_an_error():
    for nonfinite in ("rows", "neurons"):
        with pytest.raises(InputError, match="none would be left"):
            Recording(np.zeros((3, 5, 8)), np.full((3, 2), np.nan), nonfinite=nonfinite)
    with pytest.raises(OptionError, match="Did you mean 'rows'"):
        Recording(np.zeros((3, 5, 8)), np.zeros(3), nonfinite="row")


def test_neurons_table_must_fit():
    with pytest.raises(InputError, match=r"names 'a' more than once"):
        Recording(np.zeros((3, 5, 8)), np.zeros((3, 2)), neurons=pd.DataFrame(index=["a", "a"]))
    with pytest.raises(InputError, match="neurons has 3 rows but responses 2 columns"):
        Recording(np.zeros((3, 5, 8)), np.zeros((3, 2)), neurons={"x": [1, 2, 3]})


def test_validation_and_ids_must_fit():
    with pytest.raises(InputError, match="validation has shape"):
        Recording(np.zeros((3, 5, 8)), np.zeros(3), validation=[0, 1, 1])
    with pytest.raises(InputError, match="validation is True for all 3"):
        Recording(np.zeros((3, 5, 8)), np.zeros(3), validation=[True] * 3)
    with pytest.raises(InputError, match="image_ids has shape"):
        Recording(np.zeros((3, 5, 8)), np.zeros(3), image_ids=[1, 2])


def test_held_out_must_fit():
    images = np.zeros((2, HEIGHT, WIDTH))
    with pytest.raises(InputError, match="out of range in trial 1: got 2, expected 0 to 1"):
        HeldOut(images, np.zeros(2), [0, 2])
    with pytest.raises(InputError, match="no trial of test image 1"):
        HeldOut(images, np.zeros(2), [0, 0])
    with pytest.raises(InputError, match="one row per trial"):
        HeldOut(images, np.zeros(3), [0, 1])
    with pytest.raises(InputError, match="neuron 0 in trial 1"):
        HeldOut(images, [0, np.nan], [0, 1])
    with pytest.raises(InputError, match="test rates has 3 rows but test images has 2"):
        HeldOut(images, np.zeros(2), [0, 1], rates=np.zeros(3))
    test = HeldOut(images, np.zeros((2, 3)), [0, 1])
    with pytest.raises(InputError, match="test has 3 neurons but responses has 2"):
        Recording(np.zeros((3, HEIGHT, WIDTH)), np.zeros((3, 2)), test=test)
    with pytest.raises(InputError, match=r"shape \(1, 5, 8\) but images \(1, 8, 5\)"):
        Recording(np.zeros((3, WIDTH, HEIGHT)), np.zeros((3, 3)), test=test)
    with pytest.raises(InputError, match="test is a tuple"):
        Recording(images, np.zeros((2, 3)), test=(images, 0))


def test_mean_responses_and_noise_share_follow_their_definitions():
    rng = np.random.default_rng(1)
    test = held_out(rng)
    for image in range(3):
        mean = test.responses[test.image_index == image].mean(axis=0)
        np.testing.assert_allclose(test.mean_responses()[image], mean, rtol=1e-6)
    np.testing.assert_array_equal(test.n_repeats, [1, 2, 3])
    rates = rng.standard_normal((400, 1))
    repeats = rates + 2 * rng.standard_normal((20, 400, 1))
    noise = HeldOut.from_repeats(np.zeros((400, HEIGHT, WIDTH)), repeats).noise_share()
    np.testing.assert_allclose(noise, 4 / (4 + rates.var()), rtol=0.03)
    assert HeldOut(np.zeros((2, 5, 8)), np.zeros(2), [0, 1]).noise_share() is None


def test_repeats_with_gaps_are_the_trials_that_were_shown():
    repeats = np.arange(12.0).reshape(2, 3, 2)
    repeats[1, 0] = np.nan
    test = HeldOut.from_repeats(np.zeros((3, 5, 8)), repeats)
    np.testing.assert_array_equal(test.n_repeats, [1, 2, 2])
    np.testing.assert_allclose(test.mean_responses(), np.nanmean(repeats, axis=0))


@pytest.mark.parametrize("n_images", [2, 3, 10, 57])
def test_split_covers_every_row_once(n_images):
    made = recording(n_images=n_images)
    train, validation = made.split(0.2, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(n_images))
    assert len(validation) == max(1, round(0.2 * n_images))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(validation) > 0)
    for once, again in zip(made.split(seed=3), made.split(seed=3), strict=True):
        np.testing.assert_array_equal(once, again)


def test_split_keeps_one_images_rows_together_and_honours_the_predeclared_one():
    ids = np.repeat(np.arange(10), 3)
    train, validation = recording(n_images=30, image_ids=ids).split(0.3)
    assert not set(ids[train]) & set(ids[validation])
    assert len(validation) == 9
    mask = np.arange(30) % 7 == 0
    train, validation = recording(n_images=30, validation=mask).split(0.5)
    np.testing.assert_array_equal(validation, np.flatnonzero(mask))
    np.testing.assert_array_equal(train, np.flatnonzero(~mask))


def test_split_that_cannot_be_made_is_an_error():
    with pytest.raises(InputError, match="needs at least 2 different images"):
        recording(n_images=1).split()
    with pytest.raises(InputError, match="12 rows that show 1 image"):
        recording(image_ids=["a"] * 12).split()
    with pytest.raises(OptionError, match="between 0 and 1"):
        recording().split(1.0)


def test_select_neurons_takes_test_and_table_along():
    made = recording(neurons=pd.DataFrame({"x": [10, 11, 12, 13]}, index=list("abcd")))
    some = made.select_neurons([3, 1])
    np.testing.assert_array_equal(some.responses, made.responses[:, [3, 1]])
    np.testing.assert_array_equal(some.test.responses, made.test.responses[:, [3, 1]])
    assert list(some.neurons.index) == ["d", "b"]
    assert made.select_neurons([False, True, False, True]).fingerprint() == made.select_neurons([1, 3]).fingerprint()
    drawn = made.select_neurons(2, seed=5)
    assert drawn.fingerprint() == made.select_neurons(2, seed=5).fingerprint()
    assert list(drawn.neurons.index) == sorted(drawn.neurons.index)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (5, "expected 1 to 4"),
        (0, "expected 1 to 4"),
        ([4], "out of range"),
        ([-1], "out of range"),
        ([1, 1], "twice"),
        ([], "at least one"),
        ([True], "one per neuron"),
        ([0.5], "dtype float64"),
        ([False] * 4, "selects no neuron"),
    ],
)
def test_select_neurons_refuses(which, message):
    with pytest.raises(InputError, match=message):
        recording().select_neurons(which)


def test_select_images_commutes_with_reading_in_memory_and_on_disk(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, HEIGHT, WIDTH)).astype(np.uint8)
    rows = np.array([31, 2, 2, 30, 17])
    for stored in (images, on_disk(tmp_path, images)):
        made = Recording(stored, np.arange(40), image_ids=np.arange(40))
        some = made.select_images(rows)
        np.testing.assert_array_equal(some.read_images(), images[rows, None].astype(np.float32))
        np.testing.assert_array_equal(some.select_images([3, 0]).read_images(), made.read_images([30, 31]))
        np.testing.assert_array_equal(some.image_ids, rows)
        assert some.images.dtype == np.uint8


def test_a_selection_on_one_side_of_the_predeclared_split_drops_it():
    some = recording(validation=np.arange(12) > 8).select_images([0, 1, 2])
    assert some.validation is None
    assert "all on one side" in some.notes[0]


def test_constant_neurons_are_kept_and_named():
    responses = np.random.default_rng(0).random((6, 3))
    responses[:, 1] = 0.25
    made = Recording(np.zeros((6, 5, 8)), responses, neurons=pd.DataFrame(index=["a", "b", "c"]))
    np.testing.assert_array_equal(made.constant_neurons(), [1])
    assert made.summary()["constant_neurons"] == ["b"]


def test_rounding_dust_becomes_zero_and_real_negatives_are_refused():
    rng = np.random.default_rng(0)
    responses, trials = rng.random((12, 3)), rng.random((2, 3))
    responses[4, 0] = responses[5, 1] = trials[1, 1] = -1e-8
    responses[:, 2] = -1e-9  # constant: measured by the others
    test = HeldOut(np.zeros((1, 5, 8)), trials, [0, 0])
    made = Recording(np.zeros((12, 5, 8)), responses, test=test)
    clean = made.check_nonnegative()
    assert clean.responses.min() == 0 == clean.test.responses.min()
    assert made.responses.min() < 0
    assert "15 responses negative by rounding" in clean.notes[0]
    assert clean.check_nonnegative() is clean
    responses[7, 0] = -0.1
    with pytest.raises(InputError, match=r"1 negative value, .*neuron 0 in row 7 \(-0.1\).*squared error"):
        Recording(np.zeros((12, 5, 8)), responses, test=test).check_nonnegative()
    test = HeldOut(np.zeros((1, 5, 8)), -trials, [0, 0])
    with pytest.raises(InputError, match="test responses holds"):
        Recording(np.zeros((12, 5, 8)), rng.random((12, 3)), test=test).check_nonnegative()


def test_summary_says_the_numbers():
    made = recording(notes=("from a test",))
    summary = made.summary()
    assert summary["image_shape"] == (1, HEIGHT, WIDTH)
    assert (summary["repeats_min"], summary["repeats_max"]) == (1, 3)
    assert summary["mean_response"] == pytest.approx(made.responses.mean(), rel=1e-6)
    assert summary["negative_share"] == 0
    assert summary["reliability"] == pytest.approx(1 - np.median(made.test.noise_share()))
    assert summary["images_bytes"] == 12 * HEIGHT * WIDTH * 8
    assert summary["notes"] == ["from a test"]


def test_fingerprint_tells_data_apart_and_not_where_it_lies(tmp_path):
    images, responses = np.random.default_rng(0).random((6, 1, HEIGHT, WIDTH)), np.arange(6)
    made = Recording(images, responses)
    assert made.fingerprint() == Recording(on_disk(tmp_path, images), responses, name="b").fingerprint()
    others = [
        Recording(images.reshape(6, 1, WIDTH, HEIGHT), responses),
        Recording(images.astype(np.float32), responses),
        Recording(images, responses[::-1]),
        Recording(images, responses, image_ids=np.arange(6)),
        Recording(images, responses, neurons=pd.DataFrame(index=["a"])),
        Recording(images, responses, test=HeldOut(images, responses, np.arange(6))),
    ]
    assert len({made.fingerprint(), *(other.fingerprint() for other in others)}) == 7


@pytest.mark.parametrize(("mode", "axes"), [("global", (0, 1, 2, 3)), ("pixel", (0,))])
def test_standardisation_uses_the_given_rows_alone(mode, axes, tmp_path, monkeypatch):
    monkeypatch.setattr("whatwhere.standardisation.row_chunks", lambda images, _: [slice(0, 7), slice(7, 20)])
    images = (1e4 + np.random.default_rng(0).random((30, 3, HEIGHT, WIDTH))).astype(np.float64)
    rows = np.arange(20)
    for stored in (images, on_disk(tmp_path, images)):
        fitted = Standardisation.fit(stored, mode, rows=rows)
        shape = np.broadcast_shapes(fitted.mean.shape, (3, HEIGHT, WIDTH))
        np.testing.assert_allclose(np.broadcast_to(fitted.mean, shape), np.broadcast_to(images[rows].mean(axes), shape))
        np.testing.assert_allclose(
            np.broadcast_to(fitted.std, shape), np.broadcast_to(images[rows].std(axes), shape), rtol=1e-6
        )
        np.testing.assert_allclose(fitted.invert(fitted.apply(images)), images, atol=2e-3)


def test_standardisation_of_constant_pixels_and_none():
    images = np.full((7, 1, HEIGHT, WIDTH), 0.1)
    fitted = Standardisation.fit(images, "pixel")
    np.testing.assert_array_equal(fitted.std, 1)
    np.testing.assert_allclose(fitted.apply(images), 0, atol=1e-7)
    np.testing.assert_array_equal(Standardisation.fit(images, "none").apply(images), images.astype(np.float32))
    assert images.max() == 0.1


@pytest.mark.parametrize("mode", ["global", "pixel", "none"])
def test_grey_and_contrast_are_kept_beside_any_standardisation(mode, monkeypatch):
    monkeypatch.setattr("whatwhere.standardisation.row_chunks", lambda images, _: [slice(0, 7), slice(7, 20)])
    images = np.random.default_rng(0).random((30, 3, HEIGHT, WIDTH)) + np.arange(3)[:, None, None]
    rows = np.arange(5, 25)
    fitted = Standardisation.fit(images, mode, rows=rows)
    np.testing.assert_allclose(fitted.grey[:, 0, 0], images[rows].mean((0, 2, 3)))
    assert fitted.contrast == pytest.approx(np.sqrt(images[rows].var((2, 3)).mean()))
    flat = np.full((7, 1, HEIGHT, WIDTH), 0.1) + np.arange(7)[:, None, None, None]
    monkeypatch.undo()
    assert Standardisation.fit(flat, mode).contrast == 0


def test_standardisation_refuses():
    images = np.zeros((7, 1, HEIGHT, WIDTH))
    with pytest.raises(OptionError, match="Did you mean 'pixel'"):
        Standardisation.fit(images, "pixels")
    with pytest.raises(InputError, match=r"statistics are of shape \(1, 5, 8\)"):
        Standardisation.fit(images, "pixel").apply(np.zeros((7, 1, WIDTH, HEIGHT)))
    with pytest.raises(InputError, match="std holds 0"):
        Standardisation(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
