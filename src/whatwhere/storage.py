"""Files of a run: tensors with their description in one file, no pickles, written whole or not at all."""

import hashlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from whatwhere.errors import FormatError
from whatwhere.files import make_folder, replacing

_DESCRIPTION = "whatwhere"

MODEL = "whatwhere-model"
MODEL_VERSION = 1
MODEL_FILE, CONFIG_FILE, HISTORY_FILE = "model.safetensors", "config.yaml", "history.csv"
SHARED_FILE = "shared.json"
"""Names the recordings whose models share a core: each has a folder beside it."""

TUNING_FILE, FIELDS_FILE, CURVES_FILE, EXCITING_FILE = "tuning.csv", "fields.npz", "curves.npz", "most_exciting.npz"
"""What experiments on a fitted model leave in its folder."""

_DAMAGED_NPZ = (
    *(ValueError, KeyError, OSError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What reading a damaged .npz may raise: any byte may be another one, also those that say how it is compressed."""


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_texts(path: Path) -> pd.DataFrame:
    """A CSV file, its cells as text: a neuron may be called NA, and a carriage return in its name ends no line."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    if text.partition("\n")[0].endswith("\r"):  # lines end as those of Windows
        text = text.replace("\r\n", "\n")
    return pd.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False, lineterminator="\n")


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, those of these names or all; no code in the file is run, whoever wrote it.

    Raises `FormatError`, which says why, for a file that is missing, truncated or damaged, or that lacks a name.
    """
    try:
        with open(path, "rb") as opened:  # a damaged one numpy would leave open
            if not zipfile.is_zipfile(opened):
                raise zipfile.BadZipFile("no whole .npz file")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in (file.files if names is None else names)}
    except _DAMAGED_NPZ as error:
        raise FormatError(f"{path.name} cannot be read: {error}") from error
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise FormatError(f"{path.name} cannot be read: {', '.join(strange)} is no array")
    return arrays


def write_tensors(path: Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Named tensors and a JSON description in one safetensors file, with a checksum over both.

    The same tensors and description give the same bytes: hence one key for all, since safetensors writes several in
    any order.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(description, sort_keys=True)
    metadata = {_DESCRIPTION: f"{checksum(tensors, text)} {text}"}
    with replacing(path) as temporary:
        _save(tensors, temporary, metadata)


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    path.touch()
    mode = path.stat().st_mode  # what the user's umask grants; safetensors would let nobody else read the file
    try:
        save_file(tensors, path, metadata=metadata)
        path.chmod(mode)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error


def read_tensors(path: Path, expected_format: str, newest_version: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description that `write_tensors` wrote.

    Raises `FormatError` for a file that is missing, truncated, changed since it was written, of another kind, or of
    a newer version. No code in the file is run, whoever wrote it.
    """
    if not path.is_file():
        raise FormatError(f"{path} does not exist: expected a {expected_format} file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: the file may change once it is read, and products of unaligned numbers differ in the last bit.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read ({error}): it is truncated or no safetensors file.") from error
    if _DESCRIPTION not in metadata:
        raise FormatError(f"{path} is a safetensors file, but not one of whatwhere's.")
    written, _, text = metadata[_DESCRIPTION].partition(" ")
    if written != checksum(tensors, text):
        raise FormatError(f"{path} was changed after it was written: its checksum does not match. Fetch a fresh copy.")
    return tensors, _read_description(path, text, expected_format, newest_version)


def _read_description(path: Path, text: str, expected_format: str, newest_version: int) -> dict[str, Any]:
    try:
        description = json.loads(text)
        found, version = description["format"], int(description["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(
            f"{path} holds no description that whatwhere wrote ({error!r}). Fetch a fresh copy."
        ) from error
    if found != expected_format:
        raise FormatError(f"{path} holds {found!r}: expected {expected_format!r}.")
    if version > newest_version:
        raise FormatError(
            f"{path} is of version {version}, newer than version {newest_version} that this whatwhere reads: update"
            " whatwhere."
        )
    return dict(description)


def save_model(folder: Path, tensors: dict[str, Tensor], description: dict[str, Any], history: pd.DataFrame) -> Path:
    """The files of a fitted model in `folder`, which is made where it is missing."""
    make_folder(folder)
    write_tensors(folder / MODEL_FILE, tensors, description)
    config = _config(description)
    write_text(folder / CONFIG_FILE, yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=110))
    write_text(folder / HISTORY_FILE, history.to_csv(index=False))
    return folder


def read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], pd.DataFrame]:
    """Tensors, description and history of the model in a folder or file; history is empty where it is not there.

    Raises `FormatError` where a file is missing, damaged, or where `config.yaml` no longer says what the model was
    fitted with.
    """
    if not path.exists():
        raise FormatError(f"{path} does not exist: expected a run's folder or a {MODEL_FILE}.")
    file = path / MODEL_FILE if path.is_dir() else path
    if (path / SHARED_FILE).exists() and not file.exists():
        raise FormatError(
            f"{path} holds models of several recordings: name the folder of one, {path}/RECORDING, or load all with"
            " whatwhere.load_shared."
        )
    tensors, description = read_tensors(file, MODEL, MODEL_VERSION)
    _check_same(file.parent / CONFIG_FILE, _config(description))
    return tensors, description, _read_history(file.parent / HISTORY_FILE)


def _config(description: dict[str, Any]) -> dict[str, Any]:
    """What a person reads in `config.yaml`: all but the neurons' identifiers, thousands of them."""
    return {key: value for key, value in description.items() if key != "neurons"}


def _read_history(path: Path) -> pd.DataFrame:
    if not path.exists():
        return pd.DataFrame()
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise FormatError(f"{path} cannot be read ({error}). Delete it: the model does not need it.") from error


def _check_same(config: Path, description: dict[str, Any]) -> None:
    if not config.exists():
        return
    try:
        written = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{config} cannot be read: {error}. Delete it; the model itself holds the same.") from error
    if written == description:
        return
    keys = sorted(set(description) | set(written)) if isinstance(written, dict) else sorted(description)
    changed = [key for key in keys if not isinstance(written, dict) or written.get(key) != description.get(key)]
    raise FormatError(
        f"{config} was changed after the model was fitted: {', '.join(changed)} differ from what {MODEL_FILE} holds."
        " Put it back or delete it; to fit with other options, start a new run."
    )


def checksum(tensors: dict[str, Tensor], text: str = "") -> str:
    """SHA-256 of tensors on the CPU with their names, dtypes and shapes, and of a text."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
