"""Writing the tree of folders that `filetree` reads, trial by trial; images on disk are never held whole.

Beside what `filetree` lists there is then

| path | what |
|---|---|
| `meta/statistics/images/all/mean.npy`, `std.npy` | over all pixels of the trials of the tier train, float32 |
| `meta/statistics/responses/all/mean.npy`, `std.npy` | (n_neurons,), over the same trials, float32 |
| `meta/whatwhere/description.json` | the recording's name, the order of its columns, whether it has image ids |
| `meta/whatwhere/test_rates.npy` | (n_test_images, n_neurons), a simulation's noise-free truth; where there is one |

Trials are numbered from 0: first the rows of the recording in their order, then the trials of its test set. Every trial
has a `frame_image_id`: the recording's image ids, or the row's number where it has none, and ids of their own for test
images. Images keep their dtype, responses are float32. `std` is 1 where pixels never vary. Metadata x, y and z become
`cell_motor_coordinates`. A simulation's `truth` and notes are not written.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.errors import FormatError, OptionError
from whatwhere.formats.columns import encode_neurons
from whatwhere.formats.trials import image_ids, tiers
from whatwhere.recording import Recording, Standardisation
from whatwhere.rows import by_columns, row_chunks

IDENTIFIERS, COORDINATES = "unit_ids", "cell_motor_coordinates"
OURS = "meta/whatwhere"
DESCRIPTION, RATES = "description.json", "test_rates.npy"
AXES = ["x", "y", "z"]


def is_ours(path: Path) -> bool:
    """Whether this folder may be replaced by another recording: `write` made it, or it is empty."""
    return (path / OURS / DESCRIPTION).exists() or (path.is_dir() and not any(path.iterdir()))


def write(recording: Recording, path: Path, *, compress: bool = False) -> None:
    """Writes the recording into the folder `path`.

    Raises `OptionError` for `compress`, which .npy files have not, `FormatError` for a metadata column that has no
    place in the layout.
    """
    if compress:
        raise OptionError("compress: the files of a filetree cannot be compressed. Leave it out, or write .h5.")
    columns, order = _neuron_columns(recording.neurons)
    for folder in ("data/images", "data/responses", "meta/trials", "meta/neurons", OURS):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for name, values in columns.items():
        _save(path / "meta" / "neurons" / f"{name}.npy", values)
    trials, test = path / "meta" / "trials", recording.test
    _save(trials / "tiers.npy", tiers(recording))
    _save(trials / "frame_image_id.npy", image_ids(recording))
    _write_rows(path / "data" / "images", recording.images)
    _write_rows(path / "data" / "responses", recording.responses)
    if test is not None:
        _write_shown(path / "data" / "images", test.images, test.image_index, recording.n_images)
        _write_rows(path / "data" / "responses", test.responses, recording.n_images)
        if test.rates is not None:
            _save(path / OURS / RATES, test.rates)
    _write_statistics(path / "meta" / "statistics", recording)
    described = {
        "format": "whatwhere-filetree",
        "version": 1,
        "name": recording.name,
        "columns": order,
        "image_ids": recording.image_ids is not None,
    }
    (path / OURS / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _neuron_columns(neurons: pd.DataFrame) -> tuple[dict[str, np.ndarray], list[str]]:
    """The files of `meta/neurons` by name, and the order of the table's columns."""
    identifiers, columns = encode_neurons(neurons)
    order = list(columns)
    for name in order:
        if name in (IDENTIFIERS, COORDINATES) or "\\" in name or name in (".", ".."):
            raise FormatError(
                f"the neurons' column {name!r} has no place in a file tree, where {IDENTIFIERS} are the identifiers and"
                f" {COORDINATES} x, y and z, and a column is a file of its name. Rename it."
            )
    if all(axis in columns and columns[axis].dtype.kind in "iuf" for axis in AXES):
        columns[COORDINATES] = np.stack([columns.pop(axis) for axis in AXES], axis=1)
    return {IDENTIFIERS: identifiers, **columns}, order


def _save(file: Path, values: Any) -> None:
    np.save(file, np.asarray(values), allow_pickle=False)


def _write_rows(folder: Path, rows: Any, first: int = 0) -> None:
    """One file a row, numbered from `first`."""
    for chunk in row_chunks(rows):
        for number, values in enumerate(np.asarray(rows[chunk]), first + chunk.start):
            _save(folder / f"{number}.npy", values)


def _write_shown(folder: Path, images: Any, shown: np.ndarray, first: int) -> None:
    """One file a trial, of the image that it showed."""
    for chunk in row_chunks(images):
        values = np.asarray(images[chunk])
        for trial in np.flatnonzero((shown >= chunk.start) & (shown < chunk.stop)):
            _save(folder / f"{first + trial}.npy", values[shown[trial] - chunk.start])


def _write_statistics(folder: Path, recording: Recording) -> None:
    """Means and standard deviations of what a loader divides by."""
    rows = np.arange(recording.n_images) if recording.validation is None else np.flatnonzero(~recording.validation)
    images = Standardisation.fit(recording.images, "global", rows=rows)
    found = {
        "images": (images.mean.reshape(()), images.std.reshape(())),
        "responses": (
            by_columns(lambda some: some.mean(axis=0, dtype=np.float64), recording.responses, rows),
            by_columns(lambda some: some.std(axis=0, dtype=np.float64), recording.responses, rows),
        ),
    }
    for name, (mean, std) in found.items():
        (folder / name / "all").mkdir(parents=True)
        _save(folder / name / "all" / "mean.npy", mean.astype(np.float32))
        _save(folder / name / "all" / "std.npy", std.astype(np.float32))
