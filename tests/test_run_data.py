"""What a run keeps of its recording: the numbers, and that damage is named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import run_data
from whatwhere.errors import FormatError, InputError
from whatwhere.heldout import trial_means
from whatwhere.run_data import data_of, held_responses, keep_data, read_data, shrunken, thumbnails


def recording(rng: np.random.Generator, n_channels: int = 1) -> ww.Recording:
    images = rng.normal(size=(60, n_channels, 8, 11)).astype(np.float32)
    index = np.array([2, 0, 1, 0, 2, 2, 3])  # ragged: image 1 and 3 once, 0 twice, 2 three times
    test = ww.HeldOut(rng.normal(size=(4, n_channels, 8, 11)), rng.normal(size=(7, 3)), index)
    neurons = pd.DataFrame(
        {"depth": [1.5, np.nan, 3.0], "area": ["V1", None, "LM"], "good": [True, False, True]}, index=["b", "a", "c"]
    )
    return ww.Recording(images, rng.normal(size=(60, 3)), test=test, neurons=neurons)


def test_means_and_errors_are_those_of_each_images_trials(rng: np.random.Generator) -> None:
    test = recording(rng).test
    means, errors = trial_means(test.responses, test.image_index, np.array([2, 0, 3]))
    for place, image in enumerate([2, 0, 3]):
        trials = test.responses[test.image_index == image].astype(float)
        np.testing.assert_allclose(means[place], trials.mean(0), rtol=1e-6)
        if len(trials) > 1:
            np.testing.assert_allclose(errors[place], trials.std(0, ddof=1) / np.sqrt(len(trials)), rtol=1e-5)
    assert np.isnan(errors[2]).all()
    sums = np.zeros((4, 3))
    np.add.at(sums, test.image_index, test.responses.astype(float))
    np.testing.assert_allclose(test.mean_responses(), sums / test.n_repeats[:, None], rtol=1e-12)
    fewer, _ = trial_means(test.responses[3:], test.image_index[3:], np.arange(4))
    np.testing.assert_array_equal(np.isnan(fewer).all(1), [False, True, False, False])  # never shown


def test_what_is_kept_comes_back(rng: np.random.Generator, tmp_path: Path) -> None:
    given = recording(rng)
    model = ww.Ridge(strengths=[1.0]).fit(given)
    data = data_of(model, given, "whatwhere fit x.h5 --out 'a b'")
    keep_data(data, tmp_path)
    found = read_data(tmp_path, 3)
    assert found is not None
    assert found.facts == json.loads(json.dumps(data.facts))
    assert found.facts["command"] == "whatwhere fit x.h5 --out 'a b'"
    assert found.facts["neurons"] == {
        "depth": [1.5, None, 3.0],
        "area": ["V1", None, "LM"],
        "good": ["True", "False", "True"],
    }
    assert (found.facts["recording"]["repeats_min"], found.facts["recording"]["repeats_max"]) == (1, 3)
    assert found.held is not None
    np.testing.assert_array_equal(found.held.predictions, model.predict(given.test.images))
    assert found.held.n_images == 4
    np.testing.assert_array_equal(found.held.n_repeats, [2, 1, 3, 1])
    np.testing.assert_array_equal(found.held.thumbnails, thumbnails(given.test.read_images()))


def test_columns_of_lists_are_left_out_and_large_identifiers_stay(rng: np.random.Generator) -> None:
    bare = recording(rng)
    columns = {
        "trace": [[1, 2], None, [3]],
        "shape": [np.zeros(2), np.ones(3), np.ones(1)],
        "root": [864691135571546917, 864691135571546918, -864691135571546919],
        "id": [517399188, 517399189, 517399190],
        "layer": pd.array([2, None, 4], dtype="Int64"),
    }
    given = replace(bare, neurons=pd.DataFrame(columns, index=["a", "b", "c"]))
    model = ww.Ridge(strengths=[1.0]).fit(given)
    facts = data_of(model, given).facts
    assert facts["columns_not_kept"] == ["trace", "shape"]
    assert json.loads(json.dumps(facts["neurons"])) == {
        "root": ["864691135571546917", "864691135571546918", "-864691135571546919"],
        "id": [517399188.0, 517399189.0, 517399190.0],
        "layer": [2.0, None, 4.0],
    }


def test_of_many_columns_the_first_are_kept_and_the_others_named(rng: np.random.Generator, tmp_path: Path) -> None:
    bare = recording(rng)
    columns = {f"column {number}": np.arange(3.0) + number for number in range(11)}
    given = replace(bare, neurons=pd.DataFrame({"trace": [[1], [2], [3]], **columns}, index=["a", "b", "c"]))
    keep_data(data_of(ww.Ridge(strengths=[1.0]).fit(given), given), tmp_path)
    facts = read_data(tmp_path, 3).facts
    assert list(facts["neurons"]) == [f"column {number}" for number in range(8)]
    assert facts["columns_not_kept"] == ["trace", "column 8", "column 9", "column 10"]


def test_of_a_recording_with_other_neurons_the_models_own_are_kept(rng: np.random.Generator) -> None:
    given = recording(rng)
    model = ww.Ridge(strengths=[1.0]).fit(given.select_neurons([2, 0]))
    held = data_of(model, given).held
    assert held is not None
    np.testing.assert_allclose(held.observed, given.test.mean_responses()[:, [2, 0]], rtol=1e-6)
    with pytest.raises(InputError, match=r"lacks 1 of the 2 neurons that the model was fitted to: c"):
        data_of(model, given.select_neurons([0, 1]))


def test_of_very_many_predictions_evenly_spaced_images_are_kept(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recording(rng)
    model = ww.Ridge(strengths=[1.0]).fit(given)
    monkeypatch.setattr(run_data, "MOST_NUMBERS", 6)  # two images of three neurons
    held = held_responses(model, given.test)
    np.testing.assert_array_equal(held.rows, [0, 3])
    np.testing.assert_allclose(held.observed, given.test.mean_responses()[[0, 3]], rtol=1e-6)
    assert held.n_images == 4


def test_pictures_are_of_evenly_spaced_images(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    given = recording(rng)
    model = ww.Ridge(strengths=[1.0]).fit(given)
    monkeypatch.setattr(run_data, "MOST_THUMBNAILS", 2)
    held = held_responses(model, given.test)
    np.testing.assert_array_equal(held.pictured, [0, 3])
    np.testing.assert_array_equal(held.thumbnails, thumbnails(given.test.read_images(np.array([0, 3]))))


def test_without_a_test_set_there_are_facts_alone(rng: np.random.Generator, tmp_path: Path) -> None:
    given = recording(rng)
    keep_data(data_of(ww.Ridge(strengths=[1.0]).fit(given), given), tmp_path)
    bare = ww.Recording(given.images, given.responses)
    keep_data(data_of(ww.Ridge(strengths=[1.0]).fit(bare), bare), tmp_path)
    found = read_data(tmp_path, 3)
    assert found is not None
    assert found.held is None
    assert "n_test_images" not in found.facts["recording"]
    assert not (tmp_path / "heldout.npz").exists()
    assert read_data(tmp_path / "nothing", 3) is None


@pytest.mark.parametrize(
    ("n_channels", "shape"), [(1, (2, 1, 20, 30)), (3, (2, 3, 20, 30)), (2, (2, 1, 20, 30)), (5, (2, 1, 20, 30))]
)
def test_thumbnails_have_one_or_three_channels(rng: np.random.Generator, n_channels: int, shape: tuple) -> None:
    images = rng.integers(0, 255, (2, n_channels, 60, 90)).astype(np.uint8)
    small = thumbnails(images, 30)
    assert small.shape == shape
    assert small.dtype == np.uint8
    if n_channels == 1:  # brighter stays brighter, averaged over squares of 3 pixels
        means = images[:, 0].reshape(2, 20, 3, 30, 3).mean((2, 4))
        order = np.argsort(means.ravel())
        assert (np.diff(small.ravel()[order].astype(int)) >= 0).all()


def test_shrinking_is_the_mean_of_squares_ends_included(rng: np.random.Generator) -> None:
    values = rng.normal(size=(2, 3, 5, 7))
    small = shrunken(values, 2)
    assert small.shape == (2, 3, 3, 4)
    np.testing.assert_allclose(small[..., 0, 0], values[..., :2, :2].mean((-1, -2)))
    np.testing.assert_allclose(small[..., 2, 3], values[..., 4, 6])
    np.testing.assert_allclose(shrunken(np.full((4, 4), 2.0), 3), 2.0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("predictions", lambda values: values[:3], "predictions has 3 rows but rows has 4"),
        ("errors", lambda values: values[:, :2], r"errors has shape \(4, 2\): expected a column for each of 3 neurons"),
        ("n_repeats", lambda values: values[:2], "n_repeats has 2 rows but rows has 4"),
        ("rows", lambda values: values + 1, "rows holds 4, out of range: expected positions of test images, 0 to 3"),
        ("thumbnails", lambda values: values[:, 0], r"thumbnails has shape \(4, 8, 11\): expected \(n, 1 or 3, height"),
        ("thumbnails", lambda values: np.repeat(values, 2, 0), "thumbnails has 8 rows but pictured has 4"),
        ("pictured", lambda values: values + 1, "pictured holds 4, out of range: expected positions of rows, 0 to 3"),
    ],
)
def test_responses_that_do_not_fit_together_are_refused(
    rng: np.random.Generator, tmp_path: Path, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    given = recording(rng)
    data = data_of(ww.Ridge(strengths=[1.0]).fit(given), given)
    keep_data(replace(data, held=replace(data.held, **{name: change(getattr(data.held, name))})), tmp_path)
    with pytest.raises(FormatError, match=f"cannot be read .*{message}.*: delete both"):
        read_data(tmp_path, 3)


@pytest.mark.parametrize("damage", ["truncated", "changed", "other neurons", "no JSON", "lacks a part"])
def test_damaged_files_are_named(rng: np.random.Generator, tmp_path: Path, damage: str) -> None:
    given = recording(rng)
    keep_data(data_of(ww.Ridge(strengths=[1.0]).fit(given), given), tmp_path)
    if damage == "truncated":
        content = (tmp_path / "heldout.npz").read_bytes()
        (tmp_path / "heldout.npz").write_bytes(content[: len(content) // 2])
    elif damage == "changed":  # within compressed numbers, which then are none
        content = bytearray((tmp_path / "heldout.npz").read_bytes())
        start = content.index(b"predictions.npy") + len("predictions.npy") + 20  # behind the member's name
        content[start : start + 8] = bytes(255 - value for value in content[start : start + 8])
        (tmp_path / "heldout.npz").write_bytes(content)
    elif damage != "other neurons":
        (tmp_path / "data.json").write_text("{" if damage == "no JSON" else "{}")
    with pytest.raises(FormatError, match=r"data.json and heldout.npz that cannot be read .*: delete both"):
        read_data(tmp_path, 2 if damage == "other neurons" else 3)
