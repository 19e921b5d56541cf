"""Which images each step of a fit takes."""

import torch
from torch import Tensor

from whatwhere.parallel import ALONE, Parallel
from whatwhere.stored_images import Images, StoredImages, Stream

_STRIDE = 0x1E3779B97F4A7C15
"""Between the seeds of two recordings: far beyond those of any step or epoch."""


class Batches:
    """The batches of a fit, whole ones alone: every epoch has its own order, from the seed and the epoch's number.

    A permutation of all images; of stored ones a shuffle that reads neighbours together (`streamed_order`). Processes
    that share a fit have the same batches, and each takes its part. Raises `OptionError` where it would have none.
    """

    def __init__(self, images: Images, batch_size: int, seed: int, parallel: Parallel = ALONE) -> None:
        self.images, self.seed = images, seed
        self.batch_size = min(batch_size, len(images))
        self.part = parallel.part(self.batch_size)
        self.n_batches = len(images) // self.batch_size
        self.epoch: int | None = None
        self.order: Tensor | Stream | None = None

    def of_step(self, step: int) -> tuple[Tensor, Tensor]:
        """Which images this process takes in the step, (n_images,), and the images."""
        epoch, batch = divmod(step, self.n_batches)
        if epoch != self.epoch:
            self._begin(epoch)
        start, stop = batch * self.batch_size + self.part.start, batch * self.batch_size + self.part.stop
        if isinstance(self.order, Stream):
            return self.order.batch(start, stop)
        assert self.order is not None
        rows = self.order[start:stop]
        return rows, self.images[rows]

    def close(self) -> None:
        """Stops reading ahead."""
        if isinstance(self.order, Stream):
            self.order.close()
        self.epoch = self.order = None

    def _begin(self, epoch: int) -> None:
        self.close()
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, epoch))
        if isinstance(self.images, StoredImages):
            self.order = Stream(self.images, generator)
        else:
            self.order = torch.randperm(len(self.images), generator=generator).to(self.images.device)
        self.epoch = epoch


def mixed_seed(seed: int, number: int) -> int:
    """A seed for each number: of epochs from 0 on, below 0 of whatever else is drawn.

    >>> mixed_seed(2, 5)
    2000011
    """
    return (seed * 1_000_003 + number) % 2**63


def draw_seed(seed: int, number: int, recording: int) -> int:
    """A seed for what is drawn for the neurons of each recording; of the first, number 0, `mixed_seed`.

    >>> draw_seed(2, -1, 0), draw_seed(2, -1, 1)
    (2000005, 2177342782470422682)
    """
    return (mixed_seed(seed, number) + recording * _STRIDE) % 2**63
