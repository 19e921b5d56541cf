"""Held-out data with repeats, summed per image once, so that a score and its bootstrap share one definition.

Every score here is a function of sums over images. With weights of one the sums give the score; with the
counts of a resample they give the score of that resample.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from whatwhere.checks import check_ndim, check_numeric, check_positive, check_same_rows, some_of
from whatwhere.errors import InputError, OptionError

Array: TypeAlias = NDArray[np.float64]
Total: TypeAlias = Callable[[Array], Array]  # weighted sums, (n_images, n_neurons) -> (..., n_neurons)

TINY = 1e-12  # a variance below this fraction of the second moment is rounding error: the values are constant
CHUNK = 2**20  # entries of the largest temporary array, 8 MiB in float64


@dataclass(frozen=True)
class ScoreOptions:
    """What the definitions of the scores leave open.

    floor: least explainable variance of a neuron for its FEVE to be given (0.15: Cadena et al. 2019).
    eps: least predicted rate in the Poisson likelihood, in the responses' unit per image.
    """

    floor: float = 0.15
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise OptionError(f"floor must be at least 0 and below 1, got {self.floor}.")
        check_positive("eps", self.eps)


@dataclass(frozen=True)
class ImageSums:
    """Predictions and per-image sums of the responses; images without a trial are left out.

    `predictions` and `means` have each neuron's own mean subtracted (the `*_centre`): sums of squares stay
    exact.
    """

    predictions: Array  # (n_images, n_neurons), centred
    prediction_centre: Array  # (1, n_neurons)
    means: Array  # (n_images, n_neurons), mean over an image's trials, centred
    response_centre: Array  # (1, n_neurons)
    within: Array  # (n_images, n_neurons), squared deviations of an image's trials from their mean, summed
    sums: Array  # (n_images, n_neurons), sum over an image's trials, not centred
    n_repeats: Array  # (n_images, 1)
    mean_rate: Array | None = None  # (1, n_neurons), the null model of the likelihood

    @property
    def n_neurons(self) -> int:
        """The number of neurons."""
        return self.means.shape[1]

    def of_neurons(self, chosen: slice) -> "ImageSums":
        """The same data for some of the neurons."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return ImageSums(
            **{
                name: array if array is None or name == "n_repeats" else array[:, chosen]
                for name, array in arrays.items()
            }
        )


def over_images(values: Array) -> Array:
    """The plain sum over images, (n_images, n_neurons) -> (n_neurons,)."""
    return values.sum(axis=0)


def check_array(name: str, array: ArrayLike, axes: tuple[str, ...]) -> NDArray[Any]:
    """`array` as finite numbers with one dimension for each of `axes`; raises `InputError`."""
    checked = np.asarray(array)
    check_ndim(name, checked, axes)
    check_numeric(name, checked)
    finite = np.isfinite(checked)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"{name} has {int((~finite).sum()):,} values that are NaN or infinite, the first at {where}: finite"
            " numbers are needed. Leave those trials or neurons out."
        )
    return checked


def check_same_neurons(name: str, n_neurons: int, other: str, n_other: int) -> None:
    """Raises `InputError` unless both have the same number of neurons."""
    if n_neurons != n_other:
        raise InputError(
            f"{name} has {n_neurons:,} neurons but {other} has {n_other:,}: the same neurons are needed in both."
            " Select the same columns."
        )


def check_not_negative(name: str, array: ArrayLike) -> None:
    """Raises `InputError` where a Poisson likelihood would meet a negative count."""
    lowest = float(np.min(np.asarray(array), initial=0.0))
    if lowest < 0:
        raise InputError(
            f"{name} has negative values, down to {lowest:g}: a Poisson likelihood needs counts or rates of 0 or"
            " more. Give the responses without centring, or use a correlation."
        )


def check_image_index(image_index: ArrayLike, n_trials: int, n_images: int | None = None) -> NDArray[np.intp]:
    """`image_index` as integers in range, one per trial; raises `InputError`."""
    index = check_array("image_index", image_index, ("n_trials",))
    if index.dtype.kind not in "ui":
        raise InputError(f"image_index has dtype {index.dtype}: expected integers, each trial's image.")
    check_same_rows("responses", n_trials, "image_index", len(index), each="trial")
    top = np.iinfo(np.intp).max if n_images is None else n_images
    wrong = np.unique(index[(index < 0) | (index >= top)])
    if wrong.size:
        raise InputError(
            f"image_index names images {some_of(wrong)}: expected 0 "
            + ("or more." if n_images is None else f"to {top - 1:,}, a row of predictions each.")
        )
    return index.astype(np.intp)


def constant_neurons(values: ArrayLike) -> NDArray[np.bool_]:
    """Which neurons (columns) have the same value in every row, to rounding error.

    >>> constant_neurons([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    array([False,  True])
    """
    checked = check_array("values", values, ("n_rows", "n_neurons"))
    return (centred(checked.astype(np.float64))[0] == 0).all(axis=0)


def centred(values: Array) -> tuple[Array, Array]:
    """Each column less its mean, exactly 0 where it is constant; and the means, (1, n_neurons)."""
    centre = values.mean(axis=0, keepdims=True)
    deviations = values - centre
    scale = np.abs(values).max(axis=0, keepdims=True)
    deviations[:, (np.abs(deviations).max(axis=0, keepdims=True) <= TINY * scale)[0]] = 0.0
    return deviations, centre


def sum_trials(responses: NDArray[Any], image: NDArray[np.intp], n_repeats: Array) -> tuple[Array, Array, Array, Array]:
    """Means (centred), centre, squared deviations within images and sums, for blocks of neurons at a time."""
    n_trials, n_neurons = responses.shape
    per_image = csr_array((np.ones(n_trials), (image, np.arange(n_trials))), shape=(len(n_repeats), n_trials))
    means, within, sums = (np.empty((len(n_repeats), n_neurons)) for _ in range(3))
    centre = np.empty((1, n_neurons))
    width = max(1, CHUNK // n_trials)
    for start in range(0, n_neurons, width):
        block = slice(start, start + width)
        values = responses[:, block].astype(np.float64)
        sums[:, block] = per_image @ values
        values, centre[:, block] = centred(values)
        means[:, block] = (per_image @ values) / n_repeats
        within[:, block] = per_image @ (values - means[image, block]) ** 2
    return means, centre, within, sums


def sum_images(
    predictions: ArrayLike | None,
    responses: ArrayLike,
    image_index: ArrayLike | None,
    mean_rate: ArrayLike | None = None,
) -> ImageSums:
    """The checked data of a score; `image_index` None means one trial of each image, in order.

    Raises `InputError` for shapes that do not fit, values that are not finite, or fewer than two images
    shown.
    """
    trials = check_array("responses", responses, ("n_trials", "n_neurons"))
    n_neurons = trials.shape[1]
    predicted = None
    if predictions is not None:
        predicted = check_array("predictions", predictions, ("n_images", "n_neurons")).astype(np.float64)
        check_same_neurons("predictions", predicted.shape[1], "responses", n_neurons)
    if image_index is None:
        if predicted is not None:
            check_same_rows("responses", len(trials), "predictions", len(predicted))
        image_index = np.arange(len(trials))
    index = check_image_index(image_index, len(trials), None if predicted is None else len(predicted))
    shown, image, counts = np.unique(index, return_inverse=True, return_counts=True)
    if len(shown) < 2:
        raise InputError(
            f"the number of images shown is {len(shown)}: at least 2 are needed for a variance over images."
        )
    n_repeats = counts[:, None].astype(np.float64)
    means, centre, within, sums = sum_trials(trials, image, n_repeats)
    if predicted is None:
        deviations, prediction_centre = np.zeros((1, 1)), np.zeros((1, 1))
        deviations = np.broadcast_to(deviations, means.shape)
        prediction_centre = np.broadcast_to(prediction_centre, centre.shape)
    else:
        deviations, prediction_centre = centred(predicted[shown])
    rate = None if mean_rate is None else check_mean_rate(mean_rate, n_neurons)
    return ImageSums(deviations, prediction_centre, means, centre, within, sums, n_repeats, rate)


def check_mean_rate(mean_rate: ArrayLike, n_neurons: int) -> Array:
    """`mean_rate` as an array (1, n_neurons); raises `InputError`."""
    rate = check_array("mean_rate", mean_rate, ("n_neurons",)).astype(np.float64)
    check_same_neurons("mean_rate", len(rate), "responses", n_neurons)
    return rate[None]


def n_repeated(data: ImageSums) -> int:
    """How many images were shown more than once."""
    return int((data.n_repeats > 1).sum())


def check_repeats(data: ImageSums, score: str, least: int = 1) -> ImageSums:
    """`data`, if enough images were repeated for the noise to be seen; raises `InputError`."""
    found = n_repeated(data)
    if found < least:
        raise InputError(
            f"{score} needs at least {least} image{'s'[: least > 1]} shown more than once, got {found} of"
            f" {len(data.n_repeats):,}. Give single trials with their image_index, not averages."
        )
    return data
