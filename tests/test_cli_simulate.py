"""`whatwhere simulate`: what it writes, says and refuses."""

import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import whatwhere as ww
from whatwhere import cli
from whatwhere.cli import console
from whatwhere.simulation import (
    Checkerboard,
    GainNoise,
    complex_population,
    make_population,
    simulate,
    simulate_population,
    vgg_population,
)

Outcome = tuple[int, str, str]
SMALL = ("--neurons", "6", "--images", "40", "--test-images", "5", "--repeats", "2", "--image-size", "20x27")


@pytest.fixture
def run(command: Callable[..., Outcome], tmp_path: Path) -> Callable[..., Outcome]:
    """Runs `whatwhere simulate` in an empty folder; returns exit code, output and errors."""
    return partial(command, tmp_path, "simulate")


@pytest.fixture
def photographs(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (30 + number, 40, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_text("no photograph")
    return folder


def test_a_recording_like_any_other_is_written_with_its_truth(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, out, err = run("dog", "--out", "a.h5", "--seed", "3", *SMALL)
    assert (code, err) == (0, "")
    assert re.search(
        r"6 neurons, 40 images of 1 x 20 x 27 pixels, 5 test images shown 2 times: [\d.]+ KiB on disk", out
    )
    assert re.search(r"on disk, about [\d.]+ Ki?B of memory, \d+ s\.\n", out)
    assert out.endswith("40 images, 6 neurons: a.h5\n")
    recording = ww.load(tmp_path / "a.h5")
    expected = simulate(simulate_population(6, image_size=(20, 27), seed=3), 40, n_test_images=5, n_repeats=2, seed=3)
    np.testing.assert_array_equal(recording.read_images(), expected.images)
    np.testing.assert_allclose(recording.responses, expected.responses, atol=1e-6)
    np.testing.assert_allclose(recording.truth.read_rates(), expected.truth.rates, rtol=1e-6)
    np.testing.assert_array_equal(recording.truth.kernels, expected.truth.kernels)
    code, _, err = run("dog", "--out", "a.h5", *SMALL)
    assert code == 3
    assert "a.h5 exists already" in err
    assert run("dog", "--out", "a.h5", *SMALL, "--overwrite", "--channels", "3")[0] == 0
    assert ww.load(tmp_path / "a.h5").image_shape == (3, 20, 27)


def test_options_reach_stimuli_noise_positions_and_population(run: Callable[..., Outcome], tmp_path: Path) -> None:
    code, _, err = run(
        *("dog", "--out", "a.h5", "--stimuli", "checkerboard", "--noise", "gain", "--types", "3", "--mean-rate", "2"),
        *("--positions", "retinotopic", "--set", "stimuli.block_size=3", "--set", "noise.variance=0.1"),
        *("--set", "positions.scatter=4", "--set", "population.variation=0", *SMALL),
    )
    assert (code, err) == (0, "")
    recording = ww.load(tmp_path / "a.h5")
    population = simulate_population(
        6,
        size_factors=(0.4, 0.8, 1.6),
        image_size=(20, 27),
        positions=ww.simulation.Retinotopic(scatter=4),
        nonlinearity="relu",
        variation=0,
        mean_rate=2,
    )
    expected = simulate(
        population, 40, n_test_images=5, n_repeats=2, stimuli=Checkerboard(3), noise=GainNoise(0.1), mean_rate=2
    )
    np.testing.assert_array_equal(recording.read_images(), expected.images)
    np.testing.assert_allclose(recording.truth.read_rates(), expected.truth.rates, rtol=1e-6)
    np.testing.assert_array_equal(recording.neurons, expected.neurons)
    np.testing.assert_array_equal(recording.responses, np.round(recording.responses))
    assert recording.truth.rates[:].min() == 0  # rectified, for the noise counts


@pytest.mark.parametrize("kind", ["gabor", "complex", "mixture"])
def test_every_kind_is_that_of_the_library(kind: str, run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run(kind, "--out", "a.h5", "--seed", "1", *SMALL)[0] == 0
    population = make_population(kind, 6, image_size=(20, 27), seed=1)
    recording = ww.load(tmp_path / "a.h5")
    np.testing.assert_array_equal(recording.truth.kernels, population.kernels)
    np.testing.assert_allclose(recording.truth.read_rates(), population.rates(recording.read_images()), rtol=1e-6)


def test_units_of_vgg_have_sizes_colours_and_a_mean_rate_of_their_own(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    few = ("--neurons", "6", "--images", "60", "--test-images", "5")
    assert run("vgg", "--out", "a.h5", "--types", "3", "--image-size", "18x23", "--mean-rate", "0.3", *few)[0] == 0
    recording = ww.load(tmp_path / "a.h5")
    population = vgg_population(6, n_types=3, image_size=(18, 23))
    assert recording.image_shape == (3, 18, 23)
    np.testing.assert_array_equal(recording.truth.locations, population.locations)
    np.testing.assert_allclose(recording.truth.read_rates().mean(0), 0.3, rtol=0.5)
    code, _, err = run("vgg", "--out", "b.h5", "--channels", "1", *few)
    assert (code, "see 3, red, green and blue" in err) == (2, True)
    code, _, err = run("dog", "--out", "b.h5", "--weights", "hub", *SMALL)
    assert (code, "unknown option of the population 'dog' 'weights'" in err) == (2, True)
    code, _, err = run("vgg", "--out", "b.h5", "--weights", "absent.pth", *few)
    assert (code, "absent.pth is no file" in err) == (3, True)
    code, _, err = run("vgg", "--out", "b.h5", "--set", "population.weights=hub", *few)
    assert (code, "--weights of this verb" in err) == (2, True)


def test_explicit_nonlinearity_wins(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run("gabor", "--out", "a.h5", "--nonlinearity", "relu", *SMALL)[0] == 0
    assert ww.load(tmp_path / "a.h5").truth.rates[:].min() == 0
    assert run("gabor", "--out", "b.h5", *SMALL)[0] == 0
    assert ww.load(tmp_path / "b.h5").truth.rates[:].min() < 0
    code, _, err = run("gabor", "--out", "c.h5", "--nonlinearity", "identity", "--noise", "poisson", *SMALL)
    assert code == 3
    assert "Poisson counts need rates of 0 or more" in err


def test_crops_of_photographs(run: Callable[..., Outcome], photographs: Path, tmp_path: Path) -> None:
    code, out, err = run("complex", "--out", "a.h5", "--photographs", "photos", "--channels", "3", *SMALL)
    assert (code, err) == (0, "")
    notes = " ".join(out.split())
    assert "note: training images are crops of 4 photographs, test images of 1 others" in notes
    assert "note: photographs passed over: 1, broken.jpg (cannot be decoded" in notes
    recording = ww.load(tmp_path / "a.h5")
    assert recording.image_shape == (3, 20, 27)
    assert "Photographs(folder='photos'" in recording.truth.description
    rates = recording.truth.read_rates()
    assert rates.mean() == pytest.approx(0.1, rel=0.5)  # the mean rate under these very stimuli
    population = complex_population(6, image_size=(20, 27), n_channels=3)
    assert not np.allclose(rates, population.rates(recording.read_images()), rtol=0.1)


def test_without_repeats_the_test_responses_are_the_rates(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run("dog", "--out", "a.h5", *SMALL, "--repeats", "0", "--noise", "calcium", "--compress")[0] == 0
    test = ww.load(tmp_path / "a.h5").test
    np.testing.assert_array_equal(test.responses, test.rates)


MISTAKES = {
    "unknown kind": (["dogs"], 2, "Did you mean 'dog'?"),
    "unknown stimuli": (["dog", "--stimuli", "white"], 2, "Did you mean 'white-noise'?"),
    "unknown noise": (["dog", "--noise", "poison"], 2, "Did you mean 'poisson'?"),
    "unknown positions": (["dog", "--positions", "jittered"], 2, "Did you mean 'jittered-grid'?"),
    "no size": (["dog", "--image-size", "36"], 2, "--image-size is '36': expected height and width, for example 36x64"),
    "too small": (["dog", "--image-size", "12x40"], 2, "kernel_size (=17) does not fit in image_size (=(12, 40))"),
    "no neurons": (["dog", "--neurons", "0"], 2, "n_neurons must be a whole number of at least 1, got 0"),
    "no images": (["dog", "--images", "0"], 2, "n_images must be a whole number of at least 1, got 0"),
    "no rate": (["dog", "--mean-rate", "0"], 2, "mean_rate must be a number above 0, got 0.0"),
    "no types": (["dog", "--types", "0"], 2, "n_types must be a whole number of at least 1, got 0"),
    "photographs without a folder": (["dog", "--stimuli", "photographs"], 2, "photographs need the folder"),
    "photographs and others": (
        ["dog", "--stimuli", "pink-noise", "--photographs", "."],
        2,
        "--photographs gives a folder, but --stimuli is pink-noise: leave one of them out",
    ),
    "no such folder": (["dog", "--photographs", "nowhere"], 3, "nowhere is no folder: expected one that holds"),
    "no photographs": (["dog", "--photographs", "."], 3, "holds no photographs: expected files that end in"),
    "unknown concern": (["dog", "--set", "noises.variance=1"], 2, "Did you mean 'noise'?"),
    "unknown option": (["dog", "--noise", "gain", "--set", "noise.varience=1"], 2, "Did you mean 'variance'?"),
    "unknown option of the population": (["dog", "--set", "population.size=1"], 2, "unknown option of the population"),
    "option out of range": (["dog", "--noise", "gain", "--set", "noise.variance=-1"], 2, "must be a number at least 0"),
    "option of another type": (["dog", "--noise", "gain", "--set", "noise.variance=a"], 2, "at least 0, got 'a'"),
    "no seed": (["dog", "--seed", "-1"], 2, "seed must be a whole number of at least 0, got -1"),
    "no height": (["dog", "--image-size", "0x20"], 2, "height must be a whole number of at least 1, got 0"),
    "no nonlinearity": (["dog", "--nonlinearity", ""], 2, "unknown nonlinearity ''"),
    "neurons twice": (["dog", "--set", "population.n_neurons=4"], 2, "population.n_neurons is --neurons of this verb"),
    "kind twice": (["dog", "--set", "population.kind=gabor"], 2, "population.kind is KIND of this verb: give it there"),
    "rate twice": (["dog", "--set", "population.mean_rate=5"], 2, "population.mean_rate is --mean-rate of this verb"),
    "types twice": (
        ["dog", "--types", "3", "--set", "population.size_factors=[1.0]"],
        2,
        "n_types (=3) and size_factors (=[1.0]) both name the types: leave one of them out",
    ),
    "one size": (["dog", "--set", "population.size_factors=0.5"], 2, "size_factors must be one or more numbers"),
    "no size factor": (["dog", "--set", "population.size_factors=[a]"], 2, "each of size_factors must be a number"),
    "folders twice": (
        ["dog", "--photographs", ".", "--set", "stimuli.folder=b"],
        2,
        "--photographs gives a folder, and so does stimuli.folder: leave one of them out",
    ),
    "no option": (["dog", "--set", "noise=1"], 2, "noise must hold options, noise.NAME=VALUE: got 1"),
    "unknown suffix": (["dog", "--out", "a.npz"], 3, "a.npz ends in '.npz': expected .h5 or .hdf5"),
    "no folder": (["dog", "--out", "b/a.h5"], 3, "the folder b does not exist: make it first"),
    "unknown flag": (["dog", "--neuron", "3"], 2, "No such option: --neuron"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_its_exit_code_and_a_message(
    arguments: list[str], code: int, message: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    out = [] if "--out" in arguments else ["--out", "x.h5"]
    got, said, err = run(*arguments, *out)
    assert (got, said) == (code, ""), err
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_progress_is_a_bar_on_a_terminal(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=file, force_terminal=True, color_system=None, width=100))
    assert run("dog", "--out", "a.h5", *SMALL)[0] == 0
    assert "45 of 45 images" in file.getvalue()
    assert file.getvalue().endswith("6 neurons: a.h5\n")


def test_help_teaches() -> None:
    result = CliRunner().invoke(cli.app, ["simulate", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    text = "".join(result.output.split())
    for word in ("dog, gabor, complex, mixture", "dead-leaves", "calcium", "retinotopic", "HxW", "--mean-rate"):
        assert word.replace(" ", "") in text, word
