"""A fitted core for a new recording: frozen to the last bit or trained on, and what both are for."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from two_recordings import TRAINING, StoppedError, core, make, same, simulated, stop_at, two

import whatwhere as ww
from whatwhere.config import OptionError
from whatwhere.errors import InputError, RunError
from whatwhere.estimators import CNN
from whatwhere.estimators.given_core import options_with_core
from whatwhere.estimators.shared import KINDS
from whatwhere.option_checks import check_options
from whatwhere.presets import preset_options
from whatwhere.shared_runs import model_with_core
from whatwhere.simulation import simulate, simulate_population

Outcome = tuple[int, str, str]


@pytest.fixture(scope="module")
def recordings() -> dict[str, ww.Recording]:
    return two()


@pytest.fixture(scope="module")
def fitted(recordings: dict[str, ww.Recording]) -> ww.SharedCoreCNN:
    return make(training={**TRAINING, "max_steps": 60}).fit(recordings)


# ------------------------------------------------------------------------------------------------- transfer


@pytest.mark.parametrize("name", KINDS)
def test_a_frozen_core_stays_as_it_is_to_the_last_bit(name: str, recordings: dict[str, ww.Recording]) -> None:
    shared = make(name).fit(recordings)
    before, new = core(shared["a"]), simulated(120, seed=7)
    more = shared.add("c", new)
    assert list(more) == ["a", "b", "c"]
    assert list(shared) == ["a", "b"]
    assert same(core(more["c"]), before)
    assert same(core(more["a"]), before)
    assert more["c"].model_.core is more["a"].model_.core
    assert more["c"].history_["step"].max() == 20
    assert np.isfinite(more["c"].predict(new.images)).all()
    trained = shared.add("c", new, core="trained")
    assert list(trained) == ["c"]
    assert not same(core(trained["c"]), before)
    assert same(core(shared["a"]), before)


def test_training_goes_on_from_the_fitted_core(fitted: ww.SharedCoreCNN) -> None:
    """Without a step it is the fitted one; a frozen one has no penalties, a trained one those it had."""
    new = simulated(50, seed=7, n_neurons=3)
    more = fitted.add("c", new, core="trained", options={"training": {"max_steps": 0}})
    at_once = more["c"]
    assert same(core(at_once), core(fitted["a"]))
    assert ww.transferred(fitted["a"]).options().penalties.smoothness == 0
    assert ww.transferred(fitted["a"]).options().penalties.product_l1 == 0.03
    assert at_once.options_.penalties.smoothness == fitted["a"].options_.penalties.smoothness > 0
    assert more.template().options().training.max_steps == 0
    assert (clone(more).template().asked() | {"given_core": None}) == (more["c"].asked() | {"given_core": None})
    assert fitted.template().options().training.max_steps == 60
    assert fitted.add("d", new).template().asked() == fitted.template().asked()
    mean = at_once.predict(new.images).mean(0)
    np.testing.assert_allclose(mean, new.responses.mean(0), rtol=0.2, err_msg="biases are of the new neurons")


def test_options_of_a_transfer_are_those_of_the_core_and_others_over_them(fitted: ww.SharedCoreCNN) -> None:
    made = ww.transferred(fitted["b"], options={"penalties": {"mask_l1": 0.1, "feature_l1": 0.1}}, seed=4)
    assert (made.options().penalties.product_l1, made.options().penalties.mask_l1, made.seed) == (0, 0.1, 4)
    typed = make(readout={"start": "types", "hold_features": 3}).template()
    typed.fit(simulated(60))
    assert ww.transferred(typed).options().readout.start == "average"
    sparse = make(penalties={"group_sparsity": 0.1, "product_l1": 0}, training={**TRAINING, "proximal": True})
    assert not ww.transferred(sparse.template().fit(simulated(60))).options().training.proximal


@pytest.mark.parametrize(
    ("core_is", "options", "message"),
    [
        ("fixed", {}, "unknown core 'fixed': expected one of 'frozen', 'trained'"),
        (
            "frozen",
            {"core": {"n_maps": 8}},
            r"core options \(\{'n_maps': 8\}\) are those that",
        ),
        (
            "frozen",
            {"penalties": {"smoothness": 1.0}},
            r"smoothness \(=1.0\) has nothing to act on: the core",
        ),
        ("trained", {"readout": {"start": "types"}}, "with a fitted core neurons start from averages"),
        ("frozen", {"trainin": {}}, r"unknown option 'trainin'.* Did you mean 'training'\?"),
    ],
)
def test_options_that_a_fitted_core_does_not_allow(
    core_is: str, options: dict, message: str, fitted: ww.SharedCoreCNN
) -> None:
    with pytest.raises(OptionError, match=message):
        ww.transferred(fitted["a"], core_is, options)


def test_images_may_have_another_size_but_not_other_channels(
    fitted: ww.SharedCoreCNN, rng: np.random.Generator
) -> None:
    larger = ww.Recording(rng.normal(size=(40, 15, 11)), rng.poisson(2, (40, 2)))
    more = fitted.add("larger", larger)
    assert more["larger"].masks_.shape == (2, 11, 7)
    assert more["a"].masks_.shape == (6, 8, 13)
    assert same(core(more["larger"]), core(fitted["a"]))
    with pytest.raises(InputError, match="the core was not fitted to images of 2 channels"):
        fitted.add("coloured", simulated(40, n_channels=2))
    with pytest.raises(OptionError, match="two recordings are named 'a' and 'a'"):
        fitted.add("a", larger)


def test_a_transferred_model_is_saved_resumed_and_told_from_others(fitted: ww.SharedCoreCNN, tmp_path: Path) -> None:
    new, options = simulated(60, seed=7), {"training": {"max_steps": 20, "checkpoint_seconds": 0}}
    undisturbed = fitted.add("c", new, options=options)
    with pytest.raises(StoppedError):
        fitted.add("c", new, options=options, folder=tmp_path / "c", observer=stop_at(10))
    with pytest.raises(RunError, match=r"given_core\.frozen \(True, now False\)"):
        fitted.add("c", new, core="trained", options=options, folder=tmp_path / "c", resume=True)
    resumed = fitted.add("c", new, options=options, folder=tmp_path / "c", resume=True)
    assert same(resumed["c"].tensors(), undisturbed["c"].tensors())
    resumed.save(tmp_path / "run")
    again = ww.load_shared(tmp_path / "run")
    assert again["c"].model_.core is again["a"].model_.core
    assert again["c"].asked() == undisturbed["c"].asked()
    assert model_with_core(tmp_path / "run").neurons_ == fitted["a"].neurons_
    with pytest.raises(OptionError, match="the core that this model was begun with is not in its file"):
        again["c"].fit(new)
    assert clone(again["c"]).given_core is None, "a clone has a core of its own"
    alone = again["a"].fit(simulated())
    assert "recordings" not in alone.asked()


# ------------------------------------------------------------------------------------------------- what it is for


def short(seed: int, n_images: int = 300, n_neurons: int = 4) -> ww.Recording:
    """Neurons of one type at places of their own, seen through images of their own."""
    population = simulate_population(
        n_neurons, size_factors=(0.4,), variation=0.0, image_size=(16, 20), kernel_size=7, seed=seed
    )
    return simulate(population, n_images, n_test_images=300, seed=100 + seed)


def fev(model: CNN, recording: ww.Recording) -> float:
    return float(np.nanmean(model.evaluate(recording).neurons["fev"]))


FEW = {"batch_size": 32, "check_every": 10, "learning_rate": 1e-2, "max_steps": 600}


def test_a_short_recording_is_explained_better_with_the_core_of_a_long_one() -> None:
    asked = ww.SharedCoreCNN("gaussian", "simulation", {"kernel_sizes": (7,)}, training=FEW)
    core_of = asked.fit({"long": short(3, 1500, 30)})
    recording = short(2)
    alone = fev(asked.template().fit(recording), recording)
    assert fev(core_of.add("short", recording)["short"], recording) > alone + 0.1
    assert fev(core_of.add("short", recording, core="trained")["short"], recording) > alone


@pytest.mark.parametrize("core", ["frozen", "trained"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"readout": {"hold_masks": 0}}, {"hold_masks": 0, "locate_from": 100}),
        ({"readout": {"feature_norm": "unit"}}, {"mask_norm": "free", "feature_norm": "unit"}),
        ({"training": {"max_steps": 60}}, {"hold_masks": 30, "locate_from": 15}),
    ],
)
def test_what_the_first_fit_had_and_this_one_cannot_use_goes(values: dict, expected: dict, core: str) -> None:
    found = options_with_core("factorized", preset_options("factorized", "recording"), core, values)
    check_options("factorized", found, frozen=core == "frozen")
    assert {name: getattr(found.readout, name) for name in expected} == expected


def test_without_a_sparse_penalty_a_transfer_takes_no_proximal_steps() -> None:
    values = {"penalties": {"mask_l1": 0.0, "group_sparsity": 0.0}}
    found = options_with_core("factorized", preset_options("factorized", "recording"), "trained", values)
    check_options("factorized", found)
    assert not found.training.proximal
