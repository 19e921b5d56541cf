"""Recordings on disk: one reader a file, chosen by looking at the path or by name."""

from pathlib import Path

from whatwhere.checks import check_choice
from whatwhere.errors import FormatError, InputError, WhatwhereError
from whatwhere.files import replacing
from whatwhere.formats import antolik, filetree, hdf5, npz
from whatwhere.formats.reader import Format, Inspection, Item
from whatwhere.recording import Recording

__all__ = ["FORMATS", "Format", "Inspection", "Item", "inspect", "load", "save"]

FORMATS: dict[str, Format] = {
    reader.name: reader for reader in (hdf5.FORMAT, npz.FORMAT, antolik.FORMAT, filetree.FORMAT)
}


def load(path: str | Path, format: str | None = None, *, nonfinite: str = "error") -> Recording:
    """The recording in a file or folder; `format` names the reader, else the first that recognises the path.

    `nonfinite`: "error", or "rows" or "neurons" to leave out what holds NaN or infinite values (see
    `Recording`). Raises `FormatError` where the path does not exist, is empty, truncated or of no known
    format, `InputError` where its arrays do not fit together, `OptionError` for an unknown format.
    """
    path, reader = _choose(path, format)
    if reader is None:
        raise FormatError(_unrecognised(path))
    try:
        return reader.read(path, nonfinite=nonfinite)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def inspect(path: str | Path, format: str | None = None) -> Inspection:
    """What there is at a path, whole or not: items, and the recording's summary or what is wrong with it.

    Raises `FormatError` only where the path does not exist, `OptionError` for an unknown format.
    """
    try:
        path, reader = _choose(path, format)
    except _EmptyFileError as error:
        return Inspection(Path(path), None, problem=str(error))
    if reader is None:
        return Inspection(path, None, problem=_unrecognised(path))
    items: tuple[Item, ...] = ()
    try:
        items = tuple(reader.inspect(path))
        return Inspection(path, reader.name, items, load(path, reader.name).summary())
    except WhatwhereError as error:
        return Inspection(path, reader.name, items, problem=str(error))


def save(recording: Recording, path: str | Path, *, overwrite: bool = False, compress: bool = False) -> Path:
    """Writes a recording to .h5, .hdf5 or .npz, by the suffix: whole or not at all. Returns the path.

    `compress`: smaller and slower. Notes are not stored. Raises `FormatError` where the suffix is another,
    the folder does not exist, or the path exists and `overwrite` is False.
    """
    path = Path(path).expanduser()
    writers = {suffix: reader.write for reader in FORMATS.values() for suffix in reader.suffixes if reader.write}
    write = writers.get(path.suffix.lower())
    if write is None:
        raise FormatError(f"{path} ends in {path.suffix!r}: expected one of {', '.join(writers)}.")
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists already. Choose another name, or say overwrite=True.")
    if not path.parent.is_dir():
        raise FormatError(f"the folder {path.parent} does not exist: make it first.")
    with replacing(path) as temporary:
        write(recording, temporary, compress=compress)
    return path


class _EmptyFileError(FormatError):
    pass


def _choose(path: str | Path, format: str | None) -> tuple[Path, Format | None]:
    path = Path(path).expanduser()
    if format is not None:
        check_choice("format", format, FORMATS)
    if not path.exists():
        raise FormatError(f"{path} does not exist. Check the spelling, and where relative paths begin: {Path.cwd()}.")
    if path.is_file() and path.stat().st_size == 0:
        raise _EmptyFileError(f"{path} is empty: it was not written to its end. Copy it again.")
    if format is not None:
        return path, FORMATS[format]
    return path, next((reader for reader in FORMATS.values() if reader.recognises(path)), None)


def _unrecognised(path: Path) -> str:
    known = "; ".join(f"{reader.name}: {reader.looks_like}" for reader in FORMATS.values())
    return f"{path} is of no known format. Known are {known}. Arrays in memory: Recording(images, responses)."
