"""Where points are fitted: processes of this machine, or the workers of a Dask cluster, each behind one `Executor`."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from whatwhere.errors import OptionError
from whatwhere.process_memory import keep_freed_memory
from whatwhere.recording import Recording
from whatwhere.rows import is_lazy
from whatwhere.search.point import Source
from whatwhere.workers import LocalExecutor, usable_cores, visible_gpus

_SECONDS_TO_CONNECT = 20.0
_DASKS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What Dask's nannies give their workers' environment where nobody configures `distributed.nanny.pre-spawn-environ`."""


class Pool(Protocol):
    """An executor, and what it is given the recording as."""

    executor: Executor

    def n_slots(self) -> int:
        """How many points can be fitted at once, now: workers of a cluster come and go."""

    def shared(self, source: Source) -> Any:
        """The recording as an argument for `executor.submit`, such that it reaches each worker once."""


@dataclass(frozen=True)
class LocalPool:
    """Processes of this machine; each reads the recording from its file once, or is sent it once if it has none."""

    executor: Executor
    n_workers: int

    def n_slots(self) -> int:
        return self.n_workers

    def shared(self, source: Source) -> Any:
        if isinstance(source, Recording) and isinstance(self.executor, LocalExecutor):
            return self.executor.share(source)
        return source


@contextmanager
def local_pool(n_workers: int | None = None, threads: int | None = None) -> Iterator[LocalPool]:
    """So many processes; by default one a GPU where there are any, else one a core.

    threads: of each; by default the cores are divided among them. With GPUs each process has one of them.
    """
    for name, number in (("workers", n_workers), ("threads", threads)):
        if number is not None and number < 1:
            raise OptionError(f"{name} must be at least 1, got {number}.")
    cores, gpus = usable_cores(), visible_gpus()
    n_workers = n_workers or len(gpus) or cores
    with LocalExecutor(n_workers, threads or max(1, cores // n_workers), gpus) as executor:
        yield LocalPool(executor, n_workers)


@dataclass(frozen=True)
class DaskPool:
    """The workers of a Dask cluster, one point each at a time; a point whose worker is lost goes to another one.

    A recording whose images are in memory is sent to every worker; one that lies in a file is read by each from there.
    """

    executor: Executor
    client: Any

    def n_slots(self) -> int:
        return max(1, len(_workers(self.client)))

    def shared(self, source: Source) -> Any:
        if isinstance(source, Recording) and not is_lazy(source.images):
            return self.client.scatter(source, broadcast=True)
        return source


@contextmanager
def dask_pool(address: str) -> Iterator[DaskPool]:
    """The cluster of the scheduler at `address`.

    Raises `OptionError` where Dask is not installed, nothing answers, or its workers have another version of whatwhere,
    or several threads: PyTorch's number of threads is one for a whole process.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise OptionError(f'a scheduler needs Dask ({error}): pip install "whatwhere[cluster]".') from error
    try:
        client = Client(address, timeout=_SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise OptionError(f"no Dask scheduler answers at {address!r} ({error}): start one, or check it.") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_CONNECT)
        except TimeoutError as error:
            raise OptionError(f"the scheduler at {address!r} has no workers: start some, then search.") from error
        _check_workers(client)
        client.register_plugin(_memory_plugin())
        yield DaskPool(client.get_executor(pure=False), client)


def _check_workers(client: Any) -> None:
    workers = _workers(client)
    several = [name for name, worker in workers.items() if worker["nthreads"] > 1]
    if several:
        raise OptionError(
            f"worker {several[0]} runs {workers[several[0]]['nthreads']} points at once in one process, whose threads"
            " they would share: start workers with --nthreads 1, and more of them."
        )
    ours = version("whatwhere")
    for name, theirs in client.run(_version).items():
        if theirs != ours:
            raise OptionError(f"worker {name} has whatwhere {theirs}, this process {ours}: install the same version.")


def _memory_plugin() -> Any:
    """Has each worker, also one that comes later, keep what a step frees for the next one.

    Dask's nannies set glibc's threshold such that all is given back at once, which made fits take 1.6 times as long.
    """
    from distributed.diagnostics.plugin import WorkerPlugin

    class KeepFreedMemory(WorkerPlugin):
        name = "whatwhere-memory"

        def setup(self, worker: Any) -> None:
            keep_freed_memory(_DASKS)

    return KeepFreedMemory()


def _workers(client: Any) -> dict[str, Any]:
    """What the scheduler knows of its workers, by address; none where it is gone."""
    found: dict[str, Any] = client.scheduler_info(n_workers=-1).get("workers", {})
    return found


def _version() -> str:
    return version("whatwhere")
