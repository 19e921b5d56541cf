"""The linear solvers and the models around them against numpy, scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.linalg import solve
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.linear_model import lasso_path

import whatwhere as ww
from whatwhere.baselines import OLS, Lasso, Ridge
from whatwhere.baselines.lasso import MOST_SWEEPS, LassoSolver
from whatwhere.baselines.ols import LeastSquaresSolver
from whatwhere.baselines.options import PAPER_LASSO, PAPER_RIDGE, ridge_strengths
from whatwhere.baselines.ridge import RidgeSolver

N_PIXELS = 2 * 6 * 9


def problem(n_images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated pixels of unequal variance, centred, and noisy responses with sparse filters and an offset."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(n_images, N_PIXELS)) @ rng.normal(size=(N_PIXELS, N_PIXELS)) / 10
    pixels += 2 * rng.normal(size=(n_images, N_PIXELS)) * rng.uniform(0.5, 1.5, N_PIXELS)
    filters = rng.normal(size=(N_PIXELS, 4)) * (rng.random((N_PIXELS, 4)) < 0.2)
    responses = pixels @ filters / 5 + rng.normal(size=(n_images, 4)) + [0, 5, -3, 100]
    return pixels - pixels.mean(0), responses


def recording(n_images: int, seed: int = 0) -> tuple[ww.Recording, np.ndarray, np.ndarray]:
    """The problem's pixels as images of two channels, with the rows to fit and those to validate."""
    pixels, responses = problem(n_images, seed)
    data = ww.Recording(pixels.reshape(-1, 2, 6, 9).astype(np.float32), responses)
    return data, *data.split(0.2, seed=0)


SIZES = pytest.mark.parametrize("n_images", [70, 300], ids=["fewer images than pixels", "more images than pixels"])


@SIZES
@pytest.mark.parametrize("strength", [1e-3, 0.1, 30.0])
def test_ridge_solves_the_normal_equations(n_images: int, strength: float) -> None:
    pixels, responses = problem(n_images)
    (found,) = RidgeSolver(pixels).path(responses, np.array([strength]))
    centred, penalty = responses - responses.mean(0), n_images * strength * np.mean(pixels**2)
    if n_images > N_PIXELS:
        expected = solve(pixels.T @ pixels + penalty * np.eye(N_PIXELS), pixels.T @ centred, assume_a="pos")
    else:
        expected = pixels.T @ solve(pixels @ pixels.T + penalty * np.eye(n_images), centred, assume_a="pos")
    np.testing.assert_allclose(found.filters, expected, atol=1e-9)
    theirs = SklearnRidge(alpha=penalty).fit(pixels, responses)
    np.testing.assert_allclose(found.filters, theirs.coef_.T, atol=1e-8)
    np.testing.assert_allclose(found.offset, theirs.intercept_, atol=1e-9)


@SIZES
def test_ridges_basis_is_orthonormal_and_diagonal(n_images: int) -> None:
    pixels, _ = problem(n_images)
    ridge = RidgeSolver(pixels)
    rank = min(n_images - 1, N_PIXELS)
    assert ridge.basis.shape == (N_PIXELS, rank)
    np.testing.assert_allclose(ridge.basis.T @ ridge.basis, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(ridge.features(), pixels @ ridge.basis, atol=1e-8)
    np.testing.assert_allclose(
        ridge.features().T @ ridge.features(), np.diag(ridge.values), atol=1e-9 * ridge.values[-1]
    )


@SIZES
def test_least_squares_are_numpys(n_images: int) -> None:
    pixels, responses = problem(n_images)
    pixels[:, 3] = 2 * pixels[:, 7]  # rank deficient either way
    (found,) = LeastSquaresSolver(pixels).path(responses, np.zeros(1))
    expected, _, rank, _ = np.linalg.lstsq(pixels, responses - responses.mean(0), rcond=None)
    assert rank == min(n_images - 1, N_PIXELS - 1)
    np.testing.assert_allclose(found.filters, expected, atol=1e-9)


@SIZES
def test_ols_predicts_as_numpys_least_squares(n_images: int) -> None:
    data, rows, validation = recording(n_images)
    model = OLS().fit(data)
    pixels = data.read_images().reshape(n_images, -1).astype(float)
    centre, mean = pixels[rows].mean(0), data.responses[rows].mean(0, dtype=float)
    weights = np.linalg.lstsq(pixels[rows] - centre, data.responses[rows] - mean, rcond=None)[0]
    expected = (pixels - centre) @ weights + mean
    np.testing.assert_allclose(model.predict(data.images), expected, atol=2e-3 * expected.std())
    if n_images <= N_PIXELS:
        np.testing.assert_allclose(model.predict(data.images[rows]), data.responses[rows], atol=2e-3)
    scale = data.responses[rows].std(0)
    loss = np.mean(((expected[validation] - data.responses[validation]) / scale) ** 2)
    assert model.history_["validation_loss"].tolist() == pytest.approx([loss], rel=1e-3)
    assert model.strength_ == 0


@pytest.mark.parametrize("n_images", [40, 70, 300], ids=["far fewer images", "fewer images", "more images"])
def test_the_lasso_is_sklearns_at_every_strength(n_images: int) -> None:
    pixels, responses = problem(n_images)
    strengths = np.geomspace(0.5, 0.1 if n_images == 40 else 0.01, 8)
    solver = LassoSolver(pixels)
    assert (solver.gram is None) == (n_images == 40)  # X^T X would be larger than X
    path = solver.path(responses, strengths)
    n_nonzero = []
    for strength, found in zip(strengths, path, strict=True):
        alpha = strength * np.sqrt(np.mean(pixels**2))
        theirs = SklearnLasso(alpha=alpha, tol=1e-12, max_iter=1_000_000).fit(pixels, responses)
        np.testing.assert_allclose(found.filters, theirs.coef_.T, atol=1e-5)
        np.testing.assert_allclose(found.offset, theirs.intercept_, atol=1e-8)
        assert found.solved.all()
        n_nonzero.append(np.count_nonzero(found.filters))
    assert 0 < n_nonzero[0] < n_nonzero[-1] / (2 if n_images == 40 else 4)


def test_a_lasso_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _, _ = recording(300)
    assert Lasso(strengths=[1e-3]).fit(data).notes_ == ()
    monkeypatch.setattr("whatwhere.baselines.lasso.MOST_SWEEPS", 2)
    notes = Lasso(strengths=[1e-3]).fit(data).notes_
    assert notes == ("the coordinate descent stopped before it converged for 4 of 4 neurons",)
    assert MOST_SWEEPS > 2


def test_lasso_predicts_as_sklearns_of_scaled_responses() -> None:
    data, rows, _ = recording(300)
    model = Lasso(strengths=[0.05]).fit(data)
    pixels = data.read_images().reshape(300, -1).astype(float)
    alpha = 0.05 * np.sqrt(pixels[rows].var(0).mean())
    for neuron in range(4):
        response = data.responses[rows, neuron].astype(float)
        _, weights, _ = lasso_path(
            pixels[rows] - pixels[rows].mean(0),
            response - response.mean(),
            alphas=[alpha * response.std()],
            tol=1e-12,
            max_iter=100_000,
        )
        expected = (pixels - pixels[rows].mean(0)) @ weights[:, 0] + response.mean()
        np.testing.assert_allclose(model.predict(data.images)[:, neuron], expected, atol=1e-3 * expected.std())


@SIZES
def test_without_an_offset_they_are_sklearns_without_one(n_images: int) -> None:
    data, rows, _ = recording(n_images)
    images = data.read_images() + 1
    data = ww.Recording(images, data.responses - data.responses.mean(0) + [0, 0.2, -0.5, 1])
    pixels = images.reshape(n_images, -1).astype(float)
    pixels = (pixels - pixels[rows].mean()) / pixels[rows].std()
    seen, unit = pixels[rows], np.mean(pixels[rows] ** 2)
    for neuron in range(4):
        response = data.responses[rows, neuron].astype(float)
        alpha = 0.05 * np.sqrt(unit) * response.std()
        theirs = {
            "ols": np.linalg.lstsq(seen, response, rcond=None)[0],
            "ridge": SklearnRidge(alpha=0.05 * unit * len(rows), fit_intercept=False).fit(seen, response).coef_,
            "lasso": SklearnLasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000)
            .fit(seen, response)
            .coef_,
        }
        for model in (OLS(offset=False), Ridge(strengths=[0.05], offset=False), Lasso(strengths=[0.05], offset=False)):
            found = model.fit(data.images, data.responses[:, neuron])
            assert found.offset_.tolist() == [0]
            expected = pixels @ theirs[found.name]
            np.testing.assert_allclose(found.predict(images)[:, 0], expected, atol=3e-3 * expected.std())


def test_the_papers_penalties_in_our_units() -> None:
    assert (PAPER_RIDGE[0], PAPER_RIDGE[-1]) == pytest.approx((10, 20_000))
    assert (PAPER_LASSO[0], PAPER_LASSO[-1]) == pytest.approx((1e-5, 0.3))
    pixels, responses = problem(300)
    pixels /= np.sqrt(np.mean(pixels**2))  # of unit variance, as the paper's
    (strength,) = ridge_strengths(300, [500])
    (found,) = RidgeSolver(pixels).path(responses, np.array([strength]))
    theirs = SklearnRidge(alpha=500).fit(pixels, responses)  # |y - X w|^2 + 500 |w|^2
    np.testing.assert_allclose(found.filters, theirs.coef_.T, atol=1e-8)
