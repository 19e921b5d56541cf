"""The figure of optimisers compared: what is drawn where."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from whatwhere.errors import InputError
from whatwhere.optimisers import OptimisationResult
from whatwhere.report.optimisation import loss_against_time


def result(values: list[float], converged: bool = True) -> OptimisationResult:
    seconds = 0.1 * np.arange(1, len(values) + 1)
    return OptimisationResult("adam", np.array(values), seconds, min(values), 0.0, len(values), 0, converged, "")


RESULTS = {"fast": result([3.0, 1.5, 1.0]), "slow": result([3.0, 2.5, 2.8, 2.0], converged=False)}


@pytest.fixture
def figure() -> Figure:
    return loss_against_time(RESULTS)


def test_losses_and_distances_are_drawn_against_seconds(figure: Figure) -> None:
    losses, distances = figure.axes
    for name, number in (("fast", 0), ("slow", 2)):
        drawn = losses.lines[number]
        np.testing.assert_array_equal(drawn.get_xdata(), RESULTS[name].seconds)
        np.testing.assert_array_equal(drawn.get_ydata(), RESULTS[name].values)
        gaps = distances.lines[number].get_ydata()
        np.testing.assert_allclose(gaps, np.maximum(RESULTS[name].values - 1.0, 2e-10))
    assert (losses.get_xscale(), distances.get_xscale(), distances.get_yscale()) == ("log", "log", "log")
    assert (losses.get_xlabel(), losses.get_ylabel()) == ("seconds", "loss")


def test_ends_are_filled_where_they_converged(figure: Figure) -> None:
    for axes in figure.axes:
        ends = [axes.lines[1], axes.lines[3]]
        assert [end.get_markerfacecolor() == "white" for end in ends] == [False, True]
        np.testing.assert_allclose([end.get_xdata()[0] for end in ends], [0.3, 0.4])


def test_each_method_has_a_look_of_its_own_and_its_end_in_words(figure: Figure) -> None:
    many = loss_against_time({str(number): result([2.0, 1.0]) for number in range(5)})
    looks = {(line.get_color(), line.get_linestyle()) for line in many.axes[0].lines[:10:2]}
    assert len({colour for colour, _ in looks}) == 5
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["fast: 2 iterations, 0.3 s, converged", "slow: 3 iterations, 0.4 s, not converged"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="results is empty"):
        loss_against_time({})
    with pytest.raises(InputError, match=r"start at different losses \(a at 2, b at 2\.5\)"):
        loss_against_time({"a": result([2.0, 1.0]), "b": result([2.5, 1.0])})
