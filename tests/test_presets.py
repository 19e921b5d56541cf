"""The presets say what the paper and recordings ask for, and every one of them fits its model."""

from dataclasses import replace

import pytest

from whatwhere.catalogue import MODELS
from whatwhere.config import ReadoutOptions
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN
from whatwhere.option_checks import check_options, with_penalties
from whatwhere.presets import PRESETS, options_over_preset, preset_options


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_every_convolutional_model(preset: str) -> None:
    assert set(PRESETS[preset]) == {name for name, kind in MODELS.items() if issubclass(kind, CNN)}
    for model in PRESETS[preset]:
        check_options(model, preset_options(model, preset))
        core = replace(preset_options(model, preset).core, kernel_std=0.01)
        assert core == PRESETS[preset]["factorized"].core


def test_recordings_search_strengths_on_the_validation_part() -> None:
    for model in PRESETS["recording"]:
        assert len(preset_options(model, "recording").penalties.candidates()) >= 2


def test_the_simulations_preset_is_the_papers() -> None:
    """Klindt et al. 2017, section 4.1 and supplement: Adam at 1e-3, batches of 256, 300 steps of patience, twice."""
    options = preset_options("factorized", "simulation")
    training = options.training
    assert (training.loss, training.learning_rate, training.batch_size) == ("squared", 1e-3, 256)
    assert training.check_every * training.patience == 300
    assert (training.rate_factor, training.n_rates, training.validation_fraction) == (0.1, 2, 0.2)
    assert options.core.kernel_sizes == (17,)
    assert (options.core.n_maps, options.core.batch_norm_shift) == (1, False)
    assert {options.core.last_nonlinearity, options.readout.nonlinearity} == {"identity"}


def test_the_recordings_preset_suits_responses_that_are_not_negative() -> None:
    options = preset_options("factorized", "recording")
    assert (options.training.loss, options.readout.nonlinearity) == ("poisson", "softplus")
    assert options.core.kernel_sizes == (9, 5, 5)
    assert (options.core.n_maps, options.training.learning_rate) == (16, 3e-3)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        OptionError, match=r"unknown preset 'simulated': expected one of .* Did you mean 'simulation'\?"
    ):
        preset_options("factorized", "simulated")
    with pytest.raises(OptionError, match=r"unknown model 'fixedmask'.* Did you mean 'fixed-mask'\?"):
        preset_options("fixedmask", "recording")


def test_one_layer_has_no_use_for_the_presets_group_sparsity() -> None:
    one = {"core": {"kernel_sizes": [5], "n_maps": 2}}
    assert options_over_preset("factorized", "recording", one).penalties.group_sparsity == 0.0
    assert options_over_preset("factorized", "recording", {}).penalties.group_sparsity > 0.0
    with pytest.raises(OptionError, match=r"group_sparsity .* has nothing to act on"):
        check_options(
            "factorized", options_over_preset("factorized", "recording", {**one, "penalties": {"group_sparsity": 0.1}})
        )


def test_what_the_preset_has_and_nothing_can_use_goes() -> None:
    """Of one feature map, of a norm that is asked for, of masks that are not held, and without a sparse penalty."""
    usual = options_over_preset("factorized", "recording", {})
    assert (usual.readout.mask_norm, usual.readout.hold_masks, usual.readout.locate_from) == ("unit", 500, 50)
    assert usual.training.proximal
    one_map = options_over_preset("factorized", "recording", {"core": {"n_maps": 1}})
    assert (one_map.readout.mask_norm, one_map.penalties.feature_l1) == ("free", 0.0)
    assert one_map.readout.hold_masks == 500
    other_norm = options_over_preset("factorized", "recording", {"readout": {"feature_norm": "unit"}})
    assert other_norm.readout.mask_norm == "free"
    of_masks = {"core": {"n_maps": 3}, "readout": {"mask_norm": "unit"}}
    assert options_over_preset("factorized", "simulation", of_masks).readout.feature_norm == "free"
    not_held = options_over_preset("factorized", "recording", {"readout": {"hold_masks": 0}})
    assert not_held.readout.locate_from == ReadoutOptions().locate_from
    free = {"penalties": {"mask_l1": 0.0}, "core": {"kernel_sizes": [5]}}
    assert not options_over_preset("factorized", "recording", free).training.proximal
    for found in (usual, one_map, other_norm, not_held):
        check_options("factorized", found)
    asked = {**free, "training": {"proximal": True}}
    assert options_over_preset("factorized", "recording", asked).training.proximal, "what is asked for is kept"
    assert options_over_preset("posterior", "recording", {}).readout.locate_from == 50


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"training": {"max_steps": 300}}, (150, 50)),
        ({"training": {"max_steps": 60}}, (30, 15)),
        ({"readout": {"hold_masks": 40}}, (40, 20)),
        ({"readout": {"hold_masks": 40, "locate_from": 40}}, (40, 40)),
        ({"training": {"max_steps": 300}, "readout": {"hold_masks": 200}}, (200, 50)),
    ],
)
def test_a_short_fit_holds_masks_for_half_of_its_steps(values: dict, held: tuple[int, int]) -> None:
    found = options_over_preset("factorized", "recording", values)
    assert (found.readout.hold_masks, found.readout.locate_from) == held
    check_options("factorized", found)


def test_a_search_of_strengths_may_hold_zero_beside_sparse_ones() -> None:
    values = {"core": {"kernel_sizes": [5]}, "penalties": {"mask_l1": (0.0, 0.1)}}
    found = options_over_preset("factorized", "recording", values)
    check_options("factorized", found)
    of_candidates = [with_penalties(found, penalties) for penalties in found.penalties.candidates()]
    assert [one.training.proximal for one in of_candidates] == [False, True]
    for one in of_candidates:
        check_options("factorized", one)
