"""The linear-nonlinear-Poisson model: a smooth and sparse filter a neuron, by accelerated proximal gradients."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from whatwhere.baselines.base import FilterModel
from whatwhere.baselines.families import Family
from whatwhere.baselines.fista import MOST_STEPS, TOLERANCE, minimise
from whatwhere.baselines.options import STA_SMOOTHING
from whatwhere.baselines.search import Solution
from whatwhere.checks import check_choice

SMOOTHNESS = (0.001, 0.01, 0.1, 1.0)
SPARSITY = (0.005, 0.02, 0.08)
NONLINEARITIES = ("exponential", "softplus")
"""Those whose Poisson loss is convex in the filter, so that there is one minimum (Paninski 2004)."""
_MOST_CURVED = 64.0  # the largest eigenvalue of the Laplacian applied twice, of the checkerboard
_POWER_STEPS = 20


def laplacian(filters: np.ndarray) -> np.ndarray:
    """Each channel's filter convolved with equation 6's [.5 1 .5; 1 -6 1; .5 1 .5], padded with zeros.

    filters: (n_neurons, n_channels, height, width), any values; the result has their shape. The kernel is half the
    outer product of [1 2 1] with itself, less 8 at its centre.

    >>> laplacian(np.pad([[[[2.0]]]], ((0, 0), (0, 0), (1, 1), (1, 1))))[0, 0].tolist()
    [[1.0, 2.0, 1.0], [2.0, -12.0, 2.0], [1.0, 2.0, 1.0]]
    """
    sums = 2 * filters
    sums[:, :, 1:] += filters[:, :, :-1]
    sums[:, :, :-1] += filters[:, :, 1:]
    result = sums - 8 * filters
    result[:, :, :, 1:] += 0.5 * sums[:, :, :, :-1]
    result[:, :, :, :-1] += 0.5 * sums[:, :, :, 1:]
    return result


class SmoothedLoss:
    """mean_b loss(f(x_b^T a + b), y_b) + smoothness |laplacian(a)|^2 of many neurons, for `fista.minimise`.

    - pixels (n_images, n_pixels), of windows of `shape` (n_channels, height, width)
    - responses (n_neurons, n_images)

    A neuron's variables are its filter and then its offset. Their linear map is the drive of every image and then, with
    a smoothness above 0, the Laplacian.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        shape: tuple[int, int, int],
        responses: np.ndarray,
        family: Family,
        smoothness: float,
    ) -> None:
        self.pixels, self.shape, self.responses = pixels, shape, responses
        self.family, self.smoothness = family, smoothness

    def mapped(self, points: np.ndarray) -> np.ndarray:
        filters = points[:, :-1]  # (n, n_pixels)
        drives = filters @ self.pixels.T + points[:, -1:]  # (n, n_images)
        return np.hstack([drives, self._rough(filters)]) if self.smoothness else drives

    def values(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        n_images = len(self.pixels)
        rough = mapped[:, n_images:]
        losses = self.family.losses(mapped[:, :n_images], self.responses[which])[0].mean(1)
        return losses + self.smoothness * np.einsum("ij,ij->i", rough, rough)

    def gradients(self, mapped: np.ndarray, which: np.ndarray) -> np.ndarray:
        n_images = len(self.pixels)
        slopes = self.family.losses(mapped[:, :n_images], self.responses[which])[1] / n_images
        gradient = slopes @ self.pixels
        if self.smoothness:
            gradient += 2 * self.smoothness * self._rough(mapped[:, n_images:])  # the Laplacian is symmetric
        return np.column_stack([gradient, slopes.sum(1)])

    def _rough(self, filters: np.ndarray) -> np.ndarray:
        return laplacian(filters.reshape(-1, *self.shape)).reshape(filters.shape)


class LNPSolver:
    """argmin_(a, b) mean loss(f(X a + b), y) + smoothness |laplacian(a)|^2 + sparsity |a|_1, from strong to weak.

    pixels: (n_images, n_pixels), centred, of windows of `shape` (n_channels, height, width); strengths are rows of
    smoothness and sparsity, relative to pixels of unit mean variance, which the filters are fitted to.

    The start is no filter at all; then each pair starts where the last one ended, the first of a smoothness where the
    first of the last one did. Pixels have about the same variance, so that a curvature of each has nothing to gain;
    but that of the offset is some hundred times smaller in natural images, and has a step of its own.
    """

    def __init__(
        self, pixels: np.ndarray, shape: tuple[int, int, int], family: Family, tolerance: float = TOLERANCE
    ) -> None:
        self.unit = float(np.sqrt(np.vdot(pixels, pixels) / pixels.size)) or 1.0
        self.pixels, self.shape = pixels / self.unit, shape
        self.family, self.tolerance = family, tolerance
        self.variance = largest_variance(self.pixels)

    def path(self, responses: np.ndarray, strengths: np.ndarray) -> Iterator[Solution]:
        wanted = np.ascontiguousarray(responses.T)  # (n_neurons, n_images)
        n_neurons, n_pixels = len(wanted), self.pixels.shape[1]
        drive, slope = self.family.start(wanted.mean(1))
        information = slope**2 / self.family.rate(drive)  # of the response on the drive (n_neurons,)
        points = first = np.column_stack([np.zeros((n_neurons, n_pixels)), drive])
        last = None
        for smoothness, sparsity in strengths:
            loss = SmoothedLoss(self.pixels, self.shape, wanted, self.family, smoothness)
            curvature = information * self.variance + 2 * smoothness * _MOST_CURVED
            metric = np.column_stack([np.repeat(curvature[:, None], n_pixels, axis=1), information])
            weights = np.append(np.full(n_pixels, sparsity), 0)
            start = points if smoothness == last else first
            points, solved = minimise(loss, weights, metric, start, tolerance=self.tolerance, most_steps=MOST_STEPS)
            first, last = points if smoothness != last else first, smoothness
            yield Solution(points[:, :-1].T / self.unit, points[:, -1], solved)


def largest_variance(pixels: np.ndarray) -> float:
    """About that of the pixels' first principal component, from below; 1 where none vary.

    pixels: (n_images, n_pixels), centred.

    >>> pixels = np.random.default_rng(0).normal(size=(20, 6)) * [1, 2, 1, 1, 9, 1]
    >>> round(largest_variance(pixels) / float(np.linalg.eigvalsh(pixels.T @ pixels / 20)[-1]), 3)
    1.0
    """
    direction = np.random.default_rng(0).normal(size=(pixels.shape[1],))
    variance = 1.0
    for _ in range(_POWER_STEPS):
        product: np.ndarray = pixels.T @ (pixels @ direction) / len(pixels)
        variance = float(np.linalg.norm(product))
        if variance == 0:
            return 1.0
        direction = product / variance
    return variance


class LNP(FilterModel):
    """r_n = s_n f(a_n^T x + b_n): a linear filter, an exponential, Poisson spikes; the filter smooth and sparse.

    argmin mean(r - y log r) / s_n + smoothness |a * L|^2 + sparsity |a|_1, with L = [.5 1 .5; 1 -6 1; .5 1 .5] in each
    channel, s_n the response's standard deviation; the offset b is free. nonlinearity: "exponential" or "softplus".

    smoothness, sparsity: numbers of 0 or more, relative to pixels of unit mean variance and responses of unit variance.
    Every combination is tried; the best is in `smoothness_` and `sparsity_`, each a number, or (n_neurons,) if
    `per_neuron`. A sparsity above 0 makes exact zeros. The defaults were chosen on simulated Gabor cells with a ReLU
    and Poisson noise, 1,000 images of 31 x 31 pixels of pink noise or photographs, such that the exponential's best
    pair, (0.01, 0.02), lies inside their grid; recordings, which are noisier, want smoother filters, and a softplus,
    whose rates are closer to those cells', weaker penalties of such clean data.
    The other options and the fitted attributes: see `FilterModel`; `scale_` (n_neurons,) is s_n.
    Source: Klindt et al. 2017, section 5.2, Table 1 ("LNP"), which leaves the penalties open; equation 6 for the first.

    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(300, 6, 9))
    >>> rates = np.exp(images[:, 2, 4:6].sum(1) / 2)
    >>> model = LNP(smoothness=[0.01], sparsity=[0.01, 0.1]).fit(images, rng.poisson(rates))
    >>> np.argwhere(np.abs(model.filters_[0, 0]) > 0.2).tolist(), model.sparsity_
    ([[2, 4], [2, 5]], 0.1)
    """

    name: ClassVar[str] = "lnp"
    solver_name: ClassVar[str] = "proximal gradient method"
    penalties: ClassVar[Mapping[str, str]] = {"smoothness": "smoothness", "sparsity": "sparsity"}

    smoothness_: float | np.ndarray
    sparsity_: float | np.ndarray

    def __init__(
        self,
        smoothness: Sequence[float] = SMOOTHNESS,
        sparsity: Sequence[float] = SPARSITY,
        standardize: str = "global",
        validation_fraction: float = 0.2,
        *,
        nonlinearity: str = "exponential",
        crop: int | tuple[int, int] | None = None,
        locations: str = "average",
        sta_smoothing: float = STA_SMOOTHING,
        folds: int | None = None,
        per_neuron: bool = False,
        refit: bool = False,
        seed: int = 0,
        nonfinite: str = "error",
    ) -> None:
        self.smoothness = smoothness
        self.sparsity = sparsity
        self.standardize = standardize
        self.validation_fraction = validation_fraction
        self.nonlinearity = nonlinearity
        self.crop = crop
        self.locations = locations
        self.sta_smoothing = sta_smoothing
        self.folds = folds
        self.per_neuron = per_neuron
        self.refit = refit
        self.seed = seed
        self.nonfinite = nonfinite

    def family(self) -> Family:
        return Family(check_choice("nonlinearity", self.nonlinearity, NONLINEARITIES), "poisson")

    def solver(self, pixels: np.ndarray, shape: tuple[int, int, int]) -> LNPSolver:
        return LNPSolver(pixels, shape, self.family())

    def operations(self, n_images: int, n_pixels: int, n_windows: int, n_neurons: int) -> float:
        steps = 200.0 * len(self._strengths())
        step = n_images * (4.5 * n_pixels + 50.0) + 100.0 * n_pixels
        return n_windows * 4.0 * _POWER_STEPS * n_images * n_pixels + n_neurons * steps * step

    def numbers(self, n_images: int, n_pixels: int, n_neurons: int) -> float:
        points = 16.0 * n_pixels + 10.0 * n_images  # with gradients; drives with losses
        return n_images * n_pixels + points * n_neurons
