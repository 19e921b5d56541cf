"""Several recordings in one fit: a core that all share, and for each recording an ordinary model that has it."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from whatwhere.checks import check_choice, some_of
from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    PreprocessingOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.errors import FormatError, InputError, WhatwhereError
from whatwhere.estimators.base import Observer, as_recording, shapes_of
from whatwhere.estimators.candidates import fit_candidates, nothing_found
from whatwhere.estimators.cnn import CNN, FactorizedCNN, FixedMaskCNN, FullyConnectedCNN, GaussianCNN, PosteriorCNN
from whatwhere.estimators.preparation import Prepared, choose_device, prepare
from whatwhere.estimators.resume import begin_fit, cpu_threads
from whatwhere.estimators.shared_folder import check_names, read_names, write_names
from whatwhere.estimators.transfer import transferred
from whatwhere.metrics import ScoreTable, pooled_table
from whatwhere.model import initialize_together
from whatwhere.parallel import ALONE
from whatwhere.recording import Recording
from whatwhere.shared_model import SharedModel
from whatwhere.training_data import SharedData

KINDS: dict[str, type[CNN]] = {
    kind.name: kind for kind in (FactorizedCNN, FixedMaskCNN, FullyConnectedCNN, GaussianCNN, PosteriorCNN)
}
"""Models whose core several recordings can share."""


class SharedCoreCNN(BaseEstimator):
    """A convolutional core shared by the neurons of several recordings, with a readout for each recording.

    The loss is the mean over all neurons, each one's averaged over the images of its own recording; penalties of the
    readouts are means over all neurons, those of the core count once. A step takes as many images of each recording,
    `training.batch_size` or all that the smallest has, and normalises by the statistics of all of them. Images are
    standardised and responses scaled by each recording's own training part; the validation loss is the mean over all
    neurons, too. One recording alone is fitted as by `FactorizedCNN` and its like.

    model: name of the readout; all else as for `FactorizedCNN`, with the same defaults. Recordings may differ in
    neurons, images and repeats, not in the size and channels of their images. `model[key]` is an ordinary fitted model,
    which predicts, is judged and saved like any other.

    Fitted: `models_` (key to model), `history_`, `candidates_`, `stopped_`, `notes_`. Loaded: all but `candidates_`, of
    which a run keeps a table; `notes_` are then those of the models.
    """

    def __init__(
        self,
        model: str = "factorized",
        preset: str = "recording",
        core: CoreOptions | dict[str, Any] | None = None,
        readout: ReadoutOptions | dict[str, Any] | None = None,
        penalties: PenaltyOptions | dict[str, Any] | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        preprocessing: PreprocessingOptions | dict[str, Any] | None = None,
        *,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        nonfinite: str = "error",
    ) -> None:
        self.model = model
        self.preset = preset
        self.core = core
        self.readout = readout
        self.penalties = penalties
        self.training = training
        self.preprocessing = preprocessing
        self.seed = seed
        self.device = device
        self.threads = threads
        self.nonfinite = nonfinite

    models_: dict[str, CNN]
    history_: pd.DataFrame
    candidates_: pd.DataFrame
    stopped_: str
    notes_: tuple[str, ...] = ()

    def template(self) -> CNN:
        """The model of one recording with these options, not fitted; `OptionError` for a name that is not known."""
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name != "model"}
        return KINDS[check_choice("model", self.model, KINDS)](**parameters)

    def asked(self, recordings: Mapping[str, Recording]) -> dict[str, Any]:
        """All that decides how a fit ends, as plain values."""
        fingerprints = {key: recording.fingerprint() for key, recording in recordings.items()}
        return {**self.template().asked(), "recordings": fingerprints}

    def check(self, recordings: Any) -> dict[str, Recording]:
        """The recordings as the fit will use them; raises before long work starts where they cannot be fitted."""
        template = self.template()
        template.options()
        if not isinstance(recordings, Mapping) or not recordings:
            raise InputError(
                "fit got no recordings by name: expected a mapping, {'scan1': recording1, 'scan2': recording2}."
            )
        check_names(list(recordings))
        checked: dict[str, Recording] = {}
        for key, recording in recordings.items():
            if not isinstance(recording, Recording):
                raise InputError(f"{key}: expected a Recording, got {type(recording).__name__}.")
            with _of(key):
                checked[key] = template.check(as_recording(recording, None, self.nonfinite))
        first = next(iter(checked))
        for key, recording in checked.items():
            if recording.image_shape != checked[first].image_shape:
                raise InputError(
                    f"images of {key!r} have the shape {recording.image_shape}, those of {first!r}"
                    f" {checked[first].image_shape}, (n_channels, height, width): expected one for all. Crop or"
                    " resample them, or transfer the core of one recording to another."
                )
        return checked

    def fit(
        self,
        recordings: Mapping[str, Recording],
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Fits to recordings by name, `{"scan1": recording1, "scan2": recording2}`.

        folder, resume, observer: as for `FactorizedCNN.fit`. Raises `InputError` for recordings that do not fit each
        other, `OptionError` for names that are no names of folders.
        """
        checked = self.check(recordings)
        options, device = self.template().options(), choose_device(self.device)
        rows = {key: one.split(options.training.validation_fraction, self.seed) for key, one in checked.items()}
        threads = self.threads
        asked = self.asked(recordings)
        fingerprints = asked["recordings"]
        if folder is not None:
            threads = begin_fit(Path(folder), {**asked, "device": device.type}, self.threads, resume)
        with cpu_threads(threads):
            prepared = _prepare_all(checked, rows, options, device, fingerprints)
            notes = _notes(prepared, options, threads if self.threads not in (None, threads) else None)
            data = SharedData(tuple(one.data for one in prepared.values()), " ".join(fingerprints.values()))
            shapes = [shapes_of(recording) for recording in checked.values()]
            model, results = fit_candidates(
                lambda chosen: SharedModel(self.model, chosen, shapes).to(device),
                partial(_begin, data, self.seed),
                options,
                data,
                notes,
                seed=self.seed,
                folder=None if folder is None else Path(folder),
                resume=resume,
                observer=observer,
                parallel=ALONE,
            )
        self.models_ = {}
        for member, (key, one) in zip(model.members, prepared.items(), strict=True):
            made = self.template()
            made.shared_with = fingerprints
            made.remember(checked[key], rows[key][0], fingerprints[key])
            found = replace(one, notes=(*one.notes, *nothing_found(member, one.data)))
            made.keep(member, options, found, results)
            self.models_[key] = made
            notes += tuple(f"{key}: {note}" for note in found.notes[len(one.notes) :])
        first = next(iter(self.models_.values()))
        self.history_, self.candidates_, self.stopped_ = first.history_, first.candidates_, first.stopped_
        self.notes_ = notes
        return self

    def __getitem__(self, key: str) -> CNN:
        self.check_fitted()
        if key not in self.models_:
            raise InputError(f"there is no recording {key!r}: expected one of {some_of(map(repr, self.models_))}.")
        return self.models_[key]

    def __iter__(self) -> Iterator[str]:
        self.check_fitted()
        return iter(self.models_)

    def __len__(self) -> int:
        self.check_fitted()
        return len(self.models_)

    def check_fitted(self) -> None:
        """Raises scikit-learn's `NotFittedError` before `fit`."""
        if not hasattr(self, "models_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit first.")

    def evaluate(self, recordings: Mapping[str, Recording], *, seed: int = 0) -> ScoreTable:
        """Every score over the neurons of all these recordings that have a held-out part, see `pooled_table`.

        Raises `InputError` where none has one.
        """
        return pooled_table(self.tables(recordings, seed=seed), seed=seed)

    def tables(self, recordings: Mapping[str, Recording], *, seed: int = 0) -> dict[str, ScoreTable]:
        """The scores on the held-out part of each recording that has one, of two images or more."""
        found = {}
        for key, recording in recordings.items():
            model = self[key]
            if recording.test is not None and recording.test.n_images > 1:
                with _of(key):
                    found[key] = model.evaluate(recording, seed=seed)
        return found

    def add(
        self,
        key: str,
        recording: Recording,
        *,
        core: str = "frozen",
        options: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> "SharedCoreCNN":
        """A new recording fitted with this core; this object stays as it is.

        core: "frozen", the result holds the recordings of this one and the new one; "trained", training goes on from
        the core, and the result holds the new recording alone, for the other readouts belong to the core as it was.
        options: see `transferred`; the result of "trained" has them as its own. Raises `OptionError` for a name that is
        there already.
        """
        self.check_fitted()
        check_names([*self.models_, key])
        model = transferred(next(iter(self.models_.values())), core, options)
        model.fit(recording, folder=folder, resume=resume, observer=observer)
        models = {**self.models_, key: model} if core == "frozen" else {key: model}
        more = copy.copy(self)
        if core == "trained":  # the other readouts are not of this fit, and their options not those of this one
            own = more.get_params(deep=False).keys() - {"model"}
            more.set_params(**{name: value for name, value in model.get_params(deep=False).items() if name in own})
        more.models_, more.notes_ = tie_cores(models), model.notes_
        more.history_, more.candidates_, more.stopped_ = model.history_, model.candidates_, model.stopped_
        return more

    def save(self, folder: str | Path) -> Path:
        """Writes each model into a folder of its own within `folder`, under its recording's name, and their names."""
        self.check_fitted()
        write_names(Path(folder), list(self.models_))
        for key, model in self.models_.items():
            model.save(Path(folder) / key)
        return Path(folder)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted models that `save` wrote; raises `FormatError` for files that are missing, damaged or changed."""
        path = Path(path)
        models = {}
        for key, name in read_names(path).items():
            if name not in KINDS:
                raise FormatError(f"{path / key} holds a {name!r} model: expected one of {some_of(map(repr, KINDS))}.")
            models[key] = KINDS[name].load(path / key)
        tie_cores(models, path)
        first = next(iter(models.values()))
        found = cls(
            first.name,
            first.preset,
            *(first.core, first.readout, first.penalties, first.training, first.preprocessing),
            seed=first.seed,
        )
        found.models_, found.history_, found.stopped_ = models, first.history_, first.stopped_
        found.notes_ = tuple(f"{key}: {note}" for key, model in models.items() for note in model.notes_)
        return found


def tie_cores(models: dict[str, CNN], path: Path | None = None) -> dict[str, CNN]:
    """Makes models whose cores are the same share one; raises `FormatError` where those in a folder differ.

    A core for images of another size stays a copy: its feature maps have another size.
    """
    (first_key, first), *later = models.items()
    for key, model in later:
        ours, its = first.model_.core.state_dict(), model.model_.core.state_dict()
        same = ours.keys() == its.keys() and all(torch.equal(ours[name], its[name]) for name in ours)
        if not same or model.name != first.name:
            raise FormatError(
                f"{path}: the models of {first_key!r} and {key!r} do not have one core. Put back what was saved there,"
                " or load each by itself."
            )
        if model.model_.core.output_shape == first.model_.core.output_shape:
            model.model_.core = first.model_.core
    return models


@contextmanager
def _of(key: str) -> Iterator[None]:
    """Names the recording in an error."""
    try:
        yield
    except WhatwhereError as error:
        raise type(error)(f"{key}: {error}") from error


def _prepare_all(
    recordings: Mapping[str, Recording],
    rows: Mapping[str, tuple[np.ndarray, np.ndarray]],
    options: ModelOptions,
    device: torch.device,
    fingerprints: Mapping[str, str],
) -> dict[str, Prepared]:
    """Each by its own statistics; of the memory for images each has its share."""
    n_images = sum(len(rows[key][0]) for key in recordings)
    found = {}
    for key, recording in recordings.items():
        memory = options.training.memory_gib * len(rows[key][0]) / n_images
        of_recording = replace(options, training=replace(options.training, memory_gib=memory))
        with _of(key):
            found[key] = prepare(recording, of_recording, *rows[key], device, fingerprints[key])
    return found


def _notes(prepared: Mapping[str, Prepared], options: ModelOptions, threads: int | None) -> tuple[str, ...]:
    """What is worth saying before the fit; threads: those that it was begun with, where others are asked for."""
    notes = [f"{key}: {note}" for key, one in prepared.items() for note in one.notes]
    key = min(prepared, key=lambda name: len(prepared[name].data.images))
    n_images = len(prepared[key].data.images)
    if n_images < options.training.batch_size and len(prepared) > 1:
        size = options.training.batch_size
        notes.append(f"a step takes {n_images:,} images of each, all that {key} has to train on, not batch_size={size}")
    if threads is not None:
        notes.append(f"threads={threads}, as the fit was begun with: the result depends on it")
    return tuple(notes)


def _begin(data: SharedData, seed: int, model: SharedModel) -> None:
    initialize_together(model.members, [(part.images, part.responses) for part in data.parts], seed)
