"""Ridge on pixels against scikit-learn's, and the choice of its strength."""

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge as SklearnRidge

import whatwhere as ww
from whatwhere.baselines.ridge import STRENGTHS, RidgeSolver
from whatwhere.errors import InputError, OptionError

N_PIXELS = 2 * 6 * 9


def recording(n_images: int, noise: float = 1.0, seed: int = 0) -> ww.Recording:
    """Linear responses, with an offset and of different sizes, to correlated images of two channels."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n_images, 2, 6, 9)).cumsum(3) * 20 + 100
    filters = rng.normal(size=(N_PIXELS, 4)) * [0.1, 1, 10, 1]
    signal = (images.reshape(n_images, -1) - 100) @ filters / 20
    responses = signal + noise * signal.std(0) * rng.normal(size=signal.shape) + [5, -3, 0, 1000]
    return ww.Recording(images, responses)


@pytest.mark.parametrize("n_images", [70, 400], ids=["fewer images than pixels", "more images than pixels"])
def test_one_factorisation_serves_every_strength(n_images: int, rng: np.random.Generator) -> None:
    pixels, responses = rng.normal(size=(n_images, N_PIXELS)), rng.normal(size=(n_images, 3)) + 2
    pixels -= pixels.mean(0)
    strengths = np.array([30.0, 0.1, 1e-3])
    for strength, found in zip(strengths, RidgeSolver(pixels).path(responses, strengths), strict=True):
        alpha = n_images * strength * np.mean(pixels**2)
        theirs = SklearnRidge(alpha=alpha).fit(pixels, responses)
        np.testing.assert_allclose(found.filters, theirs.coef_.T, atol=1e-9)
        np.testing.assert_allclose(found.offset, theirs.intercept_, atol=1e-9)


@pytest.mark.parametrize("n_images", [90, 500])
@pytest.mark.parametrize("standardize", ["global", "pixel", "none"])
def test_predictions_are_sklearns_of_the_same_pixels(n_images: int, standardize: str) -> None:
    data, strength = recording(n_images), 0.3
    model = ww.Ridge(strengths=[strength], standardize=standardize, seed=2).fit(data)
    rows, _ = data.split(0.2, seed=2)
    pixels = data.read_images().reshape(n_images, -1).astype(float)
    if standardize == "global":
        pixels = (pixels - pixels[rows].mean()) / pixels[rows].std()
    elif standardize == "pixel":
        pixels = (pixels - pixels[rows].mean(0)) / pixels[rows].std(0)
    unit = pixels[rows].var(0).mean()
    theirs = SklearnRidge(alpha=strength * unit * len(rows)).fit(pixels[rows], data.responses[rows])
    expected = theirs.predict(pixels)
    np.testing.assert_allclose(model.predict(data.images), expected, rtol=1e-3, atol=1e-3 * expected.std())
    np.testing.assert_allclose(model.filters_.reshape(4, -1), theirs.coef_, rtol=1e-3, atol=1e-4 * theirs.coef_.std())


def test_the_strength_is_the_best_on_the_validation_part() -> None:
    data = recording(300, noise=3)
    model = ww.Ridge(seed=1).fit(data)
    rows, validation = data.split(0.2, seed=1)
    scale = data.responses[rows].std(0)
    losses = []
    for strength in STRENGTHS:
        one = ww.Ridge(strengths=[strength], seed=1).fit(data)
        losses.append(np.mean(((one.predict(data.images[validation]) - data.responses[validation]) / scale) ** 2))
    np.testing.assert_allclose(model.history_["validation_loss"], losses, rtol=1e-4)
    assert list(model.history_["strength"]) == list(STRENGTHS)
    assert model.strength_ == STRENGTHS[int(np.argmin(losses))]
    assert STRENGTHS[0] < model.strength_ < STRENGTHS[-1], "the best lies inside"


def test_more_noise_takes_more_strength() -> None:
    quiet, noisy = (ww.Ridge().fit(recording(300, noise=noise)).strength_ for noise in (0.1, 5))
    assert noisy > quiet


def test_the_offset_carries_the_mean_and_is_not_penalised() -> None:
    data = recording(200)
    model = ww.Ridge(strengths=[1e9]).fit(data)
    rows, _ = data.split(0.2, seed=0)
    np.testing.assert_allclose(model.predict(data.images[:3]), np.tile(data.responses[rows].mean(0), (3, 1)), rtol=1e-5)
    shifted = ww.Recording(data.images, data.responses + np.float32(50))
    difference = ww.Ridge(strengths=[1]).fit(shifted).predict(data.images) - ww.Ridge(strengths=[1]).fit(data).predict(
        data.images
    )
    np.testing.assert_allclose(difference, 50, rtol=1e-3)


def test_each_neuron_is_fitted_as_if_alone_and_in_its_own_units() -> None:
    data = recording(200)
    all_ = ww.Ridge(strengths=[1]).fit(data).predict(data.images)
    alone = ww.Ridge(strengths=[1]).fit(data.select_neurons([2])).predict(data.images)
    np.testing.assert_allclose(alone[:, 0], all_[:, 2], rtol=1e-4)
    tenfold = ww.Ridge(strengths=[1]).fit(data.images, data.responses * 10).predict(data.images)
    np.testing.assert_allclose(tenfold, all_ * 10, rtol=1e-3, atol=1e-3 * np.abs(all_).max())


def test_constant_neurons_pixels_and_images_do_no_harm() -> None:
    data = recording(100)
    images, responses = data.images.copy(), data.responses.copy()
    images[:, 1, 2, 3], responses[:, 1] = 7, np.float32(0.1)
    model = ww.Ridge(standardize="pixel").fit(images, responses)
    np.testing.assert_allclose(model.predict(images)[:, 1], 0.1, rtol=1e-5)
    assert np.isfinite(model.predict(images)).all()
    flat = ww.Ridge().fit(np.ones_like(images), responses)
    np.testing.assert_allclose(flat.predict(images[:2])[:, 1], 0.1, rtol=1e-5)
    assert np.isfinite(flat.predict(images)).all()


def test_fitted_attributes() -> None:
    model = ww.Ridge().fit(recording(60))
    assert model.filters_.shape == (4, 2, 6, 9)
    assert model.offset_.shape == (4,)
    assert (model.stopped_, model.neurons_) == ("solved", ["0", "1", "2", "3"])
    assert model.predict(np.zeros((0, 2, 6, 9))).shape == (0, 4)


def test_it_is_cloned_with_its_options() -> None:
    model = ww.Ridge(strengths=np.array([1.0, 2.0]), standardize="none", validation_fraction=0.5, seed=9)
    again = clone(model.fit(recording(50)))
    assert not hasattr(again, "filters_")
    assert again.asked() == model.asked()
    with pytest.raises(NotFittedError, match="this Ridge is not fitted yet: call fit first"):
        again.predict(np.zeros((1, 2, 6, 9)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": []}, "strengths is empty: give at least one"),
        ({"strengths": [1, 0]}, "strengths must be above 0, got 0.0"),
        ({"strengths": [np.nan]}, "strengths must be above 0, got nan"),
        ({"strengths": "strong"}, "strengths must be numbers above 0, got 'strong'"),
        ({"strengths": [[1], [2]]}, "strengths must be numbers above 0, got"),
        ({"standardize": "pixels"}, "unknown standardisation 'pixels'.* Did you mean 'pixel'?"),
        ({"validation_fraction": 1}, "validation_fraction must lie between 0 and 1, got 1"),
        ({"validation_fraction": "much"}, "validation_fraction must lie between 0 and 1, got 'much'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ww.Ridge(**options).fit(recording(20))


def test_one_strength_needs_no_list() -> None:
    assert ww.Ridge(strengths=2).fit(recording(50)).strength_ == 2  # type: ignore[arg-type]


def test_images_of_another_size_are_refused() -> None:
    model = ww.Ridge().fit(recording(50))
    with pytest.raises(InputError, match=re.escape("images has shape (3, 2, 9, 6): expected (n_images, 2, 6, 9)")):
        model.predict(np.zeros((3, 2, 9, 6)))
