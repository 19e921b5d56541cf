"""What the command line shows: plans, progress, tables, notes and errors."""

import json
import math
import sys
import time
from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.table import Column, Table

from whatwhere.comparison import Comparison
from whatwhere.cost import Plan
from whatwhere.estimators import Observer
from whatwhere.export import Exported
from whatwhere.metrics import ScoreTable
from whatwhere.schedule import Progress

_WIDE = 160  # columns of a table in a file or pipe, where nothing else says how wide a line may be
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_SHOWN = {
    "fev": "FEV",
    "correlation": "correlation",
    "single_trial_correlation": "single trial",
    "feve": "FEVE",
    "normalized_correlation": "CC norm",
    "log_likelihood_bits_per_spike": "bits/spike",
}
SECONDS_BETWEEN_LINES = 20.0
LINE_BEFORE = Control((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
NO_SCORES = "the recording has no held-out part of two images or more: no scores."


def hush() -> None:
    """From here on nothing is shown: of several processes one speaks."""
    out.quiet = err.quiet = True


def duration(seconds: float) -> str:
    """Seconds as a reader wants them.

    >>> duration(42), duration(130), duration(7300)
    ('42 s', '2 min 10 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """Bytes as a reader wants them.

    >>> size(3_500_000)
    '3.3 MiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024 or unit == "GiB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    raise AssertionError


def observer(model: str, told: set[str] | None = None) -> Observer:
    """Prints the plan, then a line of progress: all of them in place on a terminal, few and lasting ones elsewhere.

    told: notes that were shown already; those shown here are added.
    """
    last = [-math.inf]
    in_place = [False]

    def observe(event: Plan | Progress) -> None:
        if isinstance(event, Plan):
            show_plan(model, event)
            show_new_notes(event.notes, told if told is not None else set())
            return
        ended = event.seconds_left == 0 and event.check.step > 0
        if not out.is_terminal and not ended and time.monotonic() - last[0] < SECONDS_BETWEEN_LINES:
            return
        last[0] = time.monotonic()
        if in_place[0]:
            out.control(LINE_BEFORE)
        in_place[0] = out.is_terminal and not ended
        if out.is_terminal:  # what comes next, an error too, begins on a line of its own
            out.print(_progress_line(model, event), soft_wrap=False, no_wrap=True, overflow="ellipsis", crop=True)
        else:
            out.print(_progress_line(model, event))

    return observe


def _progress_line(model: str, event: Progress) -> str:
    check = event.check
    where = f"  {model} [{event.candidate + 1}] step {check.step:,}"
    validation = f"validation {check.validation_loss:.4f} (best {event.best_loss:.4f} at {event.best_step:,})"
    if check.step == 0:
        return f"{where}  {validation}"
    left = "done" if event.seconds_left == 0 else f"at least {duration(event.seconds_left)} left"
    return f"{where}  {left}  loss {check.training_loss:.4f}  {validation}  rate {check.learning_rate:.1e}"


def show_plan(model: str, plan: Plan) -> None:
    """What a fit will need."""
    candidates = f", {plan.n_candidates} strengths" if plan.n_candidates > 1 else ""
    shared = f" in {plan.n_processes} processes" if plan.n_processes > 1 else ""
    step = f" {plan.seconds_per_step * 1000:.0f} ms a step," if plan.seconds_per_step else ""
    out.print(
        f"[bold]{model}[/]{shared}: {plan.n_images:,} images to fit, {plan.n_validation:,} to validate,"
        f" {plan.n_parameters:,} parameters{candidates}; about {size(plan.memory)} of memory,{step}"
        f" {duration(plan.least_seconds)} at the least, {duration(plan.most_seconds)} at the most."
    )


def show_new_notes(notes: Iterable[str], told: set[str]) -> None:
    """Those of the notes that were not told yet, which they then are."""
    new = [note for note in notes if note not in told]
    told.update(new)
    show_notes(new)


def show_notes(notes: Iterable[str]) -> None:
    """What a reader or a check found worth saying."""
    for note in notes:
        out.print(f"  note: {note}", markup=False)


def interval(entry: dict[str, Any], suffix: str = "") -> str:
    """A mean with its interval."""
    mean, low, high = entry["mean"], entry[f"low{suffix}"], entry[f"high{suffix}"]
    if mean is None:
        return "none"
    return f"{mean:.3f}" if low is None else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def show_scores(scores: ScoreTable | None) -> None:
    """Every score of one model with its intervals, and why others are missing."""
    if scores is None:
        out.print(NO_SCORES)
        return
    table = Table(
        Column("score", no_wrap=True),
        "mean [95 % over neurons]",
        "95 % over test images",
        "neurons",
        "left out",
        box=None,
    )
    for name, entry in scores.summary.items():
        images = "" if entry["low_images"] is None else f"[{entry['low_images']:.3f}, {entry['high_images']:.3f}]"
        table.add_row(name, interval(entry), images, str(entry["n_neurons"]), str(entry["n_left_out"]))
    out.print(table, markup=False)
    for name, reason in scores.absent.items():
        out.print(f"  no {name}: {reason}", markup=False)


def show_comparison(comparison: Comparison) -> None:
    """One row a model with its main scores, then the first model's paired differences, and what more images give."""
    summaries = {name: summary for name, summary in comparison.summaries.items() if summary}
    if not summaries:
        out.print(NO_SCORES)
        return
    _show_results(comparison.results)
    images = Table(
        Column("model", no_wrap=True), "correlation", title="mean [95 % interval over test images]", box=None
    )
    for model, summary in summaries.items():
        images.add_row(model, interval(summary["correlation"], "_images") if "correlation" in summary else "")
    out.print(images)
    _show_differences(comparison.differences)
    for outlook in comparison.outlooks:
        out.print(outlook.words(), markup=False)


def _show_results(results: pd.DataFrame) -> None:
    """Each row's scores with their intervals over neurons; over several seeds also how they spread."""
    columns = {name: "score" if name == "correlation" else name for name in _SHOWN}
    shown = {name: column for name, column in columns.items() if column in results and results[column].notna().any()}
    spreads = bool(results["seed_sd"].notna().any())
    table = Table(
        Column("model", no_wrap=True),
        *(_SHOWN[name] for name in shown),
        *["seeds", "sd over seeds"] * spreads,
        title="mean [95 % interval over neurons]",
        box=None,
    )
    for _, row in results.iterrows():
        cells = [interval(_entry(row, column)) if row[column] == row[column] else "" for column in shown.values()]
        sd = "" if row["seed_sd"] != row["seed_sd"] else f"{row['seed_sd']:.3f}"
        table.add_row(row["model"], *cells, *[str(row["seeds"]), sd] * spreads)
    out.print(table)


def _entry(row: Any, column: str) -> dict[str, Any]:
    """A score of a row of the results as `interval` takes it."""
    prefix = "" if column == "score" else f"{column}_"
    return {"mean": row[column], "low": row[f"{prefix}low"], "high": row[f"{prefix}high"]}


def _show_differences(differences: pd.DataFrame) -> None:
    """The first model's; with more than one pair also p corrected for all pairs."""
    first = differences[differences["model"] == differences["model"].iloc[0]] if len(differences) else differences
    for row in first.to_dict("records"):
        corrected = f"; {row['p_holm']:.2g} for {len(differences)} pairs, Holm" if len(differences) > 1 else ""
        out.print(
            f"{row['model']} - {row['minus']}: {row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] in"
            f" {row['score']}, paired over {row['n']} neurons (Wilcoxon p = {row['p_value']:.2g}{corrected})",
            markup=False,
        )


def show_exported(exported: Exported) -> None:
    """Where a model was written, and how well that was checked."""
    out.print(f"{exported.path}: {size(exported.n_bytes)}", markup=False)
    if exported.difference is None:
        show_notes(["onnxruntime is not installed: its predictions were not compared with the model's"])
    else:
        out.print(
            f"  it predicts what the model does: within {exported.difference:.1e} of each neuron's largest response"
        )


def show_plain(values: dict[str, Any]) -> None:
    """Names and values, one a line."""
    for name, value in values.items():
        out.print(f"  {name}: {value if isinstance(value, str) else json.dumps(value, default=str)}", markup=False)
