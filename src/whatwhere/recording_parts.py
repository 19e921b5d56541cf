"""What a recording is made of: each part checked, copied where it could change, and made read-only."""

from typing import Any

import numpy as np
import pandas as pd

from whatwhere.checks import some_of
from whatwhere.errors import InputError
from whatwhere.rows import frozen, row_chunks


def plain(value: Any) -> Any:
    """A numpy scalar as a Python one; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def as_neurons(neurons: Any, n_neurons: int) -> pd.DataFrame:
    """The neurons' table, a copy, with unique identifiers; raises `InputError`."""
    if neurons is None:
        return pd.DataFrame(index=pd.RangeIndex(n_neurons))
    neurons = pd.DataFrame(neurons).copy()
    if len(neurons) != n_neurons:
        raise InputError(
            f"neurons has {len(neurons):,} rows but responses {n_neurons:,} columns: expected one row per neuron, in"
            " the order of the columns."
        )
    if not neurons.index.is_unique:
        twice = neurons.index[neurons.index.duplicated()].unique()
        raise InputError(
            f"neurons names {some_of(map(repr, map(plain, twice)))} more than once: expected unique identifiers as"
            " the index. Renumber them, for example with reset_index()."
        )
    return neurons


def as_validation(validation: Any, n_images: int) -> np.ndarray | None:
    """The mask of rows set aside for validation, some rows on either side; raises `InputError`."""
    if validation is None:
        return None
    mask = np.array(validation)
    if mask.dtype != bool or mask.shape != (n_images,):
        raise InputError(
            f"validation has shape {mask.shape} and dtype {mask.dtype}: expected one boolean per image,"
            f" ({n_images:,},). From row numbers: numpy.isin(numpy.arange(n_images), rows)."
        )
    if mask.all() or not mask.any():
        raise InputError(
            f"validation is {bool(mask[0])} for all {n_images:,} images: expected some on either side. Give None to"
            " have a random split."
        )
    return frozen(mask)


def as_ids(image_ids: Any, n_images: int) -> np.ndarray | None:
    """Image identifiers, integers or strings; raises `InputError`."""
    if image_ids is None:
        return None
    ids = np.array(image_ids)
    if ids.dtype == object or ids.dtype.kind == "T":
        ids = ids.astype(str)
    if ids.dtype.kind not in "iuU" or ids.shape != (n_images,):
        raise InputError(
            f"image_ids has shape {ids.shape} and dtype {ids.dtype}: expected one integer or string per image,"
            f" ({n_images:,},)."
        )
    return frozen(ids)


def check_image_rows(name: str, images: np.ndarray, rows: Any) -> None:
    """Raises `InputError` where `images` hold values that are not finite, naming their `rows`."""
    if images.dtype.kind != "f" or np.isfinite(images).all():
        return
    bad = ~np.isfinite(images).all(axis=(1, 2, 3))
    raise InputError(
        f"{name} holds values that are not finite in {bad.sum():,} of the rows read: row"
        f" {some_of(np.asarray(rows)[bad])}. Mend them, or leave those rows out with nonfinite='rows'."
    )


def finite_images(images: Any) -> np.ndarray:
    """Whether each image holds finite values only, (n_images,); read in chunks."""
    if images.dtype.kind != "f":
        return np.ones(images.shape[0], bool)
    return np.concatenate([np.isfinite(images[chunk]).all(axis=(1, 2, 3)) for chunk in row_chunks(images)])
