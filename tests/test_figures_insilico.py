"""Figures of experiments on models, by the numbers that their artists carry."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from whatwhere.errors import InputError
from whatwhere.insilico import GratingOptions, MostExcitingOptions, SizeOptions
from whatwhere.insilico.studies import Study, StudyOptions, study
from whatwhere.report.insilico import (
    draw_study,
    field_grid,
    most_exciting_grid,
    orientation_tuning,
    size_curves,
)
from whatwhere.runs import STUDY_FIGURES
from whatwhere.simulation import LinearPopulation, MixedPopulation, complex_population, gabor, gabor_population

SIZE = (20, 28)


def assert_nothing_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 > -0.02
    assert box.y0 > -0.02
    assert box.x1 < width + 0.02
    assert box.y1 < height + 0.02


@pytest.fixture(scope="module")
def found() -> Study:
    """Five half-rectified cells, five complex ones, and one that nothing drives."""
    silent = LinearPopulation(np.zeros((1, 9, 9)), np.array([[4, 5]]), np.zeros(1, int), SIZE)
    population = MixedPopulation(
        (
            gabor_population(5, image_size=SIZE, kernel_size=9, frequencies=(0.2,), nonlinearity="relu", seed=1),
            complex_population(5, image_size=SIZE, kernel_size=9, frequencies=(0.2,), seed=2),
            silent,
        )
    )
    options = StudyOptions(
        crop=(8, 10),
        gratings=GratingOptions(8, (0.1, 0.2, 0.3)),
        sizes=SizeOptions((1.0, 2.0, 4.0, 8.0)),
        most_exciting=MostExcitingOptions(n_starts=1),
    )
    return study(population, options)


def test_fields_stand_in_a_grid_each_on_its_own_scale_about_zero(found: Study) -> None:
    assert found.fields is not None
    figure = field_grid(found.fields, [0, 7, 10])
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["0", "7", "10"]
    for axes, field in zip(panels, found.fields.values[[0, 7, 10]], strict=True):
        image = axes.images[0]
        np.testing.assert_allclose(image.get_array(), field[0])
        limit = np.abs(field).max() or 1.0
        np.testing.assert_allclose(image.get_clim(), (-limit, limit))
    assert_nothing_is_cut_off(figure)
    with pytest.raises(InputError, match=r"neurons holds 11, out of range"):
        field_grid(found.fields, [11])


def test_channels_stand_beside_each_other_and_at_most_32_neurons_are_drawn() -> None:
    kernels = np.stack([[gabor(5), 2 * gabor(5)]] * 50)
    population = LinearPopulation(kernels, np.full((50, 2), 3), np.zeros(50, int), (12, 30))
    fields = study(population, StudyOptions(gratings=None, crop=(12, 30))).fields
    assert fields is not None
    figure = field_grid(fields)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 32
    assert panels[0].get_title() == "0"
    assert panels[-1].get_title() == "49"
    shown = panels[0].images[0].get_array()
    assert shown.shape == (12, 61)
    np.testing.assert_allclose(shown[:, 31:], 2 * shown[:, :30], atol=1e-6)
    assert np.isnan(np.ma.filled(shown, np.nan)[:, 30]).all()
    assert_nothing_is_cut_off(figure)


def test_most_exciting_images_have_grey_in_the_middle_and_say_which_did_not_converge(found: Study) -> None:
    assert found.most_exciting is not None
    figure = most_exciting_grid(found.most_exciting)
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == [*(str(number) for number in range(10)), "10 *"]
    for axes in figure.axes:
        for image in axes.images:
            assert np.mean(image.get_clim()) == pytest.approx(0, abs=1e-3)
    assert_nothing_is_cut_off(figure)


def test_orientation_curves_repeat_after_half_a_turn_and_cells_are_counted(found: Study) -> None:
    tuning = found.gratings
    assert tuning is not None
    figure = orientation_tuning(tuning)
    curves, preferred, invariance = figure.axes
    lines = [line for line in curves.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 8
    first = np.asarray(lines[0].get_ydata())
    once = tuning.orientation_curves[0] / tuning.orientation_curves[0].max()
    np.testing.assert_allclose(first, [*once, *once, once[0]])
    marked = [float(line.get_xdata()[0]) for line in curves.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(marked[:2], tuning.orientation[0] + np.array([0, np.pi]))
    assert sum(bar.get_height() for bar in preferred.patches) == 2 * 10
    assert "10 neurons" in preferred.get_title()
    assert invariance.get_title() == "5 simple | 5 complex"
    assert_nothing_is_cut_off(figure)


def test_size_curves_are_relative_and_leave_out_what_nothing_drives(found: Study) -> None:
    tuning = found.sizes
    assert tuning is not None
    figure = size_curves(tuning, [3])
    curves, scatter = figure.axes
    np.testing.assert_allclose(curves.lines[0].get_ydata(), tuning.response[3] / tuning.response[3].max())
    np.testing.assert_allclose(curves.lines[0].get_xdata(), [1, 2, 4, 8])
    assert len(scatter.lines[0].get_ydata()) == 10
    np.testing.assert_allclose(scatter.lines[0].get_ydata(), tuning.suppression[:10])
    assert_nothing_is_cut_off(figure)


def test_figures_are_drawn_where_nothing_responds_too(tmp_path: Path) -> None:
    silent = LinearPopulation(np.zeros((1, 9, 9)), np.array([[4, 5]]), np.zeros(1, int), SIZE)
    everything = StudyOptions(sizes=SizeOptions(), most_exciting=MostExcitingOptions())
    files = draw_study(study(silent, everything), tmp_path)
    assert sorted(path.name for path in files) == sorted(STUDY_FIGURES)
    draw_study(study(silent, StudyOptions(gratings=None)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fields.png"]
