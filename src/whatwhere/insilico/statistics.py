"""What the images of a recording are like: what experiments on its model take as grey, and as contrast."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from whatwhere.checks import check_finite, check_ndim
from whatwhere.errors import InputError
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import IMAGE_AXES, as_images, row_chunks
from whatwhere.standardisation import Standardisation

_CHUNK_NUMBERS = 2**21


@dataclass(frozen=True, eq=False)
class ImageStatistics:
    """Mean and contrast of images, in the units of their pixels.

    - `mean` (n_channels, height, width): the mean image
    - `contrast`: the standard deviation of an image's pixels about their mean in each channel, root mean square over
      images

    Raises `InputError` for a mean of another shape or that is not finite, or a contrast that is not above 0.

    >>> ImageStatistics.of(np.array([[[0.0, 2.0]], [[1.0, 5.0]]])).contrast ** 2  # (1 + 4) / 2
    2.5
    """

    mean: np.ndarray
    contrast: float

    def __post_init__(self) -> None:
        mean = np.array(self.mean, np.float64)
        check_ndim("mean", mean, IMAGE_AXES[1:])
        check_finite("mean", mean, row="channel")
        mean.flags.writeable = False
        object.__setattr__(self, "mean", mean)
        if not (np.isfinite(self.contrast) and self.contrast > 0):
            raise InputError(
                f"contrast is {self.contrast}: expected a standard deviation above 0. Give images that vary."
            )

    @property
    def grey(self) -> np.ndarray:
        """The mean of each channel over its pixels, (n_channels, 1, 1)."""
        return self.mean.mean((1, 2), keepdims=True)

    @classmethod
    def of(cls, images: Any) -> Self:
        """Of images (n_images, n_channels, height, width), or without channels; those on disk are read in chunks."""
        images = as_images("images", images)
        total, squares = np.zeros(images.shape[1:]), 0.0
        for chunk in row_chunks(images, _CHUNK_NUMBERS * images.dtype.itemsize):
            some = np.asarray(images[chunk])
            check_image_rows("images", some, range(chunk.start, chunk.stop))
            some = some.astype(np.float64)
            total += some.sum(0)
            squares += float(some.var((2, 3)).mean(1).sum())
        return cls(total / images.shape[0], float(np.sqrt(squares / images.shape[0])))

    @classmethod
    def of_standardisation(
        cls, standardisation: Standardisation, image_shape: tuple[int, int, int]
    ) -> tuple[Self | None, str]:
        """What a fitted model knows of its training images: statistics, or None and why there are none.

        The mean image where it standardises each pixel, else the mean of each channel; and the contrast. A model that
        an earlier version kept knows only what it standardises by: then the standard deviation of all that varies
        stands in for the contrast, which so includes how whole images differ in brightness.
        """
        mean, std, grey, contrast = (getattr(standardisation, name) for name in ("mean", "std", "grey", "contrast"))
        if grey is not None and contrast is not None:
            if contrast == 0:
                return None, "its training images were all flat"
            return cls(np.broadcast_to(mean if mean.shape == image_shape else grey, image_shape), contrast), ""
        varies = std != 1.0  # what never varies has 1, and images that are taken as they are
        if not varies.any():
            return None, "it takes them as they are, and was kept by a version that did not note how they look"
        return cls(np.broadcast_to(mean, image_shape), float(np.sqrt(np.mean(std[varies] ** 2)))), ""
