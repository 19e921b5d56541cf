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

Attributes of the file: `format` = "whatwhere-recording", `version` = 1, `name`. All but `images` and
`responses` may be missing, the attributes too: any HDF5 file with those two datasets can be read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from whatwhere.errors import FormatError
from whatwhere.formats.columns import decode_neurons, encode_neurons
from whatwhere.formats.npy import describe
from whatwhere.formats.reader import Format, Item, check_names
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import row_chunks

FORMAT_NAME, VERSION = "whatwhere-recording", 1
DATASETS = ("images", "responses", "validation", "image_ids", "identifiers", "test", "neurons")
TEST_DATASETS = ("images", "responses", "image_index", "rates")
CHUNK_BYTES = 2**18  # of one chunk of images on disk
CACHE_BYTES = 2**26


class StoredImages:
    """The images in an HDF5 file, read slice by slice; another process opens the file anew."""

    def __init__(self, path: Path, dataset: str = "images") -> None:
        self.path, self.dataset = path.absolute(), dataset
        self._images = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)[dataset]
        self.shape: tuple[int, ...] = self._images.shape
        self.dtype: np.dtype = self._images.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._images[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self.path, self.dataset)


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
            StoredImages(path),
            file["responses"][:],
            test=_read_test(path, file["test"], nonfinite) if "test" in file else None,
            neurons=decode_neurons(
                path, _array(file, "identifiers"), {name: _array(neurons, name) for name in neurons}
            ),
            validation=_array(file, "validation"),
            image_ids=_array(file, "image_ids"),
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


def write(recording: Recording, path: Path, *, compress: bool = False) -> None:
    """Writes the recording in chunks of images, which need not fit into memory; `compress` by gzip."""
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compress else {}
    identifiers, columns = encode_neurons(recording.neurons)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT_NAME, "version": VERSION, "name": recording.name})
        _write_images(file, "images", recording.images, options)
        file.create_dataset("responses", data=recording.responses, **options)
        _write_text_or_numbers(file, "identifiers", identifiers)
        for name in ("validation", "image_ids"):
            if getattr(recording, name) is not None:
                _write_text_or_numbers(file, name, getattr(recording, name))
        if columns:
            file.create_group("neurons", track_order=True)  # the table's order of columns
        for name, column in columns.items():
            _write_text_or_numbers(file, f"neurons/{name}", column)
        if recording.test is not None:
            _write_images(file, "test/images", recording.test.images, options)
            for name in ("responses", "image_index", "rates"):
                if getattr(recording.test, name) is not None:
                    file.create_dataset(f"test/{name}", data=getattr(recording.test, name), **options)


def _write_images(file: Any, name: str, images: Any, options: dict[str, Any]) -> None:
    rows = next(row_chunks(images, CHUNK_BYTES)).stop
    dataset = file.create_dataset(name, images.shape, images.dtype, chunks=(rows, *images.shape[1:]), **options)
    for chunk in row_chunks(images):
        dataset[chunk] = np.asarray(images[chunk])


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
