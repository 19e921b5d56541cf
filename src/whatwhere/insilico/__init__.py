"""Experiments on a fitted model: what each neuron prefers, asked of the model as one would ask the neuron.

Every function takes a fitted network (with any readout, of a shared core, too) or filter model, or a simulated
population whose truth is known; asks all neurons, in batches that keep to `memory_gib`; and gives a result with arrays
of documented shapes and, but for fields, a `table()`.
"""

from whatwhere.insilico.fields import SPRITE, LinearFields, linear_fields
from whatwhere.insilico.gratings import GratingOptions, GratingTuning, grating_tuning
from whatwhere.insilico.most_exciting import MostExciting, MostExcitingOptions, most_exciting_images
from whatwhere.insilico.places import find_places
from whatwhere.insilico.sizes import SizeOptions, SizeTuning, size_tuning
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.studies import Study, StudyOptions, study, write_study

__all__ = [
    "SPRITE",
    "GratingOptions",
    "GratingTuning",
    "ImageStatistics",
    "LinearFields",
    "MostExciting",
    "MostExcitingOptions",
    "SizeOptions",
    "SizeTuning",
    "Study",
    "StudyOptions",
    "find_places",
    "grating_tuning",
    "linear_fields",
    "most_exciting_images",
    "size_tuning",
    "study",
    "write_study",
]
