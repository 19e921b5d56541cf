"""The last fit to all images: its steps, what it shows, and how it ends."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, TrainingOptions
from whatwhere.model import Model, Shapes, initialize
from whatwhere.refitting import refit, steps_at_each_rate
from whatwhere.schedule import Check
from whatwhere.simulation import simulate, simulate_population
from whatwhere.training import TrainingData, train

SHAPES = Shapes(n_channels=2, height=9, width=13, n_neurons=4)


def checks(*rows: tuple[int, float, float]) -> list[Check]:
    """step, learning rate, validation loss."""
    return [Check(step, rate, 0.0, loss, 0.0) for step, rate, loss in rows]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (checks((0, 1.0, 5.0)), [(0, 0)]),
        (checks((0, 1.0, 5.0), (10, 1.0, 3.0), (20, 1.0, 4.0)), [(0, 10)]),
        (checks((0, 1.0, 5.0), (10, 1.0, 3.0), (20, 1.0, 4.0), (30, 0.1, 3.5), (40, 0.1, 2.0)), [(0, 10), (20, 20)]),
        (checks((0, 1.0, 5.0), (10, 1.0, 3.0), (20, 1.0, 4.0), (30, 0.1, 3.5), (40, 0.1, 3.1)), [(0, 10), (20, 0)]),
        (
            checks((0, 1.0, 5.0), (5, 1.0, 6.0), (10, 0.3, 4.0), (15, 0.3, 4.5), (20, 0.1, 3.0), (25, 0.1, 2.9)),
            [(0, 0), (5, 5), (15, 10)],
        ),
    ],
)
def test_steps_are_those_that_led_to_the_best(history: list[Check], expected: list[tuple[int, int]]) -> None:
    assert steps_at_each_rate(history) == expected


def data(seed: int = 0) -> TrainingData:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(80, 2, 9, 13, generator=generator)
    filters = torch.randn(2 * 9 * 13, 4, generator=generator) / 10
    responses = torch.nn.functional.softplus(images.flatten(1) @ filters)
    return TrainingData(images[:60], responses[:60], images[60:], responses[60:])


def started(**training: object) -> Model:
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=3, padding="valid"),
        penalties=PenaltyOptions(product_l1=0.001),
        training=TrainingOptions(**{"batch_size": 16, "learning_rate": 1e-2, **training}),  # type: ignore[arg-type]
    )
    model = Model("factorized", options, SHAPES)
    initialize(model, data().images, data().responses, seed=0)
    return model


def test_it_is_a_fit_of_that_many_steps_to_all_images() -> None:
    everything = data().all_images()
    assert len(everything.images) == len(everything.responses) == 80
    model, reference = started(), started(max_steps=23, check_every=23)
    assert refit(model, data(), checks((0, 1e-2, 9.0), (23, 1e-2, 8.0)), seed=3)
    result = train(reference, everything, seed=3)
    assert result.best_step == 23, "the reference ends with its last step"
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, reference.state_dict()[name], rtol=0, atol=0)
    assert not model.training


def test_later_rates_are_smaller_by_the_factor() -> None:
    """SGD without momentum on one batch of all images: the last step's length is proportional to the rate."""
    options = {"optimizer": "sgd", "momentum": 0.0, "batch_size": 80, "rate_factor": 0.25, "n_rates": 2}
    steps = []
    for rate in (1e-2, 2.5e-3):
        before, after = started(**options), started(**options)
        first = checks((0, 1e-2, 9.0), (5, 1e-2, 8.0))
        refit(before, data(), first, seed=0)
        refit(after, data(), [*first, *checks((6, rate, 7.0))], seed=0)
        pairs = zip(after.parameters(), before.parameters(), strict=True)
        steps.append(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm().item())
    assert steps[0] / steps[1] == pytest.approx(4.0, rel=1e-3)


def test_interrupted_it_says_so() -> None:
    seen: list[int] = []
    history = checks((0, 1e-2, 9.0), (23, 1e-2, 8.0))
    assert not refit(started(), data(), history, seed=0, interrupted=lambda: len(seen) == 4 or bool(seen.append(1)))


def test_an_estimator_fits_again_and_is_better_for_it() -> None:
    """A linear population and few images: a quarter more of them shows in every seed."""
    gains = []
    for seed in range(3):
        population = simulate_population(
            12, size_factors=(0.4,), variation=0.0, image_size=(16, 20), kernel_size=7, seed=seed
        )
        recording = simulate(population, 400, n_test_images=300, seed=seed)
        training = TrainingOptions(loss="squared", batch_size=32, check_every=10, max_steps=400, learning_rate=1e-2)
        options = {
            "core": CoreOptions(kernel_sizes=(7,), n_maps=1, last_nonlinearity="identity"),
            "penalties": PenaltyOptions(mask_l1=0.05),
        }
        once = ww.FactorizedCNN("simulation", training=training, seed=seed, **options).fit(recording)
        again = ww.FactorizedCNN("simulation", training=replace(training, refit=True), seed=seed, **options).fit(
            recording
        )
        assert once.candidates_.equals(again.candidates_), "chosen alike"
        fevs = [np.nanmean(model.evaluate(recording).neurons["fev"]) for model in (once, again)]
        gains.append(fevs[1] - fevs[0])
    assert np.median(gains) > 0
