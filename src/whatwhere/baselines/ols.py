"""Ordinary least squares on pixels."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import Family
from whatwhere.baselines.options import STA_SMOOTHING
from whatwhere.baselines.search import Solution, means
from whatwhere.standardisation import RELATIVE_FLOOR


class LeastSquaresSolver:
    """argmin_w |y - X w|^2, and of all minima the one with the least |w|.

    pixels: (n_images, n_pixels), centred if there is an `offset`. Singular values below the resolution of float32,
    which the pixels have passed through, count as 0.
    """

    def __init__(self, pixels: np.ndarray, offset: bool = True) -> None:
        self.offset = offset
        self.pixels = pixels

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        offset = means(responses, self.offset)
        filters = np.linalg.lstsq(self.pixels, responses - offset, rcond=RELATIVE_FLOOR)[0]
        for _ in strengths:
            yield Solution(filters, offset, np.ones(len(offset), bool))


class OLS(FilterModel):
    """Linear filters without a penalty: argmin |y - X a - b|^2, with the least |a| where there are several.

    There is no strength to choose; the validation images are left out of the fit unless `refit`, so that it sees what
    the others see, and their loss is in `history_`. All options and fitted attributes: see `FilterModel`.
    Source: Klindt et al. 2017, section 4.2.
    """

    name: ClassVar[str] = "ols"
    solver_name: ClassVar[str] = "factorisation"
    strengths: ClassVar[tuple[float, ...]] = (0.0,)

    def __init__(
        self,
        standardize: str = "global",
        validation_fraction: float = 0.2,
        *,
        crop: int | tuple[int, int] | None = None,
        locations: str = "average",
        sta_smoothing: float = STA_SMOOTHING,
        offset: bool = True,
        refit: bool = False,
        seed: int = 0,
        nonfinite: str = "error",
    ) -> None:
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.crop = crop
        self.locations = locations
        self.sta_smoothing = sta_smoothing
        self.offset = offset
        self.refit = refit
        self.seed = seed
        self.nonfinite = nonfinite

    def family(self) -> Family:
        return Family()

    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> LeastSquaresSolver:
        return LeastSquaresSolver(pixels, self.offset)

    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        small, large = sorted((n_images, n_pixels))
        return n_windows * (4.0 * small**2 * large + 20.0 * small**3) + 4.0 * n_images * n_pixels * n_neurons

    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        return n_images * n_pixels + 2.0 * max(n_images, n_pixels) * n_neurons
