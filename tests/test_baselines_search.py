"""How a strength is chosen: on one part, over folds, for all neurons or for each; and what is fitted in the end."""

from typing import Any

import numpy as np
import pytest

import whatwhere as ww
from whatwhere.baselines import GLM, Lasso, Ridge
from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.search import validation_parts
from whatwhere.errors import InputError

STRENGTHS = {"ridge": [0.01, 1.0, 100.0], "lasso": [0.003, 0.03, 0.3], "glm": [0.01, 1.0, 100.0]}
KINDS: dict[str, type[FilterModel]] = {"ridge": Ridge, "lasso": Lasso, "glm": GLM}
EACH = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, **options: Any) -> FilterModel:
    return KINDS[kind](**{"strengths": STRENGTHS[kind], **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recording() -> ww.Recording:
    """Counts with little noise, with much, and with no signal at all; two channels of 5 x 8."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(203, 2, 5, 8)).astype(np.float32)
    drive = images.reshape(203, -1) @ rng.normal(size=(80, 4)) / 8
    rates = np.array([60, 2, 0.5, 3]) * np.exp(drive * [0.7, 0.7, 0.7, 0])
    return ww.Recording(images * 3 + 7, rng.poisson(rates))


def test_folds_hold_every_image_out_once_and_images_together() -> None:
    ids = np.repeat(np.arange(20), [1, 2, 3, 4] * 5)
    data = ww.Recording(np.zeros((50, 3, 4)), np.zeros((50, 2)), image_ids=ids)
    parts = validation_parts(data, 0.2, 4, seed=1)
    assert len(parts) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), np.arange(50))
    for rows, held in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([rows, held])), np.arange(50))
        assert not set(ids[rows]) & set(ids[held])
        assert len(set(ids[held])) == 5
    again = validation_parts(data, 0.2, 4, seed=1)
    assert all((a[1] == b[1]).all() for a, b in zip(parts, again, strict=True))
    other = validation_parts(data, 0.2, 4, seed=2)
    assert any(len(a[1]) != len(b[1]) or (a[1] != b[1]).any() for a, b in zip(parts, other, strict=True))
    with pytest.raises(InputError, match=r"folds \(=21\) needs at least as many different images, but there are 20"):
        validation_parts(data, 0.2, 21, seed=1)
    ((rows, held),) = validation_parts(data, 0.2, None, seed=1)
    np.testing.assert_array_equal(rows, data.split(0.2, 1)[0])
    np.testing.assert_array_equal(held, data.split(0.2, 1)[1])


@EACH
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("crop", [None, (3, 4)])
def test_cross_validation_is_a_loop_over_folds(kind: str, refit: bool, crop: Any, recording: ww.Recording) -> None:
    model = make(kind, folds=3, refit=refit, crop=crop, seed=5).fit(recording)
    total = np.zeros(3)
    for _, held in validation_parts(recording, 0.2, 3, seed=5):
        told = ww.Recording(
            recording.images, recording.responses, validation=np.isin(np.arange(recording.n_images), held)
        )
        total += len(held) * make(kind, crop=crop).fit(told).history_["validation_loss"].to_numpy()
    np.testing.assert_allclose(model.history_["validation_loss"], total / recording.n_images, rtol=1e-6)
    assert model.strength_ == STRENGTHS[kind][int(total.argmin())]
    rows, _ = recording.split(0.2, seed=5)
    if refit:
        rows = np.arange(recording.n_images)
    final = fitted_to(kind, rows, recording, model.strength_, crop=crop)
    np.testing.assert_allclose(model.predict(recording.images), final.predict(recording.images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.mean_responses_, recording.responses[rows].mean(0), rtol=1e-5)


def fitted_to(kind: str, rows: np.ndarray, recording: ww.Recording, strength: Any, **options: Any) -> FilterModel:
    """A fit to these rows alone, judged on one image appended for the purpose."""
    images = np.concatenate([recording.images[rows], recording.images[:1]])
    responses = np.concatenate([recording.responses[rows], recording.responses[:1]])
    judged = np.arange(len(rows) + 1) == len(rows)
    return make(kind, strengths=[strength], **options).fit(ww.Recording(images, responses, validation=judged))


@EACH
@pytest.mark.parametrize("crop", [None, (3, 4)])
def test_a_refit_is_a_fit_to_all_images_with_the_strength_chosen(kind: str, crop: Any, recording: ww.Recording) -> None:
    model, once = make(kind, refit=True, crop=crop).fit(recording), make(kind, crop=crop).fit(recording)
    assert model.strength_ == once.strength_
    np.testing.assert_array_equal(model.history_, once.history_)
    final = fitted_to(kind, np.arange(recording.n_images), recording, model.strength_, crop=crop)
    np.testing.assert_allclose(model.predict(recording.images), final.predict(recording.images), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.mean_responses_, recording.responses.mean(0), rtol=1e-5)
    assert np.abs(model.predict(recording.images) - once.predict(recording.images)).max() > 0.01


@EACH
@pytest.mark.parametrize("options", [{}, {"crop": (3, 4)}, {"folds": 3}, {"refit": True}])
def test_each_neuron_can_have_its_own_strength(kind: str, options: dict[str, Any], recording: ww.Recording) -> None:
    model = make(kind, per_neuron=True, **options).fit(recording)
    assert model.strength_.shape == (4,)
    assert len(set(model.strength_)) > 1
    for neuron in range(4):
        alone = make(kind, **options).fit(recording.images, recording.responses[:, neuron])
        assert alone.strength_ == model.strength_[neuron]
        expected = alone.predict(recording.images)[:, 0]
        np.testing.assert_allclose(model.predict(recording.images)[:, neuron], expected, rtol=1e-3, atol=1e-3)


@EACH
def test_the_order_of_the_strengths_does_not_matter(kind: str, recording: ww.Recording) -> None:
    weak, middle, strong = STRENGTHS[kind]
    model = make(kind).fit(recording)
    other = make(kind, strengths=[middle, strong, weak]).fit(recording)
    assert other.history_["strength"].tolist() == [middle, strong, weak]
    np.testing.assert_array_equal(other.history_["validation_loss"], model.history_["validation_loss"][[1, 2, 0]])
    np.testing.assert_array_equal(other.filters_, model.filters_)


@EACH
@pytest.mark.parametrize("options", [{}, {"per_neuron": True}, {"crop": (3, 4)}])
def test_solutions_too_many_to_keep_are_solved_again(
    kind: str, options: dict[str, Any], recording: ww.Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = make(kind, **options).fit(recording)
    monkeypatch.setattr("whatwhere.baselines.search.KEPT_NUMBERS", 0)
    again = make(kind, **options).fit(recording)
    np.testing.assert_allclose(again.filters_, kept.filters_, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(again.history_, kept.history_)


@EACH
def test_neurons_in_batches_are_solved_alike(
    kind: str, recording: ww.Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = make(kind, crop=(3, 4)).fit(recording)
    monkeypatch.setattr("whatwhere.baselines.search.BATCH_NUMBERS", 1)  # one neuron at a time
    apart = make(kind, crop=(3, 4)).fit(recording)
    np.testing.assert_allclose(apart.filters_, together.filters_, rtol=1e-5, atol=1e-6)


def test_a_split_that_the_experimenter_made_is_kept(recording: ww.Recording) -> None:
    judged = np.arange(recording.n_images) % 4 == 1
    told = ww.Recording(recording.images, recording.responses, validation=judged)
    model = make("ridge").fit(told)
    np.testing.assert_allclose(model.mean_responses_, recording.responses[~judged].mean(0), rtol=1e-5)
    everything = make("ridge", refit=True).fit(told)
    np.testing.assert_allclose(everything.mean_responses_, recording.responses.mean(0), rtol=1e-5)
