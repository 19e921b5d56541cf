"""Models by name, made from plain values."""

import pytest

import whatwhere as ww
from whatwhere.catalogue import MODELS, load_model, make_model
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN
from whatwhere.plain_options import merge
from whatwhere.presets import preset_options


@pytest.mark.parametrize("name", MODELS)
def test_a_name_makes_its_model_with_the_presets_options(name: str) -> None:
    for preset in ("recording", "simulation"):
        model = make_model(name, preset=preset, seed=5)
        assert type(model) is MODELS[name]
        assert (model.name, model.seed) == (name, 5)
        if issubclass(MODELS[name], CNN):
            assert model.options() == preset_options(name, preset)


def test_values_go_over_the_presets_one_by_one() -> None:
    values = {"core": {"kernel_sizes": [7], "n_maps": 2}, "training": {"max_steps": 9}}
    options = make_model("factorized", values, preset="simulation").options()
    assert (options.core.kernel_sizes, options.core.n_maps, options.training.max_steps) == ((7,), 2, 9)
    assert options.training.learning_rate == 1e-3
    assert values == {"core": {"kernel_sizes": [7], "n_maps": 2}, "training": {"max_steps": 9}}, "left as they were"


def test_ridge_takes_its_own_options_and_those_of_all() -> None:
    model = make_model(
        "ridge", {"strengths": [1, 2]}, seed=3, device="cpu", threads=2, nonfinite="rows", preset="simulation"
    )
    assert isinstance(model, ww.Ridge)
    assert (model.strengths, model.seed, model.nonfinite) == ([1, 2], 3, "rows")


@pytest.mark.parametrize(
    ("name", "values", "common", "message"),
    [
        ("factorised", {}, {}, r"unknown model 'factorised': expected one of .* Did you mean 'factorized'\?"),
        ("factorized", {"cores": {}}, {}, r"unknown option 'cores'.* Did you mean 'core'\?"),
        ("factorized", {"core": {"n_map": 3}}, {}, r"unknown option of core 'n_map'.* Did you mean 'n_maps'\?"),
        ("factorized", {"core": 3}, {}, r"core: expected a mapping of names to values \(got 3\)"),
        ("factorized", {"core": {"n_maps": 0}}, {}, r"core\.n_maps: .* greater than or equal to 1 \(got 0\)"),
        (
            "factorized",
            {"readout": {"nonlinearity": "identity"}},
            {},
            "the poisson loss needs predictions of 0 or more",
        ),
        ("fixed-mask", {"penalties": {"mask_l1": 0.1}}, {}, "the fixed-mask readout has no penalty 'mask_l1'"),
        ("ridge", {"strength": [1]}, {}, r"unknown option of ridge 'strength'.* Did you mean 'strengths'\?"),
        ("ridge", {"seed": 1}, {}, "unknown option of ridge 'seed'"),
        ("ridge", {"strengths": []}, {}, "strengths is empty"),
        ("factorized", {}, {"sed": 1}, r"unknown option 'sed'.* Did you mean 'seed'\?"),
    ],
)
def test_what_does_not_fit_is_refused_when_made(name: str, values: dict, common: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_model(name, values, **common)


def test_merge_replaces_key_by_key() -> None:
    before = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merge(before, {"a": {"c": {"f": 4}}, "e": {"g": 5}}) == {"a": {"b": 1, "c": {"d": 2, "f": 4}}, "e": {"g": 5}}
    assert before == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


def test_load_model_is_the_packages() -> None:
    assert ww.load_model is load_model


def test_a_strength_given_replaces_those_that_the_preset_searches() -> None:
    given = make_model("factorized", {"penalties": {"mask_l1": 0.1, "feature_l1": 0.2}}).penalties
    assert (given.mask_l1, given.feature_l1, given.product_l1) == (0.1, 0.2, 0.0)
    kept = make_model("factorized", {"penalties": {"smoothness": 0.1}}).penalties
    assert len(kept.mask_l1) > 1
    assert kept.smoothness == 0.1
