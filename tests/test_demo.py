"""The demonstration: what it writes is what its model and simulation say."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from whatwhere.catalogue import load_model
from whatwhere.experiments.demo import IMAGE_SIZE, run_demo
from whatwhere.report.demo import demo_figures, draw_demo
from whatwhere.simulation import simulate, simulate_population


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, *draw_demo(folder, seed=3, n_neurons=6, n_images=400, max_steps=150)


def test_metrics_are_those_of_the_saved_model_on_the_same_simulation(drawn):
    folder, _, _ = drawn
    written = json.loads((folder / "metrics.json").read_text())
    recording = simulate(simulate_population(6, image_size=IMAGE_SIZE, seed=3), 400, seed=3)
    model = load_model(folder)
    rates, predictions = recording.test.rates.astype(float), model.predict(recording.test.read_images()).astype(float)
    fev = 1 - ((predictions - rates) ** 2).mean(0) / rates.var(0)
    assert written["fev"] == pytest.approx(fev.mean(), abs=1e-6)
    assert written["fev_low"] <= written["fev"] <= written["fev_high"]
    difference = model.locations_ - recording.neurons[["row", "column"]].to_numpy()
    channel = np.abs(model.feature_weights_).argmax(1)
    few = np.bincount(channel, minlength=2)[channel] < 3  # a channel's own offset needs three neurons
    offsets = [
        np.median(difference if alone else difference[channel == number], 0)
        for number, alone in zip(channel, few, strict=True)
    ]
    errors = np.hypot(*(difference - offsets).T)
    assert np.ptp(errors) > 0
    assert written["location_error_median"] == pytest.approx(np.median(errors))
    assert written["location_error_mean"] == pytest.approx(errors.mean())
    assert written["n_neurons"] == 6
    assert written["n_images"] == 400


def test_the_story_tells_the_numbers_and_the_noise(drawn):
    folder, result, _ = drawn
    written = json.loads((folder / "metrics.json").read_text())
    story = result.story()
    assert f"{written['fev']:.3f}" in story
    assert f"{written['location_error_median']:.2f} pixels" in story
    assert "6 neurons of two types, 400 images of 36 x 48 pixels" in story
    assert "noise of variance |r| as in the paper" in story


def test_every_figure_is_written_and_not_blank(drawn):
    folder, result, files = drawn
    assert [file.stem for file in files] == list(demo_figures(result))
    assert {"masks", "kernels", "barcodes", "predicted-against-true"} <= {file.stem for file in files}
    for file in files:
        assert file.parent == folder
        assert imread(file)[..., :3].std() > 0.01


def test_the_same_seed_gives_the_same_demonstration(drawn, tmp_path):
    _, result, _ = drawn
    again = run_demo(tmp_path, seed=3, n_neurons=6, n_images=400, max_steps=150)
    assert again.metrics() == result.metrics()
