"""From fitted models, or the folders of runs, to what a report shows of them."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from whatwhere.catalogue import load_model
from whatwhere.checks import some_of
from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.estimators import Estimator
from whatwhere.exploration.attention import attention
from whatwhere.exploration.commands import command_of, said_of_command
from whatwhere.exploration.explored import Cropped, Difference, Explored, ExploredRun
from whatwhere.exploration.extras import Extras, read_extras
from whatwhere.exploration.folders import check_runs, needs_recording
from whatwhere.exploration.pairing import check_one_recording
from whatwhere.exploration.parts import (
    feature_parts,
    filters_of,
    linear_fields_of,
    locations_of,
    where_parts,
    why_no_fields,
)
from whatwhere.metrics import SCORES, interval_over_neurons
from whatwhere.recording import Recording
from whatwhere.run_data import MOST_COLUMNS, RunData, data_of, read_data
from whatwhere.runs import METRICS_FILE, NEURONS_FILE, neuron_table, scores_of
from whatwhere.storage import read_texts

_RESAMPLES = 500  # of intervals that a run does not keep


def explore_runs(folders: Sequence[str | Path], recording: Recording | None = None) -> Explored:
    """What is shown of the runs in these folders, each by the name of its folder.

    recording: for runs that lack what is known of it (they were not fitted by `whatwhere fit`), or scores; another one
    than was fitted is said to be. Raises `RunError` for a folder that holds no run, `FormatError` for one that is
    damaged, `OptionError` for a recording that no run needs, `InputError` for one that lacks neurons, and for runs
    of different recordings.
    """
    paths = check_runs(folders, recording is not None)
    names = _distinct([path.resolve().name for path in paths])
    return _explored([_of_folder(name, path, recording) for name, path in zip(names, paths, strict=True)])


def explore_models(models: Mapping[str, Estimator], recording: Recording) -> Explored:
    """What is shown of fitted models, by name, and the recording that they were fitted to.

    Another one is shown, too, and said to be: it is read whole.
    """
    if not models:
        raise OptionError("no model was given: expected at least one.")
    for model in models.values():
        model.check_fitted()
    runs = []
    for name, model in models.items():
        scores = scores_of(model, recording)
        table = None if scores is None else neuron_table(model, scores)
        summary = {} if scores is None else scores.summary
        told = (model.doubt(recording),)
        runs.append(_run(name, model, table, summary, data_of(model, recording), Extras(), name, told))
    return _explored(runs)


def _distinct(names: list[str]) -> list[str]:
    """The names, those that come again with the first number that is free.

    >>> _distinct(["run", "run", "other", "run (2)"])
    ['run', 'run (3)', 'other', 'run (2)']
    """
    taken = set(names)
    found: list[str] = []
    for name in names:
        if name in found:
            name = next(free for number in count(2) if (free := f"{name} ({number})") not in taken)
            taken.add(name)
        found.append(name)
    return found


def _of_folder(name: str, folder: Path, recording: Recording | None) -> ExploredRun:
    model = load_model(folder)
    data = read_data(folder, model.shapes_.n_neurons)
    table, summary = _kept_scores(folder, model)
    told: tuple[str, ...] = ()
    if recording is not None and needs_recording(folder):
        told = (model.doubt(recording),)
        data = data or data_of(model, recording)
        if table is None and (scores := scores_of(model, recording)) is not None:
            table, summary = neuron_table(model, scores), scores.summary
    return _run(name, model, table, summary, data, read_extras(folder, model), str(folder), told)


def _kept_scores(folder: Path, model: Estimator) -> tuple[pd.DataFrame | None, dict[str, Any]]:
    """`scores.csv` and `metrics.json`, which a fit without a test set lacks or leaves empty."""
    if not (folder / NEURONS_FILE).exists():
        return None, {}
    try:
        table = read_texts(folder / NEURONS_FILE)
        for name in table.columns.drop("neuron"):
            table[name] = _as_numbers(table[name])
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
        identifiers = list(table["neuron"])
    except (ValueError, KeyError, OSError) as error:
        raise FormatError(
            f"the scores in {folder} cannot be read ({error}): write them again with `whatwhere evaluate`."
        ) from None
    if identifiers != model.neurons_:
        raise FormatError(f"{folder / NEURONS_FILE} is of other neurons than the model: write it again.")
    kept = {score: entry for score, entry in metrics.items() if score in SCORES and isinstance(entry, dict)}
    return table, {score: kept.get(score) or _summary(table[score]) for score in SCORES if score in table}


def _as_numbers(texts: pd.Series) -> np.ndarray:
    """A column of a CSV file: True and False as they are, all else as numbers, NaN where it is empty."""
    if texts.isin(["True", "False"]).all():
        return texts.to_numpy() == "True"
    return np.array([float(text or "nan") for text in texts])


def _summary(values: Any) -> dict[str, Any]:
    found = interval_over_neurons(np.asarray(values, float), n_resamples=_RESAMPLES)
    numbers = {"mean": found.mean, "low": found.low, "high": found.high}
    plain = {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
    return {**plain, "n_neurons": found.n, "n_left_out": found.n_left_out}


def _run(
    name: str,
    model: Estimator,
    table: pd.DataFrame | None,
    summary: dict[str, Any],
    data: RunData | None,
    extras: Extras,
    folder: str,
    told: tuple[str, ...] = (),
) -> ExploredRun:
    data = data or RunData({}, None)
    shapes = model.shapes_
    locations = locations_of(model)
    masks, posterior = where_parts(model)
    weights, kernels, same = feature_parts(model)
    field, field_name = filters_of(model), "filter"
    if field is None:
        field, field_name = _linearised(model, extras.fields), "linearised field"
    scores = None if table is None else _scores_of(table)
    command = data.facts.get("command", "")
    return ExploredRun(
        name=name,
        model=model.name,
        neurons=tuple(model.neurons_),
        image_shape=(shapes.n_channels, shapes.height, shapes.width),
        locations=locations,
        masks=masks,
        posterior=posterior,
        feature_weights=weights,
        kernels=kernels,
        kernels_are_features=same,
        field=field,
        field_name=field_name,
        exciting=extras.exciting,
        scores=scores,
        summary={score: summary[score] for score in SCORES if score in summary},
        types=extras.types,
        metadata=pd.DataFrame(data.facts.get("neurons", {}), index=range(shapes.n_neurons)),
        held=data.held,
        history=model.history_,
        facts=data.facts,
        attention=(
            *(f"{sentence}." for sentence in told if sentence),
            *attention(data.facts, model.stopped_, model.neurons_, scores, locations),
        ),
        absent=_absent(model, data, scores, masks, field),
        settings=yaml.safe_dump(model.description(), sort_keys=False, default_flow_style=None, width=100),
        seed=int(model.asked()["seed"]),
        stopped=model.stopped_,
        command=command or command_of(model, folder),
        command_is_exact=bool(command),
        command_note="" if command else said_of_command(model),
        fingerprint=model.fingerprint_,
    )


def _linearised(model: Estimator, written: Cropped | None) -> Cropped | None:
    """Fields of all neurons, those written before those found here; else those of some."""
    if written is not None and written.made is None:
        return written
    return linear_fields_of(model) or written


def _scores_of(table: pd.DataFrame) -> pd.DataFrame:
    """The scores, and which predictions and responses are constant, without identifiers and places."""
    return table[[name for name in map(str, table.columns) if name in SCORES or name.startswith("constant_")]]


def _absent(
    model: Estimator, data: RunData, scores: pd.DataFrame | None, masks: Cropped | None, field: Cropped | None
) -> tuple[str, ...]:
    """What is not shown, and why."""
    found = []
    if masks is None:
        found.append(f"no masks, barcodes and kernels: a {model.name} model has no core")
    if locations_of(model) is None:
        found.append(f"no map of the visual field: this {model.name} model sees the whole image")
    if field is None:
        found.append(
            f"no linearised fields: {why_no_fields(model)} they are shown once `whatwhere insilico --recording` has"
            " written them into the run's folder"
        )
    elif field.made is not None:
        found.append(
            f"no linearised fields of {int((~field.made).sum()):,} of {len(field.made):,} neurons: `whatwhere insilico`"
            " has written those of the others alone (--neurons)"
        )
    if scores is None:
        found.append("no scores: the run was not scored on a test set of two images or more")
    if not data.facts:
        found.append("nothing of the recording: the run does not keep it (give it with --recording)")
    elif data.held is None:
        found.append("no predicted and observed responses: the recording has no test set")
    if data.facts and data.facts["columns_not_kept"]:
        found.append(
            f"of what the recording knows of its neurons, {some_of(data.facts['columns_not_kept'])}: a run keeps the"
            f" first {MOST_COLUMNS} columns of numbers or text"
        )
    return tuple(found)


def _explored(runs: list[ExploredRun]) -> Explored:
    """Raises `InputError` where two runs have no neuron in common, or are of different recordings."""
    names = {run.facts["recording"]["name"] for run in runs if run.facts}
    title = names.pop() if len(names) == 1 else " and ".join(run.name for run in runs)
    pairs = [difference for pair in combinations(runs, 2) for difference in _differences(*pair)]
    return Explored(title, tuple(runs), tuple(pairs))


def _differences(first: ExploredRun, other: ExploredRun) -> list[Difference]:
    places = {neuron: place for place, neuron in enumerate(other.neurons)}
    common = [(place, places[neuron]) for place, neuron in enumerate(first.neurons) if neuron in places]
    if not common:
        raise InputError(
            f"{first.name} and {other.name} have no neuron in common, {some_of(first.neurons, 2)} and"
            f" {some_of(other.neurons, 2)}: compare runs of one recording, or make a report of each."
        )
    ours, theirs = np.array(common).T
    check_one_recording(first, other, ours, theirs)
    if first.scores is None or other.scores is None:
        return []
    found = []
    for score in first.summary:
        if score not in other.summary or not SCORES[score].of_predictions:
            continue
        values = first.scores[score].to_numpy(float)[ours] - other.scores[score].to_numpy(float)[theirs]
        entry = _summary(values)
        numbers = {name: entry[name] for name in ("mean", "low", "high")}
        found.append(Difference(first.name, other.name, score, **numbers, n=entry["n_neurons"]))
    return found
