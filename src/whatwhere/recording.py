"""`Recording`: images, the responses to them, a repeated test set, and what is known of the neurons."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from typing import Any

import numpy as np

from whatwhere.checks import check_choice, check_finite, check_positions, check_same_rows, some_of
from whatwhere.errors import InputError, OptionError
from whatwhere.heldout import NONFINITE, HeldOut, Truth, as_responses, check_fits, check_truth_fits
from whatwhere.recording_parts import (
    as_ids,
    as_neurons,
    as_validation,
    check_image_rows,
    finite_images,
    plain,
)
from whatwhere.rows import as_images, by_columns, frozen, is_lazy, read_rows, row_chunks, take_rows
from whatwhere.standardisation import Standardisation

__all__ = ["HeldOut", "Recording", "Standardisation", "Truth", "with_split"]

DUST = 1e-6  # negative values smaller than this, in standard deviations of their neuron, are rounding errors


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Images and the responses of a population to them, checked once, never changed.

    - `images` (n_images, n_channels, height, width), any real dtype, kept as stored; three dimensions get one
      channel. An array on disk (h5py, zarr) stays there, and its values are checked when they are read.
    - `responses` (n_images, n_neurons), float32; one dimension is one neuron
    - `test` None or a `HeldOut`: repeated images
    - `neurons` DataFrame with a row per neuron: unique identifiers as the index (0..n-1 by default), metadata
      as columns
    - `validation` None or bool (n_images,): rows set aside for validation by the experimenter
    - `image_ids` None or (n_images,): equal for rows that show the same image
    - `truth` None or a `Truth`: what a simulation knows beside
    - `notes` what a reader or a check wants to tell

    `nonfinite` says what becomes of NaN and infinite values: "error" raises `InputError` naming them, "rows"
    and "neurons" leave out the rows (and test trials) or the neurons that hold them, and note how many.
    Arrays that can be written to are copied; one that is read-only is taken as it is.

    >>> recording = Recording(np.zeros((10, 5, 8), np.uint8), np.arange(20.0).reshape(10, 2))
    >>> recording
    Recording('recording', 10 images of 1x5x8, 2 neurons, no test set)
    >>> train, validation = recording.split(0.2, seed=1)
    >>> len(train), len(validation)
    (8, 2)
    """

    images: Any
    responses: Any
    _: KW_ONLY
    test: HeldOut | None = None
    neurons: Any = None
    validation: Any = None
    image_ids: Any = None
    truth: Truth | None = None
    name: str = "recording"
    notes: tuple[str, ...] = ()
    nonfinite: InitVar[str] = "error"

    def __post_init__(self, nonfinite: str) -> None:
        check_choice("nonfinite", nonfinite, NONFINITE)
        images, responses = as_images("images", self.images), as_responses("responses", self.responses)
        n_images, n_neurons = responses.shape
        check_same_rows("responses", n_images, "images", images.shape[0])
        if self.test is not None:
            check_fits(self.test, n_neurons, tuple(images.shape[1:]))
        if self.truth is not None:
            check_truth_fits(self.truth, responses.shape)
        parts = {
            "images": images,
            "responses": responses,
            "neurons": as_neurons(self.neurons, n_neurons),
            "validation": as_validation(self.validation, n_images),
            "image_ids": as_ids(self.image_ids, n_images),
            "name": str(self.name),
            "notes": tuple(self.notes),
        }
        self._set(parts)
        if nonfinite == "error":
            self._check_finite()
        else:
            kept = _without_nonfinite(self, nonfinite)
            self._set({name: getattr(kept, name) for name in (*parts, "test", "truth")})

    def _set(self, parts: dict[str, Any]) -> None:
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    def _check_finite(self) -> None:
        check_finite("responses", self.responses, self.neurons.index)
        if not is_lazy(self.images):
            for chunk in row_chunks(self.images):
                check_image_rows("images", self.images[chunk], range(chunk.start, chunk.stop))
        if self.test is not None:
            check_finite("test responses", self.test.responses, self.neurons.index, row="trial")
            if not is_lazy(self.test.images):
                check_image_rows("test images", self.test.images, range(self.test.n_images))

    n_images = property(
        lambda self: int(self.images.shape[0]), doc="Number of images (rows), the test set's not counted."
    )
    n_neurons = property(lambda self: int(self.responses.shape[1]), doc="Number of neurons.")
    n_channels = property(lambda self: int(self.images.shape[1]), doc="Number of colour channels.")
    height = property(lambda self: int(self.images.shape[2]), doc="Height of the images, pixels.")
    width = property(lambda self: int(self.images.shape[3]), doc="Width of the images, pixels.")
    image_shape = property(lambda self: tuple(self.images.shape[1:]), doc="(n_channels, height, width).")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        test = "no test set" if self.test is None else f"test {self.test!r}"
        images = f"{self.n_images:,} images of {size}"
        return f"Recording({self.name!r}, {images}, {self.n_neurons:,} neurons, {test})"

    def read_images(self, rows: Any = None) -> np.ndarray:
        """The images of these rows, in this order (all by default), as float32.

        Raises `InputError` where images from disk hold NaN or infinite values.
        """
        if rows is not None:
            rows = check_positions("rows", rows, self.n_images, "image")
        images = np.array(read_rows(self.images, rows), dtype=np.float32)
        if is_lazy(self.images):
            check_image_rows("images", images, range(self.n_images) if rows is None else rows)
        return images

    def split(self, fraction: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows for training and rows for validation, each sorted and never empty.

        The rows that `validation` names, if the recording has it; else a random share of about `fraction`,
        the same for the same `seed`, with all rows of one image (equal `image_ids`) on one side.
        Raises `InputError` where there are fewer than two images, `OptionError` for a fraction not between 0
        and 1.
        """
        if self.validation is not None:
            return np.flatnonzero(~self.validation), np.flatnonzero(self.validation)
        if not 0 < fraction < 1:
            raise OptionError(f"the validation fraction must lie between 0 and 1, got {fraction}: 0.2 is usual.")
        ids = np.arange(self.n_images) if self.image_ids is None else self.image_ids
        groups, group, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        if len(groups) < 2:
            raise InputError(
                f"the recording has {self.n_images:,} rows that show {len(groups)} image: a split needs at least 2"
                " different images. Record more, or give validation= yourself."
            )
        order = np.random.default_rng(seed).permutation(len(groups))
        distance = np.abs(np.cumsum(sizes[order]) - fraction * self.n_images)
        n_groups = min(int(np.argmin(distance)) + 1, len(groups) - 1)
        chosen = np.isin(group, order[:n_groups])
        return np.flatnonzero(~chosen), np.flatnonzero(chosen)

    def select_neurons(self, which: Any, seed: int = 0) -> "Recording":
        """Some neurons: n of them at random (sorted, from `seed`), or positions, or one boolean each.

        Raises `InputError` for positions out of range or named twice.
        """
        if isinstance(which, int | np.integer) and not isinstance(which, bool | np.bool_):
            if not 1 <= which <= self.n_neurons:
                raise InputError(f"{which:,} neurons were asked for: expected 1 to {self.n_neurons:,}.")
            which = np.sort(np.random.default_rng(seed).choice(self.n_neurons, int(which), replace=False))
        positions = check_positions("neurons", which, self.n_neurons, "neuron")
        if len(np.unique(positions)) < len(positions):
            raise InputError("neurons names a position twice: expected each at most once.")
        test = None if self.test is None else self.test.select_neurons(positions)
        truth = None if self.truth is None else self.truth.select_neurons(positions)
        responses = frozen(self.responses[:, positions])
        return replace(self, responses=responses, neurons=self.neurons.iloc[positions], test=test, truth=truth)

    def select_images(self, rows: Any) -> "Recording":
        """Some images, by position or one boolean each; the test set stays whole."""
        rows = check_positions("rows", rows, self.n_images, "image")
        notes = list(self.notes)
        changes = _rows_of(self, rows, notes)
        return replace(self, **changes, notes=tuple(notes))

    def constant_neurons(self) -> np.ndarray:
        """Positions of the neurons whose response never changes, the test set not counted."""
        return np.flatnonzero((self.responses == self.responses[:1]).all(axis=0))

    def check_nonnegative(self) -> "Recording":
        """This recording without negative responses, as the Poisson loss needs it; test responses included.

        Negative values above -1e-6 standard deviations of their neuron are rounding dust: they become 0, and
        a note says how many (a neuron that does not vary is measured by the population's median). Raises
        `InputError` where a response is really negative.
        """
        scale = by_columns(lambda some: some.std(axis=0, dtype=np.float64), self.responses)
        typical = float(np.median(scale[scale > 0])) if (scale > 0).any() else 1.0
        floor = -DUST * np.where(scale > DUST * typical, scale, typical)
        responses, n_dust = self._without_dust("responses", self.responses, floor, "row")
        test, n_test = self.test, 0
        if test is not None:
            cleaned, n_test = self._without_dust("test responses", test.responses, floor, "trial")
            test = test.with_responses(cleaned)
        if n_dust + n_test == 0:
            return self
        n = n_dust + n_test
        note = f"{n:,} response{'s'[: n > 1]} negative by rounding (above {-DUST:g} deviations) set to 0"
        return replace(self, responses=responses, test=test, notes=(*self.notes, note))

    def _without_dust(self, name: str, responses: np.ndarray, floor: np.ndarray, row: str) -> tuple[np.ndarray, int]:
        real = np.argwhere(responses < floor)
        if len(real):
            ids = self.neurons.index
            where = some_of(f"neuron {ids[j]} in {row} {i} ({responses[i, j]:.3g})" for i, j in real)
            raise InputError(
                f"{name} holds {len(real):,} negative value{'s'[: len(real) > 1]}, but the Poisson loss needs rates of"
                f" 0 or more: {where}."
                " Use the squared error, or subtract each neuron's baseline."
            )
        dust = responses < 0
        n_dust = int(np.count_nonzero(dust))
        return frozen(np.where(dust, np.float32(0), responses)) if n_dust else responses, n_dust

    def summary(self) -> dict[str, Any]:
        """What there is to say of the recording, as plain values: sizes, repeats, reliability, memory, notes.

        `reliability` is the median over neurons of 1 - noise variance / total variance of the repeated test
        trials.
        """
        constant = self.constant_neurons()
        out: dict[str, Any] = {
            "name": self.name,
            "n_images": self.n_images,
            "n_neurons": self.n_neurons,
            "image_shape": tuple(map(int, self.image_shape)),
            "images_dtype": str(self.images.dtype),
            "images_on_disk": is_lazy(self.images),
            "responses_dtype": str(self.responses.dtype),
            "n_validation": None if self.validation is None else int(self.validation.sum()),
            "neuron_columns": [str(column) for column in self.neurons.columns],
            "mean_response": float(self.responses.mean(dtype=np.float64)),
            "negative_share": float(np.mean(self.responses < 0)),
            "n_constant_neurons": len(constant),
            "constant_neurons": [plain(self.neurons.index[i]) for i in constant],
        }
        if self.test is not None:
            repeats, noise = self.test.n_repeats, self.test.noise_share()
            out["n_test_images"], out["n_test_trials"] = self.test.n_images, self.test.n_trials
            out["repeats_min"], out["repeats_max"] = int(repeats.min()), int(repeats.max())
            varies = () if noise is None else noise[np.isfinite(noise)]
            out["reliability"] = float(1 - np.median(varies)) if len(varies) else None
        out["images_bytes"] = math.prod(self.images.shape) * self.images.dtype.itemsize
        out["memory_bytes"] = sum(array.nbytes for array in self._arrays() if not is_lazy(array))
        out["notes"] = list(self.notes)
        return out

    def fingerprint(self) -> str:
        """SHA-256 of all arrays and the neurons' identifiers: equal for the same data, wherever it lies.

        Name, notes and metadata columns do not count. Reads images from disk in chunks.
        """
        digest = hashlib.sha256()
        for array in self._arrays():
            digest.update(f"{array.shape} {array.dtype.newbyteorder('<').str}".encode())
            for chunk in row_chunks(array):
                values = np.asarray(array[chunk])
                digest.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
        for labels in (self.neurons.index, self.image_ids):
            digest.update(repr(None if labels is None else [str(label) for label in labels]).encode())
        return digest.hexdigest()

    def _arrays(self) -> Iterator[Any]:
        absent = np.empty(0, np.uint8)
        yield from (self.images, self.responses, absent if self.validation is None else self.validation)
        if self.test is not None:
            yield from (self.test.images, self.test.responses, self.test.image_index.astype(np.int64))
            yield absent if self.test.rates is None else self.test.rates


def with_split(recording: Recording, fraction: float, seed: int) -> Recording:
    """The recording with its split for validation declared: whatever is fitted to it then, with any seed, has that one.

    Its own split where it has one, else that of `Recording.split`.

    >>> declared = with_split(Recording(np.zeros((10, 4, 4)), np.arange(10.0)), 0.2, seed=1)
    >>> all(len(declared.split(0.5, seed)[1]) == 2 for seed in range(9))
    True
    """
    if recording.validation is not None:
        return recording
    mask = np.zeros(recording.n_images, bool)
    mask[recording.split(fraction, seed)[1]] = True
    return replace(recording, validation=mask)


def _without_nonfinite(recording: Recording, nonfinite: str) -> Recording:
    drop = _without_neurons if nonfinite == "neurons" else _without_rows
    return drop(recording)


def _without_neurons(recording: Recording) -> Recording:
    test, keep = recording.test, np.isfinite(recording.responses).all(axis=0)
    if test is not None:
        keep &= np.isfinite(test.responses).all(axis=0)
    if not keep.any():
        raise InputError("every neuron holds a value that is not finite: none would be left. Try nonfinite='rows'.")
    if keep.all():
        return replace(recording)
    lost = some_of(recording.neurons.index[~keep])
    note = f"left out {np.sum(~keep):,} of {len(keep):,} neurons that hold values that are not finite: {lost}"
    return replace(
        recording,
        responses=frozen(recording.responses[:, keep]),
        neurons=recording.neurons.loc[keep],
        test=None if test is None else test.select_neurons(np.flatnonzero(keep)),
        truth=None if recording.truth is None else recording.truth.select_neurons(np.flatnonzero(keep)),
        notes=(*recording.notes, note),
    )


def _without_rows(recording: Recording) -> Recording:
    changes: dict[str, Any] = {}
    notes = list(recording.notes)
    keep = np.isfinite(recording.responses).all(axis=1) & finite_images(recording.images)
    if not keep.any():
        raise InputError("every row holds a value that is not finite: none would be left. Try nonfinite='neurons'.")
    if not keep.all():
        notes.append(f"left out {np.sum(~keep):,} of {len(keep):,} images that hold values that are not finite")
        changes = _rows_of(recording, np.flatnonzero(keep), notes)
    test = recording.test
    if test is not None:
        good = np.isfinite(test.responses).all(axis=1) & finite_images(test.images)[test.image_index]
        if not good.all():
            notes.append(
                f"left out {np.sum(~good):,} of {len(good):,} test trials that hold values that are not finite"
            )
            changes["test"] = test.select_trials(good)
    return replace(recording, **changes, notes=tuple(notes))


def _rows_of(recording: Recording, rows: np.ndarray, notes: list[str]) -> dict[str, Any]:
    """The fields of `recording` that have a row per image, at some rows; adds to `notes` what was lost."""
    validation = None if recording.validation is None else recording.validation[rows]
    if validation is not None and (validation.all() or not validation.any()):
        notes.append("the selected images lie all on one side of the predeclared validation split: it was dropped")
        validation = None
    return {
        "images": take_rows(recording.images, rows),
        "responses": frozen(recording.responses[rows]),
        "validation": validation,
        "image_ids": None if recording.image_ids is None else recording.image_ids[rows],
        "truth": None if recording.truth is None else recording.truth.select_images(rows),
    }
