"""What the baselines share: one filter a neuron on the pixels that it sees, its strengths chosen on held-out images."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.baselines.crops import Crops, average_locations, metadata_locations
from whatwhere.baselines.families import Family
from whatwhere.baselines.options import CHECKS, check_crop, check_window_options
from whatwhere.baselines.search import (
    BATCH_NUMBERS,
    KEPT_NUMBERS,
    Batch,
    Problem,
    Solver,
    from_strong_to_weak,
    most_together,
    solve,
    validation_losses,
    validation_parts,
)
from whatwhere.cost import Plan
from whatwhere.errors import OptionError
from whatwhere.estimators.base import (
    Estimator,
    Observer,
    as_recording,
    constant_note,
    expect_shape,
    response_scale,
)
from whatwhere.recording import Recording
from whatwhere.standardisation import Standardisation

_PREDICT_NUMBERS = 2**24  # of images and predictions at once in `predict`
_SPREAD_NUMBERS = 2**23  # of whole-image filters made at once in `predict`


class FilterModel(Estimator):
    """r_n = f(a_n^T x + b_n) for each neuron by itself, on standardised pixels x; the final classes name the fit.

    Options of all of them:

    - strengths: of the penalty, relative to pixels of unit mean variance and responses of unit variance. The one
      with the lowest loss (of responses scaled to unit variance) on the validation part is taken.
    - crop: None, every neuron sees the whole image; or the size in pixels, one number or (height, width), of the
      window that it sees around its location, shifted inside where it would reach out of the image.
    - locations: "average", the peak of the neuron's squared spike-triggered average (of the images fitted),
      decorrelated and smoothed by a Gaussian of `sta_smoothing` pixels; "metadata", the columns `row` and `column`
      of `recording.neurons`.
    - standardize: pixels, "global", "pixel" or "none". validation_fraction: of the images, 0.2.
    - folds: None chooses the strength on the validation part; k >= 2 by k-fold cross-validation over training and
      validation images together.
    - per_neuron: whether each neuron has a strength of its own, or the best on average serves all.
    - offset: of the linear models, whether there is one; False for rates known to have mean 0, as the paper's simulated
      ones: with few images the error of the mean costs more than all else.
    - refit: whether the model with that strength is fitted once more, to training and validation images together.
    - seed: of the split and the folds. nonfinite: "error", or leave out the "rows" or "neurons" that hold NaN.

    Fitted: `filters_` (n_neurons, n_channels, height, width), of the window where there is a crop; `offset_`
    (n_neurons,); `strength_`, a number, or (n_neurons,) if `per_neuron`; `history_`, one row a strength. With a crop:
    `locations_` and `positions_` (n_neurons, 2), row and column of the location and of the window's first pixel. A
    model of several penalties has an option and an attribute for each in place of `strengths` and `strength_`.
    """

    # What holds where a final class has no such option.
    folds: Any = None
    per_neuron: Any = False
    offset: Any = True

    crop: Any
    locations: Any
    sta_smoothing: Any
    standardize: Any
    validation_fraction: Any
    refit: Any
    seed: int
    nonfinite: str

    filters_: np.ndarray
    offset_: np.ndarray
    scale_: np.ndarray

    solver_name: ClassVar[str]
    """What fits it, for messages."""
    penalties: ClassVar[Mapping[str, str]] = {"strength": "strengths"}
    """Each penalty's name in the history, in files and, with a `_`, as an attribute; and the option with its values.

    Of several penalties every combination is tried.
    """

    @abstractmethod
    def family(self) -> Family:
        """The nonlinearity and the loss."""

    @abstractmethod
    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> Solver:
        """What fits all neurons that see these pixels (n_images, n_pixels), centred, float64, of windows of `shape`."""

    @abstractmethod
    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        """Floating-point operations of one search over all strengths, roughly."""

    @abstractmethod
    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        """Numbers that a solver holds beside its pixels and solutions while it fits so many neurons, roughly."""

    def asked(self) -> dict[str, Any]:
        self.family()
        given = self.get_params(deep=False)
        options = {name: CHECKS[name](value) for name, value in given.items() if name in CHECKS}
        check_window_options(options["crop"], options["locations"], options["sta_smoothing"])
        return {"model": self.name, "seed": self.seed, "options": options}

    def fit(
        self,
        images: Any,
        responses: Any = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Fits to a `Recording`, or to images and responses; nothing is kept in `folder` while fitting."""
        self.asked()  # says at once what does not fit
        given = as_recording(images, responses, self.nonfinite)
        recording = self.check(given)
        rows, validation_rows = recording.split(self.validation_fraction, self.seed)
        self.notes_ = (*recording.notes, *constant_note(recording))
        if observer is not None:
            observer(self._plan(recording, len(rows), len(validation_rows)))
        given_strengths = self._strengths()
        order = from_strong_to_weak(given_strengths)
        strengths = given_strengths[order]
        losses, problem, solved = self._search(recording, strengths)
        if self.refit or self.folds is not None:
            rows = np.sort(np.concatenate([rows, validation_rows])) if self.refit else rows
            problem, solved = self._problem(recording, rows), None
        chosen = self._choose(losses, order)
        self._set_strengths(strengths[chosen] if self.per_neuron else strengths[chosen[0]])
        again = solve(problem, self.solver, strengths[: chosen.max() + 1])
        self._keep(problem, again if solved is None else solved, chosen)
        self.remember(recording, rows, given.fingerprint())
        self.stopped_ = "solved"
        return self

    def check(self, recording: Recording) -> Recording:
        validation_parts(recording, self.validation_fraction, self.folds, self.seed)
        recording.split(self.validation_fraction, self.seed)
        size, image_size = check_crop(self.crop), recording.image_shape[1:]
        if size is not None and (np.array(size) > image_size).any():
            raise OptionError(
                f"crop (={size[0]} x {size[1]}) does not fit in images of {image_size[0]} x {image_size[1]} pixels,"
                " height x width: choose a smaller one, or None for the whole image."
            )
        if size is not None and self.locations == "metadata":
            metadata_locations(recording)
        return recording.check_nonnegative() if self.family().loss == "poisson" else recording

    def _strengths(self) -> np.ndarray:
        """The candidates in the order given: (n_candidates,), or (n_candidates, n_penalties) of several penalties."""
        values = [np.atleast_1d(np.asarray(getattr(self, option), np.float64)) for option in self.penalties.values()]
        return values[0] if len(values) == 1 else np.array(list(product(*values)))

    def _set_strengths(self, values: np.ndarray) -> None:
        """Keeps the strengths chosen: each a number, or (n_neurons,) if `per_neuron`."""
        columns = np.moveaxis(values, -1, 0) if len(self.penalties) > 1 else [values]
        for name, column in zip(self.penalties, columns, strict=True):
            setattr(self, f"{name}_", column if self.per_neuron else float(column))

    def _problem(self, recording: Recording, rows: np.ndarray) -> Problem:
        """What a fit to these rows sees; its statistics and locations are of these rows alone."""
        standardisation = Standardisation.fit(recording.images, self.standardize, rows=rows)
        scale = response_scale(recording.responses[rows])
        images = standardisation.apply(recording.read_images(rows))
        responses = recording.responses[rows]
        size, image_size = check_crop(self.crop), (recording.height, recording.width)
        if size is None:
            crops, locations = Crops.whole(image_size, recording.n_neurons), None
        else:
            if self.locations == "metadata":
                locations = metadata_locations(recording)
            else:
                locations = average_locations(images, responses, self.sta_smoothing)
            crops = Crops.around(locations, (size[0], size[1]), image_size)
        return Problem(standardisation, scale, images, responses / scale, crops, locations, bool(self.offset))

    def _search(self, recording: Recording, strengths: np.ndarray) -> tuple[np.ndarray, Problem, list[Batch] | None]:
        """Each strength's loss on the images held out, (n_strengths, n_neurons); the last problem and its solutions."""
        losses = np.zeros((len(strengths), recording.n_neurons))
        n_judged = 0
        for rows, held in validation_parts(recording, self.validation_fraction, self.folds, self.seed):
            problem = self._problem(recording, rows)
            seen = problem.standardisation.apply(recording.read_images(held))
            wanted = recording.responses[held] / problem.scale
            found, batches = validation_losses(problem, seen, wanted, self.family(), self.solver, strengths)
            losses += len(held) * found
            n_judged += len(held)
        return losses / n_judged, problem, batches

    def _choose(self, losses: np.ndarray, order: np.ndarray) -> np.ndarray:
        """For each neuron the place of its strength in the path, (n_neurons,); writes the history."""
        place = np.argsort(order)  # of each strength given
        means = losses.mean(1)[place]
        columns = self._strengths().reshape(len(means), -1).T
        self.history_ = pd.DataFrame({**dict(zip(self.penalties, columns, strict=True)), "validation_loss": means})
        best = losses[place].argmin(0) if self.per_neuron else np.full(losses.shape[1], means.argmin())
        return place[best]

    def _keep(self, problem: Problem, batches: Iterable[Batch], chosen: np.ndarray) -> None:
        """Puts each neuron's solution at its strength back into the responses' units, and keeps it."""
        n_neurons, n_channels = len(chosen), problem.images.shape[1]
        filters = np.empty((n_neurons, n_channels * int(np.prod(problem.crops.size))), np.float32)
        offset, solved = np.empty(n_neurons, np.float32), np.ones(n_neurons, bool)
        unit = problem.scale if self.family().is_linear else np.ones(n_neurons)
        for batch in batches:
            for number, solution in enumerate(batch.path):
                here = chosen[batch.neurons] == number
                neurons = batch.neurons[here]
                found = solution.filters[:, here] * unit[neurons]  # (n_pixels, n_neurons)
                filters[neurons] = found.T
                offset[neurons] = solution.offset[here] * unit[neurons] - batch.centre @ found
                solved[neurons] = solution.solved[here]
        if not solved.all():
            note = (
                f"the {self.solver_name} stopped before it converged for {np.sum(~solved):,} of {n_neurons:,} neurons"
            )
            self.notes_ = (*self.notes_, note)
        self.filters_ = filters.reshape(n_neurons, n_channels, *problem.crops.size)
        self.offset_ = offset
        self.scale_ = np.where(self.family().is_linear, 1, problem.scale).astype(np.float32)
        self.standardisation_ = problem.standardisation
        self._set_crops(problem.crops, problem.locations)

    def _set_crops(self, crops: Crops, locations: np.ndarray | None) -> None:
        self._crops = crops
        for name in ("positions_", "locations_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if locations is not None:
            self.positions_, self.locations_ = crops.positions, locations

    def _plan(self, recording: Recording, n: int, n_validation: int) -> Plan:
        """Memory of images, one window's pixels with their products, and filters; time by the operations, roughly."""
        n_channels, height, width = recording.image_shape
        crop_height, crop_width = check_crop(self.crop) or (height, width)
        n_pixels, n_neurons, n_strengths = (
            n_channels * crop_height * crop_width,
            recording.n_neurons,
            len(self._strengths()),
        )
        n_windows = min(n_neurons, (height - crop_height + 1) * (width - crop_width + 1))
        operations = self.operations(n, n_pixels, n_windows, n_neurons)
        operations += 2.0 * n_strengths * n_pixels * n_neurons * n_validation
        if self.crop is not None and self.locations == "average":
            operations += 2.0 * n * n_neurons * n_channels * height * width
        n_fits = (self.folds or 1) + bool(self.refit or self.folds)
        n_solutions = n_strengths * n_pixels * n_neurons
        numbers = (n + n_validation) * n_channels * height * width / 2  # these are float32
        numbers += 2 * n * n_pixels + 2 * (n_pixels + n) * n_neurons
        numbers += self.numbers(n, n_pixels, min(n_neurons, most_together(n, n_pixels, n_strengths)))
        numbers += n_solutions if n_solutions <= KEPT_NUMBERS else 2 * BATCH_NUMBERS
        return Plan(
            n_images=n,
            n_validation=n_validation,
            n_parameters=(n_pixels + 1) * n_neurons,
            n_candidates=n_strengths,
            memory=int(8 * numbers),
            seconds_per_step=0.0,
            least_seconds=n_fits * operations / 1e11,
            most_seconds=n_fits * operations / 5e9,
            notes=self.notes_,
        )

    def whole_filters(self, neurons: slice | np.ndarray = slice(None)) -> np.ndarray:
        """These neurons' filters in their places in the image, (n_neurons, n_channels, height, width), zeros around."""
        self.check_fitted()
        return self._crops.spread(self.filters_, neurons)

    def predict(self, images: Any) -> np.ndarray:
        self.check_fitted()
        family = self.family()
        predictions = [np.zeros((0, len(self.offset_)), np.float32)]
        shapes = self.shapes_
        most = max(1, _PREDICT_NUMBERS // (shapes.n_channels * shapes.height * shapes.width + shapes.n_neurons))
        for pixels in self.standardised(images, most):
            drive = np.concatenate(list(self._drives(pixels.reshape(len(pixels), -1))), axis=1) + self.offset_
            predictions.append(family.rate(drive) * self.scale_)
        return np.concatenate(predictions)

    def _drives(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """pixels @ filters, so many neurons at a time that their whole-image filters take little memory.

        One product with whole filters, mostly zeros, is faster than cutting out every neuron's window.
        """
        n_neurons = len(self.filters_)
        most = n_neurons if self._crops.is_whole else max(1, _SPREAD_NUMBERS // pixels.shape[1])
        for start in range(0, n_neurons, most):
            filters = self.whole_filters(slice(start, start + most))
            yield pixels @ filters.reshape(len(filters), -1).T

    def tensors(self) -> dict[str, Tensor]:
        self.check_fitted()
        arrays = {"filters": self.filters_, "offset": self.offset_}
        if not self.family().is_linear:
            arrays["scale"] = self.scale_
        if hasattr(self, "locations_"):
            arrays |= {"positions": self.positions_, "locations": self.locations_}
        if self.per_neuron:
            arrays |= self._chosen()
        return {name: torch.tensor(array) for name, array in arrays.items()}

    def description(self) -> dict[str, Any]:
        self.check_fitted()
        return {**self.asked(), **({} if self.per_neuron else self._chosen())}

    def _chosen(self) -> dict[str, Any]:
        return {name: getattr(self, f"{name}_") for name in self.penalties}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        estimator = cls(**description["options"], seed=description["seed"])
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        shapes = description["shapes"]
        n_neurons, image_size = shapes["n_neurons"], (shapes["height"], shapes["width"])
        size = check_crop(estimator.crop)
        if size is None:
            crops, locations = Crops.whole(image_size, n_neurons), None
        else:
            expect_shape("positions", arrays["positions"], (n_neurons, 2))
            expect_shape("locations", arrays["locations"], (n_neurons, 2))
            crops, locations = Crops((size[0], size[1]), arrays["positions"], image_size), arrays["locations"]
        estimator._set_crops(crops, locations)
        estimator.filters_, estimator.offset_ = arrays["filters"], arrays["offset"]
        expect_shape("filters", estimator.filters_, (n_neurons, shapes["n_channels"], *crops.size))
        expect_shape("offset", estimator.offset_, (n_neurons,))
        linear = estimator.family().is_linear
        estimator.scale_ = np.ones(n_neurons, np.float32) if linear else arrays["scale"]
        expect_shape("scale", estimator.scale_, (n_neurons,))
        for name in cls.penalties:
            if estimator.per_neuron:
                expect_shape(name, arrays[name], (n_neurons,))
            setattr(estimator, f"{name}_", arrays[name] if estimator.per_neuron else float(description[name]))
        estimator.stopped_ = "solved"
        return estimator
