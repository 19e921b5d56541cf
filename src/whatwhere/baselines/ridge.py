"""Ridge regression on pixels: a linear filter for each neuron, all neurons at once, strength by validation."""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whatwhere.checks import check_choice, check_positive
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
from whatwhere.standardisation import MODES, Standardisation

_CHUNK = 4096
STRENGTHS = tuple(float(strength) for strength in np.logspace(-2, 4, 13))


class RidgePath:
    """argmin_w |y - X w|^2 / n + strength |w|^2 for any strength, from one factorisation.

    pixels: (n_images, n_pixels), responses: (n_images, n_neurons), both centred. The eigenvectors are those of the
    smaller of X^T X and X X^T, so that neither many pixels nor many images are a burden.
    """

    def __init__(self, pixels: np.ndarray, responses: np.ndarray) -> None:
        n_images, n_pixels = pixels.shape
        if n_pixels <= n_images:
            values, vectors = np.linalg.eigh(pixels.T @ pixels)
            self.basis = vectors  # (n_pixels, rank)
            self.projected = vectors.T @ (pixels.T @ responses)  # (rank, n_neurons)
        else:
            values, vectors = np.linalg.eigh(pixels @ pixels.T)
            kept = values > values[-1] * 1e-12
            values, vectors = values[kept], vectors[:, kept]
            root = np.sqrt(values)
            self.basis = pixels.T @ vectors / root
            self.projected = root[:, None] * (vectors.T @ responses)
        self.values, self.n_images = values, n_images

    def filters(self, strength: float) -> np.ndarray:
        """(n_pixels, n_neurons)."""
        return self.basis @ (self.projected / (self.values + self.n_images * strength)[:, None])


class Ridge(Estimator):
    """y_n = a_n^T x + b_n with an L2 penalty, on standardised pixels.

    strengths: searched on the validation part by the squared error of responses scaled to unit variance, averaged
    over neurons; relative to the mean variance of a pixel. The offset is not penalised.

    Fitted: `filters_` (n_neurons, n_channels, height, width), `strength_`, `history_` (one row a strength).
    """

    name: ClassVar[str] = "ridge"

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        standardize: str = "global",
        validation_fraction: float = 0.2,
        *,
        seed: int = 0,
        nonfinite: str = "error",
    ) -> None:
        self.strengths = strengths
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.nonfinite = nonfinite

    def asked(self) -> dict[str, Any]:
        check_choice("standardisation", self.standardize, MODES)
        fraction: Any = self.validation_fraction
        if not (isinstance(fraction, Real) and 0 < float(fraction) < 1):
            raise OptionError(f"validation_fraction must lie between 0 and 1, got {fraction!r}: 0.2 is usual.")
        options = {
            "strengths": self._strengths(),
            "standardize": self.standardize,
            "validation_fraction": float(fraction),
        }
        return {"model": self.name, "seed": self.seed, "options": options}

    def _strengths(self) -> list[float]:
        try:
            strengths = [float(strength) for strength in np.atleast_1d(np.asarray(self.strengths))]
        except (TypeError, ValueError):
            raise OptionError(f"strengths must be numbers above 0, got {self.strengths!r}.") from None
        if not strengths:
            raise OptionError("strengths is empty: give at least one.")
        for strength in strengths:
            check_positive("strengths", strength)
        return strengths

    def fit(
        self,
        images: Any,
        responses: Any = None,
        *,
        folder: str | Path | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> Self:
        """Fits to a `Recording`, or to images and responses; takes seconds, so nothing is kept in `folder`."""
        self.asked()  # says at once what does not fit
        recording = self.check(as_recording(images, responses, self.nonfinite))
        rows, validation_rows = recording.split(self.validation_fraction, self.seed)
        self.notes_ = (*recording.notes, *constant_note(recording))
        if observer is not None:
            observer(self._plan(recording, len(rows), len(validation_rows)))
        self.standardisation_ = Standardisation.fit(recording.images, self.standardize, rows=rows)
        scale = response_scale(recording.responses[rows])
        mean = recording.responses[rows].mean(0, dtype=np.float64)

        def prepared(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            pixels = self.standardisation_.apply(recording.read_images(some)).reshape(len(some), -1)
            return pixels.astype(np.float64), (recording.responses[some] - mean) / scale

        pixels, wanted = prepared(rows)
        centre = pixels.mean(0)
        path = RidgePath(pixels - centre, wanted)
        unit = np.mean(np.square(pixels - centre)) or 1.0
        self.history_ = self._validate(path, unit, centre, *prepared(validation_rows))
        self.strength_ = self._strengths()[int(self.history_["validation_loss"].to_numpy().argmin())]
        filters = path.filters(self.strength_ * unit) * scale  # (n_pixels, n_neurons)
        self.offset_ = (mean - centre @ filters).astype(np.float32)
        self.filters_ = np.ascontiguousarray(filters.T, np.float32).reshape(-1, *recording.image_shape)
        self.remember(recording, rows, recording.fingerprint())
        self.stopped_ = "solved"
        return self

    def check(self, recording: Recording) -> Recording:
        recording.split(self.validation_fraction, self.seed)
        return recording

    def _plan(self, recording: Recording, n: int, n_validation: int) -> Plan:
        """Memory of pixels, their products and the filters in double precision; time by the operations, roughly."""
        n_pixels, n_neurons = int(np.prod(recording.image_shape)), recording.n_neurons
        small, large = sorted((n, n_pixels))
        operations = 2.0 * small**2 * large + 10.0 * small**3
        operations += 2.0 * n_pixels * n_neurons * (n + small + len(self._strengths()) * (small + n_validation))
        numbers = 3 * n * n_pixels + 2 * small**2 + small * n_pixels + 2 * (n_pixels + n) * n_neurons
        return Plan(
            n_images=n,
            n_validation=n_validation,
            n_parameters=(n_pixels + 1) * n_neurons,
            n_candidates=len(self._strengths()),
            memory=8 * numbers,
            seconds_per_step=0.0,
            least_seconds=operations / 1e11,
            most_seconds=operations / 5e9,
            notes=self.notes_,
        )

    def _validate(
        self, path: RidgePath, unit: float, centre: np.ndarray, pixels: np.ndarray, wanted: np.ndarray
    ) -> pd.DataFrame:
        strengths = self._strengths()
        losses = [
            float(np.mean(np.square((pixels - centre) @ path.filters(strength * unit) - wanted)))
            for strength in strengths
        ]
        return pd.DataFrame({"strength": strengths, "validation_loss": losses})

    def predict(self, images: Any) -> np.ndarray:
        self.check_fitted()
        filters = self.filters_.reshape(len(self.filters_), -1)
        predictions = [np.zeros((0, len(filters)), np.float32)]
        for pixels in self.standardised(images, _CHUNK):
            predictions.append(pixels.reshape(len(pixels), -1) @ filters.T + self.offset_)
        return np.concatenate(predictions)

    def tensors(self) -> dict[str, Tensor]:
        self.check_fitted()
        return {"filters": torch.tensor(self.filters_), "offset": torch.tensor(self.offset_)}

    def description(self) -> dict[str, Any]:
        self.check_fitted()
        return {**self.asked(), "strength": self.strength_}

    @classmethod
    def restored(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        estimator = cls(**description["options"], seed=description["seed"])
        estimator.filters_, estimator.offset_ = tensors["filters"].numpy(), tensors["offset"].numpy()
        n_channels, height, width, n_neurons = (
            description["shapes"][name] for name in ("n_channels", "height", "width", "n_neurons")
        )
        expect_shape("filters", estimator.filters_, (n_neurons, n_channels, height, width))
        expect_shape("offset", estimator.offset_, (n_neurons,))
        estimator.strength_, estimator.stopped_ = float(description["strength"]), "solved"
        return estimator
