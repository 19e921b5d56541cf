"""The folder of several models that share a core: one folder for each, and a file that names them."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whatwhere.errors import FormatError, OptionError
from whatwhere.files import make_folder
from whatwhere.storage import CONFIG_FILE, SHARED_FILE, read_model, write_text

SHARED, SHARED_VERSION = "whatwhere-shared", 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=@+-]*")
_TAKEN, _SUFFIXES = ("checkpoints", "tensorboard"), (".json", ".csv", ".yaml", ".png", ".safetensors")


def check_names(names: Sequence[Any]) -> None:
    """Raises `OptionError` unless the names of recordings can be names of folders, everywhere, each only once."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
            raise OptionError(
                f"{name!r} cannot name a recording: expected letters, digits and any of _ . = @ + - after the first,"
                " for it names a folder, too."
            )
        if Path(name).suffix in _SUFFIXES or name.lower() in _TAKEN:
            raise OptionError(f"{name!r} cannot name a recording: a run has files of such names. Choose another.")
        if name.lower() in seen:
            raise OptionError(
                f"two recordings are named {seen[name.lower()]!r} and {name!r}: expected names that differ in more than"
                " upper and lower case."
            )
        seen[name.lower()] = name


def write_names(folder: Path, names: Sequence[str]) -> None:
    """Makes the folder and writes which recordings have a folder within it."""
    make_folder(folder)
    text = json.dumps({"format": SHARED, "version": SHARED_VERSION, "recordings": list(names)}, indent=1)
    write_text(folder / SHARED_FILE, text + "\n")


def read_names(folder: Path) -> dict[str, str]:
    """The names of the recordings, and of the model of each; raises `FormatError` where they cannot be read."""
    names = named_in(folder)
    return {name: str(read_model(folder / name)[1].get("model")) for name in names}


def named_in(folder: Path) -> list[str]:
    """The names of the recordings; raises `FormatError` where there is no such file or it is damaged."""
    file = folder / SHARED_FILE
    if not file.is_file():
        is_one = (folder / CONFIG_FILE).exists()
        other = " It holds the model of one recording: use whatwhere.load_model." if is_one else ""
        raise FormatError(f"{file} does not exist: expected the folder of a fit of several recordings.{other}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        names, version, kind = found["recordings"], int(found["version"]), found["format"]
        check_names(names)
    except (ValueError, KeyError, TypeError, OSError, OptionError) as error:
        raise FormatError(f"{file} cannot be read ({error}): fetch a fresh copy.") from error
    if kind != SHARED or version > SHARED_VERSION or not names:
        raise FormatError(
            f"{file} is of format {kind!r}, version {version}: expected {SHARED!r}, at most {SHARED_VERSION}, with one"
            " recording or more. It may come from a newer whatwhere."
        )
    return list(names)
