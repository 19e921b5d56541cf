"""From what a user has, a fitted model or a simulated population, to neurons that can be shown images."""

from typing import Any

from whatwhere.baselines.base import FilterModel
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN, SharedCoreCNN
from whatwhere.insilico.fitted import FilterSubject, NetworkSubject
from whatwhere.insilico.simulated import PopulationSubject, is_population
from whatwhere.insilico.subjects import Subject


def as_subject(model: Any) -> Subject:
    """The neurons of a fitted network or filter model, or of a simulated population; else `OptionError`."""
    if isinstance(model, Subject):
        return model
    if isinstance(model, CNN):
        return NetworkSubject(model)
    if isinstance(model, FilterModel):
        return FilterSubject(model)
    if is_population(model):
        return PopulationSubject(model)
    if isinstance(model, SharedCoreCNN):
        raise OptionError("a model of several recordings has neurons of each: name the recording, model['scan1'].")
    raise OptionError(
        f"a {type(model).__name__} has no neurons that images can be shown to: expected a fitted network or filter"
        " model, or a simulated population with kernels."
    )
