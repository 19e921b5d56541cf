"""Recordings in one HDF5 file, whose images stay on disk until they are asked for.

| dataset | shape |
|---|---|
| `images` | (n_images, n_channels, height, width) or (n_images, height, width), chunked by images |
| `responses` | (n_images, n_neurons) |
| `test/images` | as `images` |
| `test/responses` | (n_trials, n_neurons) |
| `test/image_index` | (n_trials,) the row of `test/images` that each trial showed |
| `test/rates` | (n_images, n_neurons), the noise-free truth of a simulation |
| `identifiers` | (n_neurons,), unique |
| `neurons/<column>` | (n_neurons,), metadata: numbers, booleans or UTF-8 text |
| `validation` | (n_images,) bool, rows set aside for validation |
| `image_ids` | (n_images,), equal for rows that show the same image |
| `truth/rates` | (n_images, n_neurons), the noise-free truth of the training images of a simulation |
| `truth/locations` | (n_neurons, 2), row and column of each receptive field's centre, pixels |
| `truth/types` | (n_neurons,) |
| `truth/kernels` | (n_neurons, kernel height, kernel width), or with n_channels after n_neurons |
| `truth/quadrature` | as `truth/kernels`, the second filters of energy-model neurons |

Attributes of the file: `format` = "whatwhere-recording", `version` = 1, `name`; of the group `truth`:
`description`. All but `images` and `responses` may be missing, the attributes too: any HDF5 file with those two
datasets can be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from whatwhere.errors import FormatError
from whatwhere.formats.columns import decode_neurons, encode_neurons
from whatwhere.formats.npy import describe
from whatwhere.formats.reader import Format, Item, check_names
from whatwhere.recording import HeldOut, Recording, Truth
from whatwhere.rows import frozen, row_chunks

FORMAT_NAME, VERSION = "whatwhere-recording", 1
DATASETS = ("images", "responses", "validation", "image_ids", "identifiers", "test", "neurons", "truth")
TEST_DATASETS = ("images", "responses", "image_index", "rates")
TRUTH_DATASETS = ("rates", "locations", "types", "kernels", "quadrature")
DISK_CHUNK_BYTES = 2**18  # of one chunk of images on disk
CACHE_BYTES = 2**26


class StoredRows:
    """Images, or any table, in an HDF5 file, read slice by slice; another process opens the file anew."""

    def __init__(self, path: Path, dataset: str = "images") -> None:
        self.path, self.dataset = path.absolute(), dataset
        self._rows = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)[dataset]
        self.shape: tuple[int, ...] = self._rows.shape
        self.dtype: np.dtype = self._rows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._rows[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRows, (self.path, self.dataset)


def recognises(path: Path) -> bool:
    """Whether this is a file that ends in .h5 or .hdf5, or begins as HDF5 files do."""
    return path.is_file() and (path.suffix.lower() in (".h5", ".hdf5") or h5py.is_hdf5(path))


def read(path: Path, *, nonfinite: str = "error") -> Recording:
    """The recording in an HDF5 file, images left on disk; `FormatError` names file and dataset."""
    with _opened(path) as file:
        _check_version(path, file)
        notes = check_names(path, list(file), list(DATASETS))
        for name in ("images", "responses"):
            if not isinstance(file.get(name), h5py.Dataset):
                held = ", ".join(file) or "nothing"
                raise FormatError(f"{path} holds no dataset {name!r}, only {held}. Store it under that name.")
        neurons = file.get("neurons", {})
        return Recording(
            StoredRows(path),
            frozen(file["responses"][:]),
            test=_read_test(path, file["test"], nonfinite) if "test" in file else None,
            neurons=decode_neurons(
                path, _array(file, "identifiers"), {name: _array(neurons, name) for name in neurons}
            ),
            validation=_array(file, "validation"),
            image_ids=_array(file, "image_ids"),
            truth=_read_truth(path, file["truth"]) if "truth" in file else None,
            name=str(file.attrs.get("name", path.stem)),
            notes=notes,
            nonfinite=nonfinite,
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, open for reading; what HDF5 cannot read becomes a `FormatError`."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise FormatError(f"{path} is not a whole HDF5 file ({error}): it may be truncated. Copy it again.") from None


def _check_version(path: Path, file: Any) -> None:
    kind, version = file.attrs.get("format", FORMAT_NAME), int(file.attrs.get("version", VERSION))
    if kind != FORMAT_NAME:
        raise FormatError(f"{path} says that it is a {kind!r}: expected {FORMAT_NAME!r}.")
    if version > VERSION:
        raise FormatError(
            f"{path} is of version {version} of the format, but this whatwhere reads up to version {VERSION}: update"
            " whatwhere."
        )


def _array(group: Any, name: str) -> Any:
    if name not in group:
        return None
    dataset = group[name]
    if h5py.check_string_dtype(dataset.dtype):
        return np.array(dataset.asstr("utf-8")[:], dtype=str)
    return dataset[:]


def _read_test(path: Path, group: Any, nonfinite: str) -> HeldOut:
    check_names(path, list(group), list(TEST_DATASETS))
    for name in ("images", "responses", "image_index"):
        if name not in group:
            raise FormatError(f"{path} holds a test set without 'test/{name}', only {', '.join(group) or 'nothing'}.")
    arrays = {name: _array(group, name) for name in TEST_DATASETS}
    return HeldOut(**arrays, nonfinite="error" if nonfinite == "error" else "keep")


def _read_truth(path: Path, group: Any) -> Truth:
    check_names(path, list(group), list(TRUTH_DATASETS))
    for name in ("rates", "locations", "types"):
        if name not in group:
            raise FormatError(f"{path} holds a truth without 'truth/{name}', only {', '.join(group) or 'nothing'}.")
    small = {name: _array(group, name) for name in TRUTH_DATASETS[1:]}
    return Truth(StoredRows(path, "truth/rates"), **small, description=str(group.attrs.get("description", "")))


def write(recording: Recording, path: Path, *, compress: bool = False) -> None:
    """Writes the recording in chunks of images, which need not fit into memory; `compress` by gzip."""
    with h5py.File(path, "w") as file:
        start(file, recording.name, recording.neurons)
        copy_rows(create_images(file, "images", recording.images, compress), recording.images)
        file.create_dataset("responses", data=recording.responses, **filters(compress))
        for name in ("validation", "image_ids"):
            if getattr(recording, name) is not None:
                _write_text_or_numbers(file, name, getattr(recording, name))
        if recording.test is not None:
            images = recording.test.images
            copy_rows(create_images(file, "test/images", images, compress), images)
            for name in ("responses", "image_index", "rates"):
                if getattr(recording.test, name) is not None:
                    file.create_dataset(f"test/{name}", data=getattr(recording.test, name), **filters(compress))
        if recording.truth is not None:
            copy_rows(write_truth(file, recording.truth, compress), recording.truth.rates)


def start(file: Any, name: str, neurons: pd.DataFrame) -> None:
    """Writes into an empty file what it is, and the neurons' table."""
    identifiers, columns = encode_neurons(neurons)
    file.attrs.update({"format": FORMAT_NAME, "version": VERSION, "name": name})
    _write_text_or_numbers(file, "identifiers", identifiers)
    if columns:
        file.create_group("neurons", track_order=True)  # the table's order of columns
    for column, values in columns.items():
        _write_text_or_numbers(file, f"neurons/{column}", values)


def create_images(file: Any, name: str, images: Any, compress: bool = False) -> Any:
    """An empty dataset for `images` (only shape and dtype are looked at), in chunks of rows."""
    rows = next(row_chunks(images, DISK_CHUNK_BYTES)).stop
    chunks = (rows, *images.shape[1:])
    return file.create_dataset(name, images.shape, images.dtype, chunks=chunks, **filters(compress))


def write_truth(file: Any, truth: Truth, compress: bool = False) -> Any:
    """Writes the truth but for its rates, for which it returns an empty dataset."""
    for name in TRUTH_DATASETS[1:]:
        if getattr(truth, name) is not None:
            file.create_dataset(f"truth/{name}", data=getattr(truth, name))
    file["truth"].attrs["description"] = truth.description
    return file.create_dataset("truth/rates", truth.rates.shape, truth.rates.dtype, **filters(compress))


def copy_rows(dataset: Any, rows: Any) -> None:
    """Fills a dataset in chunks from what may lie on disk."""
    for chunk in row_chunks(rows):
        dataset[chunk] = np.asarray(rows[chunk])


def filters(compress: bool) -> dict[str, Any]:
    """How h5py is to store a dataset: as it is, or by gzip."""
    return {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compress else {}


def _write_text_or_numbers(file: Any, name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "U":
        file.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype("utf-8"))
    else:
        file.create_dataset(name, data=array)


def inspect(path: Path) -> list[Item]:
    """Each dataset in the file, with its shape and dtype."""
    items = []
    with _opened(path) as file:
        file.visititems(
            lambda name, node: (
                items.append(Item(name, "present", describe(node))) if isinstance(node, h5py.Dataset) else None
            )
        )
    return items


FORMAT = Format(
    "hdf5",
    "an HDF5 file (.h5, .hdf5) with datasets 'images' and 'responses'",
    recognises,
    read,
    inspect,
    write,
    (".h5", ".hdf5"),
)
