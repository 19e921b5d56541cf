"""Fitted networks asked what simulated neurons prefer, whose truth is known; and a study with its files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere.errors import OptionError, RunError
from whatwhere.insilico import GratingOptions, ImageStatistics, MostExcitingOptions, SizeOptions, find_places
from whatwhere.insilico.studies import FILES, StudyOptions, study, write_study
from whatwhere.simulation import MixedPopulation, complex_population, gabor_population

SIZE = (13, 15)
N_SIMPLE = 16
N_COMPLEX = 16
STRENGTHS = {"fully-connected": {"weight_l2": 0.3}, "factorized": {"mask_l1": 0.01, "feature_l1": 0.01}}


def population() -> MixedPopulation:
    common: dict[str, Any] = {"image_size": SIZE, "kernel_size": 9, "frequencies": (0.2,), "mean_rate": 0.4}
    return MixedPopulation(
        (
            gabor_population(N_SIMPLE, nonlinearity="relu", seed=1, **common),
            complex_population(N_COMPLEX, seed=2, **common),
        )
    )


def fitted(kind: str, n_images: int = 4000, steps: int = 600) -> ww.estimators.Estimator:
    images = 50 + 20 * np.random.default_rng(0).standard_normal((n_images, 1, *SIZE)).astype(np.float32)
    options = {
        "core": {
            "kernel_sizes": [9],
            "n_maps": 16,
            "nonlinearity": "relu",
            "last_nonlinearity": "relu",
        },
        "readout": {"start": "average"},
        "training": {"max_steps": steps, "learning_rate": 1e-2, "patience_from": 500, "check_every": 50},
        "penalties": STRENGTHS[kind],
    }
    return ww.make_model(kind, options, preset="nonlinear").fit(images, population().rates((images - 50) / 20))


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Degrees between orientations in radians."""
    return np.abs((np.degrees(one - other) + 90) % 180 - 90)


@pytest.mark.parametrize("kind", ["fully-connected", "factorized"])
def test_orientations_places_and_kinds_of_cells_are_recovered_by_a_fit(kind: str) -> None:
    model = fitted(kind)
    statistics = ImageStatistics(np.full((1, *SIZE), 50.0), 20.0)
    found = study(model, StudyOptions(gratings=GratingOptions(), fields=False)).gratings
    truth = study(population(), StudyOptions(gratings=GratingOptions(), fields=False)).gratings
    assert found is not None
    assert truth is not None
    errors = apart(found.orientation, truth.orientation)
    assert np.median(errors) < 5
    assert (errors < 10).mean() > 0.9
    np.testing.assert_allclose(found.frequency, truth.frequency, rtol=0.1)
    is_complex = np.arange(N_SIMPLE + N_COMPLEX) >= N_SIMPLE
    assert ((found.phase_invariance > 0.5) == is_complex).all()
    np.testing.assert_allclose(found.phase_invariance[~is_complex], 0.39, atol=0.05)
    assert (found.phase_invariance[is_complex] > 0.8).all()
    lost = np.hypot(*(find_places(model, statistics=statistics) - population().locations).T)
    assert np.median(lost) < 0.5
    np.testing.assert_allclose(found.peak[~is_complex], truth.peak[~is_complex], rtol=0.2)


@pytest.fixture(scope="module")
def small() -> tuple[ww.estimators.Estimator, np.ndarray]:
    """A network fitted to neurons with names, and its images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 17), dtype=np.uint8)
    neurons = pd.DataFrame(index=[f"cell-{letter}" for letter in "abcd"])
    recording = ww.Recording(images, rng.poisson(images[:, 5, 6:10] / 60), neurons=neurons)
    options = {"core": {"kernel_sizes": [5], "n_maps": 3}, "training": {"max_steps": 12, "check_every": 6}}
    return ww.make_model("gaussian", options).fit(recording), images


EVERYTHING = StudyOptions(
    sizes=SizeOptions(n_phases=4), most_exciting=MostExcitingOptions(steps=5, n_starts=1), n_neurons=3, crop=(9, 30)
)


def test_a_study_has_a_row_a_neuron_and_keeps_what_it_found(small: tuple[Any, np.ndarray], tmp_path: Path) -> None:
    model, images = small
    told: list[str] = []
    found = study(model, EVERYTHING, images=images, told=told.append)
    assert [line.split(" of ")[0].split(" for ")[0] for line in told] == [
        *("linearised receptive fields", "gratings", "gratings"),
        *("most exciting images", "the recording's 60 images"),
    ]
    drawn = found.table["neuron"].tolist()
    assert len(drawn) == 3
    assert set(drawn) < set(model.neurons_)
    positions = [model.neurons_.index(name) for name in drawn]
    np.testing.assert_allclose(found.table["best_image_response"], model.predict(images).max(0)[positions], rtol=1e-5)
    assert found.fields is not None
    assert found.fields.values.shape == (3, 1, 9, 17)
    exciting = found.most_exciting
    assert exciting is not None
    np.testing.assert_allclose(exciting.responses, model.predict(exciting.images)[np.arange(3), positions], rtol=1e-4)
    files = write_study(found, tmp_path / "out")
    assert sorted(path.name for path in files) == sorted(FILES)
    table = pd.read_csv(tmp_path / "out" / "tuning.csv")
    pd.testing.assert_frame_equal(table, found.table, check_dtype=False)
    for name, key, values in (
        ("fields.npz", "fields", found.fields.values),
        ("most_exciting.npz", "images", exciting.images),
        ("curves.npz", "size_mean", found.sizes and found.sizes.mean),
        ("curves.npz", "modulation", found.gratings and found.gratings.modulation),
    ):
        with np.load(tmp_path / "out" / name, allow_pickle=False) as kept:
            assert (kept[key] == values).all()
            assert kept["neurons"].tolist() == drawn


def test_a_study_replaces_another_only_where_asked_and_leaves_none_of_its_files(
    small: tuple[Any, np.ndarray], tmp_path: Path
) -> None:
    write_study(study(small[0], EVERYTHING), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    fewer = study(small[0], StudyOptions(gratings=None, n_field_images=0))
    with pytest.raises(RunError, match=r"holds tuning.csv already: use --overwrite to replace it"):
        write_study(fewer, tmp_path)
    write_study(fewer, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fields.npz", "notes.txt", "tuning.csv"]


def test_a_study_of_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match=r"no experiment is asked for: choose fields"):
        StudyOptions(fields=False, gratings=None)
    with pytest.raises(OptionError, match=r"sizes are tested with the gratings that neurons prefer"):
        StudyOptions(gratings=None, sizes=SizeOptions())
    with pytest.raises(OptionError, match=r"n_neurons must be a whole number of at least 1"):
        StudyOptions(n_neurons=0)


def test_models_that_share_a_core_are_asked_one_recording_at_a_time() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 1, 11, 13)).astype(np.float32)
    recordings = {name: ww.Recording(images, rng.poisson(2.0, (60, n))) for name, n in (("scan1", 2), ("scan2", 3))}
    options = {"core": {"kernel_sizes": [5], "n_maps": 2}, "training": {"max_steps": 4, "check_every": 2}}
    model = ww.SharedCoreCNN("factorized", **options).fit(recordings)
    found = study(model["scan2"], StudyOptions(gratings=GratingOptions(2, (0.1, 0.2))))
    assert len(found.table) == 3
    direction = rng.normal(size=(1, 11, 13)).astype(np.float32)
    fields = study(model["scan2"], StudyOptions(gratings=None, n_field_images=0)).fields
    assert fields is not None
    mean = np.broadcast_to(model["scan2"].standardisation_.mean, (1, 11, 13))
    ahead, behind = (model["scan2"].predict((mean + sign * direction / 20)[None])[0].astype(float) for sign in (1, -1))
    np.testing.assert_allclose(np.tensordot(fields.values, direction, 3), (ahead - behind) * 10, rtol=0.03, atol=1e-4)
