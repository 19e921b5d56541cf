"""`Standardisation`: images to zero mean and unit variance, with statistics of the training images alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whatwhere.checks import check_choice, check_finite, check_ndim, check_positions
from whatwhere.errors import InputError
from whatwhere.rows import IMAGE_AXES, LazyRows, as_images, row_chunks

MODES = ("global", "pixel", "none")
RELATIVE_FLOOR = 1e-7  # a spread below the resolution of float32 is no spread


@dataclass(frozen=True, eq=False)
class Standardisation:
    """(images - mean) / std, both broadcastable to (n_channels, height, width), in pixel values.

    Beside it stands what the images are like, by whatever they are standardised: `grey` (n_channels, 1, 1), the mean of
    each channel, and `contrast`, the standard deviation of an image's pixels about their mean in each channel, root
    mean square over images. None where nothing was fitted, or by a version that did not keep them.

    >>> images = np.arange(80, dtype=np.uint8).reshape(2, 1, 5, 8)
    >>> standardise = Standardisation.fit(images, "global")
    >>> standardise.mean.shape, bool(abs(standardise.apply(images).std() - 1) < 1e-6)
    ((1, 1, 1), True)
    """

    mean: np.ndarray
    std: np.ndarray
    grey: np.ndarray | None = None
    contrast: float | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std", *["grey"] * (self.grey is not None)):
            values = np.array(getattr(self, name), dtype=float)
            check_ndim(name, values, IMAGE_AXES[1:])
            check_finite(name, values)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if self.std.min() <= 0:
            raise InputError(
                f"std holds {self.std.min()}: expected values above 0. Use 1 for a pixel that never varies."
            )

    @classmethod
    def fit(cls, images: Any, mode: str = "global", *, rows: Any = None) -> "Standardisation":
        """The statistics of images (n_images, n_channels, height, width), in chunks, in double precision.

        `mode`: "global", one mean and one standard deviation over everything; "pixel", one per channel and
        pixel (1 where a pixel never varies); "none", the images stay as they are. `rows` are the training
        images: pass them, so that held-out images do not leak into the statistics. Raises `OptionError`,
        `InputError`.
        """
        check_choice("standardisation", mode, MODES)
        images = as_images("images", images)
        rows = None if rows is None else check_positions("rows", rows, images.shape[0], "image")
        mean, variance, grey, contrast = _moments(LazyRows(images, rows), (0,) if mode == "pixel" else (0, 1, 2, 3))
        if mode == "none":
            return cls(np.zeros((1, 1, 1)), np.ones((1, 1, 1)), grey, contrast)
        std = np.sqrt(variance)
        return cls(mean, np.where(std > RELATIVE_FLOOR * np.abs(mean), std, 1.0), grey, contrast)

    def apply(self, images: Any) -> np.ndarray:
        """Standardised images, float32, a new array of the same shape (..., n_channels, height, width)."""
        out = self._checked(images)
        out -= self.mean.astype(np.float32)
        out /= self.std.astype(np.float32)
        return out

    def invert(self, images: Any) -> np.ndarray:
        """The images back in pixel values, float32, a new array of the same shape."""
        out = self._checked(images)
        out *= self.std.astype(np.float32)
        out += self.mean.astype(np.float32)
        return out

    def _checked(self, images: Any) -> np.ndarray:
        out = np.array(images, dtype=np.float32)
        fits = out.ndim >= 3 and all(m in (1, n) for m, n in zip(self.mean.shape, out.shape[-3:], strict=True))
        if not fits:
            raise InputError(
                f"images has shape {out.shape}, but the statistics are of shape {self.mean.shape}: expected (...,"
                " n_channels, height, width) that fit. Use images of the size that was fitted."
            )
        return out


def _moments(images: LazyRows, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean and variance over `axes`, merged chunk by chunk (Chan, Golub & LeVeque 1983): no cancellation.

    And grey and contrast, see `Standardisation`; of images that are all flat the contrast is 0.
    """
    count, grey, power = 0.0, np.zeros((images.shape[1], 1, 1)), 0.0
    mean = squares = np.zeros((1, 1, 1, 1))
    chunk_bytes = 2**24 * images.dtype.itemsize // 8  # of stored values: 16 MiB as float64
    for chunk in row_chunks(images, chunk_bytes):
        values = images[chunk].astype(np.float64)
        check_finite("images", values)
        n = values.size / np.prod([values.shape[a] for a in range(4) if a not in axes])
        chunk_mean = values.mean(axis=axes, keepdims=True)
        delta = chunk_mean - mean
        squares = (
            squares + ((values - chunk_mean) ** 2).sum(axis=axes, keepdims=True) + delta**2 * (count * n / (count + n))
        )
        mean = mean + delta * (n / (count + n))
        count += n
        grey = grey + values.mean((2, 3)).sum(0)[:, None, None]
        power += float(values.var((2, 3)).mean(1).sum())
    grey, contrast = grey / images.shape[0], float(np.sqrt(power / images.shape[0]))
    return mean[0], squares[0] / count, grey, contrast if contrast > RELATIVE_FLOOR * np.abs(grey).max() else 0.0
