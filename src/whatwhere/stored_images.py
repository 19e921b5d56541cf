"""Images that do not fit into memory: read as they are needed, an epoch's in an order that the disk can follow."""

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import read_rows
from whatwhere.standardisation import Standardisation

BLOCK = 32
"""Images in a row that are read together."""

_GROUPS = 4
"""Parts of the memory given, each a group of blocks: one in use, one read ahead, one being left, one to spare."""

_READ_AT_ONCE = 256  # images of a pass in their own order


class StoredImages:
    """Rows of images that stay where they are, standardised as they are read: float32 tensors (n, C, H, W).

    It has what a fit needs of a tensor: length, shape, device, selection of rows, `split` and `mean`. `memory`: bytes
    of stored values that an epoch's order may hold at once, see `streamed_order`.
    """

    def __init__(
        self, source: Any, rows: np.ndarray, standardisation: Standardisation, device: torch.device, memory: int
    ) -> None:
        self.source, self.rows, self.standardisation = source, rows, standardisation
        self.device, self.memory = device, memory
        self.shape = torch.Size((len(rows), *source.shape[1:]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        """The images at some positions, in this order."""
        chosen = which if isinstance(which, slice) else which.cpu().numpy()
        return self.as_tensor(self.read(self.rows[chosen]))

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them in turn, `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def mean(self, dim: Literal[0]) -> Tensor:
        """Over all images, dim 0, the only one that can be asked for: (C, H, W)."""
        total = torch.zeros(self.shape[1:], dtype=torch.float64)
        for some in self.split(_READ_AT_ONCE):
            total += some.sum(0, dtype=torch.float64).cpu()
        return (total / len(self)).float().to(self.device)

    @property
    def nbytes(self) -> int:
        """What is held in memory at once, at most."""
        return min(self.memory, math.prod(self.shape) * self.source.dtype.itemsize)

    def at(self, rows: np.ndarray) -> "StoredImages":
        """Other rows of the same source."""
        return StoredImages(self.source, rows, self.standardisation, self.device, self.memory)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the source, as stored; raises `InputError` where they hold NaN or infinite values."""
        values = read_rows(self.source, rows)
        check_image_rows("images", values, rows)
        return values

    def as_tensor(self, values: np.ndarray) -> Tensor:
        """Stored values as the fit takes them."""
        return torch.from_numpy(self.standardisation.apply(values)).to(self.device)

    @property
    def images_at_once(self) -> int:
        """Images of a group of an epoch's order."""
        of_image = math.prod(self.shape[1:]) * self.source.dtype.itemsize
        return max(BLOCK, self.memory // _GROUPS // max(1, of_image))


Images: TypeAlias = Tensor | StoredImages
"""What a fit is given: images in memory, or on disk."""


def joined(images: Images, others: Images) -> Images:
    """Images and, after them, others of the same recording."""
    if isinstance(images, StoredImages) and isinstance(others, StoredImages):
        return images.at(np.concatenate([images.rows, others.rows]))
    return torch.cat([images[:], others[:]])


def streamed_order(n_images: int, at_once: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """The order of an epoch, (n_images,), and where each of its groups begins and the last one ends.

    Blocks of consecutive images are shuffled, as many taken together as `at_once` images make, and the images of such a
    group are shuffled among themselves. Every image comes once; two that are neighbours are in one group, and so as
    likely to be in one batch as any other two of it.
    """
    blocks = torch.arange(n_images).split(BLOCK)
    shuffled = [blocks[number] for number in torch.randperm(len(blocks), generator=generator).tolist()]
    each = max(1, at_once // BLOCK)
    groups = [torch.cat(shuffled[start : start + each]) for start in range(0, len(shuffled), each)]
    order = torch.cat([group[torch.randperm(len(group), generator=generator)] for group in groups])
    return order, [0, *np.cumsum([len(group) for group in groups]).tolist()]


class Stream:
    """The batches of an epoch in the order of `streamed_order`: the next group is read while this one is used."""

    def __init__(self, images: StoredImages, generator: torch.Generator) -> None:
        self.images = images
        self.order, self.bounds = streamed_order(len(images), images.images_at_once, generator)
        self.reader = ThreadPoolExecutor(1, "whatwhere-reader")
        self.groups: dict[int, Future[tuple[np.ndarray, np.ndarray]]] = {}

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positions start to stop of the order: which images these are, and the images."""
        first, last = (int(np.searchsorted(self.bounds, at, "right")) - 1 for at in (start, stop - 1))
        for gone in [number for number in self.groups if number < first]:
            del self.groups[gone]
        for number in range(first, min(last + 2, len(self.bounds) - 1)):
            if number not in self.groups:
                self.groups[number] = self.reader.submit(self._read, number)
        parts = []
        for number in range(first, last + 1):
            rows, values = self.groups[number].result()
            wanted = self.order[max(start, self.bounds[number]) : min(stop, self.bounds[number + 1])].numpy()
            parts.append(values[np.searchsorted(rows, wanted)])
        return self.order[start:stop].to(self.images.device), self.images.as_tensor(np.concatenate(parts))

    def close(self) -> None:
        """Stops reading ahead."""
        self.reader.shutdown(cancel_futures=True)
        self.groups.clear()

    def _read(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions of a group, ascending, and their stored images."""
        rows = np.sort(self.order[self.bounds[number] : self.bounds[number + 1]].numpy())
        return rows, self.images.read(self.images.rows[rows])
