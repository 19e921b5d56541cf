"""Options: what is refused and in which words, and what the values become."""

import re
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from whatwhere.config import (
    CoreOptions,
    LayerShape,
    ModelOptions,
    OptimiserOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.errors import OptionError
from whatwhere.plain_options import make_options

KINDS = [
    CoreOptions,
    ReadoutOptions,
    PenaltyOptions,
    TrainingOptions,
    PreprocessingOptions,
    OptimiserOptions,
    ModelOptions,
]


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid_and_survive_the_way_through_plain_values(kind: type) -> None:
    assert make_options(kind, {}) == kind()
    assert make_options(kind, {option.name: getattr(kind(), option.name) for option in fields(kind)}) == kind()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_every_option_has_a_doc(kind: type) -> None:
    without = [option.name for option in fields(kind) if len(option.metadata.get("doc", "")) < 10]
    assert not without


def test_every_group_has_a_docstring() -> None:
    assert {option.name for option in fields(ModelOptions)} == {
        "core", "readout", "penalties", "training", "preprocessing",
    }  # fmt: skip
    assert all(len(option.type.__doc__) > 20 for option in fields(ModelOptions))


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'n_map': .*'separable'.* Did you mean 'n_maps'\?$"):
        make_options(CoreOptions, {"n_map": 4})
    with pytest.raises(OptionError, match=r"unknown option of training 'patence': .* Did you mean 'patience'\?$"):
        make_options(ModelOptions, {"training": {"patence": 3}})
    with pytest.raises(OptionError, match=r"unknown option 'corr': .* Did you mean 'core'\?$"):
        make_options(ModelOptions, {"corr": {}})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (CoreOptions, {"kernel_sizes": (9, 0, 5)}, "kernel_sizes | greater than or equal to 1 (got 0)"),
        (CoreOptions, {"kernel_sizes": 9}, "kernel_sizes | a valid tuple (got 9)"),
        (CoreOptions, {"n_maps": "many"}, "n_maps | a valid integer"),
        (CoreOptions, {"n_maps": 2.5}, "n_maps | a valid integer"),
        (CoreOptions, {"padding": "vald"}, "padding | 'valid' or 'same' (got 'vald')"),
        (CoreOptions, {"separable": "maybe"}, "separable | a valid boolean"),
        (CoreOptions, {"nonlinearity": "rellu"}, "nonlinearity | 'identity', 'relu', 'softplus' or"),
        (CoreOptions, {"kernel_std": 0.0}, "kernel_std | greater than 0 (got 0.0)"),
        (CoreOptions, {"kernel_std": float("nan")}, "kernel_std | a finite number"),
        (CoreOptions, {"batch_norm_momentum": 1.5}, "batch_norm_momentum | less than or equal to 1"),
        (ReadoutOptions, {"nonlinearity": "elu"}, "nonlinearity | 'identity', 'relu' or 'softplus'"),
        (ReadoutOptions, {"feature_norm": "one"}, "feature_norm | 'unit' or 'free'"),
        (ReadoutOptions, {"sta_smoothing": -1}, "sta_smoothing | greater than or equal to 0"),
        (ReadoutOptions, {"covariance": "diagonal"}, "covariance | 'full', 'uncorrelated' or 'isotropic'"),
        (ReadoutOptions, {"position_std": -0.1}, "position_std | greater than or equal to 0 (got -0.1)"),
        (PenaltyOptions, {"mask_l1": -0.1}, "mask_l1 | greater than or equal to 0 (got -0.1)"),
        (PenaltyOptions, {"mask_l1": (0.1, -1)}, "mask_l1 | greater than or equal to 0 (got -1)"),
        (TrainingOptions, {"validation_fraction": 1.0}, "validation_fraction | less than 1"),
        (TrainingOptions, {"batch_size": 0}, "batch_size | greater than or equal to 1"),
        (TrainingOptions, {"loss": "mse"}, "loss | 'poisson' or 'squared' (got 'mse')"),
        (TrainingOptions, {"optimizer": "lbfgs"}, "optimizer | 'adam' or 'sgd' (got 'lbfgs')"),
        (TrainingOptions, {"optimizer": "sgd", "momentum": 1.0}, "momentum | less than 1 (got 1.0)"),
        (OptimiserOptions, {"max_seconds": 0}, "max_seconds | greater than 0 (got 0)"),
        (PreprocessingOptions, {"standardize": True}, "standardize | 'global', 'pixel' or 'none'"),
        (ModelOptions, {"core": {"n_maps": 0}}, "core.n_maps | greater than or equal to 1 (got 0)"),
        (ModelOptions, {"core": 5}, "core: expected a mapping of names to values (got 5)"),
        (ModelOptions, [1], "options: expected a mapping of names to values (got [1])."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(kind: type, values: object, message: str) -> None:
    with pytest.raises(OptionError, match="^" + re.escape(message.replace(" | ", ": Input should be "))):
        make_options(kind, values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"n_maps": (4, 8)},
            "n_maps has 2 values but kernel_sizes has 3: give one value a layer, or a single one",
        ),
        ({"kernel_sizes": (3, 3), "padding": ("same",) * 3}, "padding has 3 values but kernel_sizes has 2"),
        ({"separable": (True,)}, "separable has 1 values but kernel_sizes has 3"),
        ({"kernel_sizes": ()}, "kernel_sizes is empty: a core needs at least one layer."),
        ({"batch_norm": False, "batch_norm_momentum": 0.2}, "batch_norm_momentum (=0.2) has nothing to act on"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(values: dict, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        make_options(CoreOptions, values)


def test_momentum_is_sgds_alone() -> None:
    assert TrainingOptions(optimizer="sgd", momentum=0.5).momentum == 0.5
    with pytest.raises(
        OptionError, match=r"momentum \(=0\.5\) has nothing to act on with optimizer 'adam': leave it at 0\.9"
    ):
        TrainingOptions(momentum=0.5)


def test_an_empty_list_of_strengths_is_refused() -> None:
    with pytest.raises(OptionError, match="smoothness is an empty list: give at least one strength"):
        make_options(PenaltyOptions, {"smoothness": []})


def test_options_made_directly_are_checked_too() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        CoreOptions(n_maps=0)
    with pytest.raises(ValueError, match="n_map"):
        CoreOptions(n_map=4)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", KINDS)
def test_options_are_frozen(kind: type) -> None:
    options = kind()
    for option in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(options, option.name, getattr(options, option.name))


def test_layers_repeat_single_values() -> None:
    options = CoreOptions(kernel_sizes=(9, (5, 3)), n_maps=8, padding="same", separable=True)
    assert options.layers() == [LayerShape((9, 9), 8, "same", True), LayerShape((5, 3), 8, "same", True)]


def test_layers_take_one_value_each() -> None:
    options = make_options(
        CoreOptions,
        {
            "kernel_sizes": [[9, 7], 3],
            "n_maps": [8, 4],
            "padding": ["valid", "same"],
            "separable": [False, True],
        },
    )
    assert options.layers() == [LayerShape((9, 7), 8, "valid", False), LayerShape((3, 3), 4, "same", True)]
    assert options.n_layers == 2


def test_candidates_are_every_combination_the_first_slowest() -> None:
    options = PenaltyOptions(mask_l1=(0.1, 0.2), weight_l2=0.5, smoothness=(1.0, 2.0, 3.0), relative=False)
    expected = [
        PenaltyOptions(mask_l1=mask, weight_l2=0.5, smoothness=smooth, relative=False)
        for mask in (0.1, 0.2)
        for smooth in (1.0, 2.0, 3.0)
    ]
    assert options.candidates() == expected
    assert PenaltyOptions().candidates() == [PenaltyOptions()]


def test_options_made_directly_say_what_does_not_fit_in_our_words() -> None:
    with pytest.raises(OptionError, match=r"unknown option 'n_map': .* Did you mean 'n_maps'\?"):
        CoreOptions(n_map=4)  # type: ignore[call-arg]
    with pytest.raises(OptionError, match=r"^learning_rate: Input should be greater than 0 \(got -1\)"):
        TrainingOptions(learning_rate=-1)
    with pytest.raises(OptionError, match="n_maps"):
        CoreOptions(n_maps=True)


def test_numpys_integers_are_counts() -> None:
    assert CoreOptions(n_maps=np.int64(4)) == CoreOptions(n_maps=4)
    assert type(CoreOptions(n_maps=np.int64(4)).n_maps) is int
