"""Masks of norm one, and masks held at one pixel that is inferred: steps, places found, exact resumption, refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.cost import make_plan
from whatwhere.errors import OptionError, TrainingError
from whatwhere.location_inference import is_due, locate
from whatwhere.model import Model, Shapes, initialize
from whatwhere.proximal import soft_threshold_
from whatwhere.readouts import FactorizedReadout
from whatwhere.refitting import refit
from whatwhere.schedule import Check
from whatwhere.training import Trainer
from whatwhere.training_data import TrainingData

SHAPES = Shapes(n_channels=1, height=13, width=18, n_neurons=12)
N_MAPS, MAP = 2, (9, 14)
HELD = 12


def options(*, training: dict | None = None, penalties: dict | None = None, **readout: object) -> ModelOptions:
    chosen = {"mask_norm": "unit", "hold_masks": HELD, "locate_from": 4, "locate_every": 4} | readout
    return ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=N_MAPS, kernel_std=0.3),
        readout=ReadoutOptions(**chosen),  # type: ignore[arg-type]
        penalties=PenaltyOptions(**(penalties or {"mask_l1": 0.02, "feature_l1": 0.001})),
        training=TrainingOptions(
            **{"batch_size": 32, "max_steps": 30, "check_every": 5, "proximal": True, "whole_every": 4}
            | (training or {})
        ),
    )


def session(n_images: int = 600) -> tuple[TrainingData, np.ndarray, Model]:
    """Neurons that read the squares of maps at one pixel, of which averages say nothing; the pixels; the true model."""
    generator = torch.Generator().manual_seed(5)
    truth = Model("fixed-mask", ModelOptions(core=options().core), SHAPES)
    truth.core.initialize(generator)
    pixels = torch.randint(MAP[0] * MAP[1], (SHAPES.n_neurons,), generator=generator)
    images = torch.randn(n_images + 200, 1, 13, 18, generator=generator)
    with torch.no_grad():
        maps = truth.core.train()(images).flatten(2)[:, :, pixels]  # (n_images, K, n_neurons)
        rates = (maps[:, torch.arange(SHAPES.n_neurons) % 2, torch.arange(SHAPES.n_neurons)]).square()
    responses = torch.poisson(rates, generator=generator)
    return TrainingData(images[200:], responses[200:], images[:200], responses[:200]), pixels.numpy(), truth


def begun(chosen: ModelOptions, data: TrainingData) -> Trainer:
    model = Model("factorized", chosen, SHAPES)
    initialize(model, data.images, data.responses, seed=0)
    return Trainer(model.train(), data, seed=1)


def supports(trainer: Trainer) -> np.ndarray:
    return (trainer.model.members[0].readout.masks() != 0).flatten(1).sum(1).numpy()


@pytest.mark.parametrize("whole_every", [1, 4])
@pytest.mark.parametrize("norm", ["unit", "free"])
def test_held_masks_are_one_pixel_until_they_are_let_go(norm: str, whole_every: int) -> None:
    data, _, _ = session()
    chosen = options(training={"whole_every": whole_every}, penalties={"mask_l1": 1e-6, "feature_l1": 1e-6})
    trainer = begun(replace(chosen, readout=replace(chosen.readout, mask_norm=norm)), data)
    values = []
    assert (supports(trainer) == 1).all()
    for _ in range(HELD):
        trainer.step()
        assert (supports(trainer) == 1).all()
        values.append(trainer.model.members[0].readout.masks().flatten(1).amax(1))
    moved = not torch.equal(values[0], values[-1])
    assert moved == (norm == "free"), "the value of a held mask is learned, but for a norm of one"
    for _ in range(2 * whole_every):
        trainer.step()
    trainer.close()
    assert (supports(trainer) > 1).all()


def test_places_that_averages_cannot_show_are_found_while_masks_are_held() -> None:
    data, pixels, truth = session(3000)
    chosen = options(locate_from=0)
    squared = replace(chosen, core=replace(chosen.core, n_maps=4, last_nonlinearity="relu"))
    model = Model("factorized", squared, SHAPES)
    initialize(model, data.images, data.responses, seed=0)
    assert isinstance(model.readout, FactorizedReadout)
    assert model.readout.pixels is not None
    assert (model.readout.pixels.numpy() == pixels).mean() < 0.5, "averages alone find them"
    kernels = truth.core.layers[0].convolution.weight
    with torch.no_grad():  # each map rectified, and its opposite: their squares are not far from their sum
        model.core.layers[0].convolution.weight.copy_(torch.cat([kernels, -kernels]))
    weights = model.readout.weights.clone()
    locate(model.train(), data.images, data.responses[:], step=0, seed=0)
    assert model.training
    assert (model.readout.pixels.numpy() == pixels).mean() > 0.9
    assert (model.readout.masks().flatten(1).argmax(1).numpy() == model.readout.pixels.numpy()).all()
    torch.testing.assert_close(model.readout.masks().flatten(1).norm(dim=1), torch.ones(SHAPES.n_neurons))
    assert torch.equal(model.readout.weights, weights)


def test_places_are_inferred_while_masks_are_held_and_not_after() -> None:
    model = Model("factorized", options(), SHAPES)
    assert [step for step in range(30) if is_due(model, step)] == [4, 8]
    free = Model("factorized", options(hold_masks=0, locate_from=100, locate_every=25), SHAPES)
    assert not any(is_due(free, step) for step in range(300))
    only_held = Model("factorized", options(locate_from=HELD, locate_every=25), SHAPES)
    assert not any(is_due(only_held, step) for step in range(30))


@pytest.mark.parametrize("whole_every", [1, 4])
def test_a_strong_penalty_narrows_masks_of_norm_one_and_kills_no_neuron(whole_every: int) -> None:
    data, _, _ = session()
    chosen = options(hold_masks=0, locate_from=100, locate_every=25, mask_noise=0.05, penalties={"mask_l1": 100.0})
    trainer = begun(replace(chosen, training=replace(chosen.training, whole_every=whole_every)), data)
    assert (supports(trainer) == MAP[0] * MAP[1]).all()
    for _ in range(8):
        trainer.step()
        masks = trainer.model.members[0].readout.masks().flatten(1)
        torch.testing.assert_close(masks.norm(dim=1), torch.ones(SHAPES.n_neurons))
    trainer.close()
    assert (supports(trainer) == 1).all()
    assert trainer.model.members[0].readout.feature_weights().abs().sum(1).min() > 0.01


def test_masks_of_norm_one_start_as_the_same_model() -> None:
    """The scale that masks do not carry is in the feature weights."""
    data, _, _ = session()
    unit = options(hold_masks=0, locate_from=100, locate_every=25)
    free = replace(unit, readout=replace(unit.readout, mask_norm="free"))
    models = [Model("factorized", chosen, SHAPES).eval() for chosen in (unit, free)]
    for model in models:
        initialize(model, data.images, data.responses, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(models[0].eval()(data.images[:9]), models[1].eval()(data.images[:9]))


@pytest.mark.parametrize("stop", [5, 10, 15, 25])
def test_a_fit_stopped_while_masks_are_held_or_later_ends_with_the_same_numbers(stop: int, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def observe(event: object) -> None:
        if getattr(getattr(event, "check", None), "step", -1) == stop:
            raise StoppedError

    data, _, _ = session()
    recording, asked = as_recording(data), concerns(options(training={"checkpoint_seconds": 0}))
    whole = ww.FactorizedCNN(**asked).fit(recording)
    with pytest.raises(StoppedError):
        ww.FactorizedCNN(**asked).fit(recording, folder=tmp_path, observer=observe)
    resumed = ww.FactorizedCNN(**asked).fit(recording, folder=tmp_path, resume=True)
    assert resumed.predict(data.images[:9].numpy()).tobytes() == whole.predict(data.images[:9].numpy()).tobytes()
    assert resumed.history_.validation_loss.tolist() == whole.history_.validation_loss.tolist()


def test_patience_begins_when_masks_are_let_go_and_the_plan_knows() -> None:
    data, _, _ = session()
    impatient = {"check_every": 1, "patience": 1, "n_rates": 1, "learning_rate": 1e-9, "max_steps": 50}
    trainer = begun(options(training=impatient), data)
    result = trainer.train(False, lambda: False)
    assert result.stopped == "converged"
    assert result.history[-1].step > HELD
    held, free = (
        make_plan(Model("factorized", chosen, SHAPES), data, 1)
        for chosen in (
            options(training=impatient),
            options(training=impatient, hold_masks=0, locate_from=100, locate_every=25),
        )
    )
    assert held.least_seconds > held.seconds_per_step * (HELD + 1), "steps, and two inferences of places"
    assert free.least_seconds == pytest.approx(free.seconds_per_step)
    assert held.memory > free.memory


@pytest.mark.parametrize(
    ("readout", "message"),
    [
        ({"feature_norm": "unit"}, "mask_norm and feature_norm are both 'unit': nothing carries the scale"),
        ({"mask_noise": 0.1}, r"mask_noise \(=0\.1\) has nothing to act on: with hold_masks \(=12\)"),
        ({"hold_masks": 0}, r"locate_every \(=4\) has nothing to act on: .* or give more hold_masks \(=0\)"),
        ({"locate_from": HELD}, r"locate_every \(=4\) has nothing to act on: .* from locate_from \(=12\) on"),
        ({"hold_masks": 0, "locate_every": 25, "locate_from": 100, "noise": "rate"}, "noise .* has nothing to act on"),
        ({"hold_masks": 30}, r"hold_masks \(=30\) leaves none of max_steps \(=30\) to free masks"),
        (
            {"hold_masks": 0, "locate_every": 25, "locate_from": 100, "prior_ridges": (1.0,)},
            r"prior_ridges \(=\(1\.0,\)\) has nothing to act on",
        ),
    ],
)
def test_choices_that_contradict_each_other_are_refused(readout: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Model("factorized", options(**readout), SHAPES)


def concerns(chosen: ModelOptions) -> dict:
    return {name: getattr(chosen, name) for name in ("core", "readout", "penalties", "training")}


def as_recording(data: TrainingData) -> ww.Recording:
    return ww.Recording(images=data.images[:].numpy(), responses=data.responses[:].numpy())


@pytest.mark.parametrize("theirs", [HELD, 0])
@pytest.mark.parametrize("ours", [HELD, 0])
def test_a_fit_that_starts_from_another_keeps_its_masks(theirs: int, ours: int) -> None:
    """Whether the first held its masks, or the second would: what was learned is no guess to be thrown away."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(500, 1, 13, 18, generator=generator)
    rates = torch.nn.functional.softplus(images.flatten(1) @ torch.randn(13 * 18, 12, generator=generator) / 8)
    recording = ww.Recording(images=images.numpy(), responses=rates.numpy())  # no pixel alone explains these

    def make(hold_masks: int, **training: object) -> ww.FactorizedCNN:
        places = {"locate_from": 4, "locate_every": 4} if hold_masks else {"locate_from": 100, "locate_every": 25}
        penalties = {"mask_l1": 1e-5, "feature_l1": 1e-5}
        return ww.FactorizedCNN(
            **concerns(options(training=training, penalties=penalties, hold_masks=hold_masks, **places))
        )

    first = make(theirs, max_steps=60, learning_rate=0.01).fit(recording)
    assert ((first.masks_ != 0).sum((1, 2)) > 1).mean() > 0.5
    begun = make(ours, max_steps=HELD + 1, check_every=1, learning_rate=1e-6).fit(recording, start=first)
    np.testing.assert_allclose(begun.masks_, first.masks_, atol=1e-3)
    np.testing.assert_allclose(begun.history_.validation_loss[0], first.history_.validation_loss.min(), rtol=1e-5)


def test_feature_weights_of_a_fit_that_starts_from_another_are_not_held() -> None:
    data = session()[0]
    chosen = options(start="types", hold_features=10, hold_masks=0, locate_from=100, locate_every=25)
    model = Model("factorized", chosen, SHAPES)
    initialize(model, data.images, data.responses, seed=0)
    assert model.readout.holds_features(9)
    assert not model.readout.holds_features(10)
    assert model.readout.n_held_steps == 10
    model.readout.let_go()
    assert not model.readout.holds_features(0)
    assert model.readout.n_held_steps == 0


def test_the_last_fit_to_all_images_holds_masks_no_longer_than_the_one_that_was_chosen() -> None:
    """Rates fall by checks without a better loss, and the steps gone back on are left out of the last fit."""
    data = session()[0]
    history = [Check(step, rate, 1.0, loss, 0.0) for step, rate, loss in ((0, 1e-3, 9), (5, 1e-3, 8), (15, 1e-3, 9))]
    history += [Check(18, 3e-4, 1.0, 7.0, 0.0)]
    model = Model("factorized", options(penalties={"mask_l1": 1e-6, "feature_l1": 1e-6}), SHAPES)
    initialize(model, data.images, data.responses, seed=0)
    assert refit(model, data, history, seed=0)
    assert (model.readout.masks() != 0).flatten(1).sum(1).min() > 1, "five held steps, and three that are free"


@pytest.mark.parametrize("kind", [ww.FactorizedCNN, ww.PosteriorCNN])
def test_a_fit_that_diverges_before_places_are_inferred_says_so(kind: type) -> None:
    recording = as_recording(session()[0])
    core = ww.CoreOptions(kernel_sizes=(5,), n_maps=8)
    model = kind(core=core, training={"learning_rate": 1e30, "max_steps": 200, "check_every": 200})
    with pytest.raises(TrainingError, match=r"the loss is not finite at step 50.*Try a learning_rate below"):
        model.fit(recording)


def test_a_neuron_that_is_silent_at_first_can_still_be_learned() -> None:
    data = session()[0]
    responses = data.responses[:].clone()
    responses[:, 3] = 0.0
    model = Model("factorized", options(), SHAPES)
    initialize(model, data.images, responses, seed=0)
    assert (model.readout.masks()[3] != 0).sum() == 1
    assert model.readout.feature_weights()[3].abs().sum() > 0
    others = np.delete(np.arange(SHAPES.n_neurons), 3)
    sizes = model.readout.feature_weights().abs().sum(1)
    assert sizes[3] < 0.1 * sizes[others].median()


def test_the_largest_value_that_is_allowed_is_left() -> None:
    """Of masks that may not be negative the largest one, not the one of largest magnitude."""
    chosen = options(hold_masks=0, locate_from=100, locate_every=25, nonnegative_masks=True)
    readout = Model("factorized", chosen, SHAPES).readout
    assert isinstance(readout, FactorizedReadout)
    with torch.no_grad():
        readout.mask.zero_()
        readout.mask[:, 2, 3:6] = torch.tensor([0.3, -0.5, 0.1])
    soft_threshold_(readout.mask.data, readout.limited(readout.mask, 10.0))
    readout.project()
    masks = readout.masks()
    assert (masks[:, 2, 3] == 1).all()
    assert (masks != 0).sum() == SHAPES.n_neurons


def test_one_feature_map_leaves_no_scale_to_masks_of_norm_one() -> None:
    chosen = options(penalties={"mask_l1": 0.1})
    with pytest.raises(OptionError, match="mask_norm 'unit' leaves nothing that carries the scale"):
        Model("factorized", replace(chosen, core=replace(chosen.core, n_maps=1)), SHAPES)


@pytest.mark.parametrize("name", ["fixed-mask", "posterior", "gaussian", "fully-connected"])
@pytest.mark.parametrize("choice", [{"mask_norm": "unit"}, {"hold_masks": 5}])
def test_other_readouts_refuse_what_they_would_ignore(name: str, choice: dict) -> None:
    plain = ModelOptions(readout=ReadoutOptions(**choice))
    with pytest.raises(OptionError, match=rf"the {name} readout has no option '{next(iter(choice))}'"):
        Model(name, plain, SHAPES)
