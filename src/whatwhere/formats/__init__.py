"""Recordings on disk: one reader a file, chosen by looking at the path or by name."""

from pathlib import Path
from typing import Any

from whatwhere.checks import check_choice
from whatwhere.errors import FormatError, InputError, OptionError, WhatwhereError
from whatwhere.files import replacing, replacing_folder
from whatwhere.formats import antolik, filetree, hdf5, npz, nwb
from whatwhere.formats.reader import Format, Inspection, Item, Write
from whatwhere.plain_options import make_options
from whatwhere.recording import Recording

__all__ = ["FORMATS", "Format", "Inspection", "Item", "check_target", "inspect", "load", "save"]

FORMATS: dict[str, Format] = {  # in the order in which they are asked: an NWB file is an HDF5 file, too
    reader.name: reader for reader in (nwb.FORMAT, hdf5.FORMAT, npz.FORMAT, antolik.FORMAT, filetree.FORMAT)
}


def load(path: str | Path, format: str | None = None, *, nonfinite: str = "error", **options: Any) -> Recording:
    """The recording in a file or folder; `format` names the reader, else the first that recognises the path.

    `nonfinite`: "error", or "rows" or "neurons" to leave out what holds NaN or infinite values (see
    `Recording`). `options`: those of the reader, of `nwb.Reading` for NWB; the others have none. Raises `FormatError`
    where the path does not exist, is empty, truncated or of no known format, `InputError` where its arrays do not fit
    together, `OptionError` for an unknown format or option.
    """
    path, reader = _choose(path, format)
    if reader is None:
        raise FormatError(_unrecognised(path))
    asked = _options(reader.name, "read", reader.read_options, options)
    try:
        return reader.read(path, nonfinite=nonfinite, **asked)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def inspect(path: str | Path, format: str | None = None, **options: Any) -> Inspection:
    """What there is at a path, whole or not: items, and the recording's summary or what is wrong with it.

    `options` as for `load`. Raises `FormatError` only where the path does not exist, `OptionError` for an unknown
    format or option.
    """
    try:
        path, reader = _choose(path, format)
    except _EmptyFileError as error:
        return Inspection(Path(path), None, problem=str(error))
    if reader is None:
        return Inspection(path, None, problem=_unrecognised(path))
    _options(reader.name, "read", reader.read_options, options)
    items: tuple[Item, ...] = ()
    try:
        items = tuple(reader.inspect(path))
        return Inspection(path, reader.name, items, load(path, reader.name, **options).summary())
    except WhatwhereError as error:
        return Inspection(path, reader.name, items, problem=str(error))


def save(
    recording: Recording,
    path: str | Path,
    format: str | None = None,
    *,
    overwrite: bool = False,
    compress: bool = False,
    **options: Any,
) -> Path:
    """Writes a recording to .h5, .hdf5, .npz or .nwb, by the suffix, or to a folder: whole or not at all.

    `format` names the format where the suffix does not: "filetree" for a folder of one .npy per trial. `compress`:
    smaller and slower. `options`: those of the format, of `nwb.Writing` for NWB; the others have none. Notes are not
    stored. A folder is only overwritten where `save` wrote it or it is empty. Returns the path. Raises `FormatError`
    where the suffix says nothing or something else, the folder above does not exist, or the path exists and `overwrite`
    is False; `OptionError` for an unknown format or option.
    """
    path = Path(path).expanduser()
    check_target(path, format, overwrite=overwrite, compress=compress, **options)
    target, write = _target(path, format)
    asked = _options(target.name, "written", target.write_options, options)
    with (replacing if target.replaces is None else replacing_folder)(path) as temporary:
        write(recording, temporary, compress=compress, **asked)
    return path


def check_target(
    path: str | Path, format: str | None = None, *, overwrite: bool = False, compress: bool = False, **options: Any
) -> None:
    """Raises what `save` would raise because of its arguments, before a recording is there to be saved."""
    path = Path(path).expanduser()
    target, _ = _target(path, format)
    _options(target.name, "written", target.write_options, options)
    if compress and target.replaces is not None:
        raise OptionError(f"compress: the files of a {target.name} cannot be compressed. Leave it out, or write .h5.")
    if path.exists() and not overwrite:
        raise FormatError(f"{path} exists already. Choose another name, or say overwrite=True.")
    if path.exists() and path.is_dir() != (target.replaces is not None):
        raise FormatError(f"{path} is a {'folder' if path.is_dir() else 'file'}, {target.name} is not: choose another.")
    if path.exists() and target.replaces is not None and not target.replaces(path):
        raise FormatError(
            f"{path} is a folder that holds other things than a recording saved here: it is not replaced. Choose"
            " another name, or remove it yourself."
        )
    if not path.parent.is_dir():
        raise FormatError(f"the folder {path.parent} does not exist: make it first.")


def _target(path: Path, format: str | None) -> tuple[Format, Write]:
    """The format to write, by its name or by the path's suffix, and its writer."""
    by_suffix = {
        suffix: (reader, reader.write) for reader in FORMATS.values() for suffix in reader.suffixes if reader.write
    }
    found = by_suffix.get(path.suffix.lower())
    if format is None:
        if found is None:
            raise FormatError(
                f"{path} ends in {path.suffix!r}: expected one of {', '.join(by_suffix)}, or for a folder the format"
                " 'filetree'."
            )
        return found
    named = FORMATS[check_choice("format", format, FORMATS)]
    if found is not None and found[0] is not named:
        raise FormatError(
            f"{path} ends in {path.suffix!r}, as {found[0].name} does, but {format} was asked for: rename it."
        )
    if named.write is None:
        writers = ", ".join(reader.name for reader in FORMATS.values() if reader.write is not None)
        raise FormatError(f"{format} can only be read: expected one of {writers}.")
    return named, named.write


def _options(name: str, done: str, kind: type[Any] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments by which a reader or writer gets its options, checked."""
    if kind is not None:
        return {"options": make_options(kind, options)}
    if options:
        raise OptionError(f"{name} is {done} without options: got {', '.join(map(repr, options))}. Leave them out.")
    return {}


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
