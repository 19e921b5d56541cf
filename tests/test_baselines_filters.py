"""What all baselines share: windows, units, odd populations, options and files; the same for every one of them."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import whatwhere as ww
from whatwhere.baselines import GLM, LNP, OLS, Lasso, Ridge
from whatwhere.baselines.base import FilterModel
from whatwhere.catalogue import make_model
from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.losses import EPSILON
from whatwhere.standardisation import Standardisation
from whatwhere.storage import MODEL, MODEL_FILE, read_tensors, write_tensors

CENTRES = np.array([[4, 5], [7, 12], [5, 8], [4, 5], [1, 15], [10, 0]])
KINDS: dict[str, FilterModel] = {
    "ols": OLS(),
    "ridge": Ridge(strengths=[0.1, 10]),
    "lasso": Lasso(strengths=[0.01, 0.1]),
    "glm": GLM(strengths=[0.1, 10]),
    "relu": GLM(strengths=[0.1, 10], nonlinearity="relu", loss="squared"),
    "lnp": LNP(smoothness=[0.1], sparsity=[0.01, 0.1]),
}
EACH = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, **options: Any) -> FilterModel:
    return clone(KINDS[kind]).set_params(**options)


def chosen(model: FilterModel) -> dict[str, list[float]]:
    """The options that fit again with the strengths that the model chose."""
    if isinstance(model, OLS):
        return {}
    return {option: [getattr(model, f"{name}_")] for name, option in model.penalties.items()}


def simulated(n_images: int = 240, n_channels: int = 2, seed: int = 0) -> ww.Recording:
    """Poisson responses to the light in a patch of 3 x 3 of 12 x 17 pixels; 12 held-out images shown 4 times."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, n_channels, 12, 17)).astype(np.float32)
    test, shown = rng.normal(size=(12, n_channels, 12, 17)).astype(np.float32), np.repeat(np.arange(12), 4)

    def rates(some: np.ndarray) -> np.ndarray:
        padded = np.pad(some[:, -1], ((0, 0), (1, 1), (1, 1)))
        return np.logaddexp(0, np.stack([padded[:, i : i + 3, j : j + 3].sum((1, 2)) for i, j in CENTRES], 1))

    table = pd.DataFrame(CENTRES, columns=["row", "column"], index=list("abcdef"))
    held_out = ww.HeldOut(test, rng.poisson(rates(test)[shown]), shown)
    return ww.Recording(images * 20 + 100, rng.poisson(rates(images)), test=held_out, neurons=table)


@pytest.fixture(scope="module")
def recording() -> ww.Recording:
    return simulated()


# ---------------------------------------------------------------------------------------------------------- windows


@EACH
@pytest.mark.parametrize("crop", [5, (4, 6)])
def test_a_crop_is_a_fit_to_the_images_cut_by_hand(kind: str, crop: Any, recording: ww.Recording) -> None:
    model = make(kind, crop=crop, locations="metadata").fit(recording)
    height, width = (crop, crop) if isinstance(crop, int) else crop
    assert model.filters_.shape == (6, 2, height, width)
    losses = []
    for neuron, (row, column) in enumerate(CENTRES):
        top = int(np.clip(np.floor(row - (height - 1) / 2 + 0.5), 0, 12 - height))
        left = int(np.clip(np.floor(column - (width - 1) / 2 + 0.5), 0, 17 - width))
        assert model.positions_[neuron].tolist() == [top, left]
        images = recording.images[:, :, top : top + height, left : left + width]
        one = make(kind, **chosen(model))
        one.fit(images, recording.responses[:, neuron])
        expected = one.predict(images)[:, 0]
        np.testing.assert_allclose(
            model.predict(recording.images)[:, neuron], expected, rtol=1e-3, atol=1e-3 * expected.std()
        )
        losses.append(one.history_["validation_loss"].min())
    assert model.history_["validation_loss"].min() == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_array_equal(model.locations_, CENTRES)


@EACH
def test_a_crop_of_the_images_size_is_the_whole_image(kind: str, recording: ww.Recording) -> None:
    whole, cropped = make(kind).fit(recording), make(kind, crop=(12, 17)).fit(recording)
    np.testing.assert_array_equal(cropped.filters_, whole.filters_)
    np.testing.assert_array_equal(cropped.predict(recording.images[:5]), whole.predict(recording.images[:5]))
    assert not hasattr(whole, "locations_")
    assert cropped.locations_.shape == (6, 2)
    assert not hasattr(cropped.set_params(crop=None).fit(recording), "locations_"), "fitted again"


def test_locations_come_from_the_average_of_the_images_fitted(recording: ww.Recording) -> None:
    model = Ridge(crop=3, sta_smoothing=1).fit(recording)
    found = np.abs(model.locations_ - CENTRES).max(1)
    assert (found <= 1).all()
    rows, validation = recording.split(0.2, seed=0)
    responses = recording.responses.copy()
    responses[validation] = recording.images[validation, 0, 6, 6][:, None] * 1000
    changed = Ridge(crop=3, sta_smoothing=1).fit(ww.Recording(recording.images, responses))
    np.testing.assert_array_equal(changed.locations_, model.locations_)
    np.testing.assert_array_equal(changed.mean_responses_, recording.responses[rows].mean(0, dtype=float))


def test_whole_filters_lie_where_the_windows_are(recording: ww.Recording) -> None:
    model = Ridge(crop=(3, 4), locations="metadata").fit(recording)
    whole = model.whole_filters()
    assert whole.shape == (6, 2, 12, 17)
    for filters, small, (row, column) in zip(whole, model.filters_, model.positions_, strict=True):
        np.testing.assert_array_equal(filters[:, row : row + 3, column : column + 4], small)
        assert np.count_nonzero(filters) == np.count_nonzero(small)
    np.testing.assert_array_equal(model.whole_filters(slice(1, 3)), whole[1:3])
    images = model.standardisation_.apply(recording.images).reshape(240, -1)
    expected = images @ whole.reshape(6, -1).T + model.offset_
    np.testing.assert_allclose(model.predict(recording.images), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["ridge", "glm"])
def test_predict_does_not_depend_on_company(
    kind: str, recording: ww.Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(kind, crop=5).fit(recording)
    together = model.predict(recording.images)
    monkeypatch.setattr("whatwhere.baselines.base._PREDICT_NUMBERS", 100 * (2 * 12 * 17 + 6))
    monkeypatch.setattr("whatwhere.baselines.base._SPREAD_NUMBERS", 4 * 2 * 12 * 17)  # four neurons at a time
    np.testing.assert_allclose(model.predict(recording.images), together, rtol=1e-5, atol=1e-6)
    assert model.predict(recording.images[:0]).shape == (0, 6)


def test_predictions_of_many_large_images_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whatwhere.baselines.base._PREDICT_NUMBERS", 2**18)
    rng = np.random.default_rng(0)
    model = Ridge(crop=3, strengths=[1.0]).fit(rng.normal(size=(20, 2, 60, 70)), rng.normal(size=(20, 4)))
    images = rng.integers(0, 255, (1000, 2, 60, 70), np.uint8)
    tracemalloc.start()
    predictions = model.predict(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert predictions.shape == (1000, 4)
    assert peak < 6 * 4 * 2**18  # as float32 all images would be 32 MiB


# ------------------------------------------------------------------------------------------------- odd populations


@EACH
@pytest.mark.parametrize("crop", [None, 5])
def test_permuting_neurons_permutes_the_results(kind: str, crop: int | None, recording: ww.Recording) -> None:
    order = [3, 0, 5, 1, 4, 2]
    model = make(kind, crop=crop).fit(recording)
    permuted = make(kind, crop=crop).fit(recording.select_neurons(order))
    np.testing.assert_allclose(permuted.filters_, model.filters_[order], atol=1e-5 * np.abs(model.filters_).max())
    np.testing.assert_allclose(permuted.offset_, model.offset_[order], rtol=1e-4, atol=1e-5)
    assert permuted.neurons_ == [model.neurons_[n] for n in order]
    assert chosen(permuted) == chosen(model)


@EACH
@pytest.mark.parametrize("crop", [None, (4, 5)])
def test_one_neuron_is_a_population(kind: str, crop: Any, recording: ww.Recording) -> None:
    alone = make(kind, crop=crop).fit(recording.images, recording.responses[:, 1])
    assert alone.predict(recording.images[:4]).shape == (4, 1)
    among = make(kind, crop=crop, **chosen(alone)).fit(recording)
    expected = among.predict(recording.images)[:, 1]
    np.testing.assert_allclose(alone.predict(recording.images)[:, 0], expected, rtol=1e-3, atol=1e-3)


@EACH
@pytest.mark.parametrize("crop", [None, 5])
def test_constant_and_silent_neurons_are_kept(kind: str, crop: int | None, recording: ww.Recording) -> None:
    responses = recording.responses.copy()
    responses[:, 1], responses[:, 4] = 0, np.float32(0.1)  # 0.1 has a rounded mean, and so a tiny deviation
    odd = replace(recording, responses=responses)
    model = make(kind, crop=crop).fit(odd)
    predictions = model.predict(odd.images)
    assert np.isfinite(predictions).all()
    constant = 0.1 - EPSILON * (kind == "glm")  # the minimum of r - y log(r + eps)
    np.testing.assert_allclose(predictions[:, 4], constant, rtol=1e-5)
    np.testing.assert_allclose(predictions[:, 1], 0, atol=1e-3)
    assert any("2 of 6 neurons never vary (kept, scored 0): b, e" in note for note in model.notes_)
    expected = make(kind, crop=crop, **chosen(model)).fit(recording)
    np.testing.assert_allclose(predictions[:, 2], expected.predict(odd.images)[:, 2], rtol=1e-3, atol=1e-3)


@EACH
def test_tenfold_responses_are_predicted_tenfold(kind: str, recording: ww.Recording) -> None:
    factors = np.array([10, 1, 0.1, 1, 1, 3], np.float32)
    plain = make(kind, crop=5).fit(recording).predict(recording.images)
    scaled = make(kind, crop=5).fit(recording.images, recording.responses * factors).predict(recording.images)
    np.testing.assert_allclose(scaled, plain * factors, rtol=1e-3, atol=1e-3)


@EACH
def test_images_that_never_vary_do_no_harm(kind: str, recording: ww.Recording) -> None:
    flat = make(kind, crop=5).fit(np.ones_like(recording.images), recording.responses)
    rows, _ = recording.split(0.2, seed=0)
    expected = np.tile(recording.responses[rows].mean(0), (3, 1))
    np.testing.assert_allclose(flat.predict(np.ones((3, 2, 12, 17))), expected, rtol=1e-4)


@EACH
def test_images_with_nan_are_left_out_when_told(kind: str, recording: ww.Recording) -> None:
    images = recording.images.copy()
    images[7, 0, 3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        make(kind).fit(images, recording.responses)
    kept = make(kind, crop=5).fit(np.delete(images, 7, 0), np.delete(recording.responses, 7, 0))
    told = make(kind, crop=5, nonfinite="rows").fit(images, recording.responses)
    np.testing.assert_array_equal(told.filters_, kept.filters_)
    assert "left out 1 of 240 images that hold values that are not finite" in told.notes_


@EACH
def test_a_handful_of_images_can_be_fitted(kind: str) -> None:
    few = simulated(4)
    assert np.isfinite(make(kind, crop=5).fit(few).predict(few.images)).all()


@pytest.mark.parametrize("kind", ["ridge", "lasso", "glm", "lnp"])
def test_it_predicts_what_it_has_not_seen(kind: str) -> None:
    data = simulated(1500)
    cropped, whole = (make(kind, crop=crop).fit(data).score(data) for crop in (5, None))
    assert cropped > 0.75
    assert cropped > whole or kind in ("lasso", "lnp"), "an L1 penalty finds the few pixels that count by itself"


# --------------------------------------------------------------------------------------------------- plan and options


@EACH
def test_the_plan_is_told_before_it_starts(kind: str, recording: ww.Recording) -> None:
    plans: dict[Any, list[Any]] = {None: [], 5: []}
    for crop, said in plans.items():
        make(kind, crop=crop).fit(recording, observer=said.append)
    ((whole,), (cropped,)) = plans.values()
    assert (whole.n_parameters, cropped.n_parameters) == ((2 * 12 * 17 + 1) * 6, (2 * 25 + 1) * 6)
    assert whole.n_candidates == cropped.n_candidates == (1 if kind == "ols" else 2)
    assert (cropped.n_images, cropped.n_validation) == (192, 48)
    assert 4 * 240 * 2 * 12 * 17 + 8 * 192 * 2 * 25 < cropped.memory < whole.memory
    assert 0 < cropped.least_seconds < cropped.most_seconds < whole.most_seconds


@EACH
@pytest.mark.parametrize(
    ("shape", "n_images", "n_neurons", "crop"),
    [((2, 30, 36), 80, 5, None), ((1, 9, 14), 500, 60, None), ((1, 24, 30), 150, 40, 7)],
    ids=["many pixels", "many images", "cropped"],
)
def test_memory_is_about_what_the_plan_says(
    kind: str, shape: tuple[int, int, int], n_images: int, n_neurons: int, crop: int | None
) -> None:
    rng = np.random.default_rng(0)
    data = ww.Recording(rng.normal(size=(n_images, *shape)).astype(np.float32), rng.poisson(1.0, (n_images, n_neurons)))
    said: list[Any] = []
    model = make(kind, crop=crop)
    tracemalloc.start()
    model.fit(data, observer=said.append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.5 * peak < said[0].memory < 8 * peak


def test_folds_and_refits_take_their_time_in_the_plan(recording: ww.Recording) -> None:
    said: list[Any] = []
    for options in ({}, {"refit": True}, {"folds": 4}):
        Ridge(crop=5, **options).fit(recording, observer=said.append)
    assert said[1].least_seconds == pytest.approx(2 * said[0].least_seconds)
    assert said[2].least_seconds == pytest.approx(5 * said[0].least_seconds)


@EACH
def test_parameters_are_stored_as_given_and_cloned(kind: str, recording: ww.Recording) -> None:
    model = make(kind, crop=(3, 5), locations="metadata", refit=True, seed=7, nonfinite="rows")
    again = clone(model.fit(recording))
    assert again.get_params() == model.get_params()
    assert again.asked() == model.asked()
    assert not hasattr(again, "filters_")
    with pytest.raises(NotFittedError, match=f"this {type(model).__name__} is not fitted yet: call fit first"):
        again.predict(recording.images)
    json.dumps(model.asked())
    by_name = make_model(model.name, model.asked()["options"], seed=7)
    assert by_name.asked() == model.asked()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, r"crop must be None, a number of pixels or (height, width), whole and at least 1, got 0"),
        ({"crop": 2.5}, "crop must be None, a number of pixels or (height, width), whole and at least 1, got 2.5"),
        ({"crop": (3, 4, 5)}, "crop must be None, a number of pixels or (height, width)"),
        ({"crop": "all"}, "crop must be None, a number of pixels or (height, width), whole and at least 1, got 'all'"),
        ({"crop": True}, "crop must be None"),
        ({"crop": 13}, "crop (=13 x 13) does not fit in images of 12 x 17 pixels, height x width: choose a smaller"),
        ({"crop": 3, "locations": "truth"}, "unknown locations 'truth': expected one of 'average', 'metadata'."),
        ({"locations": "metadata"}, "locations (='metadata') has nothing to act on without crop"),
        ({"sta_smoothing": 1}, "sta_smoothing (=1.0) has nothing to act on without a crop around the average"),
        ({"crop": 3, "locations": "metadata", "sta_smoothing": 1}, "sta_smoothing (=1.0) has nothing to act on"),
        ({"crop": 3, "sta_smoothing": -1}, "sta_smoothing must be a number of pixels, 0 or more, got -1"),
        ({"refit": "yes"}, "refit must be True or False, got 'yes'"),
        ({"validation_fraction": 0}, "validation_fraction must lie between 0 and 1, got 0"),
        ({"standardize": "pixels"}, "unknown standardisation 'pixels'"),
    ],
)
@EACH
def test_options_that_do_not_fit_are_refused(
    kind: str, options: dict[str, Any], message: str, recording: ww.Recording
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make(kind, **options).fit(recording)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be None or a whole number of at least 2, got 1: 5 is usual"),
        ({"folds": 2.5}, "folds must be None or a whole number of at least 2, got 2.5"),
        ({"per_neuron": 1}, "per_neuron must be True or False, got 1"),
        ({"strengths": [0]}, "strengths must be above 0, got 0.0"),
    ],
)
@pytest.mark.parametrize("kind", ["ridge", "lasso", "glm"])
def test_options_of_the_search_are_refused(
    kind: str, options: dict[str, Any], message: str, recording: ww.Recording
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make(kind, **options).fit(recording)


@pytest.mark.parametrize("kind", ["ols", "ridge", "lasso"])
def test_an_offset_is_there_or_not(kind: str, recording: ww.Recording) -> None:
    with pytest.raises(OptionError, match="offset must be True or False, got 1"):
        make(kind, offset=1).fit(recording)


def test_locations_are_looked_for_before_the_fit(recording: ww.Recording) -> None:
    nowhere = ww.Recording(recording.images, recording.responses)
    with pytest.raises(InputError, match="needs the columns 'row' and 'column' in the neurons' table"):
        Ridge(crop=5, locations="metadata").check(nowhere)


# ------------------------------------------------------------------------------------------------------------ files


@EACH
@pytest.mark.parametrize("options", [{}, {"crop": (4, 5)}, {"per_neuron": True, "crop": 3, "locations": "metadata"}])
def test_a_loaded_model_is_the_one_that_was_saved(
    kind: str, options: dict[str, Any], recording: ww.Recording, tmp_path: Path
) -> None:
    if kind == "ols":
        options = {key: value for key, value in options.items() if key != "per_neuron"}
    model = make(kind, seed=3, **options).fit(recording)
    model.save(tmp_path)
    loaded = ww.load_model(tmp_path)
    assert type(loaded) is type(model)
    assert loaded.predict(recording.images).tobytes() == model.predict(recording.images).tobytes()
    assert loaded.asked() == model.asked()
    assert (loaded.neurons_, loaded.shapes_, loaded.seed) == (model.neurons_, model.shapes_, 3)
    for name in model.penalties:
        np.testing.assert_array_equal(getattr(loaded, f"{name}_"), getattr(model, f"{name}_"))
    assert list(loaded.history_.columns) == list(model.history_.columns) == [*model.penalties, "validation_loss"]
    np.testing.assert_array_equal(loaded.whole_filters(), model.whole_filters())
    if "crop" in options:
        np.testing.assert_array_equal(loaded.locations_, model.locations_)
        np.testing.assert_array_equal(loaded.positions_, model.positions_)
        assert loaded.evaluate(recording).summary == model.evaluate(recording).summary
    again = loaded.save(tmp_path / "again")
    assert (again / MODEL_FILE).read_bytes() == (tmp_path / MODEL_FILE).read_bytes()


def test_a_cropped_file_holds_no_whole_filters(recording: ww.Recording, tmp_path: Path) -> None:
    tensors = Ridge(crop=3).fit(recording).tensors()
    assert tensors["filters"].shape == (6, 2, 3, 3)
    assert sum(tensor.numel() for tensor in tensors.values()) == 6 * (18 + 1 + 2 + 2)


def test_files_of_ridge_without_the_newer_options_are_read(recording: ww.Recording, tmp_path: Path) -> None:
    filters, offset = np.random.default_rng(0).normal(size=(6, 2, 12, 17)).astype(np.float32), np.arange(6.0)
    standardisation = Standardisation.fit(recording.images)
    description = {
        "format": MODEL,
        "version": 1,
        "model": "ridge",
        "whatwhere": "0.1.0",
        "data": "0" * 64,
        "shapes": {"n_channels": 2, "height": 12, "width": 17, "n_neurons": 6},
        "neurons": list("abcdef"),
        "seed": 4,
        "options": {"strengths": [1.0, 2.0], "standardize": "global", "validation_fraction": 0.2},
        "strength": 2.0,
    }
    tensors = {
        "filters": torch.from_numpy(filters),
        "offset": torch.from_numpy(offset.astype(np.float32)),
        "mean_responses": torch.zeros(6, dtype=torch.float64),
        "standardisation/mean": torch.tensor(standardisation.mean),
        "standardisation/std": torch.tensor(standardisation.std),
    }
    write_tensors(tmp_path / MODEL_FILE, tensors, description)
    shown = {key: value for key, value in description.items() if key != "neurons"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(shown))
    model = ww.load_model(tmp_path)
    assert isinstance(model, ww.Ridge)
    expected = standardisation.apply(recording.images).reshape(240, -1) @ filters.reshape(6, -1).T + offset
    np.testing.assert_allclose(model.predict(recording.images), expected, rtol=1e-4, atol=1e-4)
    assert (model.strength_, model.crop, model.folds, model.refit) == (2.0, None, None, False)
    assert model.asked() == Ridge(strengths=[1, 2], seed=4).asked()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("filters", (6, 2, 12, 17), r"filters has shape \(6, 2, 12, 17\), expected \(6, 2, 3, 3\)"),
        ("offset", (5,), r"offset has shape \(5,\), expected \(6,\)"),
        ("positions", (6, 3), r"positions has shape \(6, 3\), expected \(6, 2\)"),
        ("locations", (5, 2), r"locations has shape \(5, 2\), expected \(6, 2\)"),
        ("scale", (7,), r"scale has shape \(7,\), expected \(6,\)"),
        ("positions", None, "positions"),
    ],
)
def test_files_whose_parts_do_not_fit_are_refused(
    name: str, shape: tuple[int, ...] | None, message: str, recording: ww.Recording, tmp_path: Path
) -> None:
    GLM(crop=3, strengths=[1]).fit(recording).save(tmp_path)
    tensors, description = read_tensors(tmp_path / MODEL_FILE, MODEL, 1)
    del tensors[name]
    if shape is not None:
        tensors[name] = torch.zeros(shape, dtype=torch.int64 if name == "positions" else torch.float32)
    write_tensors(tmp_path / MODEL_FILE, tensors, description)
    with pytest.raises(FormatError, match=message):
        ww.load_model(tmp_path)


def test_windows_outside_the_image_in_a_file_are_refused(recording: ww.Recording, tmp_path: Path) -> None:
    model = Ridge(crop=3).fit(recording)
    model.positions_ = model.positions_ + 10
    model.save(tmp_path)
    with pytest.raises(FormatError, match="windows of 3 x 3 pixels reach out of images of 12 x 17 for neuron"):
        ww.load_model(tmp_path)
