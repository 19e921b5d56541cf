"""Where each neuron of a fitted model looks and what it computes there, as far as that kind of model has it."""

import numpy as np

from whatwhere.baselines.base import FilterModel
from whatwhere.core import map_offset
from whatwhere.estimators import CNN, Estimator, PosteriorCNN
from whatwhere.exploration.crops import around_peaks, cut, peaks_and_side, whole
from whatwhere.exploration.explored import Cropped, Posterior
from whatwhere.insilico import StudyOptions, study
from whatwhere.insilico.choosing import as_subject

LEVEL = 0.9
"""Of the credible regions."""
MOST_FIELDS = 1000
"""Neurons whose linearised fields are found for a report: a second for some dozens of them on a laptop."""


def locations_of(model: Estimator) -> np.ndarray | None:
    """Row and column in pixels of the image, (n_neurons, 2); None for a model that looks everywhere."""
    found = getattr(model, "locations_", None)
    return None if found is None else np.asarray(found, float)


def where_parts(model: Estimator) -> tuple[Cropped | None, Posterior | None]:
    """The masks, and where it is inferred the posterior on the same pixels."""
    if not isinstance(model, CNN):
        return None, None
    offset = map_offset(model.options_.core)
    masks = np.asarray(model.masks_, np.float32)[:, None]  # (n_neurons, 1, h, w)
    peaks, side = peaks_and_side(masks)
    if not isinstance(model, PosteriorCNN):
        return cut(masks, peaks, side, offset), None
    probability = model.location_posterior_
    inside = model.credible_regions(LEVEL)
    _, wide = peaks_and_side(inside[:, None].astype(np.float32))
    both = (max(side[0], wide[0]), max(side[1], wide[1]))
    pieces = [cut(values, peaks, both, offset) for values in (masks, probability[:, None], inside[:, None])]
    found = Posterior(
        probability=pieces[1],
        region=pieces[2].values > 0,
        region_pixels=inside.sum((1, 2)),
        entropy=model.location_entropy_,
        level=LEVEL,
        highest=probability.max((1, 2)),
    )
    return pieces[0], found


def feature_parts(model: Estimator) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """Feature weights, the first layer's kernels, and whether those kernels are the features that the weights weigh."""
    if not isinstance(model, CNN):
        return None, None, False
    weights, kernels = model.feature_weights_, model.kernels_
    same = model.options_.core.n_layers == 1 and len(kernels) == weights.shape[1]
    return weights, kernels, same


def filters_of(model: Estimator) -> Cropped | None:
    """The linear filters of a model that is made of them, in their places; None of another."""
    if not isinstance(model, FilterModel):
        return None
    if hasattr(model, "positions_"):
        offsets = np.asarray(model.positions_, float)
        pieces = around_peaks(model.filters_, (0.0, 0.0))
        return Cropped(pieces.values, (pieces.edges + offsets).astype(np.float32), pieces.step)
    return around_peaks(model.filters_, (0.0, 0.0))


def linear_fields_of(model: Estimator) -> Cropped | None:
    """Linearised fields of a network, averaged over white noise; None of another model, and where `why_no_fields`."""
    if not isinstance(model, CNN) or why_no_fields(model):
        return None
    found = study(model, StudyOptions(gratings=None)).fields
    assert found is not None  # it was asked for
    return whole(found.values, found.corners - 0.5)


def why_no_fields(model: Estimator) -> str:
    """Why a report does not find the linearised fields of a network; empty where it does."""
    if model.shapes_.n_neurons > MOST_FIELDS:
        return f"of more than {MOST_FIELDS:,} neurons"
    subject = as_subject(model)
    return f"of images of unknown contrast ({subject.why_unknown})" if subject.statistics is None else ""
