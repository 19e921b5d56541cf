"""What every model offers, network or baseline: fit, predict, score, evaluate, save, in scikit-learn's manner."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from torch import Tensor

from whatwhere.checks import check_numeric, some_of
from whatwhere.cost import Plan
from whatwhere.errors import FormatError, InputError
from whatwhere.heldout import HeldOut, as_responses
from whatwhere.metrics import ScoreTable, correlation, score_table
from whatwhere.model import Shapes
from whatwhere.parallel import ALONE, Parallel, helps
from whatwhere.recording import Recording, with_split
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import LazyRows, by_columns, is_lazy
from whatwhere.schedule import Progress
from whatwhere.standardisation import RELATIVE_FLOOR, Standardisation
from whatwhere.storage import MODEL, MODEL_VERSION, read_model, save_model

Observer = Callable[[Plan | Progress], None]
"""Told the plan before a fit starts, then the progress at every look at the validation loss."""


class Estimator(BaseEstimator, ABC):
    """Images (n_images, n_channels, height, width) to responses (n_images, n_neurons), in the recording's units.

    After `fit`: `shapes_` (sizes that the data fixed), `neurons_` (identifiers), `mean_responses_` (n_neurons,), the
    training means that the likelihood is measured against, `standardisation_` of the images, `fingerprint_` (of the
    recording), `notes_` (what was worth saying of the data), `history_` (a table) and `stopped_` (why the fit ended).
    """

    name: ClassVar[str]
    """The model's name on the command line and in files."""

    shapes_: Shapes
    neurons_: list[str]
    mean_responses_: np.ndarray
    standardisation_: Standardisation
    fingerprint_: str
    history_: pd.DataFrame
    stopped_: str
    notes_: tuple[str, ...] = ()

    @abstractmethod
    def asked(self) -> dict[str, Any]:
        """All that decides how a fit to given data ends, as plain values; `OptionError` for options that do not fit."""

    @abstractmethod
    def fit(
        self,
        images: Any,
        responses: Any = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> "Estimator":
        """Fits to a `Recording`, or to images and responses (n_images, n_neurons).

        folder: where checkpoints are kept while fitting; resume: go on from those that are there, to the very same
        end. Raises `RunError` where the folder holds those of a fit begun with other data, options or seed.
        """

    def join(self) -> Parallel:
        """This process among those that share the fit, which are started if they do not run yet."""
        return ALONE

    @abstractmethod
    def check(self, recording: Recording) -> Recording:
        """The recording as the fit will use it; raises before long work starts where it cannot be fitted."""

    @abstractmethod
    def predict(self, images: Any) -> np.ndarray:
        """Predicted responses (n_images, n_neurons), in the units of the responses fitted.

        images: (n_images, n_channels, height, width), or without the channels' dimension if there is one, in the
        units of the images fitted. Raises `InputError` for images of another shape.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything fitted, as named tensors, for a file."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything else needed to make this fitted model again: plain values, for a file."""

    @classmethod
    @abstractmethod
    def restored(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "Estimator":
        """The fitted model from what `tensors` and `description` gave."""

    def save(self, folder: str | Path) -> Path:
        """Writes `model.safetensors`, `config.yaml` and `history.csv` into `folder`, no pickles; returns the folder.

        Of processes that share a fit the first one alone writes.
        """
        self.check_fitted()
        if helps():
            return Path(folder)
        description = {
            "format": MODEL,
            "version": MODEL_VERSION,
            "model": self.name,
            "whatwhere": version("whatwhere"),
            "data": self.fingerprint_,
            "shapes": asdict(self.shapes_),
            "neurons": self.neurons_,
            "notes": list(self.notes_),
            **self.description(),
        }
        arrays = {
            "mean_responses": self.mean_responses_,
            "standardisation/mean": self.standardisation_.mean,
            "standardisation/std": self.standardisation_.std,
        }
        if self.standardisation_.grey is not None and self.standardisation_.contrast is not None:
            arrays["standardisation/grey"] = self.standardisation_.grey
            arrays["standardisation/contrast"] = np.array([self.standardisation_.contrast])
        tensors = {**self.tensors(), **{name: torch.tensor(array) for name, array in arrays.items()}}
        return save_model(Path(folder), tensors, description, self.history_)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The fitted model that `save` wrote; `path` is the folder or its `model.safetensors`.

        Raises `FormatError` for files that are missing, truncated, changed, of a newer version, of another model, or
        whose tensors do not have the shapes that the description calls for.
        """
        found = read_model(Path(path))
        if found[1].get("model") != cls.name:
            raise FormatError(
                f"{path} holds a {found[1].get('model')!r} model, not {cls.name!r}: use whatwhere.load_model."
            )
        return cls.rebuilt(path, *found)

    @classmethod
    def rebuilt(
        cls, path: str | Path, tensors: dict[str, Tensor], description: dict[str, Any], history: pd.DataFrame
    ) -> Self:
        """The fitted model from what was read at `path`; raises `FormatError` where its parts do not fit together."""
        try:
            estimator = cls.restored(tensors, description)
            estimator.shapes_ = shapes = Shapes(**description["shapes"])
            estimator.neurons_, estimator.history_ = [str(neuron) for neuron in description["neurons"]], history
            estimator.fingerprint_ = str(description["data"])
            estimator.notes_ = tuple(map(str, description.get("notes", ())))  # absent from files of earlier versions
            estimator.mean_responses_ = tensors["mean_responses"].numpy()
            image_shape = (shapes.n_channels, shapes.height, shapes.width)
            mean, std = (tensors[f"standardisation/{name}"].numpy() for name in ("mean", "std"))
            for name, statistic in (("mean", mean), ("std", std)):
                expect_shape(f"standardisation/{name}", statistic, (1, 1, 1), image_shape)
            estimator.standardisation_ = Standardisation(mean, std, *_looks(tensors, shapes.n_channels))
            expect_shape("neurons", np.array(estimator.neurons_), (shapes.n_neurons,))
            expect_shape("mean_responses", estimator.mean_responses_, (shapes.n_neurons,))
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise FormatError(f"{path} does not hold what its description says: {reason}") from error
        return estimator

    def score(self, images: Any, responses: Any = None) -> float:
        """Mean over neurons of the correlation between prediction and response.

        `score(recording.test)` correlates with the repeat-averaged response (Table 1 of the paper);
        `score(images, responses)` with the responses given.
        """
        if isinstance(images, Recording):
            images = held_out_part(images)
        if isinstance(images, HeldOut):
            images, responses = images.read_images(), images.mean_responses()
        if responses is None:
            raise InputError("score got images but no responses: expected score(held_out) or score(images, responses).")
        responses = as_responses("responses", responses)
        return float(correlation(self.predict(images), responses).mean())

    def evaluate(self, recording: Recording | HeldOut, *, seed: int = 0) -> ScoreTable:
        """Every score that the held-out part allows, with confidence intervals; see `whatwhere.metrics`.

        A recording may hold other neurons too: those that the model was fitted to are found by their identifiers.
        Raises `InputError` where some are missing, or where there is no held-out part.
        """
        self.check_fitted()
        if isinstance(recording, Recording):
            recording = held_out_part(self.seen(recording))
        held_out = recording
        if held_out.n_neurons != self.shapes_.n_neurons:
            raise InputError(
                f"the held-out part has {held_out.n_neurons:,} neurons but the model {self.shapes_.n_neurons:,}:"
                " select the neurons that it was fitted to."
            )
        return score_table(
            self.predict(held_out.read_images()),
            held_out.responses,
            held_out.image_index,
            rates=held_out.rates,
            mean_rate=self.mean_responses_,
            seed=seed,
        )

    def seen(self, recording: Recording) -> Recording:
        """The recording with the neurons that the model was fitted to, in its order; `InputError` where it lacks some.

        They are found by their identifiers.
        """
        self.check_fitted()
        positions = self._positions(recording)
        return recording if positions == list(range(recording.n_neurons)) else recording.select_neurons(positions)

    def was_fitted_to(self, recording: Recording) -> bool:
        """Whether the model's neurons in this recording, and its images, are what it was fitted to. Reads all of it.

        By the fingerprint, of the recording as it is or with the model's own split declared (`with_split`). So False,
        too, where it was fitted to some of the images, or under the split of another seed.
        """
        seen = self.seen(recording)
        if seen.fingerprint() == self.fingerprint_:
            return True
        options = self.asked()["options"]
        fraction = options.get("training", options).get("validation_fraction")
        if fraction is None or seen.validation is not None:
            return False
        return with_split(seen, fraction, self.asked()["seed"]).fingerprint() == self.fingerprint_

    def doubt(self, recording: Recording) -> str:
        """What speaks against this recording being the one fitted, in words; empty where nothing does. Reads all."""
        if set(self.neurons_) <= {str(neuron) for neuron in recording.neurons.index} and self.was_fitted_to(recording):
            return ""
        return (
            f"{recording.name} is not what the model was fitted to, or not all of it: its images, responses or split"
            " for validation differ"
        )

    def _positions(self, recording: Recording) -> list[int]:
        positions = {str(neuron): position for position, neuron in enumerate(recording.neurons.index)}
        missing = [neuron for neuron in self.neurons_ if neuron not in positions]
        if missing:
            raise InputError(
                f"{recording.name} lacks {len(missing):,} of the {len(self.neurons_):,} neurons that the model was"
                f" fitted to: {some_of(missing)}. Give the recording that it was fitted to."
            )
        return [positions[neuron] for neuron in self.neurons_]

    def check_fitted(self) -> None:
        """Raises scikit-learn's `NotFittedError` before `fit`."""
        if not hasattr(self, "shapes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit first.")

    def check_images(self, images: Any) -> Any:
        """Images with a channels' dimension, of the shape that the model was fitted to; else `InputError`."""
        self.check_fitted()
        if not is_lazy(images):
            images = np.asarray(images)
        check_numeric("images", images)
        shapes = self.shapes_
        if len(images.shape) == 3 and shapes.n_channels == 1:
            images = images[:, None] if isinstance(images, np.ndarray) else LazyRows(images)
        expected = (shapes.n_channels, shapes.height, shapes.width)
        if len(images.shape) != 4 or tuple(images.shape[1:]) != expected:
            raise InputError(
                f"images has shape {tuple(images.shape)}: expected (n_images, {', '.join(map(str, expected))}), that is"
                " (n_images, n_channels, height, width) as in the fit. Height comes before width."
            )
        return images

    def standardised(self, images: Any, most: int) -> Iterator[np.ndarray]:
        """The images checked and standardised, at most so many at a time; `InputError` for NaN or infinite values."""
        images = self.check_images(images)
        for start in range(0, images.shape[0], most):
            chunk = np.asarray(images[start : start + most])
            check_image_rows("images", chunk, range(start, start + len(chunk)))
            yield self.standardisation_.apply(chunk)

    def remember(self, recording: Recording, rows: np.ndarray, fingerprint: str) -> None:
        """Keeps the sizes, the neurons' identifiers, their mean responses in the training rows, and the fingerprint."""
        self.shapes_ = shapes_of(recording)
        self.neurons_ = [str(neuron) for neuron in recording.neurons.index]
        self.mean_responses_ = by_columns(lambda some: some.mean(0, dtype=np.float64), recording.responses, rows)
        self.fingerprint_ = fingerprint


def as_recording(images: Any, responses: Any, nonfinite: str) -> Recording:
    """The recording given, or one made of images and responses."""
    if isinstance(images, Recording):
        if responses is not None:
            raise InputError("fit got a recording and responses: expected fit(recording) or fit(images, responses).")
        return images if nonfinite == "error" else replace(images, nonfinite=nonfinite)
    if responses is None:
        raise InputError("fit got images but no responses: expected fit(recording) or fit(images, responses).")
    return Recording(images, responses, nonfinite=nonfinite)


def constant_note(recording: Recording) -> list[str]:
    """Says which neurons never vary, where there are any."""
    constant = recording.neurons.index[recording.constant_neurons()]
    if not len(constant):
        return []
    return [f"{len(constant):,} of {recording.n_neurons:,} neurons never vary (kept, scored 0): {some_of(constant)}"]


def response_scale(responses: np.ndarray) -> np.ndarray:
    """Each neuron's standard deviation over the rows, (n_neurons,), float64; 1 for a neuron that never varies.

    >>> response_scale(np.array([[0.1, 0.0], [0.1, 4.0]], np.float32))
    array([1., 2.])
    """
    std = responses.std(0, dtype=np.float64)
    return np.where(std > RELATIVE_FLOOR * np.abs(responses.mean(0, dtype=np.float64)), std, 1.0)


def expect_shape(name: str, array: np.ndarray, *shapes: tuple[int, ...]) -> None:
    """Raises `FormatError` unless an array read from a file has one of the shapes."""
    if array.shape not in shapes:
        raise FormatError(f"{name} has shape {array.shape}, expected {' or '.join(map(str, shapes))}.")


def _looks(tensors: dict[str, Tensor], n_channels: int) -> tuple[np.ndarray, float] | tuple[()]:
    """Grey and contrast of a `Standardisation`, which models of before they were kept lack."""
    if "standardisation/contrast" not in tensors:
        return ()
    grey, contrast = (tensors[f"standardisation/{name}"].numpy() for name in ("grey", "contrast"))
    expect_shape("standardisation/grey", grey, (n_channels, 1, 1))
    expect_shape("standardisation/contrast", contrast, (1,))
    return grey, float(contrast[0])


def shapes_of(recording: Recording) -> Shapes:
    """The sizes that a recording fixes."""
    n_channels, height, width = recording.image_shape
    return Shapes(n_channels, height, width, recording.n_neurons)


def held_out_part(recording: Recording) -> HeldOut:
    """The held-out part, without rounding dust below 0 as in the fit; what is really negative stays."""
    with suppress(InputError):
        recording = recording.check_nonnegative()
    if recording.test is None:
        raise InputError(
            f"{recording.name} has no held-out part to score on: give a HeldOut, or score(images, responses)."
        )
    return recording.test


def history_table(history: list[Any], candidate: int) -> pd.DataFrame:
    """The checks of one fit as rows: candidate, step, learning_rate, training_loss, validation_loss, seconds."""
    table = pd.DataFrame([vars(check) for check in history])
    table.insert(0, "candidate", candidate)
    return table
