"""Thousands of neurons on disk: what is timed, what memory is taken, and the page."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.errors import OptionError
from whatwhere.estimators.preparation import prepare
from whatwhere.experiments.points import Point
from whatwhere.experiments.scale import SCALE, ScaleOptions, measure, network, recorded, solve, thinned
from whatwhere.model import Model, Shapes, initialize
from whatwhere.process_memory import forget_peak, peak_memory
from whatwhere.readouts import Start
from whatwhere.report.reproduction import write_reproduction
from whatwhere.training import Trainer

SMALL = ScaleOptions(
    weights="seeded",
    image_size=(19, 24),
    n_test_images=20,
    n_types=3,
    n_maps=(2, 3),
    memory_gib=1e-4,
    n_steps=10,
    support=2,
    max_steps=6,
)
POINT = Point("factorized", 9, 150, 0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The point's recording."""
    path = tmp_path_factory.mktemp("scale") / "recording.h5"
    with recorded(ScaleOptions(**{**vars(SMALL), "recording": str(path)}), POINT) as (found, seconds):
        assert found == path
        assert seconds > 0
    return path


def test_the_presets_are_of_thousands_of_neurons_of_all_types() -> None:
    for preset in ("quick", "paper"):
        grid = SCALE.grid(preset)
        assert (grid.neurons, grid.images) == ((8192,), (65_536,))
        options = SCALE.options(preset)
        assert (options.n_types, options.whole) == (128, preset == "paper")
        chosen = network(options, SCALE.points(grid)[0])
        assert chosen.core.n_maps == (32, 64, 128)
        assert (chosen.training.memory_gib, chosen.training.proximal, chosen.training.whole_every) == (0.5, True, 10)


def test_times_and_memory_are_measured_on_a_file_that_is_kept_or_gone(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = solve(SMALL, POINT)
    assert not list(tmp_path.rglob("*.h5")), "a temporary recording is gone"
    assert found.measured["simulation_seconds"] > 0
    kept = solve(ScaleOptions(**{**vars(SMALL), "recording": str(file), "threads": 1}), POINT)
    assert file.exists()
    assert kept.measured["simulation_seconds"] == 0
    for outcome in (found, kept):
        measured = outcome.measured
        assert min(measured["seconds_per_epoch"], measured["seconds_per_epoch_sparse"], measured["start_seconds"]) > 0
        assert (measured["n_types"], measured["steps_timed"], outcome.n_validation) == (3, 10, 19)
        assert measured["threads"] == (os.cpu_count() if outcome is found else 1)
        assert measured["file_gib"] == file.stat().st_size / 2**30
        assert 0.05 < measured["peak_gib"] < 8
    np.testing.assert_allclose(kept.fev, found.fev, atol=1e-5, err_msg="the same recording, the same steps")


def test_the_model_timed_is_the_one_that_training_makes_in_as_many_steps(file: Path) -> None:
    recording = ww.load(file)
    chosen = network(SMALL, POINT)
    predicted, _ = measure(SMALL, chosen, recording, seed=0)
    options = replace(chosen, training=replace(chosen.training, whole_every=1))
    shapes = Shapes(3, *SMALL.image_size, POINT.n_neurons)
    prepared = prepare(recording, options, *recording.split(0.125, 0), torch.device("cpu"), "")
    model = Model("factorized", options, shapes)
    initialize(model, prepared.data.images, prepared.data.responses, 0)
    trainer = Trainer(model.train(), prepared.data, seed=0)
    for _ in range(2 * SMALL.n_steps):
        trainer.step()
    trainer.close()
    images = torch.from_numpy(prepared.standardisation.apply(recording.test.read_images()))
    with torch.no_grad():
        expected = model.eval()(images).numpy() * prepared.response_scale
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)


def test_a_whole_fit_gives_its_own_fev(file: Path) -> None:
    options = ScaleOptions(**{**vars(SMALL), "recording": str(file), "whole": True})
    found = solve(options, POINT)
    recording = ww.load(file)
    fitted = ww.FactorizedCNN("nonlinear", **vars(network(options, POINT))).fit(recording)
    assert found.measured["steps"] == 6
    np.testing.assert_allclose(found.fev, fitted.evaluate(recording).summary["fev"]["mean"], rtol=1e-5)


@pytest.mark.parametrize("peak", [(0, 0), (3, 4), (8, 11)])
def test_thin_masks_hold_a_square_around_the_peak_inside_the_map(peak: tuple[int, int]) -> None:
    model = Model("factorized", network(SMALL, POINT), Shapes(3, 21, 24, 1))
    height, width = model.core.output_shape[1:]
    assert (height, width) == (9, 12)
    start = Start(torch.tensor([peak[0] * width + peak[1]]), torch.ones(1), 0.01)
    model.readout.initialize(start, torch.Generator().manual_seed(0))
    thin = thinned(model, 3).readout.masks()[0]
    rows, columns = np.nonzero(thin.numpy())
    assert len(rows) == 9
    assert np.ptp(rows) == np.ptp(columns) == 2
    assert thin[peak] > 0
    assert len(thin[thin > 0].unique()) == 1
    assert not torch.equal(model.readout.masks()[0], thin), "the model itself is as it was"


def test_the_page_says_what_was_timed(tmp_path: Path) -> None:
    SCALE.run(tmp_path, neurons=[9], images=[150], options=SMALL, workers=1)
    files = write_reproduction(tmp_path)
    assert [file.name for file in files] == ["scale.png", "page.html"]
    page = files[-1].read_text(encoding="utf-8")
    assert "10 steps after as many to begin with" in page
    assert "no fit, a start" in page


def test_a_device_that_is_not_there_is_told_before_anything_is_simulated(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="device 'gpu' cannot be used"):
        SCALE.run(tmp_path / "out", options=ScaleOptions(**{**vars(SMALL), "device": "gpu"}))
    assert not (tmp_path / "out").exists()


def test_steps_that_are_no_whole_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="n_steps is 15: expected a multiple of 10"):
        SCALE.run(tmp_path / "out", options=ScaleOptions(**{**vars(SMALL), "n_steps": 15}))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no peak can be forgotten")
def test_the_peak_of_memory_is_what_was_held() -> None:
    forget_peak()
    before = peak_memory()
    held = np.ones(2**24)  # 128 MiB
    assert 100 * 2**20 < peak_memory() - before < 200 * 2**20
    del held


MEMORY = """
import sys
import torch
import whatwhere as ww
from whatwhere.config import ModelOptions, TrainingOptions
from whatwhere.estimators.preparation import prepare
from whatwhere.process_memory import forget_peak, peak_memory

recording = ww.load(sys.argv[1])
forget_peak()
before = peak_memory()
recording = recording.check_nonnegative()
recording.constant_neurons()
options = ModelOptions(training=TrainingOptions(memory_gib=float(sys.argv[2])))
prepared = prepare(recording, options, *recording.split(), torch.device("cpu"), "")
print((peak_memory() - before) / recording.responses.nbytes)
"""


def test_a_fit_copies_responses_once_at_most(tmp_path: Path, rng: np.random.Generator) -> None:
    """Once, or not at all where images stay on disk; statistics of all neurons at once would copy them, too."""
    responses = rng.random((4096, 8192), dtype=np.float32)
    images = rng.random((4096, 1, 4, 4), dtype=np.float32)
    ww.save(ww.Recording(images, responses), tmp_path / "large.h5")
    found = []
    for memory_gib in (4, 1e-6):
        program = [sys.executable, "-c", MEMORY, str(tmp_path / "large.h5"), str(memory_gib)]
        found.append(float(subprocess.run(program, check=True, capture_output=True, text=True).stdout))
    assert 0.9 < found[0] < 2.2
    assert found[1] < 1.2
