"""What a run keeps of the recording that it was fitted to, so that its report needs no recording."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.checks import check_positions, check_same_rows
from whatwhere.errors import FormatError, InputError
from whatwhere.estimators import Estimator
from whatwhere.files import replacing
from whatwhere.heldout import HeldOut, trial_means
from whatwhere.recording import Recording
from whatwhere.rows import spaced
from whatwhere.storage import read_npz, write_text

HELD_FILE, DATA_FILE = "heldout.npz", "data.json"
MOST_NUMBERS = 2**23
"""Of predictions kept, 32 MiB; of more test images evenly spaced ones are kept."""
MOST_THUMBNAILS, MOST_SIDE = 512, 48
MOST_COLUMNS = 8
"""Of what is known of the neurons, numbers or text."""
_FACTS = ("recording", "notes", "command", "versions", "neurons", "columns_not_kept")
_MOST_WHOLE = 2**53  # whole numbers below it are exact in a float
_DARKEST, _BRIGHTEST = 0.5, 99.5  # percentiles of the pixels that thumbnails show as black and white


@dataclass(frozen=True, eq=False)
class HeldResponses:
    """Predicted and observed responses to held-out images, as a report shows them.

    - rows (n_kept,): which of the test images; n_images: how many there are
    - predictions, observed, errors (n_kept, n_neurons), float32: the prediction, the response averaged over repeats,
      and that average's standard error (standard deviation over repeats, n - 1, over the root of n; NaN for one trial)
    - n_repeats (n_kept,)
    - pictured (n_pictures,): positions in `rows` of the images that have a picture, evenly from the first to the last
    - thumbnails (n_pictures, 1 or 3 channels, height, width), uint8: at most 48 pixels wide
    """

    rows: np.ndarray
    n_images: int
    predictions: np.ndarray
    observed: np.ndarray
    errors: np.ndarray
    n_repeats: np.ndarray
    pictured: np.ndarray
    thumbnails: np.ndarray


@dataclass(frozen=True, eq=False)
class RunData:
    """What is known of a run's recording: plain values, see `describe`, and responses (None without a test set)."""

    facts: dict[str, Any]
    held: HeldResponses | None


def data_of(model: Estimator, recording: Recording, command: str = "") -> RunData:
    """What a report needs of the recording that `model` was fitted to; command: what began the fit, for a shell.

    Raises `InputError` where the recording lacks some of the model's neurons.
    """
    seen = model.seen(recording)
    return RunData(describe(model, seen, command), None if seen.test is None else held_responses(model, seen.test))


def describe(model: Estimator, recording: Recording, command: str = "") -> dict[str, Any]:
    """Plain values: `recording` (its summary), `notes`, `command`, `versions`, and `neurons` (column: values).

    `columns_not_kept`: names of the other columns of the neurons' table.
    """
    names = ("whatwhere", "torch", "numpy")
    neurons = _metadata(recording.neurons)
    return {
        "recording": recording.summary(),
        "notes": list(model.notes_),
        "command": command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        "neurons": neurons,
        "columns_not_kept": [name for name in map(str, recording.neurons.columns) if name not in neurons],
    }


def _metadata(neurons: pd.DataFrame) -> dict[str, list[Any]]:
    """The first columns of the neurons' table, as numbers or text, None where there is no value.

    Columns that hold lists or arrays are left out. Whole numbers too large for a float are text.
    """
    plain = [name for name in neurons.columns if not any(map(pd.api.types.is_list_like, neurons[name]))]
    return {str(name): _plain_column(neurons[name]) for name in plain[:MOST_COLUMNS]}


def _plain_column(column: pd.Series) -> list[Any]:
    """A column as plain values.

    >>> _plain_column(pd.Series([1, 2])), _plain_column(pd.Series([864691135571546917]))
    ([1.0, 2.0], ['864691135571546917'])
    """
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(float, na_value=np.nan)
        if not pd.api.types.is_integer_dtype(column) or not (np.abs(values) >= _MOST_WHOLE).any():
            return [float(value) if np.isfinite(value) else None for value in values]
    return [None if pd.isna(value) else str(value) for value in column.astype(object)]


def held_responses(model: Estimator, test: HeldOut) -> HeldResponses:
    """Predictions and repeat-averaged responses of all test images, or of as many evenly spaced ones as are kept."""
    most = max(2, MOST_NUMBERS // test.n_neurons)
    rows = spaced(test.n_images, most)
    observed, errors = (values.astype(np.float32) for values in trial_means(test.responses, test.image_index, rows))
    predictions = np.concatenate([model.predict(test.read_images(some)) for some in _parts(rows)])
    pictured = spaced(len(rows), MOST_THUMBNAILS)
    pictures = thumbnails(test.read_images(rows[pictured]))
    return HeldResponses(rows, test.n_images, predictions, observed, errors, test.n_repeats[rows], pictured, pictures)


def _parts(rows: np.ndarray, most: int = 256) -> Sequence[np.ndarray]:
    return [rows[start : start + most] for start in range(0, len(rows), most)]


def thumbnails(images: np.ndarray, most_side: int = MOST_SIDE) -> np.ndarray:
    """Small images as uint8, all on one scale: (n_images, 1 or 3, height, width); of other channels their mean.

    images: (n_images, n_channels, height, width). Larger ones are averaged over squares of pixels.

    >>> thumbnails(np.array([[[[0.0, 1.0]]], [[[0.5, 1.0]]]])).ravel()
    array([  0, 255, 128, 255], dtype=uint8)
    """
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdims=True)
    small = shrunken(images, -(-max(images.shape[2:]) // most_side))
    low, high = np.percentile(small, [_DARKEST, _BRIGHTEST], method="nearest") if small.size else (0.0, 1.0)
    scaled = (small - low) / (high - low) if high > low else np.full_like(small, 0.5)
    return (255 * scaled.clip(0, 1)).round().astype(np.uint8)


def shrunken(values: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of step x step in the last two dimensions; at the end of what is left there.

    >>> shrunken(np.arange(6.0).reshape(1, 6), 4)
    array([[1.5, 4.5]])
    """
    if step == 1:
        return values
    for axis in (-2, -1):
        starts = np.arange(0, values.shape[axis], step)
        counts = np.diff(np.append(starts, values.shape[axis]))
        values = np.add.reduceat(values, starts, axis=axis) / counts.reshape(-1, *[1] * (-1 - axis))
    return values


def keep_data(data: RunData, folder: Path) -> None:
    """Writes `heldout.npz`, where there is a test set, and `data.json`."""
    (folder / HELD_FILE).unlink(missing_ok=True)
    if data.held is not None:
        with replacing(folder / HELD_FILE) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **vars(data.held))
    write_text(folder / DATA_FILE, json.dumps(data.facts, allow_nan=False) + "\n")


def read_data(folder: Path, n_neurons: int) -> RunData | None:
    """What `keep_data` wrote; None where the run has none. Raises `FormatError` where the files are damaged."""
    if not (folder / DATA_FILE).exists():
        return None
    try:
        facts = json.loads((folder / DATA_FILE).read_text(encoding="utf-8"))
        held = _read_held(folder / HELD_FILE, n_neurons) if (folder / HELD_FILE).exists() else None
        return RunData({name: facts[name] for name in _FACTS}, held)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise FormatError(
            f"{folder} holds {DATA_FILE} and {HELD_FILE} that cannot be read ({error}): delete both, and give the"
            " recording with --recording."
        ) from None


def _read_held(path: Path, n_neurons: int) -> HeldResponses:
    arrays = read_npz(path)
    n_images = int(arrays.pop("n_images"))
    held = HeldResponses(**arrays, n_images=n_images)
    for name in ("predictions", "observed", "errors"):
        values = getattr(held, name)
        check_same_rows(name, len(values), "rows", len(held.rows))
        if values.shape[1:] != (n_neurons,):
            raise InputError(f"{name} has shape {values.shape}: expected a column for each of {n_neurons:,} neurons")
    check_same_rows("n_repeats", len(held.n_repeats), "rows", len(held.rows))
    check_positions("rows", held.rows, held.n_images, "test image")
    check_same_rows("thumbnails", len(held.thumbnails), "pictured", len(held.pictured))
    check_positions("pictured", held.pictured, len(held.rows), "row")
    if held.thumbnails.ndim != 4 or held.thumbnails.shape[1] not in (1, 3):
        raise InputError(f"thumbnails has shape {held.thumbnails.shape}: expected (n, 1 or 3, height, width)")
    return held
