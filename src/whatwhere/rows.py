"""Images as rows, in memory or on disk: taken as given, read in chunks, selected without being read."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from whatwhere.checks import check_ndim, check_numeric
from whatwhere.errors import InputError

IMAGE_AXES = ("n_images", "n_channels", "height", "width")
CHUNK_BYTES = 2**25
COLUMN_BYTES = 2**25  # of some columns at once, where a statistic would need copies of them all
MOST_SKIPPED = 8  # rows read in vain rather than asking the disk once more


def is_lazy(array: Any) -> bool:
    """Whether `array` is not in memory: it has a shape, a numpy dtype and slices (as in h5py or zarr)."""
    return (
        not isinstance(array, np.ndarray)
        and isinstance(getattr(array, "dtype", None), np.dtype)
        and hasattr(array, "shape")
        and hasattr(array, "__getitem__")
        and not hasattr(array, "iloc")
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """`array` if it cannot be written to, else a copy that cannot: its owner may change it."""
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def frozen(array: np.ndarray) -> np.ndarray:
    """`array` itself, made read-only: for arrays that nobody else holds."""
    array.flags.writeable = False
    return array


class LazyRows:
    """Some rows of images that stay where they are until sliced; three dimensions get one channel."""

    def __init__(self, source: Any, rows: np.ndarray | None = None) -> None:
        self.source = source
        self.rows = np.arange(len(source)) if rows is None else rows
        channel = (1,) if len(source.shape) == 3 else ()
        self.shape = (len(self.rows), *channel, *source.shape[1:])
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return read_rows(self.source, self.rows[rows]).reshape(-1, *self.shape[1:])


def as_images(name: str, images: Any) -> Any:
    """`images` with four dimensions and a real dtype, read-only in memory; raises `InputError`."""
    if not is_lazy(images):
        images = np.asarray(images)
    check_numeric(name, images)
    if len(images.shape) != 3:
        check_ndim(name, images, IMAGE_AXES)
    if 0 in images.shape:
        raise InputError(f"{name} is empty, shape {tuple(images.shape)}: expected at least one image of one pixel.")
    if is_lazy(images):
        return images if len(images.shape) == 4 else LazyRows(images)
    return read_only(images if images.ndim == 4 else images[:, None])


def spaced(n: int, most: int) -> np.ndarray:
    """At most `most` of n positions, ascending, evenly from the first to the last.

    >>> spaced(10, 4), spaced(3, 4)
    (array([0, 3, 6, 9]), array([0, 1, 2]))
    """
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).round().astype(int)


def row_chunks(array: Any, most_bytes: int = CHUNK_BYTES) -> Iterator[slice]:
    """Slices that together cover all rows of `array`, each of about `most_bytes` at most.

    >>> [chunk.stop for chunk in row_chunks(np.zeros((5, 2)), most_bytes=32)]
    [2, 4, 5]
    """
    row_bytes = int(np.prod(array.shape[1:])) * array.dtype.itemsize
    step = max(1, most_bytes // max(1, row_bytes))
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0]))


def read_rows(array: Any, rows: Any = None) -> np.ndarray:
    """The given rows, in the given order, as stored; from disk in ascending runs, each read once."""
    if rows is None:
        rows = slice(None)
    if isinstance(array, np.ndarray) or isinstance(rows, slice):
        return np.asarray(array[rows])
    unique, inverse = np.unique(np.asarray(rows), return_inverse=True)
    out = np.empty((len(unique), *array.shape[1:]), array.dtype)
    breaks = np.flatnonzero(np.diff(unique) > MOST_SKIPPED) + 1
    done = 0
    for run in np.split(unique, breaks) if len(unique) else []:
        slab = np.asarray(array[int(run[0]) : int(run[-1]) + 1])
        out[done : done + len(run)] = slab[run - run[0]]
        done += len(run)
    return out if np.array_equal(inverse, np.arange(len(out))) else out[inverse]


def by_columns(statistic: Callable[[np.ndarray], np.ndarray], table: np.ndarray, rows: Any = None) -> np.ndarray:
    """A statistic of each column, (n_columns,), over all rows or some, of as many columns at once as memory allows.

    >>> by_columns(lambda some: some.max(0), np.array([[1, 5], [3, 2]]), [1])
    array([3, 2])
    """
    n_rows = len(table) if rows is None else len(rows)
    at_once = max(1, COLUMN_BYTES // max(1, n_rows * table.dtype.itemsize))
    starts = range(0, table.shape[1], at_once)
    chunks = (table[:, start : start + at_once] for start in starts)
    return np.concatenate([statistic(chunk if rows is None else chunk[rows]) for chunk in chunks])


def take_rows(array: Any, rows: np.ndarray) -> Any:
    """The given rows as images of their own: a read-only copy in memory, a view where they are on disk."""
    return LazyRows(array, rows) if is_lazy(array) else frozen(array[rows])
