"""One network for each candidate strength, all begun alike; the one with the lowest validation loss is kept."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from whatwhere.checks import some_of
from whatwhere.config import ModelOptions
from whatwhere.cost import make_plan
from whatwhere.errors import OptionError
from whatwhere.estimators.base import Observer
from whatwhere.estimators.preparation import Prepared
from whatwhere.estimators.resume import checkpoint_path
from whatwhere.interrupts import interruptible
from whatwhere.metrics import correlation
from whatwhere.model import Model, Shapes, initialize
from whatwhere.parallel import Parallel
from whatwhere.refitting import refit
from whatwhere.training import Result, TrainingData, train


def fit_candidates(
    name: str,
    options: ModelOptions,
    prepared: Prepared,
    shapes: Shapes,
    *,
    seed: int,
    folder: Path | None,
    resume: bool,
    observer: Observer | None,
    parallel: Parallel,
    start: dict[str, Tensor] | None,
) -> tuple[Model, list[Result]]:
    """A model for each candidate strength; the one with the lowest validation loss, and how every fit ended.

    start: parameters that all begin with, in place of those that the data suggest.
    """
    data, candidates = prepared.data, options.penalties.candidates()
    models: list[Model] = []
    results: list[Result] = []
    begun: dict[str, Tensor] = {}
    with interruptible() as interrupted:
        for number, penalties in enumerate(candidates):
            model = Model(name, replace(options, penalties=penalties), shapes).to(data.images.device)
            if number == 0:
                parallel.from_first(partial(_tell_plan, observer, model, prepared, len(candidates), parallel.size))
                _begin(model, data, seed, start)
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


def _begin(model: Model, data: TrainingData, seed: int, start: dict[str, Tensor] | None) -> None:
    """Initial values from the data, or those given; `OptionError` where these are of another architecture."""
    if start is None:
        initialize(model, data.images, data.responses, seed)
        return
    ours = model.state_dict()
    wrong = [name for name, tensor in ours.items() if name not in start or start[name].shape != tensor.shape]
    wrong += start.keys() - ours.keys()
    if wrong:
        raise OptionError(
            f"start has parameters that do not fit ({some_of(wrong)}): expected a model with the same readout, core,"
            " neurons and size of images."
        )
    model.load_state_dict(start)


def _tell_plan(observer: Observer | None, model: Model, prepared: Prepared, n_candidates: int, size: int) -> None:
    if observer is not None:
        observer(make_plan(model, prepared.data, n_candidates, prepared.notes, size))


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
