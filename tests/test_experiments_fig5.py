"""Figure 5: units of VGG-19, what is fitted to them and what is kept; its figures and pages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from whatwhere.errors import FormatError, OptionError
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.fig5 import FIG5B, FIG5C, FIG5E, Fig5Options, network, simulated, solve, validation_fraction
from whatwhere.experiments.grid import GridResults, read_grid, run_grid
from whatwhere.experiments.points import Outcome, Point
from whatwhere.report.figure5 import nonlinear_population, numbers_of_types
from whatwhere.report.reproduction import write_reproduction

SMALL = Fig5Options(
    weights="seeded", image_size=(19, 24), n_test_images=30, n_types=2, n_maps=(2, 3), search=False, max_steps=20
)


def test_the_papers_grid_and_network() -> None:
    grid = FIG5B.presets["paper"].grid
    assert (grid.neurons, grid.images[0], grid.images[-1]) == ((12, 100, 1000), 512, 65_536)
    assert FIG5B.sizes("factorized", (12, 100, 1000)) == (12, 100, 1000)
    assert FIG5B.sizes("glm", (12, 1000, 100)) == (1000,)
    options = network(FIG5B.presets["paper"].options, Point("factorized", 1000, 4096, 0))
    assert options.core.kernel_sizes == (5, 5, 5)
    assert options.core.n_maps == (32, 64, 4)
    assert {layer.padding for layer in options.core.layers()} == {"valid"}
    assert (options.core.nonlinearity, options.core.last_nonlinearity) == ("relu", "relu")
    assert options.core.batch_norm_shift
    assert options.readout.nonnegative_features
    training = options.training
    assert (training.batch_size, training.check_every, training.patience, training.n_rates) == (64, 100, 5, 3)
    assert len(options.penalties.candidates()) == 3
    assert training.proximal
    assert [validation_fraction(n) for n in (512, 8192, 16_384)] == [0.125, 0.125, 0.0625]


def test_as_many_types_as_there_are_64_neurons_and_as_many_maps() -> None:
    options = FIG5E.presets["quick"].options
    points = FIG5E.points(FIG5E.grid("quick"))
    assert sorted({options.types_of(point.n_neurons) for point in points}) == [4, 8, 16]
    assert network(options, Point("posterior", 512, 4096, 0)).core.n_maps == (16, 32, 8)
    assert SMALL.types_of(1) == 1


def test_the_recording_is_of_units_with_a_mean_rate_of_a_tenth() -> None:
    recording, population = simulated(SMALL, Point("factorized", 6, 400, 3))
    assert recording.image_shape == (3, 19, 24)
    assert population.map_size == (7, 12)
    np.testing.assert_allclose(recording.truth.read_rates().mean(), 0.1, rtol=0.2)


@pytest.mark.parametrize("model", FIG5B.models)
def test_every_model_is_fitted_and_what_it_found_is_kept(model: str) -> None:
    outcome = solve(SMALL, Point(model, 7, 64, 0))
    assert outcome.measured["n_types"] == 2
    assert outcome.n_validation == 8
    if model == "glm":
        return
    assert {"steps", "type_accuracy", "location_error", "hit_rate"} <= set(outcome.measured)
    assert outcome.measured["steps"] == 20
    kept = outcome.arrays
    assert kept["feature_weights"].shape == (7, 2)
    assert kept["masks"].shape == (2, 7, 12)
    assert kept["found"].shape == kept["true_locations"].shape == (7, 2)
    assert kept["examples"].shape == (1, 3, 19, 24)
    assert ("coverage" in outcome.measured) == (model == "posterior")


def test_places_of_masks_are_in_pixels_of_the_map() -> None:
    """Of masks at the truth, the places are the masks' peaks."""
    outcome = solve(SMALL, Point("fixed-mask", 9, 64, 1))
    kept = outcome.arrays
    peaks = np.stack([np.unravel_index(mask.argmax(), mask.shape) for mask in kept["masks"]])
    off = kept["found"] - kept["true_locations"]
    channel = kept["feature_weights"].argmax(1)
    for peak, place, neuron in zip(peaks, kept["places"], kept["shown"], strict=True):
        same = channel == channel[neuron]
        offset = np.median(off[same if same.sum() >= 3 else slice(None)], axis=0)
        np.testing.assert_allclose(peak - place, off[neuron] - offset)


def made_up(point: Point) -> Outcome:
    value = {"factorized": 0.3, "posterior": 0.5, "fully-connected": 0.2}[point.model] + point.n_images / 10_000
    rng = np.random.default_rng(point.seed)
    n, n_types = point.n_neurons, max(2, point.n_neurons // 64)
    arrays = {
        "types": np.arange(n) % n_types,
        "true_locations": rng.uniform(5, 20, (n, 2)),
        "found": rng.uniform(5, 20, (n, 2)),
        "feature_weights": rng.uniform(0, 1, (n, n_types)),
        "masks": rng.standard_normal((n_types, 7, 12)),
        "shown": np.arange(n_types),
        "places": rng.uniform(0, 7, (n_types, 2)),
        "examples": rng.uniform(-1, 1, (4, 3, 19, 24)),
    }
    measured = {"n_types": n_types, "steps": 10, "type_accuracy": 0.9, "location_error": 0.5, "hit_rate": 0.8}
    return Outcome(value + 0.05 * point.seed, 1.0, 0.1, 51, measured, arrays)


def asked(experiment: str) -> dict[str, Any]:
    options = {"weights": "seeded", "photographs": None, "n_maps": [2, 3], "n_test_images": 30, "search": False}
    return {"experiment": experiment, **options}


def lines(figure: Figure) -> dict[str, np.ndarray]:
    found = {}
    for axes in figure.findobj(lambda artist: hasattr(artist, "containers")):
        for container in axes.containers:
            found[container.get_label()] = np.asarray(container.lines[0].get_xydata())
    return found


@pytest.fixture
def fig5(tmp_path: Path) -> GridResults:
    points = [
        Point(model, n_neurons, n_images, seed)
        for model, n_neurons in (("factorized", 100), ("factorized", 1000), ("posterior", 1000))
        for n_images in (1024, 4096)
        for seed in range(3)
    ]
    run_grid(points, made_up, tmp_path, asked=asked("fig5"), workers=1)
    return read_grid(tmp_path)


def test_figure_5_shows_every_curve_weights_and_masks(fig5: GridResults) -> None:
    figure = nonlinear_population(fig5)
    found = lines(figure)
    assert set(found) == {"factorised, 100 neurons", "factorised, 1,000 neurons", "posterior, 1,000 neurons"}
    np.testing.assert_allclose(found["posterior, 1,000 neurons"], [[1024, 0.6524], [4096, 0.9596]])  # seed 1
    kept = fig5.arrays(Point("factorized", 1000, 4096, 0))
    shown = [image.get_array() for axes in figure.findobj(lambda a: hasattr(a, "get_images")) for image in axes.images]
    assert any(image.shape == (7, 12) and np.array_equal(image, kept["masks"][0]) for image in shown)
    assert any(image.shape == kept["feature_weights"].shape for image in shown)


def test_the_page_of_figure_5_has_the_papers_numbers_and_what_differs(fig5: GridResults) -> None:
    files = write_reproduction(fig5.folder)
    assert [file.name for file in files] == ["figure5.png", "page.html"]
    page = files[-1].read_text(encoding="utf-8")
    for words in ("factorised, 1,000 neurons", "0.76", "dead leaves in place of photographs", "stand-in for VGG-19"):
        assert words in page
    assert "The first two layers have 2 and 3 maps" in page


def test_figure_5e_shows_fev_by_the_number_of_types(tmp_path: Path) -> None:
    points = [
        Point(model, n, 4096, seed)
        for model in ("factorized", "fully-connected")
        for n in (256, 1024)
        for seed in (0, 1, 2)
    ]
    run_grid(points, made_up, tmp_path, asked=asked("fig5e"), workers=1)
    found = lines(numbers_of_types(read_grid(tmp_path)))
    np.testing.assert_allclose(found["factorised, 4,096 images"], [[4, 0.7596], [16, 0.7596]])
    page = write_reproduction(tmp_path)[-1].read_text(encoding="utf-8")
    assert "0.26" in page  # the paper's fully connected readout with 16 types


def test_types_and_places_come_from_the_folder_of_the_curves(tmp_path: Path) -> None:
    how = {"models": ["factorized"], "neurons": [6], "images": [64], "options": SMALL, "workers": 1}
    first = FIG5B.run(tmp_path, **how)
    told = []
    again = FIG5C.run(tmp_path, **how, resume=True, observer=told.append)
    assert told[0].n_done == told[0].n_points == 1
    assert again["fev"].tolist() == first["fev"].tolist()


@pytest.mark.parametrize("name", ["fig5b", "fig5c", "fig5d", "fig5e"])
def test_what_cannot_be_had_is_told_before_anything_is_begun(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    for wrong in (
        {"weights": str(tmp_path / "absent.pth")},
        {"weights": "seeded", "photographs": str(tmp_path / "no")},
    ):
        with pytest.raises(FormatError, match="is no f"):
            experiment.run(tmp_path / "out", options=experiment.options("quick", wrong))
    assert not (tmp_path / "out").exists()


def test_flags_are_options_of_figure_5_alone(command: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = command(tmp_path, "reproduce", "fig5b", "--out", "out", "--weights", "absent.pth")
    assert (code, "absent.pth is no file" in err, out.exists()) == (3, True, False)
    code, _, err = command(tmp_path, "reproduce", "fig3", "--out", "out", "--photographs", ".")
    assert (code, "unknown option 'photographs'" in err, out.exists()) == (2, True, False)
    with pytest.raises(OptionError, match="unknown option 'weight'"):
        FIG5B.options("quick", {"weight": "hub"})
