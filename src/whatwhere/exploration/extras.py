"""What other analyses left in a run's folder, and a report shows: cell types, linearised fields, exciting images."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from whatwhere.checks import some_of
from whatwhere.errors import FormatError
from whatwhere.estimators import Estimator
from whatwhere.exploration.crops import whole
from whatwhere.exploration.explored import Cropped
from whatwhere.runs import TYPES_TABLE
from whatwhere.storage import EXCITING_FILE, FIELDS_FILE, read_npz, read_texts

NO_TYPE_NAME = "none"


@dataclass(frozen=True, eq=False)
class Extras:
    """Each None where there is none.

    - types: one row a neuron, in the model's order, columns `type` (text, "none" for a neuron without) and `confidence`
      (NaN where unknown)
    - fields: each neuron's linearised field, or that of some, see `Cropped.made`
    - exciting (n_neurons, n_channels, height, width): the image that excites each most, NaN where not asked for
    """

    types: pd.DataFrame | None = None
    fields: Cropped | None = None
    exciting: np.ndarray | None = None


def read_extras(folder: Path, model: Estimator) -> Extras:
    """What the folder holds.

    - `types.csv`: columns `neuron`, `type` (empty for none), and optionally `confidence`
    - `fields.npz`: `fields` (n_neurons, n_channels, h, w), `corners` (n_neurons, 2), row and column in the image of
      their first pixel, and `neurons`, all or some of them
    - `most_exciting.npz`: `images` (n_neurons, n_channels, height, width) and `neurons`, all or some of them

    Raises `FormatError` for a file that is damaged or of other neurons.
    """
    return Extras(
        _types(folder / TYPES_TABLE, model.neurons_),
        _fields(folder / FIELDS_FILE, model),
        _exciting(folder / EXCITING_FILE, model),
    )


def _types(path: Path, neurons: list[str]) -> pd.DataFrame | None:
    if not path.exists():
        return None
    try:
        table = read_texts(path)
        table = table.drop_duplicates("neuron").set_index("neuron")
        table["confidence"] = pd.to_numeric(table["confidence"]) if "confidence" in table else np.nan
        table["type"] = table["type"].replace("", NO_TYPE_NAME)
        found = table[["type", "confidence"]]
    except (ValueError, KeyError, OSError) as error:
        raise FormatError(f"{path} cannot be read ({error}): expected columns neuron, type and confidence.") from None
    missing = [neuron for neuron in neurons if neuron not in found.index]
    if missing:
        raise FormatError(
            f"{path} lacks {len(missing):,} of the {len(neurons):,} neurons of the model, {some_of(missing)}: write it"
            " again for this run, or delete it."
        )
    return found.loc[neurons].reset_index(drop=True)


def _fields(path: Path, model: Estimator) -> Cropped | None:
    found = _arrays(path, model, "fields", "corners")
    if found is None:
        return None
    places, (fields, corners) = found
    if fields.ndim != 4 or fields.shape[:2] != (len(places), model.shapes_.n_channels):
        raise FormatError(
            f"{path}: fields has shape {fields.shape}, expected ({len(places)}, {model.shapes_.n_channels}, h, w), a"
            " field of each neuron. Write it again for this run, or delete it."
        )
    if corners.shape != (len(places), 2):
        raise FormatError(f"{path}: corners has shape {corners.shape}, expected ({len(places)}, 2).")
    n_neurons = model.shapes_.n_neurons
    of_all, edges = np.zeros((n_neurons, *fields.shape[1:]), np.float32), np.zeros((n_neurons, 2), np.float32)
    of_all[places], edges[places] = fields, corners - 0.5
    made = np.isin(np.arange(n_neurons), places)
    return replace(whole(of_all, edges), made=None if made.all() else made)


def _exciting(path: Path, model: Estimator) -> np.ndarray | None:
    found = _arrays(path, model, "images")
    if found is None:
        return None
    shapes, (places, (images,)) = model.shapes_, found
    expected = (len(places), shapes.n_channels, shapes.height, shapes.width)
    if images.shape != expected:
        raise FormatError(
            f"{path}: images has shape {images.shape}, expected {expected}, an image of each neuron. Write it again for"
            " this run, or delete it."
        )
    of_all = np.full((shapes.n_neurons, *expected[1:]), np.nan, np.float32)
    of_all[places] = images
    return of_all


def _arrays(path: Path, model: Estimator, *names: str) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Positions in the model of the neurons that a file is of, and its arrays of that name; None without a file."""
    if not path.exists():
        return None
    try:
        found = read_npz(path, [*names, "neurons"])
        arrays, neurons = [np.asarray(found[name], np.float32) for name in names], found["neurons"].tolist()
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path} cannot be read ({error}): expected arrays {', '.join(names)}, neurons.") from None
    places = {name: place for place, name in enumerate(model.neurons_)}
    strangers = [name for name in neurons if name not in places]
    if strangers:
        raise FormatError(
            f"{path} is of neurons that the model lacks, {some_of(strangers)}: write it again for this run, or delete"
            " it."
        )
    return np.array([places[name] for name in neurons], int), arrays
