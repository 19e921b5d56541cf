"""Models compared on one recording: all fitted under one split, then all judged on its held-out part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.comparison.extrapolation import Outlook, extrapolate
from whatwhere.comparison.fits import Judged, Observe, check_fits, ensemble, fit_all, judge, run_of
from whatwhere.comparison.plan import Plan, make_plan
from whatwhere.comparison.tables import (
    MAIN,
    curve_table,
    differences_table,
    ensemble_name,
    neurons_table,
    results_table,
)
from whatwhere.metrics import ScoreTable
from whatwhere.parallel import helps
from whatwhere.recording import Recording
from whatwhere.runs import DIFFERENCES_FILE, RESULTS_FILE, Run, check_folder, open_folder, write_metrics
from whatwhere.storage import write_text
from whatwhere.tracking import check_tensorboard

_OUTLOOK = ("model", "n_images", "twice", "predicted", "gain", "low", "high", "c", "a", "b")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several models on one recording under one split.

    runs: by model, that of the first seed and of the most images. summaries: every run's scores (of the most images)
    by its folder's name, and every ensemble's, as `metrics.json` holds them; {} where there is no held-out part.
    results, differences, neurons: see `results_table`, `differences_table`, `neurons_table`. curve, outlooks: the
    learning curve and what twice the images would give each model, None and () where no numbers of images were asked
    for. notes: what was worth saying of a fit, by its label. interrupted: Ctrl-C came before all was fitted, and
    nothing was judged.
    """

    runs: dict[str, Run] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: pd.DataFrame = field(default_factory=pd.DataFrame)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    neurons: pd.DataFrame = field(default_factory=pd.DataFrame)
    curve: pd.DataFrame | None = None
    outlooks: tuple[Outlook, ...] = ()
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    interrupted: bool = False


def compare(
    recording: Recording,
    names: Sequence[str],
    folder: str | Path,
    *,
    values: dict[str, Any] | None = None,
    preset: str = "recording",
    seeds: int = 1,
    images: Sequence[int | str] = (),
    overwrite: bool = False,
    resume: bool = False,
    observe: Observe = lambda label: None,
    tensorboard: bool = False,
    **common: Any,
) -> Comparison:
    """Fits each of the named models to the recording's training part, and judges all on its held-out part at the end.

    - names: of `catalogue.MODELS`, or labels of several of one kind, `factorized@deep`; each chooses its strengths on
      the validation part, one for all, drawn with the seed
    - values: options as for `make_model`, by concern for every convolutional model, or under a model's own name for
      that one alone; `validation_fraction`, wherever given, is that of all
    - seeds: how many; networks are fitted with seed, seed + 1, ..., and the mean of their predictions is scored too.
      What a seed changes is the initial values and the batches: split, subsets of images, and neurons stay those of
      the first. Models that draw nothing (ridge, OLS, lasso, GLM) are fitted once
    - images: numbers of images, training and validation together, or "all": each model is fitted to nested subsets
      of so many, judged alike, and its score at twice the most of them predicted where there are three or more. The
      tables other than the curve are of the most
    - observe: from a fit's label to what is told how it goes. tensorboard: whether every run has files for TensorBoard.
      common: seed, device, ..., as for `make_model`

    Kept in `folder`: every run, `<model>/`, `<model>/seed-1/`, `images-500/<model>/`; `results.csv`,
    `differences.csv`, `neurons.csv`, `metrics.json`, and of a curve `curve.csv` and `extrapolation.csv`. Resumed, what
    is done is read, also where more models, seeds or numbers of images are asked for than before. Raises
    `OptionError`, `InputError` and `RunError` before anything is fitted.
    """
    folder = Path(folder)
    plan = make_plan(
        *(recording, names, folder), values=values or {}, preset=preset, seeds=seeds, images=images, common=common
    )

    def begin() -> None:
        check_folder(folder, overwrite=overwrite, resume=resume, writes=RESULTS_FILE)
        if tensorboard:
            check_tensorboard()
        check_fits(plan)
        open_folder(folder, overwrite=overwrite, resume=resume)

    joined = (plan.of(name)[0].make().join() for name in plan.names)
    max(joined, key=lambda processes: processes.size).from_first(begin)
    notes, interrupted = fit_all(plan, resume, observe, tensorboard)
    if interrupted or helps():
        return Comparison(notes=notes, interrupted=interrupted)
    comparison = judged(plan, notes, tensorboard)
    write_tables(comparison, folder)
    return comparison


def judged(plan: Plan, notes: dict[str, tuple[str, ...]], tensorboard: bool = False) -> Comparison:
    """The comparison of a plan whose fits are all kept."""
    everything = [judge(fit, tensorboard) for fit in plan.fits]
    most = plan.sizes[-1]
    models = {
        name: [run for run in everything if run.fit.name == name and run.fit.recording.n_images == most]
        for name in plan.names
    }
    several = {name: ensemble(plan.of(name)) for name, runs in models.items() if len(runs) > 1}
    ensembles = {name: scores for name, scores in several.items() if scores is not None}
    neurons = [str(neuron) for neuron in plan.fits[0].recording.neurons.index]
    return Comparison(
        runs={name: run_of(runs[0]) for name, runs in models.items()},
        summaries=_summaries(models, ensembles),
        results=results_table(models, ensembles),
        differences=differences_table(models),
        neurons=neurons_table(models, ensembles, neurons),
        curve=curve_table(everything) if plan.is_curve else None,
        outlooks=tuple(_outlook(name, plan, everything) for name in plan.names) if plan.is_curve else (),
        notes=notes,
    )


def _summaries(models: dict[str, list[Judged]], ensembles: dict[str, ScoreTable]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, runs in models.items():
        for number, run in enumerate(runs):
            key = name if number == 0 else f"{name}/seed-{run.fit.seed}"
            found[key] = {} if run.scores is None else run.scores.summary
        if name in ensembles:
            found[ensemble_name(name)] = ensembles[name].summary
    return found


def _outlook(name: str, plan: Plan, everything: Sequence[Judged]) -> Outlook:
    """Of one model's main scores, (n_seeds, n_numbers, n_neurons)."""
    runs = {(run.fit.recording.n_images, run.fit.seed): run for run in everything if run.fit.name == name}
    seeds = sorted({seed for _, seed in runs})
    scores = [[_main(runs[size, seed]) for size in plan.sizes] for seed in seeds]
    return extrapolate(name, plan.sizes, scores)


def _main(run: Judged) -> np.ndarray:
    assert run.scores is not None  # or no curve would have been planned
    return run.scores.neurons[MAIN].to_numpy()


def write_tables(comparison: Comparison, folder: Path) -> None:
    """The comparison's tables, and last its `metrics.json`, which says that it has ended."""
    tables = {RESULTS_FILE: comparison.results, "neurons.csv": comparison.neurons}
    tables[DIFFERENCES_FILE] = comparison.differences
    if comparison.curve is not None:
        tables["curve.csv"] = comparison.curve
        tables["extrapolation.csv"] = outlook_table(comparison.outlooks)
    for name, table in tables.items():
        write_text(folder / name, table.to_csv(index=False))
    write_metrics(comparison.summaries, folder)


def outlook_table(outlooks: Sequence[Outlook]) -> pd.DataFrame:
    """One row a model: what twice the images would give, the power law, and the same in words."""
    rows = [{**{name: getattr(outlook, name) for name in _OUTLOOK}, "words": outlook.words()} for outlook in outlooks]
    return pd.DataFrame(rows, columns=[*_OUTLOOK, "words"])
