"""Reading .npy files without ever unpickling, with errors that name the file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from whatwhere.errors import FormatError
from whatwhere.formats.reader import Item

MAGIC = b"\x93NUMPY"


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file; `FormatError` where it is missing, truncated, or holds Python objects."""
    try:
        with open(path, "rb") as file:
            return npy_format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist: expected a .npy file there.") from None
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(why_not(path, error)) from None


def map_npy(path: Path) -> np.ndarray:
    """The array in a .npy file, read-only and left on disk until it is used; raises as `read_npy`."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist: expected a .npy file there.") from None
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(why_not(path, error)) from None
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{path} is an archive of arrays: expected a .npy file of one.")
    return array


def why_not(path: Any, error: Exception) -> str:
    """What is the matter with a .npy file, or an array of a .npz file, that numpy refuses with `error`."""
    if "allow_pickle" in str(error):
        return (
            f"{path} holds Python objects, which are never loaded, for loading them can run any code. Save it as an"
            " array of numbers or strings."
        )
    return f"{path} is not a whole .npy array ({error}): it may be truncated. Copy it again."


def inspect_npy(path: Path, name: str) -> Item:
    """Whether a .npy file is there, with its shape and dtype; only its header is read."""
    if not path.exists():
        return Item(name, "missing", f"expected at {path}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return Item(name, "unreadable", why_not(path, error))
    return Item(name, "present", describe(array))


def describe(array: Any) -> str:
    """Shape and dtype of an array, for a line of a table."""
    return f"{tuple(map(int, array.shape))} {array.dtype}"
