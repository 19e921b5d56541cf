"""The figures of a comparison, by the numbers that their artists carry."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread

from whatwhere.comparison import extrapolate
from whatwhere.errors import InputError
from whatwhere.report import learning_curve, score_scatter
from whatwhere.report.comparison import draw_comparison

IMAGES = np.array([250, 500, 1000])


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


def points(axes: Axes, marker: str) -> list[np.ndarray]:
    return [np.array(line.get_data()) for line in axes.lines if line.get_marker() == marker]


def test_the_scatter_has_the_first_model_upwards_and_tells_whom_it_beats(rng: np.random.Generator) -> None:
    first = rng.uniform(0.3, 0.9, 40)
    worse, mixed = first - 0.1, first + np.where(np.arange(40) < 10, 0.05, -0.05)
    mixed[39] = np.nan
    figure = score_scatter({"factorized": first, "ridge": worse, "glm": mixed}, label="correlation")
    left, right = (axes for axes in figure.axes if axes.get_visible())
    np.testing.assert_array_equal(points(left, ".")[0], [worse, first])
    np.testing.assert_array_equal(points(right, ".")[0], [mixed[:39], first[:39]])
    np.testing.assert_allclose(points(left, "D")[0].ravel(), [np.median(worse), np.median(first)])
    assert left.get_title().startswith("factorized better: 100 %\nof 40 neurons")
    assert right.get_title().startswith("factorized better: 74 %\nof 39 neurons"), "29 of 39"
    assert (left.get_xlabel(), left.get_ylabel()) == ("correlation, ridge", "correlation, factorized")
    assert left.get_xlim() == left.get_ylim() == right.get_xlim()
    diagonal = left.lines[0].get_data()
    np.testing.assert_array_equal(diagonal[0], diagonal[1])
    assert_nothing_is_cut_off(figure)


@pytest.mark.parametrize(("n_models", "n_neurons"), [(2, 1), (3, 10_000), (5, 0), (9, 50)])
def test_scatters_of_any_numbers(n_models: int, n_neurons: int, rng: np.random.Generator) -> None:
    scores = {f"fully-connected-{number}"[:15]: rng.normal(size=n_neurons) for number in range(1)}
    scores |= {f"model number {number}": rng.normal(size=n_neurons) for number in range(n_models - 1)}
    figure = score_scatter(scores, label="correlation")
    assert sum(axes.get_visible() for axes in figure.axes) == n_models - 1
    assert_nothing_is_cut_off(figure)


def test_scatters_complain() -> None:
    with pytest.raises(InputError, match="scores holds 1 models: expected two or more"):
        score_scatter({"ridge": [0.1]})
    with pytest.raises(InputError, match="ols has 2 rows but ridge has 1: one row per neuron"):
        score_scatter({"ridge": [0.1], "ols": [0.1, 0.2]})
    with pytest.raises(InputError, match="the scores of ols hold 1 infinite values"):
        score_scatter({"ridge": [0.1], "ols": [np.inf]})


def table(models: list[str], seeds: int = 1) -> pd.DataFrame:
    rows = [
        (model, n, seed, 0.5 + 0.1 * place - 1 / n**0.5 + 0.01 * seed, 0.3, 0.7)
        for place, model in enumerate(models)
        for n in IMAGES
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=["model", "n_images", "seed", "score", "low", "high"])


def test_the_curve_has_a_line_a_model_and_the_extrapolation_dashed(rng: np.random.Generator) -> None:
    curve = table(["ridge", "glm"], seeds=2)
    scores = 0.5 - 1 / IMAGES[:, None] ** 0.5 + 0.05 * rng.normal(size=(2, 3, 20))
    outlook = extrapolate("ridge", IMAGES, scores)
    figure = learning_curve(curve, [outlook, extrapolate("glm", IMAGES[:2], scores[:, :2])], label="correlation")
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    solid = [line for line in axes.lines if line.get_marker() in ("o", "s") or len(line.get_xdata()) == 3]
    lines = [line for line in solid if line.get_linestyle() == "-" and line.get_linewidth() == 1.3]
    assert len(lines) == 2
    for line, model in zip(lines, ("ridge", "glm"), strict=True):
        expected = curve[curve["model"] == model].groupby("n_images")["score"].mean()
        np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_allclose(line.get_xdata(), IMAGES, rtol=0.03)
    assert_nothing_is_cut_off(figure)
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 1, "glm has no extrapolation"
    x, y = (np.asarray(values, float) for values in dashed[0].get_data())
    assert x[[0, -1]] == pytest.approx([1000, 2000], rel=0.03)
    assert y[-1] - y[0] == pytest.approx(outlook.gain, abs=1e-3)
    band = [item for item in axes.collections if isinstance(item, PolyCollection)]
    ends = band[0].get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == pytest.approx(
        (outlook.score_low[outlook.numbers >= 1000].min(), outlook.score_high[-1]), abs=0.01
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["250", "500", "1,000", "2,000"]
    assert len(points(axes, ".")) == 2, "seeds as dots"
    assert_nothing_is_cut_off(figure)


def test_curves_of_many_models_or_one_point(rng: np.random.Generator) -> None:
    many = [f"fully-connected-{number}" for number in range(9)]
    assert_nothing_is_cut_off(learning_curve(table(many)))
    looks = {
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line in learning_curve(table(many)).axes[0].lines
        if line.get_linewidth() == 1.3 and line.get_linestyle() != "None"
    }
    assert len(looks) == 9
    assert_nothing_is_cut_off(learning_curve(table(["ridge"]).head(1)))
    with pytest.raises(InputError, match="curve lacks the columns seed, score"):
        learning_curve(table(["ridge"]).drop(columns=["seed", "score"]))
    with pytest.raises(InputError, match="curve holds no score"):
        learning_curve(table(["ridge"]).assign(score=np.nan))


def test_figures_of_an_earlier_comparison_do_not_stay(tmp_path: Path) -> None:
    for name in ("scatter.png", "learning_curve.png", "other.png"):
        (tmp_path / name).write_bytes(b"old")
    rng = np.random.default_rng(0)
    both = {name: rng.uniform(0, 1, 20) for name in ("first", "second")}
    of_two = SimpleNamespace(runs=both, neurons=both, curve=None)
    assert draw_comparison(of_two, tmp_path) == [tmp_path / "scatter.png"]
    assert imread(tmp_path / "scatter.png").ndim == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.png", "scatter.png"]
