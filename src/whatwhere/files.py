"""Writing files whole or not at all, and the folders for them."""

import errno
import os
import platform
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from whatwhere.errors import WriteError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end, or vanishes where something fails.

    Readers see the old file or the new one, never a part, also after a crash. Raises `WriteError` where the disk is
    full or the folder cannot be written; what stood at `path` is then unharmed.
    """
    temporary = path.with_name(f".{path.name}.{_writer()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(
            f"{path} could not be written ({error.strerror or error}). What stood there before is unharmed. Make room"
            " or choose another place, then run again (a fit with --resume)."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, made here, that takes its place at the end, or vanishes where something fails.

    A folder that stands at `path` is moved aside just before, put back where that fails, and then removed. Raises
    `WriteError` where the disk is full or the place cannot be written.
    """
    temporary, aside = (path.with_name(f".{path.name}.{_writer()}.{what}") for what in ("tmp", "old"))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, aside)
        os.replace(temporary, path)
    except OSError as error:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        raise WriteError(
            f"{path} could not be written ({error.strerror or error}). What stood there before is unharmed. Make room"
            " or choose another place, then run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _writer() -> str:
    """This thread among those of all machines that share a folder, where numbers of processes repeat."""
    return f"{platform.node()}.{os.getpid()}.{threading.get_ident()}"


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, where they are missing; raises `WriteError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder} cannot be made ({error.strerror}): choose another folder.") from error


def append_text(path: Path, text: str) -> None:
    """Adds a text, UTF-8, to the end of a file, whole or not at all; raises `WriteError` where the disk is full."""
    content = text.encode()
    try:
        with open(path, "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with suppress(OSError):
                    file.truncate(before)
                raise
    except OSError as error:
        raise WriteError(
            f"{path} could not be written ({error.strerror or error}). What stood there before is unharmed. Make room"
            " or choose another place, then run again (a fit with --resume)."
        ) from error
