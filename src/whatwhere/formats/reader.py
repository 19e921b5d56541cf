"""What every format offers: how it looks, whether it recognises a path, how it reads and inspects it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from whatwhere.checks import did_you_mean
from whatwhere.errors import FormatError
from whatwhere.recording import Recording


@dataclass(frozen=True)
class Item:
    """One file or array: `status` is "present", "missing" or "unreadable"; `detail` says more."""

    name: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """What was found at a path: format, items, and the recording's summary or the problem."""

    path: Path
    format: str | None
    items: tuple[Item, ...] = ()
    summary: dict[str, Any] | None = None
    problem: str | None = None


class Read(Protocol):
    """Reads a recording; `nonfinite` as in `Recording`."""

    def __call__(self, path: Path, *, nonfinite: str = "error") -> Recording: ...


class Write(Protocol):
    """Writes a recording to a path that does not exist yet."""

    def __call__(self, recording: Recording, path: Path, *, compress: bool = False) -> None: ...


@dataclass(frozen=True)
class Format:
    """One file format: its name, what it looks like (for messages), and its functions.

    suffixes: of the files it writes. replaces: given for a format that is a folder, says whether an existing folder may
    give way to a new one. read_options, write_options: dataclasses, which `read` and `write` then take as `options`.
    """

    name: str
    looks_like: str
    recognises: Callable[[Path], bool]
    read: Read
    inspect: Callable[[Path], list[Item]]
    write: Write | None = None
    suffixes: tuple[str, ...] = ()
    replaces: Callable[[Path], bool] | None = None
    read_options: type[Any] | None = None
    write_options: type[Any] | None = None


def check_names(path: Path, names: list[str], known: list[str]) -> tuple[str, ...]:
    """Notes on arrays that are not of the format; `FormatError` where one looks like a misspelling."""
    unknown = [name for name in names if name not in known]
    for name in unknown:
        hint = did_you_mean(name, known)
        if hint:
            raise FormatError(f"{path} holds {name!r}, which is not part of the format.{hint} Rename or remove it.")
    return (f"not part of the format, not read: {', '.join(unknown)}",) if unknown else ()
