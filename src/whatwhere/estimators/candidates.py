"""One network for each candidate strength, all begun alike; the one with the lowest validation loss is kept."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from whatwhere.checks import some_of
from whatwhere.config import ModelOptions
from whatwhere.cost import Plan, make_plan
from whatwhere.errors import OptionError
from whatwhere.estimators.base import Observer
from whatwhere.estimators.resume import checkpoint_path
from whatwhere.interrupts import interruptible
from whatwhere.metrics import correlation
from whatwhere.model import Model
from whatwhere.option_checks import with_penalties
from whatwhere.parallel import Parallel
from whatwhere.refitting import refit
from whatwhere.shared_model import SharedModel
from whatwhere.training import Result, train
from whatwhere.training_data import SharedData, TrainingData

Kind = TypeVar("Kind", Model, SharedModel)


def fit_candidates(
    make: Callable[[ModelOptions], Kind],
    begin: Callable[[Kind], None],
    options: ModelOptions,
    data: TrainingData | SharedData,
    notes: tuple[str, ...],
    *,
    seed: int,
    folder: Path | None,
    resume: bool,
    observer: Observer | None,
    parallel: Parallel,
) -> tuple[Kind, list[Result]]:
    """A model for each candidate strength; the one with the lowest validation loss, and how every fit ended.

    make: a model with these options, on the data's device; begin: gives it the values that all begin with. notes: for
    the plan.
    """
    candidates = options.penalties.candidates()
    models: list[Kind] = []
    results: list[Result] = []
    begun: dict[str, Tensor] = {}
    with interruptible() as interrupted:
        for number, penalties in enumerate(candidates):
            model = make(with_penalties(options, penalties))
            if number == 0:
                plan = partial(make_plan, model, data, len(candidates), notes, parallel.size)
                parallel.from_first(partial(_tell, observer, plan))
                begin(model)
                begun = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            model.load_state_dict(begun)  # all candidates start alike
            result = train(
                model,
                data,
                seed=seed,
                checkpoint=None if folder is None else checkpoint_path(folder, number),
                resume=resume,
                observer=observer,
                candidate=number,
                interrupted=interrupted,
                parallel=parallel,
            )
            if all(result.best_loss < earlier.best_loss for earlier in results):
                models = [model]
            results.append(result)
            if result.stopped == "interrupted":
                return models[0], results
        if options.training.refit:
            best = min(results, key=lambda result: result.best_loss)
            again = copy.deepcopy(models[0])
            again.load_state_dict(begun)
            if refit(again, data, best.history, seed=seed, interrupted=interrupted, parallel=parallel):
                return again, results
            results[-1] = replace(results[-1], stopped="interrupted")
    return models[0], results


_BEGINNINGS = ("readout.held", "readout.pixels")
"""What is held at the beginning of a fit, of no use to one that goes on from another."""


def load_start(model: Model, start: dict[str, Tensor]) -> None:
    """Gives a model these parameters, which nothing holds; `OptionError` where they are of another architecture."""
    ours = {name: tensor for name, tensor in model.state_dict().items() if name not in _BEGINNINGS}
    start = {name: tensor for name, tensor in start.items() if name not in _BEGINNINGS}
    wrong = [name for name, tensor in ours.items() if name not in start or start[name].shape != tensor.shape]
    wrong += start.keys() - ours.keys()
    if wrong:
        raise OptionError(
            f"start has parameters that do not fit ({some_of(wrong)}): expected a model with the same readout, core,"
            " neurons and size of images."
        )
    model.load_state_dict(start, strict=False)
    model.readout.let_go()


def _tell(observer: Observer | None, plan: Callable[[], Plan]) -> None:
    if observer is not None:
        observer(plan())


@torch.no_grad()
def nothing_found(model: Model, data: TrainingData) -> tuple[str, ...]:
    """A note where predictions of validation images correlate with responses no more than by chance.

    The mean correlation over neurons is then within two of its standard errors, 1 / sqrt(n_images n_neurons), of 0.
    """
    if len(data.validation_images) < 2:
        return ()
    batches = data.validation_images.split(model.options.training.batch_size)
    predicted = torch.cat([model(images) for images in batches]).cpu().numpy()
    found = float(correlation(predicted, data.validation_responses[:].cpu().numpy()).mean())
    chance = 2 / predicted.size**0.5
    if found > chance:
        return ()
    return (
        f"nothing was found: predictions of validation images correlate with responses at {found:.3f}, where chance"
        f" reaches {chance:.3f}. More images or neurons, other strengths or a smaller core may help",
    )
