"""Predicted responses on disk, written as they are made: .npy, .npz, HDF5 or CSV, by the suffix.

| suffix | what it holds |
|---|---|
| `.npy` | the responses, (n_images, n_neurons) |
| `.npz` | `responses`, and `identifiers` (n_neurons,), the neurons' identifiers as text |
| `.h5`, `.hdf5` | datasets of the same names; attribute `format` = "whatwhere-predictions" |
| `.csv` | one row an image, one column a neuron, headed by its identifier |
"""

import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
import pandas as pd
from numpy.lib import format as npy_format

from whatwhere.errors import FormatError
from whatwhere.files import replacing

FORMAT_NAME = "whatwhere-predictions"


def check_suffix(path: Path) -> None:
    """Raises `FormatError` where predictions cannot be written to a file of this name."""
    if path.suffix.lower() not in WRITERS:
        raise FormatError(f"{path} ends in {path.suffix!r}: predictions are written to one of {', '.join(WRITERS)}.")


def write(path: Path, chunks: Iterable[np.ndarray], n_images: int, identifiers: list[str]) -> None:
    """Writes the responses, given as chunks of rows that together are `n_images`, whole or not at all.

    One chunk is held at a time. Raises `FormatError` for another suffix than those above.
    """
    check_suffix(path)
    given = iter(chunks)
    first = next(given)
    with replacing(path) as temporary:
        writer = WRITERS[path.suffix.lower()]
        writer(temporary, _joined(first, given), (n_images, len(identifiers)), first.dtype, identifiers)


def _joined(first: np.ndarray, others: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    for chunk in others:
        yield chunk.astype(first.dtype, copy=False)


def _write_npy(path: Path, chunks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype, _: list[str]) -> None:
    with open(path, "wb") as file:
        _stream_npy(file, chunks, shape, dtype)


def _stream_npy(file: IO[bytes], chunks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> None:
    """The bytes that `numpy.save` would write for the whole."""
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(file, header)
    for chunk in chunks:
        file.write(np.ascontiguousarray(chunk).tobytes())


def _write_npz(
    path: Path, chunks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype, identifiers: list[str]
) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        with archive.open("responses.npy", "w", force_zip64=True) as file:
            _stream_npy(file, chunks, shape, dtype)
        small = io.BytesIO()
        npy_format.write_array(small, np.array(identifiers, dtype=str), allow_pickle=False)
        archive.writestr("identifiers.npy", small.getvalue())


def _write_hdf5(
    path: Path, chunks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype, identifiers: list[str]
) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format"] = FORMAT_NAME
        names = np.array(identifiers, dtype=object)
        file.create_dataset("identifiers", data=names, dtype=h5py.string_dtype("utf-8"))
        responses, done = file.create_dataset("responses", shape, dtype), 0
        for chunk in chunks:
            responses[done : done + len(chunk)] = chunk
            done += len(chunk)


def _write_csv(
    path: Path, chunks: Iterator[np.ndarray], shape: tuple[int, int], dtype: np.dtype, identifiers: list[str]
) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(identifiers)
        for chunk in chunks:
            pd.DataFrame(chunk).to_csv(file, header=False, index=False, lineterminator="\n")


WRITERS: dict[str, Callable[..., Any]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".csv": _write_csv,
}
