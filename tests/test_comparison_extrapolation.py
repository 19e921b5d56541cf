"""What twice the images would give: against SciPy's fit, on curves whose truth is known, and in words."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from whatwhere.comparison import Outlook, extrapolate, fit_power_law
from whatwhere.errors import InputError

IMAGES = np.array([250, 500, 1000, 2000])


def curves(rng: np.random.Generator, n_neurons: int, n_seeds: int, noise: float, a: float, b: float) -> np.ndarray:
    """Scores (n_seeds, n_numbers, n_neurons) of neurons whose mean has the law 0.6 - a D^-b."""
    limit, drop = rng.normal(0.6, 0.15, n_neurons), rng.normal(a, 0.3 * abs(a), n_neurons)
    means = limit - drop * IMAGES[:, None] ** -b
    return means + noise * rng.normal(size=(n_seeds, len(IMAGES), n_neurons))


def gain(a: float, b: float) -> float:
    return a * (2000**-b - 4000**-b)


@pytest.mark.parametrize(("c", "a", "b"), [(0.6, 4.0, 0.5), (0.9, 60.0, 1.0), (0.3, -2.0, 0.7), (0.5, 0.0, 1.0)])
def test_an_exact_power_law_is_found(c: float, a: float, b: float) -> None:
    law = fit_power_law(IMAGES, [c - a * IMAGES**-b])
    np.testing.assert_allclose(law.at([4000])[0], c - a * 4000**-b, atol=1e-9)
    if a:
        assert (law.c[0], law.a[0], law.b[0]) == pytest.approx((c, a, b))


def test_noisy_points_are_fitted_as_by_scipys_least_squares(rng: np.random.Generator) -> None:
    weights = np.array([1.0, 4.0, 2.0, 9.0])
    scores = 0.6 - 4 * IMAGES**-0.5 + 0.01 * rng.normal(size=(20, 4))
    laws = fit_power_law(IMAGES, scores, weights)
    checked = 0
    for row, found in zip(scores, laws.at(IMAGES), strict=True):

        def law(n: np.ndarray, c: float, scaled: float, b: float) -> np.ndarray:
            return c - scaled * (n / 2000) ** -b

        best = np.inf
        for start in (0.2, 0.6, 1.2):
            limits = ([-np.inf, -np.inf, 0.01], [1.0, np.inf, 2.0])
            fitted, _ = curve_fit(law, IMAGES, row, (0.6, 0.1, start), weights**-0.5, bounds=limits, max_nfev=10_000)
            best = min(best, float(weights @ (law(IMAGES, *fitted) - row) ** 2))
        ours = float(weights @ (found - row) ** 2)
        assert ours <= best * 1.01 + 1e-7, "no worse than SciPy's, to the step of the exponents"
        checked += ours >= best * 0.9
    assert checked > 15, "and no better than its bounds allow"


def test_the_bounds_hold() -> None:
    rising = fit_power_law([100, 200, 400], [[0.2, 0.6, 1.0]])
    assert rising.c[0] <= 1
    assert (rising.at(np.geomspace(400, 1e6, 30)) <= 1).all()
    assert 0 < rising.b[0] <= 2
    steep = fit_power_law([100, 200, 400], [[0.2, 0.6, 0.601]])
    assert steep.b[0] == 2


@pytest.mark.parametrize(
    ("n_neurons", "n_seeds", "noise", "a", "b"),
    [(60, 1, 0.1, 4.0, 0.5), (30, 3, 0.05, 60.0, 1.0), (60, 1, 0.05, 0.0, 1.0)],
)
def test_the_interval_covers_the_true_gain(n_neurons: int, n_seeds: int, noise: float, a: float, b: float) -> None:
    """Over 60 draws of neurons and noise: nominally 57 of them."""
    covered = 0
    for draw in range(60):
        scores = curves(np.random.default_rng(draw), n_neurons, n_seeds, noise, a, b)
        found = extrapolate("cnn", IMAGES, scores, n_resamples=200, seed=draw)
        covered += found.low <= gain(a, b) <= found.high
    assert covered >= 52


def test_the_gain_is_that_of_the_curve_and_more_neurons_make_it_surer() -> None:
    narrow, wide = (
        extrapolate("cnn", IMAGES, curves(np.random.default_rng(3), n, 1, 0.05, 4.0, 0.5)) for n in (1000, 30)
    )
    assert narrow.gain == pytest.approx(gain(4.0, 0.5), abs=0.004)
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    assert narrow.twice == 4000
    assert narrow.predicted == pytest.approx(narrow.c - narrow.a * 4000**-narrow.b)
    assert narrow.predicted == pytest.approx(0.6 - gain(4.0, 0.5) / (2**0.5 - 1), abs=0.03)
    assert narrow.numbers[[0, -1]] == pytest.approx([250, 4000])
    assert np.interp(4000, narrow.numbers, narrow.score) - np.interp(
        2000, narrow.numbers, narrow.score
    ) == pytest.approx(narrow.gain, abs=1e-3)
    assert (narrow.score_low <= narrow.score).all()
    assert (narrow.score <= narrow.score_high).all()


def test_seeds_that_differ_widen_the_interval(rng: np.random.Generator) -> None:
    scores = curves(rng, 50, 3, 0.01, 4.0, 0.5)
    tilted = scores + np.array([-0.03, 0.0, 0.03])[:, None, None] * np.array([0.0, 0.0, 0.0, 1.0])[:, None]
    alike, apart = extrapolate("cnn", IMAGES, scores), extrapolate("cnn", IMAGES, tilted)
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_neurons_without_a_score_are_left_out(rng: np.random.Generator) -> None:
    scores = curves(rng, 20, 1, 0.05, 4.0, 0.5)
    holes = np.concatenate([scores, np.full((1, 4, 1), np.nan)], axis=2)
    assert extrapolate("cnn", IMAGES, holes).gain == extrapolate("cnn", IMAGES, scores).gain
    nobody = extrapolate("cnn", IMAGES, np.full((1, 4, 3), np.nan))
    assert nobody.words() == "cnn: no neuron has a score at every number of images: no extrapolation"


@pytest.mark.parametrize(
    ("gain", "low", "high", "words"),
    [
        (0.03, 0.01, 0.06, "twice the images (2,000) would give +0.030 [+0.010, +0.060] for cnn: worth recording more"),
        (0.004, 0.001, 0.007, "[+0.001, +0.007] for cnn: little to gain from more"),
        (0.03, -0.01, 0.06, "[-0.010, +0.060] for cnn: the points do not tell whether more are worth recording"),
        (0.005, 0.001, 0.06, "the points do not tell whether more are worth recording"),
        (-0.02, -0.05, -0.01, "would give -0.020 [-0.050, -0.010] for cnn: little to gain from more"),
    ],
)
def test_the_words_say_what_the_numbers_do(gain: float, low: float, high: float, words: str) -> None:
    assert Outlook("cnn", 1000, gain, low, high).words().endswith(words)


def test_what_cannot_be_told_is_not_told() -> None:
    single = 0.6 - 4 * IMAGES[None, :, None] ** -0.5
    assert (
        "from one neuron and one seed: how surely, the points do not tell" in extrapolate("cnn", IMAGES, single).words()
    )
    few = extrapolate("cnn", IMAGES[:2], single[:, :2])
    assert few.words() == "cnn: 2 of the 3 numbers of images that an extrapolation needs"
    assert np.isnan([few.gain, few.predicted]).all()
    steep = np.array([0.2, 0.6, 0.601, 0.601])[None, :, None] + np.linspace(0, 0.1, 9)
    assert "levels off faster than the power law can" in extrapolate("cnn", IMAGES, steep).words()
    with pytest.raises(InputError, match="n_images holds 2 different numbers: a curve of three parameters needs"):
        fit_power_law([1, 2, 2], [[0.1, 0.2, 0.2]])
    with pytest.raises(InputError, match="scores has 4 rows but n_images has 3: one row per number of images"):
        extrapolate("cnn", IMAGES[:3], single)
