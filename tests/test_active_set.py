"""Steps on what masks hold: the values of whole steps there, the same optimum, and a fit that resumes exactly."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

import whatwhere as ww
from whatwhere.active_set import ActiveSet
from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.errors import OptionError, TrainingError
from whatwhere.model import Model, Shapes, check_options, initialize
from whatwhere.proximal import shrink
from whatwhere.readouts import FactorizedReadout
from whatwhere.training import OPTIMIZERS, Trainer, TrainingData, train

STRENGTH = 0.4


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_optimum_is_that_of_the_lasso_though_most_steps_are_of_few_pixels(
    optimizer: str, rng: np.random.Generator
) -> None:
    pixels = rng.standard_normal((400, 150)) @ (np.eye(150) + 0.15 * rng.standard_normal((150, 150)))
    truth = np.zeros((150, 2))
    truth[[3, 70, 120], 0], truth[[5, 70, 139], 1] = (1.0, -0.7, 0.4), (0.8, 0.5, -1.2)
    responses = pixels @ truth + 0.3 * rng.standard_normal((400, 2))
    pixels, responses = (pixels - pixels.mean(0)).astype(np.float32), (responses - responses.mean(0)).astype(np.float32)
    lasso = Lasso(STRENGTH / 2, fit_intercept=False, tol=1e-10, max_iter=100_000)
    wanted = np.stack([lasso.fit(pixels.astype(np.float64), one).coef_ for one in responses.T.astype(np.float64)])
    assert 6 <= (wanted != 0).sum() < 300 / 16
    readout = FactorizedReadout(2, (1, 10, 15), ReadoutOptions(nonlinearity="identity"))
    options = ModelOptions(penalties=PenaltyOptions(mask_l1=STRENGTH))
    core, members = SimpleNamespace(shrunken=lambda strength, relative: []), [SimpleNamespace(readout=readout)]
    model: Any = SimpleNamespace(members=members, core=core, options=options, frozen=False)
    rate = {"adam": 0.05, "sgd": 0.01}[optimizer]

    def make(tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
        return OPTIMIZERS[optimizer](tensors, TrainingOptions(optimizer=optimizer, learning_rate=rate))

    steps = make([readout.mask])
    active = ActiveSet(readout, steps, make)
    maps, n_sparse = torch.from_numpy(pixels).view(-1, 1, 10, 15), 0
    for step in range(4000):
        active.choose(whole=step % 5 == 0)
        n_sparse += active.support is not None
        for group in steps.param_groups:
            group["lr"] = rate * 0.5 ** (step // 400)
        both = [steps, *active.optimizers()]
        for one in both:
            one.zero_grad()
        (readout(maps) - torch.from_numpy(responses)).square().mean().backward()
        for one in both:
            one.step()
        shrink(model, *both)
    active.end()
    found = readout.mask.detach().flatten(1).numpy()
    assert n_sparse > 1000
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(found == 0, wanted == 0)


def fit_options(whole_every: int = 4, **training: Any) -> ModelOptions:
    return ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=2, padding="valid", nonlinearity="relu"),
        readout=ReadoutOptions(nonlinearity="identity", feature_norm="unit", sta_smoothing=1.0),
        penalties=PenaltyOptions(mask_l1=0.2, feature_l1=0.02),
        training=TrainingOptions(
            loss="squared",
            proximal=True,
            whole_every=whole_every,
            batch_size=40,
            check_every=5,
            learning_rate=5e-3,
            **training,
        ),
    )


def data(rng: np.random.Generator) -> TrainingData:
    """Six neurons that each see a bar of a 16 x 21 image."""
    images = rng.standard_normal((300, 1, 16, 21)).astype(np.float32)
    rows, columns = rng.integers(3, 13, 6), rng.integers(3, 18, 6)
    signals = sum(images[:, 0, rows, columns + shift] for shift in (-1, 0, 1))
    responses = (signals + 0.5 * rng.standard_normal((300, 6))).astype(np.float32)
    x, y = torch.from_numpy(images), torch.from_numpy(responses)
    return TrainingData(x[:240], y[:240], x[240:], y[240:], "these")


def started(given: TrainingData, options: ModelOptions) -> Model:
    model = Model("factorized", options, Shapes(1, 16, 21, 6))
    initialize(model, given.images, given.responses, seed=0)
    return model


def test_a_step_on_the_support_moves_what_a_whole_step_would_move(rng: np.random.Generator) -> None:
    given = data(rng)
    moved = {}
    for whole_every in (1, 1000):  # of 1000, the first step alone is whole
        model = started(given, fit_options())
        model.options = replace(model.options, training=replace(model.options.training, whole_every=1))
        trainer = Trainer(model, given, seed=0)
        model.train()
        while (model.readout.mask == 0).float().mean() < 0.97:
            trainer.step()
        before = trainer.schedule.step
        trainer.options = replace(trainer.options, whole_every=whole_every)
        trainer.active = trainer._active_sets()
        trainer.step()
        assert (model.readout.restricted is not None) == (whole_every > 1)
        assert trainer.schedule.step == before + 1
        moved[whole_every] = {name: tensor.clone() for name, tensor in trainer._state().items()}
    pattern = moved[1000].pop("active/pattern").view(6, 12, 17)
    for name, tensor in moved[1].items():
        other = moved[1000][name]
        if tensor.shape == pattern.shape:
            tensor, other = tensor[pattern], other[pattern]
        torch.testing.assert_close(other, tensor, rtol=1e-5, atol=1e-6)


def test_most_steps_are_sparse_and_the_fit_is_as_good(rng: np.random.Generator) -> None:
    given = data(rng)
    losses, shares = {}, {}
    for whole_every in (1, 4):
        model = started(given, fit_options(whole_every, max_steps=600))
        sparse: list[bool] = []
        model.readout.register_forward_pre_hook(
            lambda readout, args, seen=sparse: seen.append(readout.restricted is not None) if readout.training else None
        )
        losses[whole_every] = train(model, given, seed=0).best_loss
        shares[whole_every] = np.mean(sparse)
        assert model.readout.restricted is None, "the fitted model has whole masks"
        assert (model.readout.mask == 0).float().mean() > 0.9
    assert shares[1] == 0
    assert shares[4] > 0.5
    assert losses[4] < 1.05 * losses[1]


@pytest.mark.parametrize("stop_at", [3, 97, 150, 151, 152, 153])
def test_a_fit_stopped_anywhere_ends_with_the_same_numbers(
    stop_at: int, rng: np.random.Generator, tmp_path: Path
) -> None:
    given = data(rng)
    undisturbed = started(given, fit_options(max_steps=200))
    whole = train(undisturbed, given, seed=0)
    checkpoint = tmp_path / "checkpoint"
    stopped = started(given, fit_options(max_steps=200))
    counted = iter(range(10_000))
    train(stopped, given, seed=0, checkpoint=checkpoint, interrupted=lambda: next(counted) >= stop_at)
    again = started(given, fit_options(max_steps=200))
    resumed = train(again, given, seed=0, checkpoint=checkpoint, resume=True)
    assert [check.validation_loss for check in resumed.history] == [check.validation_loss for check in whole.history]
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_steps_that_nothing_would_take_are_refused() -> None:
    for readout, proximal in (("factorized", False), ("fixed-mask", True)):
        options = fit_options(whole_every=3)
        penalties = PenaltyOptions(feature_l1=0.02) if readout == "fixed-mask" else options.penalties
        chosen = replace(options, penalties=penalties, training=replace(options.training, proximal=proximal))
        chosen = replace(chosen, readout=replace(chosen.readout, feature_norm="free" if proximal else "unit"))
        with pytest.raises(OptionError, match=r"whole_every \(=3\) has nothing to act on: it is for proximal steps"):
            check_options(readout, chosen)
    check_options("factorized", fit_options(whole_every=3))


def test_an_estimator_takes_it(rng: np.random.Generator) -> None:
    given = data(rng)
    recording = ww.Recording(given.images.numpy(), given.responses.numpy())
    options = {"proximal": True, "max_steps": 40, "whole_every": 7, "loss": "squared"}
    model = ww.FactorizedCNN("simulation", core={"kernel_sizes": (5,)}, training=options, penalties={"mask_l1": 0.1})
    assert (model.fit(recording).masks_ == 0).mean() > 0.3


@pytest.mark.parametrize("whole_every", [2, 3, 7])
def test_a_model_fitted_again_to_all_images_is_whole(whole_every: int, rng: np.random.Generator) -> None:
    given = data(rng)
    recording = ww.Recording(given.images.numpy(), given.responses.numpy())
    training = {"proximal": True, "max_steps": 41, "whole_every": whole_every, "loss": "squared", "refit": True}
    model = ww.FactorizedCNN(
        "simulation",
        core={"kernel_sizes": (5,)},
        training={**training, "check_every": 5, "batch_size": 40, "learning_rate": 5e-3},
        penalties={"mask_l1": 0.3},
    ).fit(recording)
    readout = model.model_.readout
    assert readout.restricted is None
    predicted = model.predict(recording.images[:20])
    fresh = Model("factorized", model.model_.options, model.model_.shapes)
    saved = {name.removeprefix("model/"): tensor for name, tensor in model.tensors().items() if "model/" in name}
    fresh.load_state_dict(saved)
    shown = torch.from_numpy(model.standardisation_.apply(recording.images[:20]))
    with torch.no_grad():
        again = fresh.eval()(shown).numpy() * model.response_scale_
    np.testing.assert_allclose(predicted, again, rtol=1e-5, atol=1e-6)


def test_sparse_steps_in_bfloat16(rng: np.random.Generator) -> None:
    given = data(rng)
    model = started(given, fit_options(max_steps=120, precision="bf16"))
    seen: list[bool] = []
    model.readout.register_forward_pre_hook(lambda readout, args: seen.append(readout.restricted is not None))
    assert np.isfinite(train(model, given, seed=0).best_loss)
    assert any(seen)


def test_going_back_to_the_very_start_takes_a_whole_step_first(rng: np.random.Generator) -> None:
    """One pixel a mask at first, and a rate so high that nothing is better than the start."""
    given = data(rng)
    options = fit_options(max_steps=60, patience=1, n_rates=3)
    options = replace(
        options,
        readout=replace(options.readout, mask_noise=0.0),
        training=replace(options.training, learning_rate=50.0, check_every=3),
    )
    result = train(started(given, options), given, seed=0)
    assert result.history[-1].learning_rate < 50


def test_values_that_are_not_finite_are_seen_while_masks_are_restricted(rng: np.random.Generator) -> None:
    given = data(rng)
    model = started(given, fit_options(whole_every=1000))
    trainer = Trainer(model, given, seed=0)
    model.train()
    while model.readout.restricted is None:
        trainer.step()
    with torch.no_grad():
        model.readout.restricted.values[0] = torch.nan
    with pytest.raises(TrainingError, match=r"readout.mask hold values that are not finite"):
        trainer.check_finite()
