"""Planning a recording: the images that reach a target, and the networks and fits that the curves come from."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import FactorizedCNN, PosteriorCNN
from whatwhere.experiments.architectures import network, usual_mask_l1, usual_smoothness
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.experiment import Grid
from whatwhere.experiments.images_needed import (
    NOT_COUNTED,
    Goal,
    Need,
    answer,
    as_good,
    cheapest,
    find_needs,
    images_to_reach,
    monotone,
    plan_table,
)
from whatwhere.experiments.paper_numbers import FIGURE_3B, IMAGES
from whatwhere.experiments.planning import (
    PLAN,
    PlanOptions,
    check,
    population_of,
    recording_of,
    seconds,
    solve,
)
from whatwhere.experiments.points import Point
from whatwhere.metrics import fev
from whatwhere.model import Model, Shapes
from whatwhere.simulation import make_population

TINY = PlanOptions(image_size=(20, 26), n_test_images=100, max_steps=30)


def grid_table(curves: Mapping[tuple[str, int], Mapping[int, list[float]]]) -> pd.DataFrame:
    """Results by (model, n_neurons) and number of images, one FEV a seed; NaN for a point that failed."""
    rows = [
        {"model": model, "n_neurons": n_neurons, "n_images": n_images, "seed": seed, "fev": value}
        for (model, n_neurons), curve in curves.items()
        for n_images, values in curve.items()
        for seed, value in enumerate(values)
    ]
    table = pd.DataFrame(rows)
    table["status"] = np.where(table["fev"].isna(), "failed", "done")
    return table.assign(fev_clipped=table["fev"].clip(lower=0))


def need(model: str, n_neurons: int, n_images: float, low: float, high: float, **changes: Any) -> Need:
    """Measured from 64 to 2,048 images with three seeds, at a second an image."""
    values = {"minutes": n_images / 60, "fewest": 64, "most": 2048, "highest": 0.9, "n_seeds": 3, **changes}
    return Need(model, n_neurons, n_images, low, high, **values)


# The images that reach a target


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8, 0.95])
def test_a_known_curve_is_inverted(target: float) -> None:
    measured = [round(2 ** (power / 4)) for power in range(12, 57)]  # quarters of octaves: nearly straight between
    logistic = [1 / (1 + (300 / n) ** 1.5) for n in measured]  # FEV = t at n = 300 (t / (1 - t))^(2 / 3)
    expected = 300 * (target / (1 - target)) ** (1 / 1.5)
    assert images_to_reach(measured, logistic, target) == pytest.approx(expected, rel=0.01)


def test_a_line_in_log_images_is_inverted_exactly() -> None:
    measured = [8, 64, 4096]
    line = [math.log2(n) / 12 for n in measured]  # 1/4, 1/2, 1
    assert images_to_reach(measured, line, 0.7) == pytest.approx(2**8.4, rel=1e-9)
    assert images_to_reach(measured, line, 0.3) == pytest.approx(2**3.6, rel=1e-9)


def test_nothing_is_extrapolated() -> None:
    assert images_to_reach([64, 128, 256], [0.1, 0.5, 0.799], 0.8) == math.inf
    assert images_to_reach([64, 128, 256], [0.1, 0.5, 0.8], 0.8) == 256
    assert images_to_reach([64, 128, 256], [0.81, 0.9, 1.0], 0.8) == 64
    assert images_to_reach([64], [0.79], 0.8) == math.inf
    assert images_to_reach([64], [0.8], 0.8) == 64


def test_one_lucky_point_is_not_believed() -> None:
    curve = [0.2, 0.85, 0.65, 0.9]
    assert monotone(curve).tolist() == pytest.approx([0.2, 0.75, 0.75, 0.9])
    found = images_to_reach([64, 128, 256, 512], curve, 0.8)
    assert found == pytest.approx(256 * 2 ** (0.05 / 0.15))


def test_the_papers_closing_remark_follows_from_its_curves() -> None:
    few, many = (images_to_reach(IMAGES, FIGURE_3B["cnn", n_neurons], 0.8) for n_neurons in (10, 1000))
    assert many == 512  # "500 responses from 1,000 cells"
    assert 1024 < few < 2048  # "2,000 from 10": the next number measured that is enough
    needs = [need("cnn", 10, few, few, few), need("cnn", 1000, many, many, many)]
    assert cheapest(needs) is needs[1]


def test_needs_are_of_the_median_the_best_and_the_worst_seed() -> None:
    table = grid_table(
        {
            ("a", 10): {100: [0.0, 0.2, 0.4], 400: [0.8, 1.0, 0.4]},
            ("a", 5): {100: [0.1, -3.0, 0.2], 400: [0.5, 0.4, 0.3]},
            ("b", 10): {100: [0.9, 0.7, np.nan], 400: [0.9, 0.9, 0.9]},
        }
    )
    few, more, other = find_needs(table, Goal(0.6, seconds_per_image=2))
    assert (few.model, few.n_neurons, more.n_neurons, other.model) == ("a", 5, 10, "b")
    assert few.n_images == few.low == few.high == few.minutes == math.inf
    assert (few.reached, few.most) == (False, 400)
    assert few.highest == pytest.approx(0.4)
    assert more.n_images == math.ceil(100 * 4 ** (2 / 3))  # medians 0.2, 0.8
    assert more.low == math.ceil(100 * 4 ** (1 / 3))  # best seeds 0.4, 1.0
    assert more.high == math.inf  # worst 0.0, 0.4
    assert more.minutes == pytest.approx(more.n_images / 30)
    assert (other.n_images, other.at_most, other.n_seeds) == (100, True, 2)  # the seed that failed does not count
    assert other.high == 100


def test_needs_do_not_depend_on_the_order_of_the_results(rng: np.random.Generator) -> None:
    curves = {("a", n): {d: rng.random(4).tolist() for d in (512, 64, 128)} for n in (100, 3)}
    table = grid_table(curves)
    assert find_needs(table.sample(frac=1, random_state=1), Goal(0.6)) == find_needs(table, Goal(0.6))


@pytest.mark.parametrize("seed", range(20))
def test_the_range_holds_the_median_and_grows_with_the_target(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = grid_table({("a", 7): {d: rng.random(3).tolist() for d in (50, 100, 200, 400)}})
    found = [find_needs(table, Goal(target))[0] for target in (0.3, 0.5, 0.7)]
    for one in found:
        assert one.low <= one.n_images <= one.high
    for lower, higher in pairwise(found):
        assert lower.n_images <= higher.n_images
        assert lower.low <= higher.low


def test_the_cheapest_has_the_fewest_minutes_then_the_fewest_neurons() -> None:
    curves = {10: {512: [0.7], 2048: [0.9]}, 100: {256: [0.7], 1024: [0.9]}, 1000: {256: [0.7], 1024: [0.9]}}
    table = grid_table({("cnn", n): curve for n, curve in curves.items()} | {("other", 9): {256: [0.1]}})
    free = cheapest(find_needs(table, Goal(0.8)))
    assert (free.n_neurons, free.n_images) == (100, 512)
    assert free.minutes == pytest.approx(512 / 60)
    dear = cheapest(find_needs(table, Goal(0.8, minutes_per_neuron=0.1)))  # 17.1 + 1 against 8.5 + 10
    assert (dear.n_neurons, dear.n_images) == (10, 1024)
    assert dear.minutes == pytest.approx(1024 / 60 + 1)
    slow = cheapest(find_needs(table, Goal(0.8, seconds_per_image=3, minutes_per_neuron=0.1)))
    assert slow.n_neurons == 100  # 51.2 + 1 against 25.6 + 10
    assert cheapest(find_needs(table, Goal(0.95))) is None


def test_populations_that_may_do_as_well_are_named() -> None:
    best = need("cnn", 1000, 500, 450, 600)
    others = [need("cnn", 10, 2000, 1500, 2048), need("cnn", 100, 700, 590, 800), need("better", 10, 550, 500, 600)]
    assert as_good(best, [*others, best]) is others[1]
    assert as_good(best, [others[0], others[2], best]) is None
    told = answer([*others, best], Goal())
    assert told[1] == (
        "Fewer neurons may do as well: the range of 100 neurons, about 700 images (590 to 800 over 3 seeds), overlaps"
        " that one."
    )
    assert told[2].startswith(
        "FEV 0.80 needs about 550 images (500 to 600 over 3 seeds) from 10 neurons with the better"
    )


@pytest.mark.parametrize(
    ("needs", "goal", "sentences"),
    [
        (
            [need("posterior", 1000, 517, 433, 608)],
            Goal(),
            [
                "FEV 0.80 needs about 520 images (430 to 610 over 3 seeds) from 1,000 neurons with the posterior"
                " readout: 8.6 minutes at 1 s an image."
            ],
        ),
        (
            [need("posterior", 1, 1800, 64, math.inf, minutes=400)],
            Goal(0.9, 1.5, 0.25),
            [
                "FEV 0.90 needs about 1,800 images (64 or fewer to more than 2,048 over 3 seeds) from 1 neuron with"
                " the posterior readout: 6.7 hours at 1.5 s an image and 0.25 minutes a neuron."
            ],
        ),
        (
            [need("posterior", 10, 64, 64, 64), need("factorized", 10, 128, 128, 128, n_seeds=1)],
            Goal(),
            [
                "FEV 0.80 is reached with 64 images (with each of 3 seeds), the fewest measured, from 10 neurons with"
                " the posterior readout: 1.1 minutes at 1 s an image.",
                "FEV 0.80 needs about 128 images (one seed) from 10 neurons with the factorized readout: 2.1 minutes at"
                " 1 s an image.",
            ],
        ),
        (
            [need("factorized", 10, math.inf, math.inf, math.inf, highest=0.7), need("factorized", 3, *[math.inf] * 3)],
            Goal(0.95),
            [
                "FEV 0.95 is not reached on this grid with the factorized readout: the highest is 0.90, with 2,048"
                " images from 3 neurons. Measure with more images or neurons."
            ],
        ),
    ],
    ids=["plain", "priced", "at most", "not reached"],
)
def test_the_answer_in_words(needs: list[Need], goal: Goal, sentences: list[str]) -> None:
    assert answer(needs, goal) == [*sentences, NOT_COUNTED]


def test_the_table_is_empty_where_the_target_is_not_reached() -> None:
    table = plan_table([need("a", 10, 517, 433, math.inf), need("a", 5, 64, 64, 70), need("b", 5, *[math.inf] * 3)])
    assert table["reached"].tolist() == ["yes", "at most", "no"]
    np.testing.assert_array_equal(table["images_needed"].to_numpy(float), [517, 64, np.nan])
    np.testing.assert_array_equal(table["high"].to_numpy(float), [np.nan, 70, np.nan])
    np.testing.assert_allclose(table["minutes"].to_numpy(float), [517 / 60, 64 / 60, np.nan])
    assert list(table) == [
        *("model", "n_neurons", "images_needed", "low", "high", "minutes", "reached", "highest_fev", "fewest_images"),
        *("most_images", "n_seeds"),
    ]


def test_cells_of_a_printed_table() -> None:
    assert need("a", 10, 64, 64, 64).cells() == ("<= 64", "<= 64", "1.1")
    assert need("a", 10, 100, 64, 300).cells() == ("100", "<= 64 to 300", "1.7")
    assert need("a", 10, math.inf, 300, math.inf).cells() == ("> 2,048", "best FEV 0.90", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fev": 1.0}, "target must be a number above 0 and below 1, got 1.0"),
        ({"fev": 80}, "target must be a number above 0 and below 1, got 80"),
        ({"seconds_per_image": 0}, "seconds_per_image must be a number above 0, got 0"),
        ({"minutes_per_neuron": -1}, "minutes_per_neuron must be a number at least 0, got -1"),
    ],
)
def test_a_goal_that_cannot_be(values: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Goal(**values)


# The networks


@pytest.mark.parametrize(
    ("kind", "given", "n_maps", "core", "output"),
    [
        ("dog", {"n_types": 1}, 1, "identity", "identity"),
        ("dog", {}, 2, "identity", "identity"),
        ("gabor", {"nonlinearity": "relu"}, 4, "identity", "relu"),
        ("complex", {"n_types": 3}, 12, "relu", "identity"),
        ("mixture", {"nonlinearity": "relu"}, 2 * 4 + 4 * 2, "relu", "identity"),
    ],
)
@pytest.mark.parametrize("readout", PLAN.models)
def test_a_network_for_each_kind(
    kind: str, given: dict[str, Any], n_maps: int, core: str, output: str, readout: str
) -> None:
    population = make_population(kind, 24, image_size=(20, 26), kernel_size=9, n_channels=2, **given)
    options = network(readout, population)
    assert (options.core.n_maps, options.core.kernel_sizes) == (n_maps, ((9, 9),))
    assert (options.core.last_nonlinearity, options.readout.nonlinearity) == (core, output)
    model = Model(readout, options, Shapes(2, 20, 26, 24))
    assert model(torch.zeros(3, 2, 20, 26)).shape == (3, 24)


def test_a_network_of_few_neurons_has_a_map_for_each_type_that_is_there() -> None:
    assert network("factorized", make_population("gabor", 1, image_size=(20, 26))).core.n_maps == 1
    assert network("posterior", make_population("complex", 2, image_size=(20, 26))).core.n_maps == 8


def test_other_stimuli_than_white_noise_are_standardised() -> None:
    population = make_population("dog", 2, image_size=(20, 26))
    assert network("factorized", population).preprocessing.standardize == "none"
    assert network("factorized", population, white=False).preprocessing.standardize == "global"


def best_of(kind: str, n_images: int, **given: Any) -> np.ndarray:
    """FEV of the network with the true kernels, places and types put in, each neuron's scale and offset fitted."""
    population = make_population(kind, 4, image_size=(20, 26), variation=0.0, seed=3, **given)
    options = network("factorized", population)
    model = Model("factorized", options, Shapes(1, 20, 26, 4)).eval()
    kernels = [population.kernels]
    if population.quadrature is not None:
        kernels = [sign * kernel for kernel in (population.kernels, population.quadrature) for sign in (1, -1)]
    with torch.no_grad():
        weight = model.core.layers[0].convolution.weight
        model.readout.mask.zero_()
        for neuron in range(4):
            row, column = (population.locations[neuron] - 8).astype(int)
            model.readout.mask[neuron, row, column] = 1.0
        first = [np.flatnonzero(population.types == kind)[0] for kind in np.unique(population.types)]
        of_types = np.concatenate([kernel[first] for kernel in kernels])
        weight.copy_(torch.from_numpy(of_types / np.sqrt((of_types**2).sum((1, 2), keepdims=True)))[:, None])
        for layer in model.core.layers:
            if layer.normalize.shift is not None:
                layer.normalize.shift.fill_(-0.75)
        if len(of_types) > 1:
            reads = np.tile(np.unique(population.types), len(kernels)) == population.types[:, None]
            model.readout.weights.copy_(torch.from_numpy(reads.astype(float)))
        images = np.random.default_rng(0).standard_normal((n_images, 1, 20, 26)).astype(np.float32)
        found = model(torch.from_numpy(images)).numpy()
    rates = population.rates(images)
    slopes = [np.polyfit(a, b, 1) for a, b in zip(found.T, rates.T, strict=True)]
    return fev(np.stack([np.polyval(s, a) for s, a in zip(slopes, found.T, strict=True)], 1), rates)


@pytest.mark.parametrize("given", [{"n_types": 1}, {"n_types": 2}, {"n_types": 2, "nonlinearity": "relu"}])
def test_the_network_of_linear_cells_can_be_right(given: dict[str, Any]) -> None:
    np.testing.assert_allclose(best_of("dog", 300, **given), 1, atol=1e-5)


def test_the_network_of_complex_cells_explains_nearly_all() -> None:
    found = best_of("complex", 4000, n_types=2)
    assert found.mean() == pytest.approx(0.97, abs=0.015)


def test_a_population_without_kernels_has_no_network() -> None:
    class Unknown:
        kernels = None

    with pytest.raises(InputError, match="the population has no kernels"):
        network("factorized", Unknown())


# The fits


def test_an_outcome_is_that_of_the_estimator() -> None:
    point = Point("posterior", 6, 40, 2)
    found = solve(replace(TINY, n_channels=2), point)
    population = population_of(replace(TINY, n_channels=2), 6, 2)
    recording = recording_of(replace(TINY, n_channels=2), population, 40, 2)
    options = network("posterior", population)
    model = PosteriorCNN("simulation", **vars(options), seed=2, device="cpu")
    model.set_params(training=replace(options.training, max_steps=30)).fit(recording)
    assert found.fev == pytest.approx(fev(model.predict(recording.test.images), recording.test.rates).mean(), abs=1e-4)
    assert found.n_validation == 8
    assert found.strength == usual_smoothness("dog") == options.penalties.smoothness


def test_strengths_are_chosen_on_the_validation_part() -> None:
    options = replace(TINY, n_types=1, mask_l1=(0.5, 40.0), n_test_images=20, mean_rate=5.0)
    found = solve(options, Point("factorized", 4, 250, 0))
    assert found.strength == pytest.approx(0.5 * usual_mask_l1(250))  # the other allows no mask at all
    population = population_of(options, 4, 0)
    recording = recording_of(options, population, 250, 0)
    base = network("factorized", population)
    losses = []
    for times in (0.5, 40.0):
        penalties = replace(base.penalties, mask_l1=times * usual_mask_l1(250))
        model = FactorizedCNN("simulation", **{**vars(base), "penalties": penalties}, seed=0, device="cpu")
        model.set_params(training=replace(base.training, max_steps=30)).fit(recording)
        losses.append(model.candidates_["validation_loss"][0])
    assert losses[0] < losses[1]


def test_the_posterior_readout_reaches_the_target_with_few_images() -> None:
    found = solve(PlanOptions(n_types=1, image_size=(20, 26), n_test_images=200), Point("posterior", 50, 160, 0))
    assert found.fev > 0.8


def test_the_recording_is_the_one_asked_for() -> None:
    options = replace(
        TINY,
        kind="gabor",
        n_types=3,
        noise="gain",
        stimuli="pink-noise",
        mean_rate=0.7,
        n_channels=2,
        positions="retinotopic",
        further={"population": {"variation": 0.0}, "noise": {"variance": 0.0}, "positions": {"scatter": 0.0}},
    )
    population = population_of(options, 9, 1)
    recording = recording_of(options, population, 3000, 1)
    assert recording.image_shape == (2, 20, 26)
    assert population.nonlinearity == "relu"  # counts
    np.testing.assert_array_equal(population.kernels[0], population.kernels[3])
    np.testing.assert_allclose(recording.truth.rates.mean(0), 0.7, rtol=0.2)
    assert (recording.responses == np.round(recording.responses)).all()
    linear = population_of(replace(options, noise="paper", nonlinearity="relu", further={}), 9, 1)
    assert linear.nonlinearity == "relu"
    assert population_of(TINY, 3, 0).nonlinearity == "identity"


GRID = Grid(("factorized",), (1, 50), (64,), (0,))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "dgo"}, OptionError, "unknown kind of population 'dgo'.*Did you mean 'dog'"),
        (
            {"kind": "vgg"},
            OptionError,
            "unknown kind of population 'vgg': expected one of 'dog', 'gabor', 'complex', 'mixture'",
        ),
        ({"noise": "poison"}, OptionError, "unknown noise 'poison'.*Did you mean 'poisson'"),
        ({"kind": "mixture"}, OptionError, "n_neurons is 1: a mixture of 3 kinds of neurons needs at least 3"),
        ({"image_size": (16, 26)}, OptionError, r"kernel_size \(=17\) does not fit in image_size"),
        ({"noise": "poisson", "nonlinearity": "identity"}, InputError, "Poisson counts need rates of 0 or more"),
        ({"mean_rate": 0}, OptionError, "mean_rate must be a number above 0, got 0"),
        ({"further": {"noise": {"variance": 1}}}, OptionError, "the noise 'paper' has no options"),
        ({"further": {"population": {"size": 1}}}, OptionError, "unknown option of the population 'dog' 'size'"),
    ],
)
def test_what_cannot_be_simulated_is_said_first(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        check(replace(TINY, **options), GRID)


def test_what_can_be_simulated_passes() -> None:
    check(TINY, GRID)
    check(replace(TINY, kind="complex", noise="calcium"), GRID)


def test_larger_points_take_longer() -> None:
    point = Point("posterior", 30, 256, 0)
    for model in PLAN.models:
        costs = [seconds(TINY, replace(point, model=model, n_images=n)) for n in (64, 256, 1024)]
        costs.append(seconds(TINY, replace(point, model=model, n_images=1024, n_neurons=300)))
        costs.append(seconds(replace(TINY, kind="complex"), replace(point, model=model, n_images=1024, n_neurons=300)))
        assert costs == sorted(costs)
        assert costs[0] > 1
    more = replace(TINY, mask_l1=(2.0, 1.0, 0.5), smoothness=(2.0, 1.0))
    assert all(
        seconds(more, replace(point, model=m)) > 1.3 * seconds(TINY, replace(point, model=m)) for m in PLAN.models
    )


def test_a_plan_is_no_figure_of_the_paper() -> None:
    assert "plan" not in EXPERIMENTS
    assert set(PLAN.presets) == {"quick", "thorough"}
    quick = PLAN.points(PLAN.grid("quick"))
    assert {point.model for point in quick} == {"factorized", "posterior"}
    assert len({point.seed for point in quick}) >= 3
