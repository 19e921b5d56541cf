"""Recordings in one .npz file of named arrays, as `numpy.savez` writes it.

| key | shape |
|---|---|
| `images` | (n_images, n_channels, height, width) or (n_images, height, width) |
| `responses` | (n_images, n_neurons) |
| `test_images` | as `images` |
| `test_responses` | (n_trials, n_neurons), with `test_image_index` (n_trials,): the image that was shown |
| `test_repeats` | instead of the two: (n_repeats, n_images, n_neurons), NaN where a repeat is missing |
| `test_rates` | (n_images, n_neurons), the noise-free truth of a simulation |
| `validation` | (n_images,) bool, rows set aside for validation |
| `image_ids` | (n_images,), equal for rows that show the same image |
| `identifiers` | (n_neurons,), unique; any `neuron_<column>` (n_neurons,) is metadata |
| `name` | text |

All but the first two may be missing. Python objects are never loaded. The whole file is read into memory.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.errors import FormatError
from whatwhere.formats.columns import decode_neurons, encode_neurons
from whatwhere.formats.npy import describe, why_not
from whatwhere.formats.reader import Format, Item, check_names
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import frozen

TEST_KEYS = ("test_images", "test_responses", "test_image_index", "test_repeats", "test_rates")
KEYS = ("images", "responses", *TEST_KEYS, "validation", "image_ids", "identifiers", "name")
COLUMN = "neuron_"


def recognises(path: Path) -> bool:
    """Whether this is a file that ends in .npz."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path: Path, *, nonfinite: str = "error") -> Recording:
    """The recording in a .npz file; raises `FormatError` naming the file and the array."""
    arrays = _read_arrays(path)
    columns = {key.removeprefix(COLUMN): arrays.pop(key) for key in list(arrays) if key.startswith(COLUMN)}
    notes = check_names(path, list(arrays), list(KEYS))
    for key in ("images", "responses"):
        if key not in arrays:
            raise FormatError(
                f"{path} holds no {key!r}, only {', '.join(arrays) or 'nothing'}. Save it under that name."
            )
    return Recording(
        arrays["images"],
        arrays["responses"],
        test=_read_test(path, arrays, nonfinite),
        neurons=decode_neurons(path, arrays.get("identifiers"), columns),
        validation=arrays.get("validation"),
        image_ids=arrays.get("image_ids"),
        name=str(arrays.get("name", path.stem)),
        notes=notes,
        nonfinite=nonfinite,
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise FormatError(f"{path} is not a whole .npz file: it may be truncated. Copy it again.")
    arrays, place = {}, str(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                place = f"array {key!r} in {path}"
                arrays[key] = frozen(file[key])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(why_not(place, error)) from None
    return arrays


def _read_test(path: Path, arrays: dict[str, np.ndarray], nonfinite: str) -> HeldOut | None:
    if not any(key in arrays for key in TEST_KEYS):
        return None
    settle = "error" if nonfinite == "error" else "keep"
    images, responses, rates = (arrays.get(f"test_{key}") for key in ("images", "responses", "rates"))
    if images is None or (responses is None) == ("test_repeats" not in arrays):
        held = ", ".join(key for key in TEST_KEYS if key in arrays)
        raise FormatError(
            f"{path} holds {held}: a test set needs test_images, and either test_responses with test_image_index or"
            " test_repeats."
        )
    if responses is None:
        return HeldOut.from_repeats(images, arrays["test_repeats"], rates, settle)
    index = arrays.get("test_image_index")
    if index is None:
        if len(responses) != len(images):
            raise FormatError(
                f"{path} holds {len(responses):,} test_responses for {len(images):,} test_images but no"
                " test_image_index: say which row of test_images each trial showed."
            )
        index = np.arange(len(images))
    return HeldOut(images, responses, index, rates, settle)


def write(recording: Recording, path: Path, *, compress: bool = False) -> None:
    """Writes the recording as .npz; its images must fit into memory."""
    identifiers, columns = encode_neurons(recording.neurons)
    arrays: dict[str, Any] = {
        "images": np.asarray(recording.images[:]),
        "responses": recording.responses,
        "validation": recording.validation,
        "image_ids": recording.image_ids,
        "identifiers": identifiers,
        "name": np.array(recording.name),
        **{COLUMN + name: column for name, column in columns.items()},
    }
    if recording.test is not None:
        test = recording.test
        arrays |= {"test_images": np.asarray(test.images[:]), "test_responses": test.responses}
        arrays |= {"test_image_index": test.image_index, "test_rates": test.rates}
    arrays = {key: array for key, array in arrays.items() if array is not None}
    with open(path, "wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def inspect(path: Path) -> list[Item]:
    """Each array in the file, with its shape and dtype."""
    return [Item(key, "present", describe(array)) for key, array in _read_arrays(path).items()]


FORMAT = Format(
    "npz",
    "a file that ends in .npz, with arrays 'images' and 'responses'",
    recognises,
    read,
    inspect,
    write,
    (".npz",),
)
