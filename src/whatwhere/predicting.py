"""Predictions of a fitted model for images in a file, written to another, neither whole in memory."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.checks import check_choice
from whatwhere.errors import FormatError, InputError, OptionError, RunError
from whatwhere.estimators import Estimator
from whatwhere.formats import load, predictions
from whatwhere.formats.npy import map_npy
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import CHUNK_BYTES

PARTS = ("test", "training")


def predict_file(
    model: Estimator,
    images: Path,
    out: Path,
    *,
    of: str | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> tuple[int, int]:
    """Predicts the responses to images in a file and writes them to another; returns (n_images, n_neurons).

    images: a .npy of images, or with `of` a recording, of the format `format` or a recognised one, of which the images
    of the "test" set, each once, or of the "training" part, validation included, are predicted. out: .npy, .npz, .h5 or
    .csv, see `formats.predictions`. Images are read and predictions written a chunk at a time, so that neither need fit
    into memory. Raises `FormatError` for another suffix or an unreadable file, `RunError` where `out` exists already or
    has no folder, `InputError` for images of another shape or that hold NaN, and for a recording without the part,
    `OptionError` for another `of` than these two, and for a `format` without `of`.
    """
    predictions.check_suffix(out)
    if of is not None:
        check_choice("of", of, PARTS)
    if out.exists() and not overwrite:
        raise RunError(f"{out} exists already: use --overwrite to replace it, or another name.")
    if not out.parent.is_dir():
        raise RunError(f"the folder {out.parent} does not exist: make it first.")
    shown = model.check_images(_images_of(images, of, format))
    predictions.write(out, _predicted(model, shown), shown.shape[0], model.neurons_)
    return shown.shape[0], len(model.neurons_)


def _images_of(path: Path, of: str | None, format: str | None) -> Any:
    """The images in a .npy, or those of a recording's part; they stay on disk where they lie there."""
    if of is None:
        if path.exists() and path.suffix.lower() != ".npy":
            raise FormatError(f"{path} is no .npy of images. Of a recording say which: --of test or training.")
        if format is not None:
            raise OptionError(f"format {format!r} is that of a recording: say of it --of test or training.")
        return map_npy(path)
    recording = load(path, format)
    if of == "training":
        return recording.images
    if recording.test is None:
        raise InputError(f"{path} has no test set: predict its training images, --of training.")
    return recording.test.images


def _predicted(model: Estimator, images: Any) -> Iterator[np.ndarray]:
    """The predictions for some images after the other, as many at a time as a chunk of memory holds."""
    numbers = max(math.prod(images.shape[1:]), len(model.neurons_))
    most = max(1, CHUNK_BYTES // (4 * numbers))
    for start in range(0, max(1, images.shape[0]), most):
        some = np.asarray(images[start : start + most])
        check_image_rows("images", some, range(start, start + len(some)))
        yield model.predict(some)
