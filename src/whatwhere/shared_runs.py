"""A run of several recordings that share a core: a folder with an ordinary run for each, and scores over all."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from whatwhere.catalogue import load_model, load_shared
from whatwhere.errors import FormatError, InputError, OptionError, RunError
from whatwhere.estimators import CNN, Observer, SharedCoreCNN
from whatwhere.estimators.resume import CHECKPOINTS, check_same_fit
from whatwhere.estimators.shared_folder import named_in, write_names
from whatwhere.metrics import ScoreTable, pooled_table
from whatwhere.recording import Recording
from whatwhere.run_data import data_of, keep_data
from whatwhere.runs import (
    CANDIDATES_FILE,
    METRICS_FILE,
    NEURONS_FILE,
    check_folder,
    forget_studies,
    neuron_table,
    open_folder,
    remove_checkpoints,
    track_scores,
    watched,
    write_metrics,
    write_run,
)
from whatwhere.storage import CONFIG_FILE, HISTORY_FILE, SHARED_FILE, write_text
from whatwhere.tracking import check_tensorboard


@dataclass(frozen=True)
class SharedRun:
    """Fitted models with their scores on the held-out parts, by recording, and over all neurons (None without any)."""

    model: SharedCoreCNN
    scores: dict[str, ScoreTable]
    pooled: ScoreTable | None


def fit_shared_run(
    model: SharedCoreCNN,
    recordings: Mapping[str, Recording],
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
    tensorboard: bool = False,
) -> SharedRun:
    """As `runs.fit_run`, of several recordings by name: each has its run in a folder of its name within `folder`.

    `metrics.json` and `scores.csv` of `folder` itself are over the neurons of all.
    """
    check_folder(folder, overwrite=overwrite, resume=resume)
    if tensorboard:
        check_tensorboard()
    model.check(recordings)
    open_folder(folder, overwrite=overwrite, resume=resume)
    if resume and (folder / METRICS_FILE).exists() and not (folder / CHECKPOINTS).exists():
        return _read(model, recordings, folder)
    _note_names(folder, list(recordings))
    for key in recordings:
        forget_studies(folder / key)
    with watched(model.template(), folder, observer, tensorboard) as told:
        model.fit(recordings, folder=folder, resume=resume, observer=told)
    model.save(folder)  # before the scores: what was fitted is kept, whatever they meet
    run = _scored(model, recordings)
    if tensorboard:
        track_scores(run.pooled, folder)
    for key, recording in recordings.items():
        keep_data(data_of(model[key], recording), folder / key)
    _write(run, folder)
    if model.stopped_ != "interrupted":
        remove_checkpoints(folder)
    return run


def _note_names(folder: Path, names: list[str]) -> None:
    """Writes the names of the recordings; raises `RunError` where the fit that goes on there was begun with others."""
    begun = names
    with suppress(FormatError):  # there is none yet, or it is damaged
        begun = named_in(folder)
    if begun != names:
        raise RunError(
            f"{folder} holds a fit that was begun with the recordings {', '.join(begun)}, now {', '.join(names)}:"
            " resume it with the same names in the same order, or choose another folder."
        )
    write_names(folder, names)


def _read(asked: SharedCoreCNN, recordings: Mapping[str, Recording], folder: Path) -> SharedRun:
    """A run that had ended; raises `RunError` where it was of other options, data or seed."""
    found = load_shared(folder)
    begun = next(iter(found.models_.values())).asked()
    check_same_fit(folder, begun, asked.asked(recordings))
    return _scored(found, recordings)


def _scored(model: SharedCoreCNN, recordings: Mapping[str, Recording]) -> SharedRun:
    tables, pooled = model.tables(recordings), None
    with suppress(InputError):  # none has a held-out part
        pooled = pooled_table(tables)
    return SharedRun(model, tables, pooled)


def _write(run: SharedRun, folder: Path) -> None:
    """Each recording's run, then what is of all; `metrics.json` last: it says that the run has ended."""
    model = run.model
    for key, one in model.models_.items():
        write_run(one, run.scores.get(key), folder / key)
    asked = next(iter(model.models_.values())).asked()  # the same of each
    write_text(folder / CONFIG_FILE, yaml.safe_dump(asked, sort_keys=False, default_flow_style=None, width=110))
    write_text(folder / HISTORY_FILE, model.history_.to_csv(index=False))
    write_text(folder / CANDIDATES_FILE, model.candidates_.to_csv(index=False))
    if run.pooled is not None:
        tables = [neuron_table(model[key], table).assign(recording=key) for key, table in run.scores.items()]
        table = pd.concat(tables, ignore_index=True)
        table.insert(0, "recording", table.pop("recording"))
        write_text(folder / NEURONS_FILE, table.to_csv(index=False))
    write_metrics({} if run.pooled is None else run.pooled.summary, folder)


def model_with_core(path: Path) -> CNN:
    """The model whose core a transfer takes: that in a run's folder, or of several that share theirs the first.

    Raises `FormatError` as `load_model`, `OptionError` for a model that has no core.
    """
    if (path / SHARED_FILE).exists():
        return next(iter(load_shared(path).models_.values()))
    found = load_model(path)
    if not isinstance(found, CNN):
        raise OptionError(f"{path} holds a {found.name} model, which has no core: name the run of a convolutional one.")
    return found
