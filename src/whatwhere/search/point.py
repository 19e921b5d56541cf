"""One point of a search, fitted by a worker: it reads the recording once, keeps the model, and tells the loss."""

import functools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from whatwhere import formats
from whatwhere.catalogue import load_model, make_model
from whatwhere.cost import Plan
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN
from whatwhere.recording import Recording
from whatwhere.runs import fit_kept
from whatwhere.schedule import Progress
from whatwhere.search.folder_lock import alone_in, empty
from whatwhere.search.pruning import Judge
from whatwhere.workers import failure_text


@dataclass(frozen=True)
class RecordingFile:
    """A recording by where it lies, so that each worker reads it by itself; `neurons` drawn of it with the seed."""

    path: str
    format: str | None = None
    nonfinite: str = "error"
    neurons: int | None = None
    seed: int = 0

    def load(self) -> Recording:
        """The recording; see `formats.load`."""
        recording = formats.load(self.path, self.format, nonfinite=self.nonfinite)
        return recording if self.neurons is None else recording.select_neurons(self.neurons, seed=self.seed)


Source: TypeAlias = RecordingFile | Recording


@dataclass(frozen=True)
class Task:
    """A point to fit: the model's name, its options, those common to all models, and the folder of its run.

    start: the folder of a fitted model whose parameters it starts from. judge: tells when to give up. data, version:
    the recording's fingerprint, and whatwhere's version, where the search was begun: a worker's must be the same.
    """

    model: str
    values: dict[str, Any]
    preset: str
    common: dict[str, Any]
    folder: str
    data: str
    start: str | None = None
    judge: Judge | None = None
    version: str = field(default_factory=lambda: version("whatwhere"))


@dataclass(frozen=True)
class Fitted:
    """How the fit of a point ended: the lowest validation loss, not penalised, and what it took."""

    loss: float
    seconds: float
    steps: int
    stopped: str


@dataclass(frozen=True)
class Pruned:
    """A point that was given up: its best validation loss until then."""

    loss: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class Failed:
    """Why a point has no loss."""

    reason: str


Ending: TypeAlias = Fitted | Pruned | Failed


def fit_point(source: Source, task: Task) -> Ending:
    """Fits a point and keeps its model; what goes wrong is returned, not raised, so that no scheduler tries it again.

    A point that was begun before goes on from its checkpoints, or is only read again where it had ended.
    """
    try:
        return _fit(source, task)
    except Exception as error:
        return Failed(failure_text(error))


@functools.lru_cache(maxsize=1)
def _read(source: RecordingFile, data: str) -> Recording:
    """The recording, once for a process; raises `InputError` where it is not that of the fingerprint any more."""
    recording = source.load()
    if recording.fingerprint() != data:
        raise InputError(f"{source.path} does not hold what it held when the search was begun: begin it anew.")
    return recording


def _fit(source: Source, task: Task) -> Ending:
    if task.version != version("whatwhere"):
        raise OptionError(f"this worker has whatwhere {version('whatwhere')}, the search {task.version}.")
    recording = _read(source, task.data) if isinstance(source, RecordingFile) else source
    model = make_model(task.model, task.values, preset=task.preset, **task.common)
    most_steps = model.options().training.max_steps if isinstance(model, CNN) else 0
    watch, folder = _Watch(task.judge, most_steps), Path(task.folder)
    start = None if task.start is None else load_model(task.start)
    fitted = None
    with alone_in(folder):
        try:
            fitted = fit_kept(model, recording, folder, resume=True, observer=watch, start=start)
        except _GivenUpError:
            empty(folder)
    if fitted is None:
        with suppress(OSError):  # another process has begun with it again
            folder.rmdir()
        return Pruned(watch.loss, watch.seconds(), watch.steps)
    if fitted.stopped_ == "interrupted":
        raise KeyboardInterrupt
    history = fitted.history_
    seconds, steps = watch.seconds(), int(history["step"].max()) if "step" in history else 0
    if fitted is not model and "seconds" in history:  # it had ended, and nobody was told
        seconds = float(history["seconds"].max())
    return Fitted(float(history["validation_loss"].min()), seconds, steps, fitted.stopped_)


class _GivenUpError(Exception):
    """Raised from within a fit that is given up."""


@dataclass
class _Watch:
    """Follows a fit, and ends it where the judge says so."""

    judge: Judge | None
    most_steps: int
    loss: float = np.inf
    steps: int = 0
    started: float = field(default_factory=time.monotonic)
    decide: Callable[[int, float], bool] | None = None

    def __call__(self, event: Plan | Progress) -> None:
        if isinstance(event, Plan):
            if self.judge is not None:
                self.decide = self.judge.begin(event.n_candidates, self.most_steps)
            return
        self.loss, self.steps = min(self.loss, event.best_loss), event.check.step
        if self.decide is not None and event.check.step and self.decide(event.check.step, event.best_loss):
            raise _GivenUpError

    def seconds(self) -> float:
        return time.monotonic() - self.started
