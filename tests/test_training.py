"""The loop and its schedule: batches, early stopping, going back to the best, and stopping at nonsense."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from whatwhere.config import CoreOptions, ModelOptions, PenaltyOptions, ReadoutOptions, TrainingOptions
from whatwhere.errors import OptionError, TrainingError
from whatwhere.estimators.preparation import check_compiler
from whatwhere.losses import LOSSES
from whatwhere.model import Model, Shapes, initialize
from whatwhere.schedule import Progress
from whatwhere.storage import read_tensors
from whatwhere.training import CHECKPOINT, CHECKPOINT_VERSION, Result, Trainer, TrainingData, train

SHAPES = Shapes(n_channels=1, height=12, width=17, n_neurons=6)


def data(n_images: int = 60, seed: int = 0) -> TrainingData:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n_images + 20, 1, 12, 17, generator=generator)
    filters = torch.randn(12 * 17, 6, generator=generator) / 12
    responses = torch.poisson(torch.nn.functional.softplus(images.flatten(1) @ filters), generator=generator)
    return TrainingData(images[20:], responses[20:], images[:20], responses[:20], fingerprint="these")


def model(**training: object) -> Model:
    defaults = {"batch_size": 16, "check_every": 5, "max_steps": 20, "learning_rate": 1e-2}
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=3, padding="valid"),
        readout=ReadoutOptions(),
        penalties=PenaltyOptions(product_l1=0.01),
        training=TrainingOptions(**defaults | training),  # type: ignore[arg-type]
    )
    made = Model("factorized", options, SHAPES)
    initialize(made, data().images, data().responses, seed=0)
    return made


def parameters(fitted: Model) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in fitted.state_dict().values()])


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again, other = (train(model(max_steps=13), data(), seed=seed) for seed in (4, 4, 5))
    losses = [[check.validation_loss for check in result.history] for result in (first, again, other)]
    assert losses[0] == losses[1]
    assert all(one != another for one, another in zip(losses[0][1:], losses[2][1:], strict=True))


@pytest.mark.parametrize(("n_images", "batch_size"), [(48, 16), (60, 16), (5, 16)])
def test_an_epoch_shows_every_image_at_most_once_and_all_that_fill_batches(n_images: int, batch_size: int) -> None:
    run = Trainer(model(batch_size=batch_size), data(n_images), seed=0)
    size = min(batch_size, n_images)
    n_batches = n_images // size
    epochs = [
        torch.cat([run.batches.of_step(epoch * n_batches + batch)[0] for batch in range(n_batches)])
        for epoch in range(3)
    ]
    for rows in epochs:
        assert len(rows) == n_batches * size
        assert len(rows.unique()) == len(rows)
        assert set(rows.tolist()) <= set(range(n_images))
    assert not torch.equal(epochs[0], epochs[1])
    if n_images % size:
        assert len(torch.cat(epochs).unique()) == n_images, "what one epoch leaves out, another shows"


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    few = data(5)
    small, large = model(batch_size=5, max_steps=4), model(batch_size=500, max_steps=4)
    for fitted in (small, large):
        train(fitted, few, seed=0)
    assert torch.equal(parameters(small), parameters(large))


class Scripted:
    """Validation losses from a list in place of the model's, and what the run was like at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
        self.states: dict[int, dict[str, torch.Tensor]] = {}
        script = iter(losses)

        def next_loss(run: Trainer) -> float:
            self.run = run
            self.states[run.schedule.step] = {name: tensor.clone() for name, tensor in run._state().items()}
            return next(script, losses[-1])

        monkeypatch.setattr(Trainer, "_validation_loss", next_loss)


def rates(result: Result) -> dict[int, float]:
    return {check.step: check.learning_rate for check in result.history}


def test_patience_lowers_the_rate_and_at_last_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, [5, 4, 6, 6, 3, 6, 6, 6, 6])
    fitted = model(patience=2, n_rates=3, rate_factor=0.1, learning_rate=1e-3, max_steps=1000)
    result = train(fitted, data(), seed=0)
    assert result.stopped == "converged"
    assert (result.best_loss, result.best_step) == (3, 20)
    # Better at 5; out of patience at 15; better at 20; out at 30, and at 40 with the third rate.
    expected = {step: 1e-3 if step <= 15 else 1e-4 if step <= 30 else 1e-5 for step in range(0, 41, 5)}
    assert rates(result) == pytest.approx(expected)


def test_patience_over_goes_back_to_the_best_parameters_and_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(monkeypatch, [5, 4, 6, 6, 6])
    fitted = model(patience=2, n_rates=2, max_steps=1000)
    back: dict[str, torch.Tensor] = {}

    def observe(progress: Progress) -> None:
        if progress.check.step == 15:
            back.update({name: tensor.clone() for name, tensor in script.run._state().items()})

    train(fitted, data(), seed=0, observer=observe)
    best, left = script.states[5], script.states[15]
    assert any(name.startswith("optimizer/") and name.endswith("exp_avg_sq") for name in back)
    assert back.keys() == best.keys()
    for name, tensor in best.items():
        assert torch.equal(back[name], tensor), name
    assert not torch.equal(left["model/readout.mask"], best["model/readout.mask"])
    for name, tensor in fitted.state_dict().items():
        assert torch.equal(tensor, best[f"model/{name}"]), "the fitted model is the best one"


def test_going_back_to_the_start_forgets_the_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(monkeypatch, [1, 2])
    moments: list[int] = []

    def observe(progress: Progress) -> None:
        if progress.check.step == 5:
            moments.append(sum(name.startswith("optimizer/") for name in script.run._state()))

    train(model(patience=1, n_rates=2), data(), seed=0, observer=observe)
    assert moments == [0]


def test_patience_from_leaves_early_checks_out_of_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    Scripted(monkeypatch, [1, 2])
    patient = train(model(patience=2, n_rates=1, patience_from=12, max_steps=1000), data(), seed=0)
    assert patient.history[-1].step == 20  # 15 and 20 count, 5 and 10 do not
    Scripted(monkeypatch, [1, 2])
    assert train(model(patience=2, n_rates=1, max_steps=1000), data(), seed=0).history[-1].step == 10


@pytest.mark.parametrize("max_steps", [3, 5, 12])
def test_training_stops_at_max_steps_at_the_latest_and_looks_once_more(max_steps: int) -> None:
    result = train(model(max_steps=max_steps), data(), seed=0)
    assert result.stopped == "max_steps"
    assert [check.step for check in result.history] == [*range(0, max_steps, 5), max_steps]


def test_no_steps_leave_the_model_as_it_was() -> None:
    fitted, before = model(max_steps=0), parameters(model())
    result = train(fitted, data(), seed=0)
    assert (result.stopped, result.best_step, len(result.history)) == ("max_steps", 0, 1)
    assert torch.equal(parameters(fitted), before)
    assert not fitted.training


def test_the_losses_told_are_averages_without_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of all images and a rate that changes next to nothing: both losses are known beforehand."""
    some = data(40)
    fitted = model(batch_size=40, learning_rate=1e-12, max_steps=3, check_every=3)
    loss = LOSSES["poisson"]
    with torch.no_grad():
        validation = loss(fitted.eval()(some.validation_images), some.validation_responses).item()
        training = loss(fitted.train()(some.images), some.responses).item()
    result = train(fitted, some, seed=0)
    assert result.history[0].validation_loss == pytest.approx(validation, rel=1e-6)
    assert result.history[1].training_loss == pytest.approx(training, rel=1e-5)
    assert math.isnan(result.history[0].training_loss)


def test_a_step_is_adams_on_loss_and_penalty() -> None:
    """Against a plain loop with torch's unfused Adam."""
    fitted, plain, some = model(max_steps=6, check_every=6), model(), data(32)
    rows = [Trainer(model(), some, seed=7).batches.of_step(step)[0] for step in range(6)]
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
    plain.train()
    for chosen in rows:
        predictions = plain(some.images[chosen])
        mask, weights = plain.readout.mask.flatten(1), plain.readout.weights
        penalty = 0.01 * (mask.abs().sum(1) * weights.abs().sum(1)).mean()
        optimizer.zero_grad()
        (LOSSES["poisson"](predictions, some.responses[chosen]) + penalty).backward()
        optimizer.step()
    run = Trainer(fitted, some, seed=7)
    fitted.train()
    for _ in range(6):
        run.step()
    torch.testing.assert_close(parameters(fitted), parameters(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_step_of_sgd_is_torchs_with_that_momentum(momentum: float) -> None:
    fitted = model(max_steps=6, check_every=6, optimizer="sgd", momentum=momentum)
    plain, some = model(), data(32)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-2, momentum=momentum)
    run = Trainer(fitted, some, seed=7)
    plain.train()
    fitted.train()
    for step in range(6):
        chosen = Trainer(model(), some, seed=7).batches.of_step(step)[0]
        optimizer.zero_grad()
        predictions = plain(some.images[chosen])
        penalty = plain.penalty(plain.options.penalties, predictions)
        (LOSSES["poisson"](predictions, some.responses[chosen]) + penalty).backward()
        optimizer.step()
        run.step()
    torch.testing.assert_close(parameters(fitted), parameters(plain), rtol=1e-4, atol=1e-6)
    moments = sum(name.startswith("optimizer/") for name in run._state())
    assert moments == (len(list(fitted.parameters())) if momentum else 0), "a checkpoint has the last step"


def test_bf16_runs_and_is_close_to_float32() -> None:
    results = {}
    for precision in ("float32", "bf16"):
        results[precision] = train(model(precision=precision), data(), seed=0)
    full, half = (results[precision].history[-1].training_loss for precision in ("float32", "bf16"))
    assert half == pytest.approx(full, rel=0.02)
    assert half != full


def test_progress_tells_the_time_left_at_the_least() -> None:
    told: list[Progress] = []
    train(model(max_steps=30, patience=2, n_rates=1), data(), seed=0, observer=told.append, candidate=3)
    assert [progress.check.step for progress in told[:2]] == [0, 5]
    assert {progress.candidate for progress in told} == {3}
    assert told[0].seconds_left == 0
    per_step = told[1].check.seconds / 5
    checks = 2 - (told[1].best_step != 5)
    assert told[1].seconds_left == pytest.approx(per_step * checks * 5, rel=0.5)
    assert told[-1].seconds_left == 0


def test_a_loss_that_is_not_finite_stops_with_a_diagnosis(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    fitted = model(learning_rate=1e30, checkpoint_seconds=0, max_steps=100)
    with pytest.raises(TrainingError) as caught:
        train(fitted, data(), seed=0, checkpoint=checkpoint)
    message = str(caught.value)
    assert "the loss is not finite at step 2 (training nan" in message or "at step 1 (training" in message
    assert "hold values that are not finite" in message
    assert "core.layers.0." in message
    assert "The best validation loss so far was" in message
    assert "Try a learning_rate below 1e+30" in message
    if checkpoint.exists():
        tensors, _ = read_tensors(checkpoint, CHECKPOINT, CHECKPOINT_VERSION)
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_the_checkpoint_before_the_loss_broke_survives_and_is_good(tmp_path: Path) -> None:
    checkpoint, some = tmp_path / "checkpoint.safetensors", data()
    train(model(max_steps=10, checkpoint_seconds=0), some, seed=0, checkpoint=checkpoint)
    good = checkpoint.read_bytes()
    broken = model(max_steps=10, checkpoint_seconds=0)
    run = Trainer(broken, some, seed=0, checkpoint=checkpoint)
    with torch.no_grad():
        broken.readout.mask[2, 3, 4] = math.inf
    with pytest.raises(TrainingError, match=r"not finite at step 0 .*; readout\.mask hold values"):
        run._save_checkpoint()
    assert checkpoint.read_bytes() == good


def test_extreme_responses_are_found_at_the_first_look() -> None:
    some = data()
    extreme = TrainingData(some.images, some.responses, some.validation_images, some.validation_responses * 1e38)
    with pytest.raises(TrainingError, match=r"at step 0 .*look for extreme values in images and responses"):
        train(model(), TrainingData(*vars(extreme).values()), seed=0)


def test_interruption_ends_at_the_next_step_with_the_best_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([False] * 12 + [True] * 99)
    script = Scripted(monkeypatch, [3, 2, 5])
    fitted = model(max_steps=100)
    result = train(fitted, data(), seed=0, interrupted=lambda: next(calls))
    assert (result.stopped, result.best_step, result.history[-1].step) == ("interrupted", 5, 10)
    assert torch.equal(fitted.state_dict()["readout.mask"], script.states[5]["model/readout.mask"])


def test_fit_lowers_the_loss(rng: np.random.Generator) -> None:
    result = train(model(max_steps=100, check_every=20, patience=50), data(400), seed=0)
    assert result.history[-1].training_loss < 0.95 * result.history[1].training_loss


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_a_compiled_core_makes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: (asked.append(function), compiler(function))[1])
    plain, compiled, again = (model(compile=choice, max_steps=12) for choice in (False, True, True))
    for fitted in (plain, compiled, again):
        train(fitted, data(), seed=0)
    assert asked == [compiled.core.forward, again.core.forward]
    torch.testing.assert_close(parameters(compiled), parameters(plain), rtol=1e-4, atol=1e-5)
    assert torch.equal(parameters(again), parameters(compiled))
    assert compiled.compiled_core is None, "predictions of a fitted model need no compiler"


def test_without_a_compiler_it_is_told_before_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = model(compile=True).options
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OptionError, match=r"training.compile needs a C\+\+ compiler"):
        check_compiler(asked, torch.device("cpu"))
    check_compiler(asked, torch.device("cuda"))
    check_compiler(model().options, torch.device("cpu"))
