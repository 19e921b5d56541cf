"""The fits of a comparison, all of them before any is judged; then each one's scores, read where they are kept."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.catalogue import load_model
from whatwhere.comparison.plan import Fit, Plan
from whatwhere.errors import FormatError
from whatwhere.estimators import CNN, Estimator, Observer
from whatwhere.estimators.base import held_out_part
from whatwhere.metrics import SCORES, ScoreTable, score_table
from whatwhere.parallel import helps
from whatwhere.run_data import data_of, keep_data
from whatwhere.runs import METRICS_FILE, NEURONS_FILE, TIMING_FILE, Run, fit_kept, scores_of, track_scores, write_scores
from whatwhere.storage import read_texts, write_text

Observe = Callable[[str], Observer | None]


@dataclass(frozen=True, eq=False)
class Judged:
    """A fit with its scores on the held-out part (None without one), the seconds that it took, and its strengths."""

    fit: Fit
    scores: ScoreTable | None
    seconds: float | None
    strengths: str


def check_fits(plan: Plan) -> None:
    """Raises before long work starts where a model cannot be fitted to the images that it is to get."""
    for fit in plan.fits:
        fit.make().check(fit.recording)


def fit_all(
    plan: Plan, resume: bool, observe: Observe, tensorboard: bool = False
) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Fits what is not fitted yet, in order; returns each fit's notes by its label, and whether Ctrl-C ended it.

    A process that only helps has its part in the fits that are shared. No fit is held in memory after it is kept.
    """
    notes = {}
    for fit in plan.fits:
        model = fit.make()
        if helps() and model.join().size == 1:
            continue
        began = time.perf_counter()
        fitted = fit_kept(
            *(model, fit.recording, fit.folder), resume=resume, observer=observe(fit.label), tensorboard=tensorboard
        )
        notes[fit.label] = tuple(fitted.notes_)
        if fitted is model and not helps():
            _add_seconds(fit.folder, time.perf_counter() - began)
        if fitted.stopped_ == "interrupted":
            return notes, True
    return notes, False


def _add_seconds(folder: Path, seconds: float) -> None:
    """Those of the same fit before Ctrl-C count too; those before a kill are lost."""
    write_text(folder / TIMING_FILE, json.dumps({"seconds": seconds + (read_seconds(folder) or 0.0)}) + "\n")


def read_seconds(folder: Path) -> float | None:
    """How long the fit in a folder took, by the clock; None where that was not kept. Raises `FormatError`."""
    file = folder / TIMING_FILE
    if not file.exists():
        return None
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} cannot be read ({error!r}): delete it; it only says how long a fit took.") from error


def judge(fit: Fit, tensorboard: bool = False) -> Judged:
    """Scores a fit that is kept, and keeps its scores; those that are there already are read."""
    kept = kept_scores(fit.folder)
    model = load_model(fit.folder)
    if kept is None and not (fit.folder / METRICS_FILE).exists():
        kept = scores_of(model, fit.recording)
        keep_data(data_of(model, fit.recording), fit.folder)
        write_scores(model, kept, fit.folder)
        if tensorboard:
            track_scores(kept, fit.folder)
    return Judged(fit, kept, read_seconds(fit.folder), strengths_of(model))


def kept_scores(folder: Path) -> ScoreTable | None:
    """The scores that `write_scores` wrote, to the last digit, without its reasons for those that are absent."""
    if not (folder / METRICS_FILE).exists() or not (folder / NEURONS_FILE).exists():
        return None
    try:
        summary: dict[str, Any] = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        texts = read_texts(folder / NEURONS_FILE)
        columns = {name: [float(text or "nan") for text in texts[name]] for name in SCORES if name in summary}
        return ScoreTable(pd.DataFrame(columns), summary, {})
    except (ValueError, KeyError) as error:
        raise FormatError(f"the scores in {folder} cannot be read ({error}): delete {METRICS_FILE} there.") from error


def run_of(judged: Judged) -> Run:
    """The fit as a run, its model read again."""
    return Run(load_model(judged.fit.folder), judged.scores)


def strengths_of(model: Estimator) -> str:
    """The strengths of the penalties that a fitted model has, in words: "product_l1=0.03"; empty for none."""
    if isinstance(model, CNN):
        strengths = model.model_.options.penalties.single()
        return " ".join(f"{name}={value:g}" for name, value in strengths.items() if value)
    words = []
    for name in getattr(model, "penalties", {}):
        found = np.unique(np.atleast_1d(getattr(model, f"{name}_")))
        if found.any():
            words.append(f"{name}={found[0]:g}" + (f" to {found[-1]:g}" if len(found) > 1 else ""))
    return " ".join(words)


def ensemble(fits: list[Fit]) -> ScoreTable | None:
    """The scores of the mean of the fits' predictions, which must be of one recording; None without a held-out part."""
    recording = fits[0].recording
    if recording.test is None or recording.test.n_images < 2:
        return None
    test = held_out_part(recording)
    images = test.read_images()
    total: Any = 0.0
    for fit in fits:
        model = load_model(fit.folder)
        total = total + model.predict(images).astype(np.float64)
    return score_table(
        total / len(fits), test.responses, test.image_index, rates=test.rates, mean_rate=model.mean_responses_
    )
