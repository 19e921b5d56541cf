"""Columns of the neurons' table as arrays that a file can hold: numbers, booleans or text."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.errors import FormatError


def encode(column: Any, name: str) -> np.ndarray:
    """A pandas column or index as numbers, booleans or text; missing text becomes the empty string."""
    if "/" in name or not name:
        raise FormatError(f"the neurons' column {name!r} cannot be stored: its name must not be empty nor hold '/'.")
    if pd.api.types.is_bool_dtype(column.dtype) and not column.isna().any():
        return column.to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_complex_dtype(column.dtype):
        plain = column.to_numpy()
        return plain if plain.dtype.kind in "buif" else column.to_numpy(dtype=float, na_value=np.nan)
    return np.array(
        ["" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)],
        dtype=str,
    )


def encode_neurons(neurons: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The neurons' identifiers and their metadata columns, each as an array."""
    columns = {str(name): encode(neurons[name], str(name)) for name in neurons.columns}
    return encode(neurons.index, "identifiers"), columns


def decode_neurons(path: Path, identifiers: np.ndarray | None, columns: dict[str, np.ndarray]) -> pd.DataFrame | None:
    """The neurons' table from its arrays, if there are any; raises `FormatError` for unequal lengths."""
    arrays = columns if identifiers is None else {"identifiers": identifiers, **columns}
    if not arrays:
        return None
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise FormatError(f"{path}: the neurons' metadata must have one value per neuron each, got shapes {shapes}.")
    return pd.DataFrame(columns, index=None if identifiers is None else pd.Index(identifiers))
