"""Recordings as a tree of folders, one .npy file per trial, as in Lurz et al. 2021 and Sensorium.

| path | shape |
|---|---|
| `data/images/<trial>.npy` | (n_channels, height, width) or (height, width) |
| `data/responses/<trial>.npy` | (n_neurons,) |
| `meta/trials/tiers.npy` | (n_trials,) "train", "validation" or "test"; row i belongs to trial i |
| `meta/trials/frame_image_id.npy` | (n_trials,) equal for trials that show the same image; optional |
| `meta/trials/frame_image_class.npy` | (n_trials,) makes the identifiers unique; optional |
| `meta/neurons/<column>.npy` | (n_neurons,) metadata; `unit_ids`: unique, `cell_motor_coordinates`: x, y, z |

The tiers train and validation make the recording, with the predeclared split; the tier test its repeated test
set. A partial copy, in which `meta` lists more trials than `data` holds, is read as far as it goes, and a
note says so. What `filetree_writing` writes beside is read too, so that a recording comes back as it was saved.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.errors import FormatError
from whatwhere.formats.filetree_writing import (
    AXES,
    COORDINATES,
    DESCRIPTION,
    IDENTIFIERS,
    OURS,
    RATES,
    is_ours,
    write,
)
from whatwhere.formats.npy import inspect_npy, read_npy
from whatwhere.formats.reader import Format, Item
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import frozen

TIERS = ("train", "validation", "test")


def recognises(path: Path) -> bool:
    """Whether this is a folder with `data/images` or `data/responses` in it, or `meta/trials`."""
    inner = ("data/images", "data/responses", "meta/trials")
    return path.is_dir() and any((path / folder).is_dir() for folder in inner)


def read(path: Path, *, nonfinite: str = "error") -> Recording:
    """The recording in a file tree; `FormatError` names the file that is missing or of another shape."""
    described = _description(path)
    trials, tiers, notes = _trials(path)
    used = np.isin(tiers, TIERS)
    if not used.all():
        others = {str(tier): int(np.sum(tiers == tier)) for tier in np.unique(tiers[~used])}
        notes.append(f"trials of other tiers were not read: {others}")
        trials, tiers = trials[used], tiers[used]
    if not np.isin(tiers, TIERS[:2]).any():
        raise FormatError(f"{path} holds no trial of the tiers 'train' and 'validation': expected some to fit to.")
    fitted = tiers != "test"
    images = _stack(path / "data" / "images", trials[fitted])
    shown = _stack(path / "data" / "images", trials[~fitted], like=trials[fitted][0]) if not fitted.all() else None
    responses = _stack(path / "data" / "responses", trials, np.float32)
    if responses.ndim != 2:
        raise FormatError(f"{path / 'data/responses'}: shape {responses.shape[1:]} a trial, expected (n_neurons,).")
    ids = _image_ids(path, trials, notes)
    validation = tiers[fitted] == "validation"
    test = _test(shown, responses[~fitted], None if ids is None else ids[~fitted], nonfinite, notes)
    fitted_ids = ids[fitted] if ids is not None and described.get("image_ids", True) else None
    two_sided = validation.any() and not validation.all()
    if not two_sided:
        notes.append("no predeclared validation split: all trials for fitting are of one tier")
    return Recording(
        frozen(images),
        frozen(responses[fitted]),
        test=_with_rates(test, path / OURS / RATES, notes),
        neurons=_ordered(_neurons(path / "meta" / "neurons", responses.shape[1], notes), described),
        validation=validation if two_sided else None,
        image_ids=fitted_ids,
        name=str(described.get("name", path.resolve().name)),
        notes=tuple(notes),
        nonfinite=nonfinite,
    )


def _description(path: Path) -> dict[str, Any]:
    """What the writer says of the recording; nothing where the tree is another's."""
    file = path / OURS / DESCRIPTION
    if not file.exists():
        return {}
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{file} is not whole ({error}): copy it again, or remove it.") from None
    if not isinstance(described, dict):
        raise FormatError(f"{file} holds {type(described).__name__}: expected an object. Copy it again, or remove it.")
    return described


def _with_rates(test: HeldOut | None, file: Path, notes: list[str]) -> HeldOut | None:
    """The test set with the noise-free truth of a simulation, where it is there for all its images."""
    if test is None or not file.exists():
        return test
    rates = read_npy(file)
    if rates.shape != (test.n_images, test.n_neurons):
        notes.append(f"{OURS}/{file.name} was not used: shape {rates.shape} for {test.n_images:,} test images")
        return test
    return HeldOut(test.images, test.responses, test.image_index, frozen(rates), "keep")


def _ordered(neurons: pd.DataFrame, described: dict[str, Any]) -> pd.DataFrame:
    """The columns in the order in which they were saved; others after them."""
    first = [column for column in described.get("columns", ()) if column in neurons.columns]
    return neurons[[*first, *(column for column in neurons.columns if column not in first)]]


def _trial_numbers(folder: Path) -> np.ndarray:
    if not folder.is_dir():
        raise FormatError(f"{folder} is missing: expected a folder with one .npy file per trial.")
    stems = [name.stem for name in folder.glob("*.npy")]
    return np.array(sorted(int(stem) for stem in stems if stem.isdecimal()), dtype=int)


def _trials(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The trials that have an image and a response, their tiers, and notes on the others."""
    with_image, with_response = (_trial_numbers(path / "data" / kind) for kind in ("images", "responses"))
    trials = np.intersect1d(with_image, with_response)
    if not len(trials):
        raise FormatError(
            f"{path / 'data'} holds no trial with both an image and a response, for example images/0.npy."
        )
    file = path / "meta" / "trials" / "tiers.npy"
    if not file.exists():
        raise FormatError(f"{file} is missing: it says of each trial whether it is train, validation or test.")
    listed = read_npy(file)
    if listed.ndim != 1 or listed.dtype.kind not in "SU" or trials[-1] >= len(listed):
        raise FormatError(
            f"{file} has shape {listed.shape} and dtype {listed.dtype}: expected one string per trial, for trials up"
            f" to {trials[-1]}."
        )
    tiers = listed.astype(str)
    notes = []
    alone = len(np.union1d(with_image, with_response)) - len(trials)
    if alone:
        notes.append(f"{alone:,} trials have an image or a response but not both: not read")
    if len(trials) < len(tiers):
        share = ", ".join(f"{np.sum(tiers[trials] == tier):,} of {np.sum(tiers == tier):,} {tier}" for tier in TIERS)
        notes.append(f"partial copy: {len(trials):,} of the {len(tiers):,} trials listed are here ({share})")
    return trials, tiers[trials], notes


def _stack(folder: Path, trials: np.ndarray, dtype: Any = None, like: int | None = None) -> np.ndarray:
    """The arrays of all trials, (n_trials, ...); raises `FormatError` naming one of another shape than trial `like`."""
    like = trials[0] if like is None else like
    first = read_npy(folder / f"{like}.npy")
    out = np.empty((len(trials), *first.shape), dtype or read_npy(folder / f"{trials[0]}.npy").dtype)
    for row, trial in enumerate(trials):
        array = read_npy(folder / f"{trial}.npy")
        if array.shape != first.shape:
            raise FormatError(
                f"{folder / f'{trial}.npy'} has shape {array.shape}, but {like}.npy {first.shape}: expected the"
                " same in every trial."
            )
        if dtype is None and array.dtype != out.dtype:
            out = out.astype(np.result_type(out.dtype, array.dtype))
        out[row] = array
    return out


def _trial_meta(path: Path, name: str, trials: np.ndarray, notes: list[str]) -> np.ndarray | None:
    file = path / "meta" / "trials" / f"{name}.npy"
    if not file.exists():
        return None
    values, problem = _metadata(file)
    if values is None or values.ndim != 1 or len(values) <= trials[-1] or values.dtype.kind not in "iuSU":
        notes.append(f"meta/trials/{file.name} was not used: {problem or 'not one integer or string per trial'}")
        return None
    return values[trials].astype(str) if values.dtype.kind == "S" else values[trials]


def _metadata(file: Path) -> tuple[np.ndarray | None, str]:
    """The array in `file`, or None and the reason."""
    try:
        return read_npy(file), ""
    except FormatError as error:
        return None, "Python objects are never loaded" if "Python objects" in str(error) else str(error)


def _image_ids(path: Path, trials: np.ndarray, notes: list[str]) -> np.ndarray | None:
    ids = _trial_meta(path, "frame_image_id", trials, notes)
    classes = None if ids is None else _trial_meta(path, "frame_image_class", trials, notes)
    if ids is None or classes is None or len(np.unique(classes)) == 1:
        return ids
    return np.array([f"{kind}/{number}" for kind, number in zip(classes, ids, strict=True)])


def _test(
    images: np.ndarray | None, responses: np.ndarray, ids: np.ndarray | None, nonfinite: str, notes: list[str]
) -> HeldOut | None:
    """The test trials, grouped by their images' identifiers, or by pixels where these disagree."""
    if images is None:
        notes.append("no test set: there is no trial of the tier 'test'")
        return None
    if ids is not None:
        _, first, index = np.unique(ids, return_index=True, return_inverse=True)
        if not np.array_equal(images, images[first[index]]):
            notes.append("frame_image_id is the same for different test images: repeats were grouped by their pixels")
            ids = None
    if ids is None:
        pixels = np.array([image.tobytes() for image in images], dtype=object)
        _, first, index = np.unique(pixels, return_index=True, return_inverse=True)
    settle = "error" if nonfinite == "error" else "keep"
    return HeldOut(frozen(images[first]), frozen(responses), index, nonfinite=settle)


def _neurons(folder: Path, n_neurons: int, notes: list[str]) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    identifiers = None
    for file in sorted(folder.glob("*.npy")):
        values, problem = _metadata(file)
        if values is None:
            notes.append(f"meta/neurons/{file.name} was not read: {problem}")
        elif file.stem == COORDINATES and values.shape == (n_neurons, 3):
            columns |= dict(zip(AXES, values.T, strict=True))
        elif values.shape != (n_neurons,):
            notes.append(f"meta/neurons/{file.name} was not read: shape {values.shape} for {n_neurons:,} neurons")
        elif file.stem == IDENTIFIERS and len(np.unique(values)) == n_neurons:
            identifiers = pd.Index(values, name=IDENTIFIERS)
        else:
            if file.stem == IDENTIFIERS:
                notes.append(f"{IDENTIFIERS} are not unique: the neurons are numbered from 0 instead")
            columns[file.stem] = values.astype(str) if values.dtype.kind == "S" else values
    return pd.DataFrame(columns, index=pd.RangeIndex(n_neurons) if identifiers is None else identifiers)


def inspect(path: Path) -> list[Item]:
    """The numbers of trials in each folder under `data`, and each file of `meta`."""
    items = []
    kinds = {"images", "responses"} | {folder.name for folder in (path / "data").glob("*") if folder.is_dir()}
    for kind in sorted(kinds):
        folder = path / "data" / kind
        trials = _trial_numbers(folder) if folder.is_dir() else np.empty(0, int)
        status = "present" if len(trials) else "missing"
        detail = f"{len(trials):,} trials" if len(trials) else f"expected .npy files in {folder}"
        items.append(Item(f"data/{kind}", status, detail))
    tiers = path / "meta" / "trials" / "tiers.npy"
    files = {tiers, *(path / "meta" / "trials").glob("*.npy"), *(path / "meta" / "neurons").glob("*.npy")}
    return items + [inspect_npy(file, file.relative_to(path).as_posix()) for file in sorted(files)]


FORMAT = Format(
    "filetree",
    "a folder with data/images/<trial>.npy, data/responses/<trial>.npy and meta/trials/tiers.npy",
    recognises,
    read,
    inspect,
    write,
    replaces=is_ours,
)
