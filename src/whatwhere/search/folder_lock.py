"""One process at a time in a point's folder, on any number of machines that share it."""

import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from whatwhere.files import make_folder

LOCK_FILE = ".in-use"
_SECONDS_BETWEEN_SIGNS = 5.0
_SECONDS_ALIVE = 60.0
_SECONDS_TO_WAIT = 1.0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other process is at work in the folder, which is made where it is missing, then holds it.

    A worker whose search was killed may go on with a point for a while, and the next search gives the same one to
    another. One that died without a word is taken for gone after a minute, on the same machine at once.
    """
    make_folder(folder)
    file, done = folder / LOCK_FILE, Event()
    while not _taken(file):
        time.sleep(_SECONDS_TO_WAIT)
    signs = Thread(target=_give_signs, args=(file, done), daemon=True)
    signs.start()
    try:
        yield
    finally:
        done.set()
        signs.join()
        file.unlink(missing_ok=True)


def _taken(file: Path) -> bool:
    """Whether the folder could be taken."""
    try:
        with open(file, "x") as lock:
            lock.write(f"{platform.node()} {os.getpid()}")
    except FileExistsError:
        if not _is_held(file):
            file.unlink(missing_ok=True)
        return False
    except FileNotFoundError:  # the process that held it has removed the folder
        make_folder(file.parent)
        return False
    return True


def empty(folder: Path) -> None:
    """Removes what is in a folder but for the lock, which only who holds it may remove."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK_FILE:
            path.unlink(missing_ok=True)


def _is_held(file: Path) -> bool:
    try:
        node, _, process = file.read_text().partition(" ")
        recent = time.time() - file.stat().st_mtime < _SECONDS_ALIVE
    except FileNotFoundError:
        return False
    if recent and node == platform.node() and process.isdigit():
        return runs_here(int(process))
    return recent


def runs_here(process: int) -> bool:
    """Whether a process of this machine runs; where that cannot be asked without harm, it is taken to."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _give_signs(file: Path, done: Event) -> None:
    while not done.wait(_SECONDS_BETWEEN_SIGNS):
        with suppress(OSError):
            os.utime(file)
