"""The same model fitted again with other seeds, each kept as a run of its own, so that what is done is never redone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.base import clone

from whatwhere.catalogue import load_model
from whatwhere.celltypes.barcodes import maps_to_measure, model_barcodes, model_signs, some_images
from whatwhere.celltypes.finding import CellTypes
from whatwhere.celltypes.matching import MatchedMaps, match_maps
from whatwhere.celltypes.stability import Stability, stability_of
from whatwhere.comparison.fits import check_fits, fit_all
from whatwhere.comparison.plan import Fit, Plan
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN, Observer
from whatwhere.recording import Recording, with_split

_MATCHED_ON, _AT_ONCE = 256, 16
"""Images that feature maps of two fits are compared on, and so many at a time."""

Observe = Callable[[str], Observer | None]


@dataclass(frozen=True, eq=False)
class Refits:
    """Fits of one model with further seeds. plan: which, and where; notes: by label; interrupted: by Ctrl-C."""

    plan: Plan
    notes: dict[str, tuple[str, ...]]
    interrupted: bool


def plan_refits(model: CNN, recording: Recording, folder: Path, n_refits: int) -> Plan:
    """Refits of a fitted model with the seeds that follow its own, each in `folder/seed-<s>`; none is begun.

    All is as in the first fit but the seed: options, strengths searched, neurons, images, and the split, which is that
    of the first seed; so a comparison with several seeds holds them already. recording: the one that the model was
    fitted to; it may hold further neurons. Raises `InputError` for another one, `OptionError` for fewer than one refit
    and for models whose core came from elsewhere, which no single recording gives again.
    """
    if n_refits < 1:
        raise OptionError(f"refits must be at least 1, got {n_refits}.")
    if model.given_core is not None or model.shared_with is not None:
        raise OptionError(
            "the core of this model was fitted to other recordings too: refits from this one alone would be of another"
            " model. Leave refits out."
        )
    declared = fitted_recording(model, recording)
    fits = []
    for seed in range(model.seed + 1, model.seed + 1 + n_refits):
        make = partial(_again, model, seed)
        fits.append(Fit(model.name, seed, declared, folder / f"seed-{seed}", f"{model.name} seed {seed}", make))
    plan = Plan((model.name,), (declared.n_images,), tuple(fits), False)
    check_fits(plan)
    return plan


def fitted_recording(model: CNN, recording: Recording) -> Recording:
    """What the model was fitted to: the recording's neurons that it has, with its split declared.

    Raises `InputError` where the recording is another one, or lacks some of the neurons. Reads all of it.
    """
    seen = model.seen(recording)
    if not model.was_fitted_to(seen):
        raise InputError(
            f"{recording.name} is not the recording that the model was fitted to (its contents differ): its images"
            " would show other feature maps, and refits would not be of the same model. Give that recording, or none."
        )
    return with_split(seen, model.options_.training.validation_fraction, model.seed)


def _again(model: CNN, seed: int) -> CNN:
    again: CNN = clone(model)
    again.set_params(seed=seed)
    return again


def fit_refits(plan: Plan, observe: Observe = lambda label: None) -> Refits:
    """Fits what is not there yet, goes on with what was begun, and keeps each as it is done."""
    notes, interrupted = fit_all(plan, True, observe)
    return Refits(plan, notes, interrupted)


def refit_stability(model: CNN, found: CellTypes, recording: Recording, plan: Plan) -> Stability:
    """How stable the types of a model are over its refits, all of which are kept."""
    images = some_images(recording, _MATCHED_ON)
    measured = maps_to_measure(model, recording, found.options.metric)
    signs = model_signs(model, measured)
    barcodes: list[np.ndarray] = []
    maps: list[MatchedMaps] = []
    for fit in plan.fits:
        again = load_model(fit.folder)
        assert isinstance(again, CNN)
        again.model_.to(next(model.model_.parameters()).device)
        barcodes.append(model_barcodes(again, measured, metric=found.options.metric))
        pairs = list(zip(*(one.standardised(images, _AT_ONCE) for one in (model, again)), strict=True))
        matched = match_maps(model.model_.core, again.model_.core, pairs)
        maps.append(matched.of_barcodes(signs, model_signs(again, measured)))
    return stability_of(found, barcodes, [fit.seed for fit in plan.fits], maps)
