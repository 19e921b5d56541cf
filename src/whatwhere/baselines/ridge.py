"""Ridge regression on pixels: one factorisation for each distinct window, shared by its neurons and all strengths."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import Family
from whatwhere.baselines.options import STA_SMOOTHING
from whatwhere.baselines.search import Solution, means

STRENGTHS = tuple(float(strength) for strength in np.logspace(-2, 4, 13))


class RidgeSolver:
    """argmin_w |y - X w|^2 / n + strength |w|^2 for any strength, from one factorisation.

    pixels: (n_images, n_pixels), centred if there is an `offset`; strengths are relative to their mean square. The
    eigenvectors are those of the smaller of X^T X and X X^T, so that neither many pixels nor many images are a burden.

    `basis` (n_pixels, rank): orthonormal; the solutions lie in its span. `values` (rank,): X^T X there.
    """

    def __init__(self, pixels: np.ndarray, offset: bool = True) -> None:
        self.offset = offset
        n_images, n_pixels = pixels.shape
        self.pixels = pixels
        self.unit = float(np.vdot(pixels, pixels)) / pixels.size or 1.0
        if n_pixels <= n_images:
            values, self.basis = np.linalg.eigh(pixels.T @ pixels)
            self.values = np.maximum(values, 0)
            self._features = None
        else:
            values, vectors = np.linalg.eigh(pixels @ pixels.T)
            kept = values > values[-1] * 1e-12
            self.values, vectors = values[kept], vectors[:, kept]
            root = np.sqrt(self.values)
            self.basis = pixels.T @ vectors / root
            self._features = vectors * root

    def features(self) -> np.ndarray:
        """X @ basis: (n_images, rank)."""
        if self._features is None:
            self._features = self.pixels @ self.basis
        return self._features

    def project(self, responses: np.ndarray) -> np.ndarray:
        """basis^T X^T y: (rank, n_neurons)."""
        if self._features is None:
            return self.basis.T @ (self.pixels.T @ responses)
        return self._features.T @ responses

    def coefficients(self, projected: np.ndarray, strength: float) -> np.ndarray:
        """The solution in the basis, (rank, n_neurons), from `project` of centred responses."""
        return projected / (self.values + len(self.pixels) * self.unit * strength)[:, None]

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        offset = means(responses, self.offset)
        projected = self.project(responses - offset)
        for strength in strengths:
            yield Solution(self.basis @ self.coefficients(projected, strength), offset, np.ones(len(offset), bool))


def factorisation_numbers(n_images: int, n_pixels: int) -> float:
    """Numbers that a `RidgeSolver` holds beside its pixels: eigenvectors twice, basis and features."""
    small = min(n_images, n_pixels)
    return 2.0 * small**2 + small * (n_pixels + n_images)


class Ridge(FilterModel):
    """Linear filters with an L2 penalty: argmin |y - X a - b|^2 / n_images + strength |a|^2 (b free, or 0).

    The paper's penalties act on a sum over images instead: `ridge_strengths` converts them. All options and
    fitted attributes: see `FilterModel`. Source: Klindt et al. 2017, section 4.2.

    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(200, 6, 9))
    >>> model = Ridge(crop=3).fit(images, images[:, 2, 4:6].sum(1) + rng.normal(size=200))
    >>> model.filters_.shape, model.locations_.tolist()
    ((1, 1, 3, 3), [[2.0, 5.0]])
    """

    name: ClassVar[str] = "ridge"
    solver_name: ClassVar[str] = "factorisation"

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

    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> RidgeSolver:
        return RidgeSolver(pixels, self.offset)

    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        small, large = sorted((n_images, n_pixels))
        factorising = 2.0 * small**2 * large + 10.0 * small**3
        return n_windows * factorising + 2.0 * n_pixels * n_neurons * (n_images + small * (1 + len(self._strengths())))

    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        return factorisation_numbers(n_images, n_pixels) + 3.0 * min(n_images, n_pixels) * n_neurons
