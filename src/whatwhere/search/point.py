"""One point of a search, fitted by a worker: it reads the recording once, keeps the model, and tells the loss."""

import functools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from whatwhere import formats
from whatwhere.catalogue import load_model, make_model
from whatwhere.cost import Plan
from whatwhere.errors import OptionError
from whatwhere.estimators import CNN, Estimator
from whatwhere.estimators.resume import CHECKPOINTS
from whatwhere.recording import Recording
from whatwhere.schedule import Progress
from whatwhere.search.pruning import Judge


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

    start: the folder of a fitted model whose parameters it starts from. judge: tells when to give up.
    """

    model: str
    values: dict[str, Any]
    preset: str
    common: dict[str, Any]
    folder: str
    start: str | None = None
    judge: Judge | None = None


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
        return Failed(f"{type(error).__name__}: {' '.join(str(error).split())}")


@functools.lru_cache(maxsize=1)
def _read(source: RecordingFile) -> Recording:
    return source.load()


def _fit(source: Source, task: Task) -> Ending:
    recording = _read(source) if isinstance(source, RecordingFile) else source
    model = make_model(task.model, task.values, preset=task.preset, **task.common)
    folder = Path(task.folder)
    watch = _Watch(task.judge)
    try:
        if task.start is not None and isinstance(model, CNN):
            model.fit(recording, folder=folder, resume=True, observer=watch, start=load_model(task.start))
        else:
            model.fit(recording, folder=folder, resume=True, observer=watch)
    except _GivenUpError:
        shutil.rmtree(folder, ignore_errors=True)
        return Pruned(watch.loss, watch.seconds(), watch.steps)
    model.save(folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    if model.stopped_ == "interrupted":
        raise KeyboardInterrupt
    return Fitted(validation_loss(model), watch.seconds(), watch.steps, model.stopped_)


def validation_loss(model: Estimator) -> float:
    """The lowest loss, not penalised, that a fitted model had on its validation images; `OptionError` without one."""
    table = model.candidates_ if isinstance(model, CNN) else model.history_
    if "validation_loss" not in table:
        raise OptionError(f"{model.name} is not judged on validation images: there is nothing to search by.")
    return float(table["validation_loss"].min())


class _GivenUpError(Exception):
    """Raised from within a fit that is given up."""


@dataclass
class _Watch:
    """Follows a fit, and ends it where the judge says so."""

    judge: Judge | None
    loss: float = np.inf
    steps: int = 0
    earlier: float = 0.0
    started: float = field(default_factory=time.monotonic)
    decide: Callable[[int, float], bool] | None = None

    def __call__(self, event: Plan | Progress) -> None:
        if isinstance(event, Plan):
            if self.judge is not None:
                self.decide = self.judge.begin(event.n_candidates)
            return
        self.loss, self.steps = min(self.loss, event.best_loss), event.check.step
        if self.decide is not None and event.check.step and self.decide(event.check.step, event.best_loss):
            raise _GivenUpError

    def seconds(self) -> float:
        return time.monotonic() - self.started
