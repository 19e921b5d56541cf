"""What shows a fit while it goes on: its growing `history.csv`, and files for TensorBoard. Both are observers."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from whatwhere.config import PenaltyOptions
from whatwhere.cost import Plan
from whatwhere.errors import OptionError, WriteError
from whatwhere.estimators import CNN, Estimator, Observer
from whatwhere.estimators.base import history_table
from whatwhere.files import append_text
from whatwhere.metrics import ScoreTable
from whatwhere.schedule import Progress
from whatwhere.storage import write_text

TENSORBOARD = "tensorboard"
"""The folder in a run's folder that TensorBoard reads."""
_EVENTS = "events.out.tfevents.*"


def together(*observers: Observer | None) -> Observer:
    """One observer that tells all of them, in this order; None is left out."""

    def observe(event: Plan | Progress) -> None:
        for observer in observers:
            if observer is not None:
                observer(event)

    return observe


class HistoryFile:
    """Keeps a fit's history as CSV while it grows, a row for each look at the validation loss, added at once.

    candidate, step, learning_rate, training_loss, validation_loss, seconds: as `Estimator.save` writes it at the end.
    Of an earlier fit that is gone on with, the rows before the first one told are kept, so that none is there twice.
    Raises `WriteError` where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.begun = False

    def __call__(self, event: Plan | Progress) -> None:
        if isinstance(event, Plan):
            return
        header, row = history_table([event.check], event.candidate).to_csv(index=False).splitlines()
        if not self.begun:
            kept = self._rows_before((event.candidate, event.check.step), header)
            write_text(self.path, "".join(f"{line}\n" for line in [header, *kept]))
            self.begun = True
        append_text(self.path, f"{row}\n")

    def _rows_before(self, first: tuple[int, int], header: str) -> list[str]:
        """Whole rows of an earlier fit, as they stand."""
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what does not end is no row
        except (OSError, UnicodeDecodeError):
            return []
        if not lines or lines[0] != header:
            return []
        return [line for line in lines[1:] if (key := _key(line)) is not None and key < first]


def _key(row: str) -> tuple[int, int] | None:
    """Candidate and step of a row; None where it holds none."""
    candidate, _, rest = row.partition(",")
    try:
        return int(candidate), int(rest.partition(",")[0])
    except ValueError:
        return None


def candidate_names(model: Estimator) -> list[str]:
    """What tells the fits of a model's candidate strengths apart.

    >>> from whatwhere.estimators import FactorizedCNN
    >>> candidate_names(FactorizedCNN(penalties={"product_l1": (0.01, 0.1)}))
    ['candidate-0,product_l1=0.01', 'candidate-1,product_l1=0.1']
    """
    if not isinstance(model, CNN):
        return []
    penalties: PenaltyOptions = model.options().penalties
    varied = [option.name for option in fields(penalties) if isinstance(getattr(penalties, option.name), tuple)]
    return [
        ",".join([f"candidate-{number}", *(f"{name}={getattr(one, name):g}" for name in varied)])
        for number, one in enumerate(penalties.candidates())
    ]


class TensorBoard:
    """Writes a fit's course for TensorBoard: `tensorboard --logdir FOLDER` shows it while it goes on.

    - in `folder`: the plan, a text; in `folder/scores`, after `scores`: each one's mean over neurons, `score/...`
    - in a folder for each candidate strength, by step: `loss/training`, `loss/validation`, `learning_rate`

    candidates: their names (`candidate_names`). A fit that is gone on with goes on in the same folders: of the points
    that are there, those before its first look stay, so that each is there once. `close` it at the end.
    Raises `OptionError` where tensorboard is not installed, `WriteError` where the folder cannot be written.

    >>> model.fit(recording, observer=TensorBoard("board"))  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path, candidates: Sequence[str] = ()) -> None:
        check_tensorboard()
        self.folder, self.candidates = Path(folder), tuple(candidates)
        self._writer: Any = None
        self._place: Path | None = None
        self._opened: set[Path] = set()

    def __call__(self, event: Plan | Progress) -> None:
        if isinstance(event, Plan):
            self._write(self.folder, 0, lambda writer: writer.add_text("plan", plan_text(event), 0))
            return
        check, number = event.check, event.candidate
        values = {
            "loss/training": check.training_loss,
            "loss/validation": check.validation_loss,
            "learning_rate": check.learning_rate,
        }
        name = self.candidates[number] if number < len(self.candidates) else f"candidate-{number}"
        self._write(self.folder / name, check.step, lambda writer: _add(writer, values, check.step))

    def scores(self, scores: ScoreTable | None) -> None:
        """Adds each score's mean over neurons."""
        if scores is not None:
            means = {f"score/{name}": entry["mean"] for name, entry in scores.summary.items()}
            self._write(self.folder / "scores", 0, lambda writer: _add(writer, means, 0))

    def close(self) -> None:
        """Ends the file that is being written."""
        writer, self._writer, self._place = self._writer, None, None
        if writer is not None:
            writer.close()

    def _write(self, place: Path, step: int, write: Callable[[Any], None]) -> None:
        """Into the folder `place`; points that an earlier process wrote there of this step and later ones go."""
        try:
            if self._place != place:
                self.close()
                self._open(place, step)
            write(self._writer)
            self._writer.flush()
        except OSError as error:
            raise WriteError(
                f"{place} could not be written ({error.strerror or error}): make room, or go on without tensorboard."
            ) from error

    def _open(self, place: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        earlier = [] if place in self._opened else [*place.glob(_EVENTS)]
        points = _points_before(place, step) if earlier else []
        self._writer, self._place = SummaryWriter(str(place)), place
        self._opened.add(place)
        for tag, point in points:
            self._writer.add_scalar(tag, point.value, point.step, walltime=point.wall_time)
        self._writer.flush()
        for path in earlier:  # what they hold is written: readers would otherwise see some points twice
            path.unlink(missing_ok=True)


def _points_before(place: Path, step: int) -> list[tuple[str, Any]]:
    """Tags and points of earlier processes' files that are of smaller steps, each once, in their order."""
    from tensorboard.backend.event_processing import event_accumulator

    found = event_accumulator.EventAccumulator(str(place), size_guidance={event_accumulator.SCALARS: 0})  # 0: all
    found.Reload()
    points = {(point.step, tag): point for tag in found.Tags()["scalars"] for point in found.Scalars(tag)}
    return [(tag, points[number, tag]) for number, tag in sorted(points) if number < step]


def _add(writer: Any, values: Mapping[str, float | None], step: int) -> None:
    for tag, value in values.items():
        if value is not None and math.isfinite(value):  # there is no training loss before the first step
            writer.add_scalar(tag, value, step)


def check_tensorboard() -> None:
    """Raises `OptionError` where tensorboard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise OptionError(
            f'files for TensorBoard need tensorboard, which is not installed ({error}): pip install "whatwhere'
            '[tensorboard]", or fit without.'
        ) from None


def remove_events(folder: Path) -> None:
    """Removes what `TensorBoard` wrote, and the folders that are then empty; nothing else."""
    for path in [*folder.rglob(_EVENTS)]:
        path.unlink(missing_ok=True)
    for path in [*sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True), folder]:
        with suppress(OSError):  # it holds something else, or is not there
            path.rmdir()


def plan_text(plan: Plan) -> str:
    """What a fit will need, a table in Markdown."""
    rows = {
        "images to fit": f"{plan.n_images:,}",
        "images to validate": f"{plan.n_validation:,}",
        "parameters": f"{plan.n_parameters:,}",
        "strengths": f"{plan.n_candidates:,}",
        "processes": f"{plan.n_processes:,}",
        "memory": f"{plan.memory / 2**20:,.1f} MiB",
        "a step": f"{plan.seconds_per_step * 1000:.3g} ms",
        "at the least": f"{plan.least_seconds:,.0f} s",
        "at the most": f"{plan.most_seconds:,.0f} s",
    }
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join([*table, "", *(f"- {note}" for note in plan.notes)])
