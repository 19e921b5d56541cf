"""Processes of their own that call functions, as a `concurrent.futures.Executor` of which any process may die."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

from whatwhere.checks import check_positive
from whatwhere.errors import WhatwhereError
from whatwhere.process_memory import keep_freed_memory

DIED = "its process was killed, or died: too little memory is the usual reason, fewer workers the remedy"


_VISIBLE = "CUDA_VISIBLE_DEVICES"
READY = True
"""The first word of a new process."""


def usable_cores() -> int:
    """How many cores this process may use: a job on a cluster often has fewer than its machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The CUDA devices of this process as `CUDA_VISIBLE_DEVICES` names them: those that it lists, else by number."""
    listed = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",")]
    n_gpus = torch.cuda.device_count()
    return listed[:n_gpus] if any(listed) else [str(number) for number in range(n_gpus)]


class WorkerDiedError(WhatwhereError, RuntimeError):
    """The process that a call was given to has ended without an answer."""


def failure_text(error: BaseException) -> str:
    """What went wrong, in one line.

    >>> failure_text(ValueError("no such  kernel:   7"))
    'ValueError: no such kernel: 7'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@dataclass(frozen=True)
class Shared:
    """A value that a `LocalExecutor` sends to each of its processes once, by its number."""

    number: int


class LocalExecutor(Executor):
    """Up to `n_workers` calls at once, each in a process of its own, made afresh ("spawn") when it is first needed.

    A process that dies fails the one call that it was at, with `WorkerDiedError`, and is replaced for the next. What is
    called, what it is given and what it returns must be of modules that can be imported. The processes end with this
    one, however that ends; Ctrl-C is this one's to handle.

    threads: of the CPU, for each process. gpus: names of CUDA devices (`visible_gpus`), one for each process, in turn.

    >>> with LocalExecutor(1) as executor:
    ...     executor.submit(divmod, 7, 2).result()
    (3, 1)
    """

    def __init__(self, n_workers: int, threads: int = 1, gpus: Sequence[str] = ()) -> None:
        check_positive("n_workers", n_workers)
        check_positive("threads", threads)
        self._threads = ThreadPoolExecutor(n_workers)  # each waits for one process
        self._shared: dict[Shared, Any] = {}
        self._all = [
            _Worker(threads, gpus[number % len(gpus)] if gpus else None, self._shared) for number in range(n_workers)
        ]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)

    def share(self, value: Any) -> "Shared":
        """Stands for a value among the arguments of `submit`; each process is sent it once, not with every call."""
        shared = Shared(len(self._shared))
        self._shared[shared] = value
        return shared

    def submit(self, function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Future[Any]:
        return self._threads.submit(self._call, function, args, keywords)

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        worker = self._idle.get()
        try:
            return worker.call(function, args, keywords)
        finally:
            self._idle.put(worker)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self.kill()

    def kill(self) -> None:
        """Ends all processes at once; the calls under way fail."""
        for worker in self._all:
            worker.kill()

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is not None:  # nobody waits for what is under way
            self._threads.shutdown(False, cancel_futures=True)
            self.kill()
        self.shutdown(True, cancel_futures=kind is not None)


class _Worker:
    """One process, made at the first call and again after it died."""

    def __init__(self, threads: int, gpu: str | None, shared: Mapping[Shared, Any]) -> None:
        self.threads, self.gpu, self.shared = threads, gpu, shared
        self.sent: set[Shared] = set()
        self.lock, self.killed = Lock(), False
        self.process: Any = None
        self.connection: Connection | None = None

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """What the function returns there; raises what it raises, or `WorkerDiedError`."""
        with self.lock:
            if self.killed:
                raise WorkerDiedError(DIED)
            connection = self.connection or self._begin()
        try:
            new = {one: self.shared[one] for one in args if isinstance(one, Shared) and one not in self.sent}
            connection.send((function, args, keywords, new))
            well, answer = connection.recv()
        except (EOFError, ConnectionError) as error:
            self.connection = None
            raise WorkerDiedError(DIED) from error
        if well:
            self.sent.update(new)
            return answer
        raise answer

    def _begin(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.threads, self.gpu), daemon=True)
        try:
            process.start()
            theirs.close()  # so that its death closes the last other end
            if ours.recv() is not READY:
                raise EOFError
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(
                "a new process ended before it could be asked anything: see what it printed. A script that starts"
                ' processes needs `if __name__ == "__main__":` around what it does.'
            ) from error
        finally:
            theirs.close()
        self.process, self.connection = process, ours
        self.sent.clear()
        return ours

    def kill(self) -> None:
        with self.lock:
            self.killed = True
            if self.process is not None:
                self.process.kill()
                self.process.join()


def _serve(connection: Connection, threads: int, gpu: str | None) -> None:
    """In a new process: answers calls until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ[_VISIBLE] = gpu
    keep_freed_memory()
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # of NumPy's and SciPy's libraries
    connection.send(READY)
    shared: dict[Shared, Any] = {}
    with suppress(EOFError, ConnectionError):
        while True:
            connection.send(_answer(connection, shared))


def _answer(connection: Connection, shared: dict[Shared, Any]) -> tuple[bool, Any]:
    """What comes of the next call, or how it failed, as something that can be sent; keeps what comes to be shared."""
    try:
        function, args, keywords, new = connection.recv()
        shared.update(new)
        args = [shared[argument] if isinstance(argument, Shared) else argument for argument in args]
        answer = function(*args, **keywords)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        answer, well = error, False
    else:
        well = True
    try:
        ForkingPickler.dumps(answer)
    except Exception as error:
        return False, RuntimeError(f"an answer cannot be sent: {type(error).__name__}: {error}")
    return well, answer


def _end_with_parent() -> None:
    """Ends this process as soon as the one that made it is gone, so that nobody goes on with what others take up."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
