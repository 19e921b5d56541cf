"""What makes a killed fit resumable: its folder of checkpoints, what it was begun with, and its number of threads."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from whatwhere.checks import some_of
from whatwhere.errors import FormatError, RunError
from whatwhere.files import make_folder
from whatwhere.storage import write_text

CHECKPOINTS, FIT_FILE = "checkpoints", "fit.json"


def checkpoint_path(folder: Path, candidate: int) -> Path:
    """Where the checkpoint of a candidate is kept."""
    return folder / CHECKPOINTS / f"candidate-{candidate:03d}.safetensors"


def begin_fit(folder: Path, asked: dict[str, Any], threads: int | None, resume: bool) -> int:
    """Notes what a fit is begun with, or checks that it is resumed with the same; returns its number of threads.

    asked: plain values that decide how the fit ends. threads: those wanted, None for the present number; a resumed
    fit takes those that it was begun with, since sums of floats depend on their number. Raises `RunError` where the
    folder holds the checkpoints of a fit that was begun with something else, or that is not to be resumed.
    """
    file = folder / CHECKPOINTS / FIT_FILE
    if not file.exists():
        threads = threads or torch.get_num_threads()
        make_folder(file.parent)
        write_text(file, json.dumps({"threads": threads, "asked": asked}, indent=1))
        return threads
    if not resume:
        raise RunError(
            f"{file.parent} holds the checkpoints of an earlier fit: go on from them with resume=True, or delete that"
            " folder to begin anew."
        )
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
        check_same_fit(folder, begun["asked"], asked)
        return int(begun["threads"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} cannot be read ({error!r}): delete {file.parent} to begin anew.") from error


def note_asked(file: Path, asked: dict[str, Any]) -> None:
    """Notes in a file what the work in its folder is begun with, or checks that it goes on with the same.

    asked: values that JSON has, but for tuples. Raises `RunError` where the work was begun with something else,
    `FormatError` for a file that is damaged.
    """
    asked = json.loads(json.dumps(asked))  # as a file holds it: tuples are lists
    if not file.exists():
        write_text(file, json.dumps({"asked": asked}, indent=1) + "\n")
        return
    try:
        check_same_fit(file.parent, json.loads(file.read_text(encoding="utf-8"))["asked"], asked)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} cannot be read ({error!r}): begin anew with --overwrite.") from error


def check_same_fit(folder: Path, begun: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises `RunError` naming what differs between the fit that a folder holds and the one asked for."""
    before, now = flat(begun), flat(asked)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if not changed:
        return
    details = some_of(f"{key} ({_short(before.get(key))}, now {_short(now.get(key))})" for key in changed)
    raise RunError(
        f"{folder} holds a fit that was begun with something else: {details}. Resume it with what it was begun with,"
        " or choose another folder."
    )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots.

    >>> flat({"core": {"n_maps": 4}, "seed": 0})
    {'core.n_maps': 4, 'seed': 0}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        out.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 30 else f"{text[:8]}..."


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """This number of CPU threads for torch inside the block, and the earlier number again after it."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
