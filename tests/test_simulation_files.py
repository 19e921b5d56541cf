"""Simulated recordings on disk: the same in chunks of any size, whole or not at all, the truth beside them."""

import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import formats
from whatwhere.errors import FormatError, InputError, OptionError, WriteError
from whatwhere.recording import Recording, Truth
from whatwhere.simulation import (
    NOISES,
    Checkerboard,
    MixedPopulation,
    SimulationPlan,
    SimulationProgress,
    mixed_population,
    populations,
    recording_files,
    recordings,
    simulate,
    simulate_population,
    simulate_to_file,
)

SIZE = (19, 26)  # height, width
OPTIONS = {"n_test_images": 9, "n_repeats": 3, "seed": 5}


@pytest.fixture
def population() -> MixedPopulation:
    return mixed_population(7, image_size=SIZE, n_channels=3, nonlinearity="relu", positions="retinotopic", seed=2)


def assert_same(found: Recording, expected: Recording) -> None:
    np.testing.assert_array_equal(found.read_images(), expected.images)
    np.testing.assert_allclose(found.truth.read_rates(), expected.truth.rates, rtol=1e-6)
    np.testing.assert_allclose(found.responses, expected.responses, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.test.images, expected.test.images)
    np.testing.assert_allclose(found.test.rates, expected.test.rates, rtol=1e-6)
    np.testing.assert_allclose(found.test.responses, expected.test.responses, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.test.image_index, expected.test.image_index)
    pd.testing.assert_frame_equal(found.neurons, expected.neurons, check_index_type=False)
    for name in ("locations", "types", "kernels", "quadrature"):
        np.testing.assert_array_equal(getattr(found.truth, name), getattr(expected.truth, name))
    assert found.truth.description == expected.truth.description


@pytest.mark.parametrize("noise", NOISES)
def test_the_file_holds_what_simulate_gives_in_chunks_of_any_size(
    noise: str, population: MixedPopulation, tmp_path: Path
) -> None:
    expected = simulate(population, 50, noise=noise, **OPTIONS)
    for images_at_once in (1, 7, 50, None):
        path = tmp_path / f"{images_at_once}.h5"
        written = simulate_to_file(path, population, 50, noise=noise, images_at_once=images_at_once, **OPTIONS)
        assert written == path
        assert_same(ww.load(path), expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.h5", "50.h5", "7.h5", "None.h5"]


def test_the_truth_is_that_of_the_population(population: MixedPopulation, tmp_path: Path) -> None:
    recording = ww.load(simulate_to_file(tmp_path / "a.h5", population, 20, images_at_once=6, **OPTIONS))
    truth = recording.truth
    np.testing.assert_allclose(truth.read_rates(), population.rates(recording.read_images()), atol=1e-6)
    np.testing.assert_array_equal(truth.kernels, population.kernels)
    np.testing.assert_array_equal(truth.quadrature, population.quadrature)
    np.testing.assert_array_equal(truth.locations, population.locations)
    np.testing.assert_array_equal(truth.types, population.types)
    np.testing.assert_array_equal(recording.neurons[["row", "column"]], population.locations)
    np.testing.assert_array_equal(recording.neurons[["cortex_row", "cortex_column"]], population.cortex)
    assert truth.description == "simulated: white-noise stimuli, paper noise, seed 5"
    assert repr(truth) == "Truth(20 images, 7 neurons, 6 types)"
    assert not isinstance(truth.rates, np.ndarray)  # they stay on disk
    linear = simulate_population(1, image_size=SIZE, kernel_size=5)
    assert simulate(linear, 4, n_test_images=2).truth.quadrature is None
    assert simulate(linear, 4, n_test_images=2).truth.kernels.shape == (1, 5, 5)


def test_a_mean_rate_is_that_of_the_stimuli(tmp_path: Path) -> None:
    population = simulate_population(6, image_size=SIZE)
    board = Checkerboard(block_size=3)
    path = simulate_to_file(tmp_path / "a.h5", population, 2000, n_test_images=2, stimuli=board, mean_rate=0.4)
    truth = ww.load(path).truth
    rates = np.abs(truth.read_rates().astype(float))
    error = np.sqrt(1 / 2000 + 1 / recordings.N_CALIBRATION) * rates.std(axis=0)  # measured on other images
    assert (np.abs(rates.mean(axis=0) - 0.4) < 4.5 * error).all()
    ratio = truth.kernels / population.kernels
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape))  # the kernels are those scaled
    assert ratio.min() > 1


def test_no_more_images_are_in_memory_than_said(
    population: MixedPopulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    make = recordings.make_stimuli
    monkeypatch.setattr(recordings, "make_stimuli", lambda *a, **o: asked.append(a[1]) or make(*a, **o))
    monkeypatch.setattr(recording_files, "N_TIMED", 3)
    simulate_to_file(tmp_path / "a.h5", population, 50, images_at_once=4, **OPTIONS)
    assert max(asked) == 4
    assert sum(asked) == 50 + 9 + 3  # each once, and those that were timed


def peak_and_plan(path: Path, *arguments: object, **options: object) -> tuple[int, int]:
    """Bytes of memory that were needed at most, and that were said to be."""
    plans: list[SimulationPlan | SimulationProgress] = []
    tracemalloc.start()
    simulate_to_file(path, *arguments, observer=plans.append, overwrite=True, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, plans[0].memory


@pytest.mark.parametrize("noise", NOISES)
def test_memory_is_what_the_plan_says_however_many_images_there_are(
    noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_files, "BYTES_AT_ONCE", 2**22)
    for module in (populations, recording_files):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 2**16)
    many = simulate_population(700, image_size=SIZE, kernel_size=5, nonlinearity="relu")
    some, more = (
        peak_and_plan(tmp_path / "a.h5", many, n_images, n_test_images=20, n_repeats=2, noise=noise)
        for n_images in (1000, 3000)
    )
    assert more[0] < 1.1 * some[0]
    assert more[1] == some[1]
    assert 0.4 * some[1] < some[0] < 1.1 * some[1]


def test_a_mean_rate_is_measured_on_large_images_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (populations, recording_files):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 2**18)
    few = mixed_population(3, image_size=(60, 70), n_types=3)
    options = {"n_test_images": 5, "stimuli": "checkerboard", "mean_rate": 0.2}
    simulate_to_file(tmp_path / "a.h5", few, 9, **options)  # what is loaded at first is not counted
    peak, said = peak_and_plan(tmp_path / "a.h5", few, 60, **options)
    assert peak < 1.3 * said + 2**20
    assert peak < recordings.N_CALIBRATION * 60 * 70 * 4 / 2


def test_the_plan_comes_before_the_mean_rate_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    make = recordings.make_stimuli
    monkeypatch.setattr(recordings, "make_stimuli", lambda *a, **o: asked.append(a[1]) or make(*a, **o))
    at_plan: list[int] = []

    def note(event: SimulationPlan | SimulationProgress) -> None:
        if isinstance(event, SimulationPlan):
            at_plan.append(sum(asked))

    population = simulate_population(2, image_size=SIZE)
    for mean_rate, n_more in ((None, 0), (0.3, recordings.N_CALIBRATION)):
        asked.clear()
        simulate_to_file(tmp_path / f"{n_more}.h5", population, 50, mean_rate=mean_rate, observer=note, **OPTIONS)
        assert sum(asked) == 50 + 9 + recording_files.N_TIMED + n_more
    assert at_plan == [recording_files.N_TIMED] * 2


def test_the_plan_says_how_large_the_file_will_be_and_the_progress_how_far_it_is(
    population: MixedPopulation, tmp_path: Path
) -> None:
    said: list[SimulationPlan | SimulationProgress] = []
    path = simulate_to_file(tmp_path / "a.h5", population, 600, images_at_once=100, observer=said.append, **OPTIONS)
    plan, *progress = said
    assert (plan.n_images, plan.n_neurons, plan.image_shape) == (600, 7, (3, *SIZE))
    assert path.stat().st_size == pytest.approx(plan.n_bytes, rel=0.05)
    assert plan.seconds > 0
    assert [event.n_done for event in progress] == [9, 109, 209, 309, 409, 509, 609]
    assert all(event.n_images == 609 for event in progress)
    assert progress[-1].seconds_left == 0
    assert progress[-1].notes == ("simulated: white-noise stimuli, paper noise, seed 5",)
    small = simulate_to_file(tmp_path / "b.h5", population, 600, compress=True, stimuli="checkerboard", **OPTIONS)
    assert small.stat().st_size < path.stat().st_size / 4


# -------------------------------------------------------------------------------------------------- whole or not at all


def test_what_fails_on_the_way_leaves_nothing_and_harms_nothing(population: MixedPopulation, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    simulate_to_file(path, population, 20, **OPTIONS)
    before = path.read_bytes()

    def fail(event: SimulationPlan | SimulationProgress) -> None:
        if isinstance(event, SimulationProgress) and event.n_done > 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_to_file(path, population, 40, images_at_once=4, overwrite=True, observer=fail, **OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert path.read_bytes() == before
    simulate_to_file(path, population, 40, overwrite=True, **OPTIONS)
    assert ww.load(path).n_images == 40


def test_a_killed_run_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    program = (
        "import os, signal\n"
        "from whatwhere.simulation import *\n"
        "def die(event):\n"
        "    if isinstance(event, SimulationProgress):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "simulate_to_file('a.h5', simulate_population(3, image_size=(19, 26)), 40, n_test_images=4, observer=die)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.h5").exists()


def test_targets_that_cannot_be_written_are_refused_before_anything_is_made(
    population: MixedPopulation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = simulate_to_file(tmp_path / "a.h5", population, 5, **OPTIONS)

    def refused(target: Path, error: type[Exception], message: str, **options: object) -> None:
        with pytest.raises(error, match=message):
            simulate_to_file(target, population, 5, **{**OPTIONS, **options})

    refused(path, FormatError, r"a\.h5 exists already. Choose another name, or say overwrite=True \(--overwrite\)")
    refused(tmp_path / "a.npz", FormatError, r"a\.npz ends in '\.npz': expected \.h5 or \.hdf5")
    refused(tmp_path / "no" / "a.h5", FormatError, "the folder .*no does not exist: make it first")
    refused(tmp_path / "b.h5", OptionError, "images_at_once must be a whole number", images_at_once=0)
    refused(tmp_path / "b.h5", OptionError, r"Did you mean 'pink-noise'\?", stimuli="pink")
    refused(tmp_path / "b.h5", OptionError, "n_repeats must be a whole number of at least 0", n_repeats=-1)
    linear = simulate_population(3, image_size=SIZE)
    with pytest.raises(InputError, match=r"Poisson counts need rates of 0 or more.*nonlinearity='relu'"):
        simulate_to_file(tmp_path / "b.h5", linear, 5, noise="poisson")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    refused(tmp_path / "b.h5", WriteError, r"b\.h5 would be 0\.\d\d GiB, but 0\.00 GiB are free", n_test_images=900)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


# ------------------------------------------------------------------------------------------------------------ the truth


@pytest.fixture
def stored(population: MixedPopulation, tmp_path: Path) -> Recording:
    return ww.load(simulate_to_file(tmp_path / "stored.h5", population, 30, **OPTIONS))


@pytest.mark.parametrize("lazy", [True, False])
def test_the_truth_follows_the_images_and_neurons_that_are_selected(
    lazy: bool, stored: Recording, population: MixedPopulation
) -> None:
    recording = stored if lazy else simulate(population, 30, **OPTIONS)
    rows, neurons = [20, 3, 11, 4], [5, 0, 6]
    selected = recording.select_images(rows).select_neurons(neurons).select_images([3, 0])
    expected = recording.truth.read_rates()[[4, 20]][:, neurons]
    np.testing.assert_array_equal(selected.truth.read_rates(), expected)
    np.testing.assert_array_equal(selected.truth.read_rates([1]), expected[1:])
    np.testing.assert_array_equal(selected.truth.kernels, population.kernels[neurons])
    np.testing.assert_array_equal(selected.truth.locations, population.locations[neurons])
    assert selected.truth.types.tolist() == population.types[neurons].tolist()
    assert isinstance(selected.truth.rates, np.ndarray) != lazy
    one = recording.select_neurons([2])
    assert one.truth.rates.shape == (30, 1)


def test_rows_and_neurons_left_out_are_left_out_of_the_truth(population: MixedPopulation) -> None:
    recording = simulate(population, 30, **OPTIONS)
    responses = recording.responses.copy()
    responses[4, 2] = np.nan
    parts = {"test": recording.test, "truth": recording.truth}
    rows = Recording(recording.images, responses, **parts, nonfinite="rows")
    np.testing.assert_array_equal(rows.truth.rates, np.delete(recording.truth.rates, 4, axis=0))
    neurons = Recording(recording.images, responses, **parts, nonfinite="neurons")
    np.testing.assert_array_equal(neurons.truth.rates, np.delete(recording.truth.rates, 2, axis=1))
    np.testing.assert_array_equal(neurons.truth.kernels, np.delete(population.kernels, 2, axis=0))


def test_the_truth_survives_saving_and_other_formats_do_without(stored: Recording, tmp_path: Path) -> None:
    again = ww.load(ww.save(stored.select_neurons([1, 6]), tmp_path / "some.h5", compress=True))
    np.testing.assert_array_equal(again.truth.read_rates(), stored.truth.read_rates()[:, [1, 6]])
    np.testing.assert_array_equal(again.truth.quadrature, stored.truth.quadrature[[1, 6]])
    assert again.truth.description == stored.truth.description
    other = ww.load(ww.save(stored, tmp_path / "all.npz"))
    assert other.truth is None
    assert other.fingerprint() == stored.fingerprint()
    names = [item.name for item in formats.inspect(tmp_path / "stored.h5").items]
    assert {"truth/rates", "truth/kernels", "truth/quadrature", "truth/locations", "truth/types"} <= set(names)


def test_a_recording_without_a_truth_has_none() -> None:
    assert Recording(np.zeros((4, 5, 8)), np.ones((4, 2))).truth is None


def test_a_truth_that_does_not_fit_is_refused(stored: Recording) -> None:
    images, responses = np.zeros((4, 5, 8)), np.ones((4, 2))
    truth = Truth(np.ones((4, 2)), np.zeros((2, 2)), np.zeros(2, int))
    assert Recording(images, responses, truth=truth).truth is truth
    broken: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: Recording(images, responses, truth=stored.truth), r"truth.rates has shape \(30, 7\) but responses"),
        (lambda: Recording(images, responses, truth=np.ones((4, 2))), "truth is a ndarray: expected a Truth"),
        (
            lambda: Truth(np.ones((4, 2)), np.zeros((3, 2)), [0, 1]),
            "truth.locations has 3 neurons but truth.rates has 2",
        ),
        (lambda: Truth(np.ones((4, 2)), np.zeros((2, 2)), ["a", "b"]), "truth.types has dtype <U1: expected real"),
    )
    for build, message in broken:
        with pytest.raises(InputError, match=message):
            build()


def test_a_file_with_half_a_truth_is_named(stored: Recording, tmp_path: Path) -> None:
    path = ww.save(stored, tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["truth/types"]
    with pytest.raises(FormatError, match=r"a\.h5 holds a truth without 'truth/types', only kernels, locations"):
        ww.load(path)
    with h5py.File(path, "a") as file:
        file["truth"].move("locations", "location")
    with pytest.raises(FormatError, match=r"holds 'location', .* Did you mean 'locations'\?"):
        ww.load(path)
