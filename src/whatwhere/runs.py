"""A run: one model fitted, judged and kept in a folder."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from whatwhere.catalogue import MODELS, is_label, load_model, model_of
from whatwhere.checks import check_keys
from whatwhere.errors import FormatError, OptionError, RunError
from whatwhere.estimators import CNN, Estimator, Observer
from whatwhere.estimators.resume import CHECKPOINTS, check_same_fit
from whatwhere.estimators.shared_folder import named_in
from whatwhere.files import make_folder
from whatwhere.metrics import ScoreTable
from whatwhere.parallel import helps
from whatwhere.plain_options import merge
from whatwhere.recording import Recording
from whatwhere.run_data import DATA_FILE, HELD_FILE, data_of, keep_data
from whatwhere.storage import (
    CONFIG_FILE,
    CURVES_FILE,
    EXCITING_FILE,
    FIELDS_FILE,
    HISTORY_FILE,
    MODEL_FILE,
    SHARED_FILE,
    TUNING_FILE,
    write_text,
)
from whatwhere.tracking import (
    TENSORBOARD,
    HistoryFile,
    TensorBoard,
    candidate_names,
    check_tensorboard,
    remove_events,
    together,
)

METRICS_FILE, NEURONS_FILE, CANDIDATES_FILE = "metrics.json", "scores.csv", "candidates.csv"
TIMING_FILE, DIFFERENCES_FILE = "timing.json", "differences.csv"
TYPES_FILE, TYPES_TABLE = "types.json", "types.csv"
TYPES_FIGURES = ("types-map.png", "types-barcodes.png", "types-choice.png", "types-confidence.png")
REPORT_FILE, RESULTS_FILE = "report.html", "results.csv"
COMPARISON_FILES = (
    *(RESULTS_FILE, "neurons.csv", "curve.csv", "extrapolation.csv"),
    *("scatter.png", "learning_curve.png"),
)
"""What a comparison writes beside `metrics.json` and `differences.csv`."""
_OURS = (
    *(MODEL_FILE, CONFIG_FILE, HISTORY_FILE, METRICS_FILE, NEURONS_FILE, CANDIDATES_FILE),
    *(TIMING_FILE, DIFFERENCES_FILE, SHARED_FILE),
)
_OF_REPORT = (HELD_FILE, DATA_FILE, REPORT_FILE)
"""What a run has besides; where there is nothing else there is no run."""
STUDY_FIGURES = ("fields.png", "most_exciting.png", "orientation.png", "size.png")
_OF_STUDIES = {
    TYPES_FILE: (TYPES_TABLE, *TYPES_FIGURES),
    TUNING_FILE: (FIELDS_FILE, CURVES_FILE, EXCITING_FILE, *STUDY_FIGURES),
}
"""What was found out about its model afterwards: files that come with another one."""
_OF_ANY_PROGRAM = (TYPES_TABLE, FIELDS_FILE, EXCITING_FILE)
"""What reports read of a run's model, whoever wrote it."""
_PART = re.compile(r"(seed|images)-\d+")
RUN, SEARCH, EXPERIMENT, TABLE_OF_SCANS = "a run", "a search", "an experiment", "a table of several scans"
SEARCH_FILE, GRID_FILE = "search.json", "grid.json"


@dataclass(frozen=True)
class Run:
    """A fitted model with its scores on the held-out part (None where the recording has none)."""

    model: Estimator
    scores: ScoreTable | None


def check_folder(
    folder: Path, *, overwrite: bool = False, resume: bool = False, kind: str = RUN, writes: str = ""
) -> None:
    """Raises where work of a kind must not begin in the folder, see `kind_of`; `writes`: a table that it will write.

    `OptionError` where overwriting and resuming were both asked for; `RunError` where the folder holds work of another
    kind, or such a table of nobody knows what, which are never replaced, or work of this kind, unasked.
    """
    if overwrite and resume:
        raise OptionError("overwrite and resume exclude each other: choose one.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder for {kind}.")
    found = kind_of(folder)
    if found not in (None, kind):
        raise RunError(f"{folder} holds {found}, which {kind} must not be mixed with: choose another folder.")
    if found is None and writes and (folder / writes).exists():
        raise RunError(f"{folder / writes} exists, and not as part of {kind}: choose another folder, or move it.")
    if found is not None and not (overwrite or resume):
        raise RunError(
            f"{folder} holds {kind} already: use --resume to go on with it, --overwrite to replace it, or another"
            " folder."
        )


def kind_of(folder: Path) -> str | None:
    """What was begun or ended in a folder: `RUN` (also a comparison's), `SEARCH`, ...; None for nothing of ours."""
    for name, kind in ((SEARCH_FILE, SEARCH), (GRID_FILE, EXPERIMENT)):
        if (folder / name).exists():
            return kind
    if (folder / DIFFERENCES_FILE).is_file():
        with open(folder / DIFFERENCES_FILE, encoding="utf-8", errors="replace") as file:
            if "scan" in file.readline().strip().split(","):
                return TABLE_OF_SCANS
    return RUN if is_run(folder) else None


def open_folder(folder: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Makes the folder ready for a run, after `check_folder`; overwriting removes a run's files and nothing else."""
    check_folder(folder, overwrite=overwrite, resume=resume)
    if overwrite and folder.exists():
        _clear(folder)
    make_folder(folder)


def is_run(folder: Path) -> bool:
    """Whether a run, or a comparison's, was begun or ended here."""
    if not folder.is_dir():
        return False
    return any((folder / name).exists() for name in (*_OURS, CHECKPOINTS)) or any(map(is_run, _parts_of(folder)))


def _parts_of(folder: Path) -> list[Path]:
    """The folders of a comparison's models, seeds and numbers of images, or of recordings that share a core."""
    parts = [part for part in folder.iterdir() if is_label(part.name) or _PART.fullmatch(part.name)]
    if (folder / SHARED_FILE).is_file():
        try:
            parts += [folder / name for name in named_in(folder)]
        except FormatError:  # it is damaged, and must not stand in the way of another fit
            parts += [part for part in folder.iterdir() if is_run(part)]
    return sorted({part for part in parts if part.is_dir()})


def _clear(folder: Path) -> None:
    """Removes a run's files, those of a comparison's parts too, and nothing else."""
    parts = _parts_of(folder)
    of_models = [part for part in parts if not part.name.startswith("seed-")]  # a run may have refits by seed
    is_comparison = (folder / DIFFERENCES_FILE).exists() or any(map(is_run, of_models))
    for part in parts:
        _clear(part)
    forget_studies(folder)  # while the model is there that they are of
    for name in (*_OURS, *_OF_REPORT, *COMPARISON_FILES * is_comparison):
        (folder / name).unlink(missing_ok=True)
    remove_checkpoints(folder)
    remove_events(folder / TENSORBOARD)


def forget_studies(folder: Path) -> None:
    """Removes what was found out about an earlier model of this folder: its types, and experiments on it.

    Where the model itself is there, what another program wrote for its report goes, too: it is not of the next one.
    """
    gone = [name for first, others in _OF_STUDIES.items() if (folder / first).exists() for name in (*others, first)]
    for name in (*gone, *_OF_ANY_PROGRAM * (folder / MODEL_FILE).exists()):
        (folder / name).unlink(missing_ok=True)


def remove_checkpoints(folder: Path) -> None:
    """All at once, so that a run killed meanwhile resumes from all of them or counts as ended; and what a kill left."""
    checkpoints, gone = folder / CHECKPOINTS, folder / f".{CHECKPOINTS}.gone"
    shutil.rmtree(gone, ignore_errors=True)
    if checkpoints.exists():
        checkpoints.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    for name in (*_OURS, *_OF_REPORT):
        for part in folder.glob(f".{name}.*.tmp"):  # see files.replacing
            part.unlink(missing_ok=True)


def fit_run(
    model: Estimator,
    recording: Recording,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    observer: Observer | None = None,
    tensorboard: bool = False,
    command: str = "",
) -> Run:
    """Fits `model`, scores it on the held-out part, and writes the run; a run that had ended is only read again.

    What the folder holds is touched only after model and recording were found to fit each other. On Ctrl-C the best
    model so far is kept and written, and the checkpoints stay, so that the run can be resumed. `history.csv` grows
    while the fit goes on. tensorboard: whether files for TensorBoard are written into `folder/tensorboard`, too.
    command: what began the fit, for a shell; its report shows it. Of processes that share the fit the first alone
    writes and scores.
    """

    def begin() -> bool:
        check_folder(folder, overwrite=overwrite, resume=resume)
        if tensorboard:
            check_tensorboard()
        model.check(recording)
        open_folder(folder, overwrite=overwrite, resume=resume)
        return resume and (folder / METRICS_FILE).exists() and not (folder / CHECKPOINTS).exists()

    has_ended = model.join().from_first(begin)
    if has_ended:
        return read_run(model, recording, folder)
    if helps():
        model.fit(recording, folder=folder, resume=resume)
        return Run(model, None)
    forget_studies(folder)
    with watched(model, folder, observer, tensorboard) as told:
        model.fit(recording, folder=folder, resume=resume, observer=told)
    model.save(folder)  # before the scores: what was fitted is kept, whatever they meet
    scores = scores_of(model, recording)
    if tensorboard:
        track_scores(scores, folder)
    keep_data(data_of(model, recording, command), folder)
    write_run(model, scores, folder)
    if model.stopped_ != "interrupted":
        remove_checkpoints(folder)
    return Run(model, scores)


def fit_kept(
    model: Estimator,
    recording: Recording,
    folder: Path,
    *,
    resume: bool = False,
    observer: Observer | None = None,
    tensorboard: bool = False,
    start: Estimator | None = None,
) -> Estimator:
    """Fits `model` and keeps it in `folder` without scoring it; a fit that had ended is only read again.

    As `fit_run`, which does all of it at once. Scores that the folder holds of an earlier fit are removed. start: see
    `CNN.fit`.
    """

    def begin() -> bool:
        check_folder(folder, resume=resume)
        if tensorboard:
            check_tensorboard()
        model.check(recording)
        open_folder(folder, resume=resume)
        whole = all((folder / name).exists() for name in (CONFIG_FILE, HISTORY_FILE))  # a network's history grows
        return whole and not (folder / CHECKPOINTS).exists()

    if model.join().from_first(begin):
        return read_model_of(model, recording, folder)
    if helps():
        model.fit(recording, folder=folder, resume=resume)
        return model
    (folder / METRICS_FILE).unlink(missing_ok=True)
    forget_studies(folder)
    with watched(model, folder, observer, tensorboard) as told:
        if start is not None and isinstance(model, CNN):
            model.fit(recording, folder=folder, resume=resume, observer=told, start=start)
        else:
            model.fit(recording, folder=folder, resume=resume, observer=told)
    write_fit(model, folder)
    if model.stopped_ != "interrupted":
        remove_checkpoints(folder)
    return model


@contextmanager
def watched(model: Estimator, folder: Path, observer: Observer | None, tensorboard: bool) -> Iterator[Observer]:
    """What a fit tells: its growing history, TensorBoard's files where they are asked for, and `observer`."""
    history = HistoryFile(folder / HISTORY_FILE)
    if not tensorboard:
        yield together(history, observer)
        return
    with closing(TensorBoard(folder / TENSORBOARD, candidate_names(model))) as board:
        yield together(history, board, observer)


def track_scores(scores: ScoreTable | None, folder: Path) -> None:
    """Adds each score's mean to a run's files for TensorBoard."""
    with closing(TensorBoard(folder / TENSORBOARD)) as board:
        board.scores(scores)


def read_model_of(asked: Estimator, recording: Recording, folder: Path) -> Estimator:
    """The fitted model in a folder.

    Raises `RunError` where it was fitted with other options, data or seed than are asked for.
    """
    found = load_model(folder)
    wanted = {**asked.asked(), "data": recording.fingerprint()}
    check_same_fit(folder, {**found.asked(), "data": found.fingerprint_}, wanted)
    return found


def read_run(asked: Estimator, recording: Recording, folder: Path) -> Run:
    """A run that had ended, scored again; its files stay as they are. Raises as `read_model_of`."""
    found = read_model_of(asked, recording, folder)
    return Run(found, scores_of(found, recording))


def scores_of(model: Estimator, recording: Recording) -> ScoreTable | None:
    """The scores on the held-out part; None without one, or with a single image, over which nothing can vary."""
    if recording.test is None or recording.test.n_images < 2:
        return None
    return model.evaluate(recording)


def write_run(model: Estimator, scores: ScoreTable | None, folder: Path) -> None:
    """The model's files, the strengths searched, and its scores."""
    write_fit(model, folder)
    write_scores(model, scores, folder)


def write_fit(model: Estimator, folder: Path) -> None:
    """The strengths searched, and the model's files; the last of them says that the fit is there."""
    candidates = getattr(model, "candidates_", None)
    if candidates is not None:
        write_text(folder / CANDIDATES_FILE, candidates.to_csv(index=False))
    model.save(folder)


def write_scores(model: Estimator, scores: ScoreTable | None, folder: Path) -> None:
    """`metrics.json` (each score's mean and interval) and, where there are scores, `scores.csv` (one row a neuron)."""
    if scores is not None:
        write_text(folder / NEURONS_FILE, neuron_table(model, scores).to_csv(index=False))
    write_metrics({} if scores is None else scores.summary, folder)  # last: it says that the run has ended


def check_scores_folder(folder: Path, run: Path, *, overwrite: bool = False) -> None:
    """Raises `RunError` where a model's scores must not be written: over others unasked, or into another model's run.

    run: the model's own folder, or its file. The folder is made where it is missing; nothing else in it is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder.")
    is_own = folder.exists() and folder.resolve() == (run if run.is_dir() else run.parent).resolve()
    if not is_own and any((folder / name).exists() for name in (MODEL_FILE, CONFIG_FILE, CHECKPOINTS)):
        raise RunError(f"{folder} holds another run, which has scores of its own: choose another folder.")
    if (folder / METRICS_FILE).exists() and not overwrite:
        raise RunError(f"{folder} holds scores already: use --overwrite to replace them, or choose another folder.")
    make_folder(folder)


def write_metrics(metrics: dict[str, Any], folder: Path) -> None:
    """`metrics.json`."""
    write_text(folder / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def neuron_table(model: Estimator, scores: ScoreTable) -> pd.DataFrame:
    """One row a neuron: its identifier, location where the model has one, and every score."""
    table = scores.neurons.reset_index(drop=True)
    locations = getattr(model, "locations_", None)
    if locations is not None:
        table.insert(0, "column", locations[:, 1])
        table.insert(0, "row", locations[:, 0])
    table.insert(0, "neuron", model.neurons_)
    return table


def own_values(name: str, names: Sequence[str], values: dict[str, Any]) -> dict[str, Any]:
    """The values meant for one model: those under its name, over those shared by the convolutional models.

    names may be labels, `factorized@deep`: those under a label go over those under the model's own name.
    """
    shared = {key: value for key, value in values.items() if not is_label(key)}
    models = {label: model_of(label) for label in names}
    convolutional = [label for label, model in models.items() if issubclass(MODELS[model], CNN)]
    check_keys("model in the options", [key for key in values if is_label(key)], [*names, *models.values()])
    if shared and not convolutional:
        raise OptionError(
            f"{', '.join(shared)}: options of the convolutional models, but {', '.join(names)} has none of them. An"
            f" option of its own goes under its name: {names[0]}.NAME=VALUE."
        )
    own = merge(values.get(models[name], {}), values.get(name, {}))
    return merge(shared if name in convolutional else {}, own)
