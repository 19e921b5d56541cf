"""Several processes that share one fit: each takes its part of every batch, and sums are taken over all of them."""

import atexit
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

from whatwhere.errors import OptionError, RunError, WhatwhereError

T = TypeVar("T")
_PATIENCE = timedelta(days=1)
"""What a process waits for the others: one may be fitting a model that is not shared."""


class _Sum(torch.autograd.Function):
    """Every process's loss depends on the sum, so the gradient of each summand is the sum of all their gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(context, gradients[0].contiguous())


class Part(NamedTuple):
    """The images of a batch that one process takes: start to stop, of `whole`."""

    start: int
    stop: int
    whole: int

    @property
    def share(self) -> float:
        """The part of the batch that these images are."""
        return (self.stop - self.start) / self.whole


@dataclass(frozen=True)
class Parallel:
    """This process among those that share a fit: number `rank` of `size`, on its own device if it was given one.

    All of them call the same methods in the same order. Alone, nothing is sent and nothing changes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    summed: Callable[[Tensor], Any] = field(default=_Sum.apply, repr=False, compare=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that shows progress and writes files."""
        return self.rank == 0

    def part(self, n_images: int) -> Part:
        """Which of a batch's images this process takes; raises `OptionError` where there are not enough for all.

        >>> Parallel(rank=1, size=2).part(5)
        Part(start=2, stop=5, whole=5)
        """
        if n_images < self.size:
            raise OptionError(
                f"a batch of {n_images} images cannot be shared by {self.size} processes: ask for fewer devices, or for"
                " a larger batch_size."
            )
        return Part(n_images * self.rank // self.size, n_images * (self.rank + 1) // self.size, n_images)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, through which gradients pass."""
        if self.size == 1:
            return values
        summed: Tensor = self.summed(values)
        return summed

    def uncompiled(self) -> "Parallel":
        """The same, whose `sum` stays out of what is compiled: a message to others is no part of a graph."""
        return replace(self, summed=torch.compiler.disable(_Sum.apply))

    @torch.no_grad()
    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Puts the sums over all processes into the tensors, all in one message."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag, whether it is true in one of them."""
        if self.size == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.float32, device=self.device)
        distributed.all_reduce(counts)
        return tuple(count > 0 for count in counts.tolist())

    @torch.no_grad()
    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        """Puts into all tensors what the first process has in them."""
        if self.size == 1:
            return
        for tensor in tensors:
            distributed.broadcast(tensor, 0)

    def from_first(self, function: Callable[[], T]) -> T:
        """What `function` returns in the first process, which alone calls it; what it raises is raised in all."""
        if self.size == 1:
            return function()
        found: list[Any] = [None, None]
        if self.first:
            try:
                found[0] = function()
            except WhatwhereError as error:
                found[1] = error
            except Exception as error:
                found[1] = RunError(f"the first process failed: {error!r}. See what it says, and begin again.")
                found[1].__cause__ = error
        distributed.broadcast_object_list(found, 0, device=self.device)
        if found[1] is not None:
            raise found[1]
        value: T = found[0]
        return value


ALONE = Parallel()
"""One process, which shares with no other."""


_joined: list[Parallel] = []
"""What `join_processes` found last, in this process: a group that another program made is none of ours."""


def join_processes(devices: int, nodes: int, device: str) -> Parallel:
    """This process among `devices` on each of `nodes` machines; the others are started here unless they are running.

    Alone for one device. device: "auto", "cpu" or "cuda". On one machine this program is started once more for each
    further device, with the same arguments; under `torchrun`, or `srun` of Slurm, all run already. Asked again, the
    same processes answer. Raises `OptionError` where the devices are not there, lightning-fabric is not installed, or
    the running processes are not that many or on other devices; `RunError` where the program cannot be started again.
    """
    size = devices * nodes
    if size == 1:
        return ALONE
    if not distributed.is_initialized():
        _start(devices, nodes, device)
    if distributed.get_world_size() != size:
        raise OptionError(
            f"devices={devices} on nodes={nodes} are {size} processes, but {distributed.get_world_size()} are running:"
            " ask for as many as were started."
        )
    on_gpu = "nccl" in distributed.get_backend()
    if device not in ("auto", "cuda" if on_gpu else "cpu"):
        raise OptionError(
            f"device={device!r}, but the {size} processes that are running are on {'GPUs' if on_gpu else 'CPUs'}: leave"
            " it at 'auto', or start the program anew."
        )
    own = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    _joined[:] = [Parallel(distributed.get_rank(), size, own)]
    return _joined[0]


def helps() -> bool:
    """Whether this process only helps the first of several, which shows and writes everything."""
    return bool(_joined) and not _joined[0].first


def _start(devices: int, nodes: int, device: str) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device {device!r} is one, and {devices * nodes} are asked for: choose 'auto' or 'cuda'.")
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise OptionError(
            f"several devices need lightning-fabric, which is not installed ({error}): pip install"
            ' "whatwhere[devices]", or ask for one device.'
        ) from None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu and devices > torch.cuda.device_count():
        raise OptionError(
            f"devices={devices}, but this machine has {torch.cuda.device_count()} GPUs: ask for no more, or give"
            " device='cpu'."
        )
    if hasattr(sys, "ps1"):
        raise RunError(
            "several devices are several processes, which an interactive session or a notebook cannot start: use a"
            " script, or the command line."
        )
    accelerator = "cuda" if on_gpu else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as advice to use srun, where that is merely installed
        strategy = DDPStrategy(timeout=_PATIENCE)
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy)
        _check_can_start(strategy.cluster_environment, nodes)
        try:
            fabric.launch()
        except ValueError as error:  # as many were started as the launcher was asked for
            raise OptionError(
                f"devices={devices} on nodes={nodes} are not the processes that are running ({error}): ask for as many"
                " as were started."
            ) from None
    atexit.register(_leave)


def _leave() -> None:
    """Or the process may end in an abort."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _check_can_start(environment: Any, nodes: int) -> None:
    """Others are started from this program's file and arguments, unless a launcher has started them."""
    if environment.creates_processes_externally:
        return
    if nodes > 1 and "NODE_RANK" not in os.environ:
        raise OptionError(
            f"nodes={nodes}, but nothing says which of them this is: start the program on each with torchrun, or on all"
            " with srun."
        )
    import __main__

    if __main__.__spec__ is None and not Path(sys.argv[0]).is_file():
        raise RunError(
            "several devices are several processes, started from the program's file, and this one"
            f" ({os.path.basename(sys.executable)} {sys.argv[0]!r}) has none: use a script, or the command line."
        )
