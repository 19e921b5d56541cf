"""The lasso on pixels: a path from strong to weak, each strength starting where the last one ended."""

import warnings
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lasso_path

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import Family
from whatwhere.baselines.options import STA_SMOOTHING
from whatwhere.baselines.search import Solution, means

STRENGTHS = tuple(float(strength) for strength in np.logspace(-3, 0, 10))
TOLERANCE = 1e-8
"""Of the duality gap, relative to the response's sum of squares."""
MOST_SWEEPS = 1000
_NOTHING = 1e-12  # variance of a response that never varies


class LassoSolver:
    """argmin_w |y - X w|^2 / (2 n) + strength |w|_1, by scikit-learn's coordinate descent on X^T X.

    pixels: (n_images, n_pixels), centred if there is an `offset`; strengths are relative to the root of their mean
    square. X^T X is made once for all neurons and strengths, unless there are so many more pixels than images that a
    sweep over X itself is shorter, and X^T X would be larger than X.
    """

    def __init__(self, pixels: np.ndarray, offset: bool = True) -> None:
        self.offset = offset
        self.pixels = np.asfortranarray(pixels)  # as scikit-learn would copy it for every neuron
        self.gram = pixels.T @ pixels if uses_gram(*pixels.shape) else None
        self.unit = float(np.sqrt(np.vdot(pixels, pixels) / pixels.size)) or 1.0

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        offset = means(responses, self.offset)
        centred = responses - offset
        products = self.pixels.T @ centred  # (n_pixels, n_neurons)
        filters = np.zeros((len(strengths), *products.shape))
        solved = np.ones((len(strengths), len(offset)), bool)
        for neuron, (response, product) in enumerate(zip(centred.T.copy(), products.T.copy(), strict=True)):
            if response @ response > _NOTHING * len(response):
                found, solved[:, neuron] = self._one(response, product, strengths)
                filters[:, :, neuron] = found.T
        for number in range(len(strengths)):
            yield Solution(filters[number], offset, solved[number])

    def _one(self, response: np.ndarray, product: np.ndarray, strengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One neuron's filters (n_pixels, n_strengths), and whether each converged."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told of the strength chosen, in the model's notes
            _, filters, gaps = lasso_path(
                self.pixels,
                response,
                alphas=strengths * self.unit,
                precompute=False if self.gram is None else self.gram,
                Xy=None if self.gram is None else product,
                check_input=False,
                tol=TOLERANCE,
                max_iter=MOST_SWEEPS,
            )
        return filters, gaps <= TOLERANCE * (response @ response) / len(response)


def uses_gram(n_images: int, n_pixels: int) -> bool:
    """Whether a coordinate's step takes fewer operations on X^T X (n_pixels) than on X (twice n_images)."""
    return n_pixels <= 2 * n_images


class Lasso(FilterModel):
    """Linear filters with an L1 penalty: argmin |y - X a - b|^2 / (2 n_images) + strength |a|_1 (b free, or 0).

    The strength is scikit-learn's `alpha` for pixels and responses of unit variance: the paper's, for responses in
    their own units (`PAPER_LASSO`), is this one times the response's standard deviation. All options and fitted
    attributes: see `FilterModel`. Source: Klindt et al. 2017, section 4.2.
    """

    name: ClassVar[str] = "lasso"
    solver_name: ClassVar[str] = "coordinate descent"

    def __init__(
        self,
        strengths: Sequence[float] = STRENGTHS,
        standardize: str = "global",
        validation_fraction: float = 0.2,
        *,
        crop: int | tuple[int, int] | None = None,
        locations: str = "average",
        sta_smoothing: float = STA_SMOOTHING,
        folds: int | None = None,
        per_neuron: bool = False,
        offset: bool = True,
        refit: bool = False,
        seed: int = 0,
        nonfinite: str = "error",
    ) -> None:
        self.strengths = strengths
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.crop = crop
        self.locations = locations
        self.sta_smoothing = sta_smoothing
        self.folds = folds
        self.per_neuron = per_neuron
        self.offset = offset
        self.refit = refit
        self.seed = seed
        self.nonfinite = nonfinite

    def family(self) -> Family:
        return Family()

    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> LassoSolver:
        return LassoSolver(pixels, self.offset)

    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        sweeps = (100.0 if n_images > n_pixels else 300.0) * len(self._strengths())
        sweep = n_pixels * min(n_pixels, 2.0 * n_images)
        gram = 2.0 * n_images * n_pixels**2 if uses_gram(n_images, n_pixels) else 0.0
        calls = 2e6 * len(self._strengths())  # of scikit-learn, which take as long
        return n_windows * gram + n_neurons * (2.0 * n_images * n_pixels + sweeps * sweep + calls)

    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        gram = n_pixels**2 if uses_gram(n_images, n_pixels) else 0.0
        return n_images * n_pixels + gram + len(self._strengths()) * n_pixels * n_neurons
