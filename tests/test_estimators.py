"""The convolutional estimators: scikit-learn's manner, the responses' units, and options that all have an effect."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import whatwhere as ww
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN
from whatwhere.estimators.preparation import choose_device
from whatwhere.metrics import correlation

CORE = ww.CoreOptions(kernel_sizes=(5, 3), n_maps=3, padding=("valid", "same"))
TRAINING = ww.TrainingOptions(batch_size=32, max_steps=20, check_every=5, learning_rate=0.01)
STRENGTHS = {
    "factorized": ww.PenaltyOptions(product_l1=0.03),
    "fixed-mask": ww.PenaltyOptions(feature_l1=0.003),
    "fully-connected": ww.PenaltyOptions(weight_l2=0.1),
    "gaussian": ww.PenaltyOptions(feature_l1=0.003),
    "posterior": ww.PenaltyOptions(feature_l1=0.003),
}
CNNS = (ww.FactorizedCNN, ww.FixedMaskCNN, ww.FullyConnectedCNN, ww.GaussianCNN, ww.PosteriorCNN)
CENTRES = np.array([[4, 5], [7, 12], [5, 8], [6, 3], [4, 13], [7, 7]])


def simulated(n_images: int = 240, n_channels: int = 1, seed: int = 0) -> ww.Recording:
    """Poisson responses to the light in a patch of 3 x 3 of 12 x 17 pixels; 12 held-out images shown 4 times."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, n_channels, 12, 17)).astype(np.float32)
    test, shown = rng.normal(size=(12, n_channels, 12, 17)).astype(np.float32), np.repeat(np.arange(12), 4)

    def rates(some: np.ndarray) -> np.ndarray:
        patches = [some[:, -1, i - 1 : i + 2, j - 1 : j + 2].sum((1, 2)) for i, j in CENTRES]
        return np.logaddexp(0, np.stack(patches, 1))

    held_out = ww.HeldOut(test, rng.poisson(rates(test)[shown]), shown)
    return ww.Recording(images, rng.poisson(rates(images)), test=held_out)


def make(kind: type[CNN] = ww.FactorizedCNN, seed: int = 0, **options: object) -> CNN:
    chosen = {"core": CORE, "penalties": STRENGTHS[kind.name], "training": TRAINING} | options
    return kind(seed=seed, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def recording() -> ww.Recording:
    return simulated()


@pytest.fixture(scope="module")
def fitted(recording: ww.Recording) -> CNN:
    return make(training=replace(TRAINING, max_steps=150)).fit(recording)


# ------------------------------------------------------------------------------------------------- the interface


@pytest.mark.parametrize("kind", CNNS)
def test_parameters_are_stored_as_given_and_cloned(kind: type[CNN]) -> None:
    model = make(kind, seed=7, readout=ww.ReadoutOptions(mask_noise=0.1), device="cpu", threads=2, nonfinite="rows")
    parameters = model.get_params(deep=False)
    assert parameters["core"] is CORE
    assert parameters["seed"] == 7
    again = clone(model)
    assert type(again) is kind
    assert again.get_params(deep=False) == parameters
    assert kind().set_params(**parameters).get_params(deep=False) == parameters
    assert "seed=7" in repr(model)


@pytest.mark.parametrize("kind", CNNS)
def test_a_clone_fits_to_the_same_numbers(kind: type[CNN], recording: ww.Recording) -> None:
    model = make(kind).fit(recording)
    again = clone(model)
    assert not hasattr(again, "model_")
    again.fit(recording)
    for name, tensor in model.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    other = make(kind, seed=1).fit(recording)
    assert not np.allclose(other.history_["validation_loss"], model.history_["validation_loss"])


def test_arrays_and_a_recording_of_them_give_the_same_fit(recording: ww.Recording) -> None:
    arrays = make().fit(np.array(recording.images), np.array(recording.responses))
    without_channel = make().fit(recording.images[:, 0], recording.responses)
    whole = make().fit(recording)
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, arrays.tensors()[name]), name
        assert torch.equal(tensor, without_channel.tensors()[name]), name
    np.testing.assert_array_equal(whole.predict(recording.images[:, 0]), whole.predict(recording.images))


@pytest.mark.parametrize("call", ["predict", "score", "evaluate", "save"])
@pytest.mark.parametrize("kind", [*CNNS, ww.Ridge])
def test_nothing_can_be_asked_before_the_fit(kind: type, call: str, recording: ww.Recording, tmp_path: Path) -> None:
    argument = {"predict": recording.images, "save": tmp_path / "run"}.get(call, recording)
    with pytest.raises(NotFittedError, match=f"this {kind.__name__} is not fitted yet: call fit first"):
        getattr(kind(), call)(argument)
    assert not (tmp_path / "run").exists()
    if kind is not ww.Ridge:
        with pytest.raises(NotFittedError, match="call fit first"):
            _ = kind().masks_


@pytest.mark.parametrize("kind", CNNS)
def test_fitted_attributes(kind: type[CNN], recording: ww.Recording) -> None:
    model = make(kind).fit(recording)
    assert model.masks_.shape == (6, 8, 13)
    assert model.feature_weights_.shape == (6, 3)
    assert model.locations_.shape == (6, 2)
    assert model.mean_responses_.shape == (6,)
    rows, _ = recording.split(0.2, seed=0)
    np.testing.assert_allclose(model.mean_responses_, recording.responses[rows].mean(0), rtol=1e-6)
    columns = ["candidate", "step", "learning_rate", "training_loss", "validation_loss", "seconds"]
    assert list(model.history_.columns) == columns
    assert list(model.history_["step"]) == [0, 5, 10, 15, 20]
    assert len(model.candidates_) == 1
    assert model.candidates_["validation_loss"][0] == model.history_["validation_loss"].min()
    assert model.neurons_ == ["0", "1", "2", "3", "4", "5"]


def test_locations_are_in_pixels_of_the_image(fitted: CNN) -> None:
    assert np.abs(fitted.locations_ - CENTRES).max() <= 1
    peaks = np.abs(fitted.masks_).reshape(6, -1).argmax(1)
    np.testing.assert_array_equal(fitted.locations_, np.stack(np.unravel_index(peaks, (8, 13)), 1) + 2)


def test_a_gaussian_looks_where_the_neurons_do(recording: ww.Recording) -> None:
    model = make(ww.GaussianCNN, training=replace(TRAINING, max_steps=150)).fit(recording)
    assert np.abs(model.locations_ - CENTRES).max() < 1
    assert (model.locations_ % 1 != 0).any(), "between pixels"
    height, width = model.masks_.shape[1:]
    centroids = [(model.masks_ * line).sum((1, 2)) for line in (np.arange(height)[:, None], np.arange(width))]
    np.testing.assert_allclose(model.locations_, np.stack(centroids, 1) + 2, atol=1e-4)
    assert model.score(recording.test) > 0.6


def test_the_fit_predicts_what_it_has_not_seen(fitted: CNN, recording: ww.Recording) -> None:
    assert fitted.score(recording.test) > 0.6
    assert fitted.score(recording) == fitted.score(recording.test)


def test_score_is_the_mean_correlation(fitted: CNN, recording: ww.Recording) -> None:
    test = recording.test
    assert test is not None
    predictions, means = fitted.predict(test.images), test.mean_responses()
    expected = np.mean([np.corrcoef(predictions[:, n], means[:, n])[0, 1] for n in range(6)])
    assert fitted.score(test) == pytest.approx(expected, abs=1e-6)
    of_trials = fitted.score(test.images[test.image_index], test.responses)
    assert of_trials == pytest.approx(correlation(predictions[test.image_index], test.responses).mean())
    assert of_trials < fitted.score(test)
    with pytest.raises(InputError, match=r"score got images but no responses"):
        fitted.score(test.images)


def test_evaluate_gives_the_table_of_scores(fitted: CNN, recording: ww.Recording) -> None:
    table = fitted.evaluate(recording)
    assert table.summary["correlation"]["mean"] == pytest.approx(fitted.score(recording))
    assert {"feve", "oracle", "log_likelihood_bits_per_spike"} <= set(table.summary)
    assert table.summary["correlation"]["low"] < table.summary["correlation"]["high"]
    assert fitted.evaluate(recording).summary == table.summary
    assert recording.test is not None
    assert fitted.evaluate(recording.test).summary == table.summary
    with pytest.raises(InputError, match="the held-out part has 2 neurons but the model 6: select the neurons"):
        fitted.evaluate(recording.select_neurons([0, 1]).test)
    with pytest.raises(InputError, match="lacks 4 of the 6 neurons that the model was fitted to: 2, 3, 4, 5"):
        fitted.evaluate(recording.select_neurons([0, 1]))
    with pytest.raises(InputError, match="recording has no held-out part to score on"):
        fitted.evaluate(ww.Recording(recording.images, recording.responses))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (np.zeros((9, 12, 17)),),
            "fit got images but no responses: expected fit.recording. or fit.images, responses.",
        ),
        ((np.zeros((9, 12, 17)), np.zeros((8, 2))), "responses has 8 rows but images has 9"),
    ],
)
def test_fit_says_what_it_lacks(arguments: tuple, message: str) -> None:
    for kind in (*CNNS, ww.Ridge):
        with pytest.raises(InputError, match=message):
            kind().fit(*arguments)
    with pytest.raises(InputError, match="fit got a recording and responses"):
        make().fit(simulated(20), np.zeros((20, 6)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((3, 17, 12)), r"images has shape \(3, 1, 17, 12\): expected \(n_images, 1, 12, 17\).*Height comes"),
        (np.zeros((3, 2, 12, 17)), r"images has shape \(3, 2, 12, 17\): expected \(n_images, 1, 12, 17\)"),
        (np.zeros((12, 17)), r"images has shape \(12, 17\): expected"),
        (np.full((3, 12, 17), "a"), r"images has dtype <U1: expected real numbers"),
        (np.where(np.arange(3)[:, None, None] == 1, np.nan, np.zeros((3, 12, 17))), r"not finite .*row 1"),
    ],
)
def test_predict_refuses_other_images(fitted: CNN, images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted.predict(images)


def test_predict_does_not_depend_on_company(fitted: CNN, rng: np.random.Generator) -> None:
    images = rng.normal(size=(700, 12, 17)).astype(np.float32)  # more than one chunk
    together = fitted.predict(images)
    assert together.shape == (700, 6)
    apart = np.concatenate([fitted.predict(images[:3]), fitted.predict(images[3:600]), fitted.predict(images[600:])])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)
    assert fitted.predict(images[:0]).shape == (0, 6)
    np.testing.assert_array_equal(fitted.predict(torch.from_numpy(images[:5])), fitted.predict(images[:5]))
    np.testing.assert_array_equal(fitted.predict(images[:2].tolist()), fitted.predict(images[:2]))


# ----------------------------------------------------------------------------------------------- units and scaling


@pytest.mark.parametrize("kind", CNNS)
def test_tenfold_responses_are_predicted_tenfold(kind: type[CNN], recording: ww.Recording) -> None:
    factors = np.array([10, 1, 1, 0.1, 1, 1], np.float32)
    plain = make(kind).fit(recording.images, recording.responses).predict(recording.images[:30])
    scaled = make(kind).fit(recording.images, recording.responses * factors).predict(recording.images[:30])
    np.testing.assert_allclose(scaled, plain * factors, rtol=2e-3)


@pytest.mark.parametrize("kind", CNNS)
def test_predictions_have_the_units_of_responses(kind: type[CNN], recording: ww.Recording) -> None:
    model = make(kind, training=replace(TRAINING, max_steps=100)).fit(recording.images, 5 * recording.responses)
    assert abs(model.predict(recording.images).mean() / (5 * recording.responses.mean()) - 1) < 0.3


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64, bool])
def test_integers_and_bytes_are_images_too(dtype: type, recording: ww.Recording) -> None:
    stored = (np.clip(recording.images, -2, 2) * 30 + 100).astype(dtype)
    if dtype is bool:
        stored = recording.images > 0
    floats = make().fit(stored.astype(np.float32), recording.responses)
    model = make().fit(stored, recording.responses.astype(np.int64))
    np.testing.assert_allclose(model.predict(stored), floats.predict(stored.astype(np.float32)), rtol=1e-5)


def test_the_images_scale_and_offset_do_not_matter(recording: ww.Recording) -> None:
    plain = make().fit(recording).predict(recording.images[:20])
    moved = make().fit(recording.images * 40 + 128, recording.responses).predict(recording.images[:20] * 40 + 128)
    np.testing.assert_allclose(moved, plain, rtol=0.02)


@pytest.mark.parametrize("standardize", ["global", "pixel"])
def test_statistics_are_those_of_the_training_rows_alone(standardize: str, recording: ww.Recording) -> None:
    rows, validation = recording.split(0.2, seed=0)
    options = ww.PreprocessingOptions(standardize=standardize)  # type: ignore[arg-type]
    images, responses = recording.images.copy(), recording.responses.copy()
    images[validation] *= 100
    responses[validation] *= 7
    plain = make(preprocessing=options).fit(recording.images, recording.responses)
    changed = make(preprocessing=options).fit(images, responses)
    np.testing.assert_array_equal(changed.standardisation_.mean, plain.standardisation_.mean)
    np.testing.assert_array_equal(changed.standardisation_.std, plain.standardisation_.std)
    np.testing.assert_array_equal(changed.response_scale_, plain.response_scale_)
    np.testing.assert_array_equal(changed.mean_responses_, plain.mean_responses_)
    axes = (0, 1, 2, 3) if standardize == "global" else 0
    expected = recording.images[rows].astype(float).mean(axes)
    np.testing.assert_allclose(plain.standardisation_.mean.squeeze(), np.squeeze(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plain.response_scale_, recording.responses[rows].std(0), rtol=1e-6)


# -------------------------------------------------------------------------------------------------- odd populations


@pytest.mark.parametrize("kind", [*CNNS, ww.Ridge])
def test_constant_and_silent_neurons_are_kept_and_scored_0(kind: type, recording: ww.Recording) -> None:
    def with_constants(responses: np.ndarray) -> np.ndarray:
        responses = responses.copy()
        responses[:, 1], responses[:, 4] = 0, np.float32(0.1)  # 0.1 has a rounded mean, and so a tiny deviation
        return responses

    test = recording.test
    assert test is not None
    odd = ww.Recording(
        recording.images,
        with_constants(recording.responses),
        test=ww.HeldOut(test.images, with_constants(test.responses), test.image_index),
    )
    notes: list[str] = []
    model = make(kind) if kind is not ww.Ridge else ww.Ridge()
    model.fit(odd, observer=lambda event: notes.extend(getattr(event, "notes", ())))
    predictions = model.predict(odd.images)
    assert np.isfinite(predictions).all()
    np.testing.assert_allclose(predictions[:, 4].mean(), 0.1, atol=0.05)
    assert predictions[:, 1].max() < 0.2
    table = model.evaluate(odd)
    assert table.summary["correlation"]["n_constant"] == 2
    assert (table.neurons["correlation"][[1, 4]] == 0).all()
    assert np.isfinite(table.neurons["correlation"]).all()
    assert np.isfinite(model.score(odd))
    if kind is not ww.Ridge:
        assert notes == ["2 of 6 neurons never vary (kept, scored 0): 1, 4"]
        assert np.isfinite(model.history_["validation_loss"]).all()


@pytest.mark.parametrize("kind", [*CNNS, ww.Ridge])
def test_one_neuron_is_a_population(kind: type, recording: ww.Recording) -> None:
    model = make(kind) if kind is not ww.Ridge else ww.Ridge()
    model.fit(recording.images, recording.responses[:, 2])
    assert model.predict(recording.images[:4]).shape == (4, 1)
    assert np.isfinite(model.score(recording.images, recording.responses[:, 2]))


@pytest.mark.parametrize("kind", [*CNNS, ww.Ridge])
def test_three_channels(kind: type) -> None:
    colour = simulated(n_channels=3)
    model = make(kind) if kind is not ww.Ridge else ww.Ridge()
    model.fit(colour)
    assert np.isfinite(model.evaluate(colour).summary["correlation"]["mean"])
    with pytest.raises(InputError, match=r"expected \(n_images, 3, 12, 17\)"):
        model.predict(colour.images[:, 0])


def test_rounding_dust_below_zero_is_told_and_scored(recording: ww.Recording) -> None:
    responses = recording.responses.copy()
    responses[3, 2] = -1e-9
    test = recording.test
    assert test is not None
    trials = test.responses.copy()
    trials[trials == 0] = -1e-9
    dusty = ww.Recording(recording.images, responses, test=ww.HeldOut(test.images, trials, test.image_index))
    notes: list[str] = []
    model = make().fit(dusty, observer=lambda event: notes.extend(getattr(event, "notes", ())))
    assert "responses negative by rounding" in notes[0]
    assert "log_likelihood_bits_per_spike" in model.evaluate(dusty).summary


# ---------------------------------------------------------------------------------------------- several strengths


def test_the_strength_with_the_best_unpenalised_validation_loss_is_kept(recording: ww.Recording) -> None:
    strengths = (10.0, 0.03, 3.0)
    model = make(penalties=ww.PenaltyOptions(product_l1=strengths)).fit(recording)
    alone = [make(penalties=ww.PenaltyOptions(product_l1=strength)).fit(recording) for strength in strengths]
    losses = [single.history_["validation_loss"].min() for single in alone]
    np.testing.assert_array_equal(model.candidates_["validation_loss"], losses)
    assert list(model.candidates_["product_l1"]) == list(strengths)
    best = int(np.argmin(losses))
    assert model.model_.options.penalties.product_l1 == strengths[best]
    for name, tensor in alone[best].tensors().items():
        assert torch.equal(tensor, model.tensors()[name]), name
    assert set(model.history_["candidate"]) == {0, 1, 2}


def test_every_combination_of_strengths_is_tried(recording: ww.Recording) -> None:
    penalties = ww.PenaltyOptions(product_l1=(0.01, 0.1), smoothness=(0.0, 1.0))
    model = make(penalties=penalties, training=replace(TRAINING, max_steps=1)).fit(recording)
    tried = list(zip(model.candidates_["product_l1"], model.candidates_["smoothness"], strict=True))
    assert tried == list(itertools.product((0.01, 0.1), (0.0, 1.0)))


# --------------------------------------------------------------------------------- no option accepted and ignored

BASE = {
    "core": CORE,
    "readout": ww.ReadoutOptions(),
    "penalties": ww.PenaltyOptions(mask_l1=0.1, feature_l1=0.1, product_l1=0.1, smoothness=0.1, group_sparsity=0.1),
    "training": ww.TrainingOptions(
        batch_size=32, max_steps=24, check_every=3, patience=1, n_rates=2, learning_rate=0.1, patience_from=3
    ),
    "preprocessing": ww.PreprocessingOptions(),
}
CHANGES = {
    "core": {
        "kernel_sizes": ((3, 5), 3),
        "n_maps": 4,
        "padding": "same",
        "separable": True,
        "batch_norm": False,
        "batch_norm_shift": False,
        "batch_norm_momentum": 0.5,
        "nonlinearity": "relu",
        "last_nonlinearity": "relu",
        "kernel_std": 0.5,
    },
    "readout": {
        "nonlinearity": "relu",
        "nonnegative_masks": True,
        "nonnegative_features": True,
        "feature_norm": "unit",
        "mask_norm": "unit",
        "hold_masks": 9,
        "start": "features",
        "hold_features": 9,
        "sta_smoothing": 0.0,
        "mask_noise": 0.1,
        "covariance": "isotropic",
        "position_std": 0.3,
        "dropout": 0.5,
        "noise": "constant",
        "widths": (0.0, 1.0),
        "sampled": False,
        "locate_every": 5,
        "locate_from": 2,
        "anneal_steps": 5,
        "temperature": 9.0,
        "prior_ridges": (3.0,),
    },
    "penalties": {
        "mask_l1": 0.5,
        "feature_l1": 0.5,
        "product_l1": 0.5,
        "weight_l2": 0.5,
        "activity_l1": 0.5,
        "smoothness": 0.5,
        "group_sparsity": 0.5,
        "relative": False,
    },
    "training": {
        "loss": "squared",
        "optimizer": "sgd",
        "momentum": 0.5,
        "learning_rate": 0.05,
        "proximal": True,
        "whole_every": 2,
        "memory_gib": 1e-6,
        "batch_size": 20,
        "validation_fraction": 0.4,
        "check_every": 4,
        "patience": 3,
        "patience_from": 12,
        "rate_factor": 0.01,
        "n_rates": 4,
        "max_steps": 5,
        "refit": True,
        "precision": "bf16",
        "compile": True,
        "checkpoint_seconds": 0.0,
    },
    "preprocessing": {"standardize": "pixel", "scale_responses": False},
}


PLAIN = {**BASE, "penalties": ww.PenaltyOptions()}
POSTERIOR = {**PLAIN, "readout": ww.ReadoutOptions(locate_every=3, locate_from=1, anneal_steps=10)}
COURSES: dict[str, tuple[type[CNN], dict]] = {
    "factorized": (ww.FactorizedCNN, BASE),
    "fully-connected": (ww.FullyConnectedCNN, PLAIN),
    "gaussian": (ww.GaussianCNN, PLAIN),
    "posterior": (ww.PosteriorCNN, POSTERIOR),
    "constant noise": (ww.PosteriorCNN, {**POSTERIOR, "readout": replace(POSTERIOR["readout"], noise="constant")}),
    "types": (ww.FactorizedCNN, {**BASE, "readout": ww.ReadoutOptions(start="types")}),
    "proximal": (
        ww.FactorizedCNN,
        {
            **BASE,
            "penalties": ww.PenaltyOptions(product_l1=0.3),
            "training": replace(BASE["training"], proximal=True, learning_rate=0.03),  # type: ignore[type-var]
        },
    ),
    "sgd": (ww.FactorizedCNN, {**BASE, "training": replace(BASE["training"], optimizer="sgd")}),  # type: ignore[type-var]
}
COURSE_OF = {  # options of some models or methods alone; masks need batch normalisation
    **dict.fromkeys(["weight_l2", "activity_l1", "batch_norm"], "fully-connected"),
    **dict.fromkeys(["covariance", "position_std"], "gaussian"),
    **dict.fromkeys(["noise", "widths", "sampled", "locate_every", "locate_from", "anneal_steps"], "posterior"),
    "temperature": "posterior",
    "prior_ridges": "constant noise",
    "refit": "posterior",
    "momentum": "sgd",
    "hold_features": "types",
    "whole_every": "proximal",
}


def course(kind: type[CNN], options: dict, recording: ww.Recording, folder: Path) -> tuple:
    """All that a fit shows: its history, its predictions, and how often it wrote a checkpoint."""
    writes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("whatwhere.training.write_tensors", lambda *arguments: writes.append("written"))
        model = kind(**options).fit(recording, folder=folder)
    history = model.history_.drop(columns="seconds").to_numpy()
    return history.tobytes(), model.predict(recording.images[:20]).tobytes(), len(writes)


def test_the_changes_below_are_of_every_option() -> None:
    for concern, changes in CHANGES.items():
        assert set(changes) == {option.name for option in fields(BASE[concern])}, concern  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base_courses(recording: ww.Recording, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    folder = tmp_path_factory.mktemp("course")
    return {name: course(kind, options, recording, folder / name) for name, (kind, options) in COURSES.items()}


@pytest.mark.parametrize(
    ("concern", "name"), [(concern, name) for concern, changes in CHANGES.items() for name in changes]
)
def test_every_option_has_an_effect(
    concern: str, name: str, recording: ww.Recording, base_courses: dict[str, tuple], tmp_path: Path
) -> None:
    change = {name: CHANGES[concern][name]}  # type: ignore[index]
    base = COURSE_OF.get(name, "factorized")
    kind, options = COURSES[base]
    options = {**options, concern: replace(options[concern], **change)}  # type: ignore[type-var]
    changed = course(kind, options, recording, tmp_path)
    assert changed != base_courses[base], f"{concern}.{name} is accepted and ignored"
    if name == "checkpoint_seconds":
        assert changed[:2] == base_courses[base][:2], "how often checkpoints are written changes no number"


@pytest.mark.parametrize(("option", "value"), [("nonnegative_features", True), ("sta_smoothing", 0.0)])
def test_options_of_the_fixed_mask_have_an_effect(
    option: str, value: object, recording: ww.Recording, tmp_path: Path
) -> None:
    options = {**BASE, "penalties": ww.PenaltyOptions(feature_l1=0.1)}
    base = course(ww.FixedMaskCNN, options, recording, tmp_path / "base")
    readout = ww.ReadoutOptions(**{option: value})  # type: ignore[arg-type]
    assert course(ww.FixedMaskCNN, {**options, "readout": readout}, recording, tmp_path / "changed") != base


def test_bf16_is_close_to_float32(fitted: CNN, recording: ww.Recording) -> None:
    half = make(training=replace(TRAINING, max_steps=150, precision="bf16")).fit(recording)
    assert half.score(recording) == pytest.approx(fitted.score(recording), abs=0.1)
    assert half.predict(recording.images[:2]).dtype == np.float32


def test_presets_are_the_defaults_and_given_concerns_replace_them() -> None:
    simulation = ww.FactorizedCNN("simulation")
    assert simulation.options().training.loss == "squared"
    assert ww.FactorizedCNN().options().penalties.mask_l1 == (0.03, 0.06)
    chosen = ww.FactorizedCNN(penalties=ww.PenaltyOptions(smoothness=0.1)).options()
    assert (chosen.penalties.mask_l1, chosen.penalties.smoothness) == (0.0, 0.1)


def test_the_device_is_checked_and_named() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("tpu", "cuda:99"):
        with pytest.raises(
            OptionError, match=rf"device '{name}' cannot be used \(.*\): choose 'auto', 'cpu' or 'cuda'"
        ):
            make(device=name).fit(simulated(20))


# ---------------------------------------------------------------------------------------------- options and notes


def test_options_go_over_the_preset_one_by_one_or_whole() -> None:
    model = ww.FullyConnectedCNN(training={"batch_size": 64}, core={"n_maps": 4})
    options = model.options()
    assert (options.training.batch_size, options.core.n_maps) == (64, 4)
    assert options.training.learning_rate == ww.FullyConnectedCNN().options().training.learning_rate
    whole = ww.FullyConnectedCNN(training=ww.TrainingOptions(batch_size=64)).options().training
    assert whole == ww.TrainingOptions(batch_size=64)
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(OptionError, match=r"unknown option of core 'n_map': .* Did you mean 'n_maps'\?"):
        ww.FactorizedCNN(core={"n_map": 4}).options()


@pytest.mark.parametrize("kind", [ww.FactorizedCNN, ww.PosteriorCNN])
def test_a_fit_that_found_nothing_says_so(kind: type[ww.FactorizedCNN]) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(200, 1, 14, 17)).astype(np.float32)
    field = np.zeros((14, 17))
    field[5:8, 8:11] = 1
    seen = 5 + np.einsum("bcij,ij->b", images, field)[:, None]
    options = {"core": {"kernel_sizes": (5,), "n_maps": 1}, "training": {"loss": "squared", "max_steps": 60}}
    for responses, found in ((seen, True), (5 + rng.normal(size=(200, 1)), False)):
        model = kind("simulation", **options).fit(images, responses)
        notes = [note for note in model.notes_ if "nothing was found: predictions of validation images" in note]
        assert len(notes) == (not found)


def test_notes_on_the_data_stay_with_the_model() -> None:
    whole = simulated(60)
    responses = whole.responses.copy()
    responses[:, 2] = 3.0
    responses[0, 1] = -1e-9
    constant = ww.Recording(whole.images, responses)
    for model in (make(training=replace(TRAINING, max_steps=2)), ww.Ridge()):
        model.fit(constant)
        assert any("1 of 6 neurons never vary (kept, scored 0): 2" in note for note in model.notes_), model
    assert any("1 response negative by rounding" in note for note in make().fit(constant).notes_)


def test_ridge_tells_its_plan_before_it_starts() -> None:
    said: list[object] = []
    ww.Ridge().fit(simulated(60), observer=said.append)
    (plan,) = said
    assert plan.n_parameters == (12 * 17 + 1) * 6  # type: ignore[attr-defined]
    assert plan.memory > 8 * 48 * 12 * 17  # type: ignore[attr-defined]
    assert 0 < plan.least_seconds < plan.most_seconds  # type: ignore[attr-defined]


@pytest.mark.parametrize("n_images", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", CNNS)
def test_a_handful_of_images_can_be_fitted(kind: type[CNN], n_images: int) -> None:
    whole = simulated(n_images)
    model = make(kind, training=replace(TRAINING, max_steps=4)).fit(whole.read_images(), whole.responses)
    assert np.isfinite(model.predict(whole.read_images())).all()


def test_nonfinite_is_honoured_for_a_recording_too() -> None:
    whole = simulated(60)
    images = whole.read_images().copy()
    images[7, 0, 3, 3] = np.nan
    kept = ww.Recording(np.delete(images, 7, 0), np.delete(whole.responses, 7, 0))
    model = make(nonfinite="rows").fit(images, whole.responses)
    np.testing.assert_array_equal(model.masks_, make().fit(kept).masks_)


def test_devices_without_double_precision_are_refused() -> None:
    with pytest.raises(OptionError, match=r"device 'meta' cannot be used .*: choose 'auto', 'cpu' or 'cuda'"):
        choose_device("meta")
