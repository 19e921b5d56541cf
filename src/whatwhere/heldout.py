"""What a fit is judged by: `HeldOut`, images shown repeatedly; `Truth`, what a simulation knows beside."""

from dataclasses import InitVar, dataclass, replace
from typing import Any

import numpy as np

from whatwhere.checks import check_choice, check_finite, check_ndim, check_numeric, check_same_rows, some_of
from whatwhere.errors import InputError
from whatwhere.metrics import normalized_noise_power
from whatwhere.rows import as_images, frozen, is_lazy, read_only, read_rows, take_rows

NONFINITE = ("error", "rows", "neurons")


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut:
    """Repeated images and every neuron's response in each trial; repeat counts may differ by image.

    - `images` (n_images, n_channels, height, width); three dimensions get one channel
    - `responses` (n_trials, n_neurons), float32; one dimension is one neuron
    - `image_index` (n_trials,), which of `images` each trial showed
    - `rates` None or (n_images, n_neurons): the noise-free truth, for simulations only

    `nonfinite`: "error" raises `InputError` where a response is NaN or infinite; "rows" leaves such trials
    out, and images without a trial; "keep" leaves that to the `Recording` that this becomes part of.

    >>> test = HeldOut(np.zeros((2, 5, 8)), np.array([[1.0], [3.0], [5.0]]), [0, 0, 1])
    >>> test.n_repeats, test.mean_responses().ravel()
    (array([2, 1]), array([2., 5.]))
    """

    images: Any
    responses: Any
    image_index: Any
    rates: Any = None
    nonfinite: InitVar[str] = "error"

    def __post_init__(self, nonfinite: str) -> None:
        check_choice("nonfinite", nonfinite, ("error", "rows", "keep"))
        images = as_images("test images", self.images)
        responses = as_responses("test responses", self.responses)
        index = _as_index(self.image_index, images.shape[0], len(responses))
        rates = self.rates
        if rates is not None:
            rates = as_responses("test rates", rates)
            check_same_rows("test rates", len(rates), "test images", images.shape[0])
            _check_neurons("test rates", rates.shape[1], "test responses", responses.shape[1])
            check_finite("test rates", rates, range(rates.shape[1]))
        if nonfinite == "error":
            check_finite("test responses", responses, range(responses.shape[1]), row="trial")
        self._set(images, responses, index, rates)
        if nonfinite == "rows" and not np.isfinite(responses).all():
            kept = self.select_trials(np.isfinite(responses).all(axis=1))
            self._set(kept.images, kept.responses, kept.image_index, kept.rates)

    def _set(self, images: Any, responses: Any, image_index: Any, rates: Any) -> None:
        for name, value in {
            "images": images,
            "responses": responses,
            "image_index": image_index,
            "rates": rates,
        }.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_repeats(cls, images: Any, repeats: Any, rates: Any = None, nonfinite: str = "error") -> "HeldOut":
        """From (n_repeats, n_images, n_neurons); a repeat that is NaN in every neuron was not shown."""
        repeats = np.asarray(repeats)
        check_numeric("test repeats", repeats)
        check_ndim("test repeats", repeats, ("n_repeats", "n_images", "n_neurons"))
        n_images = as_images("test images", images).shape[0]
        if repeats.shape[1] != n_images:
            raise InputError(
                f"test repeats has shape {repeats.shape} for {n_images:,} test images: expected (n_repeats, n_images,"
                " n_neurons). Move its axes, for example with numpy.moveaxis."
            )
        shown = ~np.isnan(repeats).all(axis=2)  # (n_repeats, n_images)
        repeat, image = np.nonzero(shown)
        return cls(images, repeats[repeat, image], image, rates, nonfinite)

    n_images = property(lambda self: int(self.images.shape[0]), doc="Number of distinct images.")
    n_trials = property(lambda self: int(self.responses.shape[0]), doc="Number of trials, all repeats counted.")
    n_neurons = property(lambda self: int(self.responses.shape[1]), doc="Number of neurons.")
    image_shape = property(lambda self: tuple(self.images.shape[1:]), doc="(n_channels, height, width).")

    def __repr__(self) -> str:
        return f"HeldOut({self.n_images:,} images, {self.n_trials:,} trials, {self.n_neurons:,} neurons)"

    @property
    def n_repeats(self) -> np.ndarray:
        """How often each image was shown, (n_images,)."""
        return np.bincount(self.image_index, minlength=self.n_images)

    def mean_responses(self) -> np.ndarray:
        """Each image's response averaged over its repeats, (n_images, n_neurons), float64."""
        return trial_means(self.responses, self.image_index, np.arange(self.n_images))[0]

    def read_images(self, rows: Any = None) -> np.ndarray:
        """The images of these rows (all by default), (n_rows, n_channels, height, width), float32."""
        return np.array(read_rows(self.images, rows), dtype=np.float32)

    def select_neurons(self, positions: np.ndarray) -> "HeldOut":
        """The same trials of some neurons, given by position."""
        rates = None if self.rates is None else frozen(self.rates[:, positions])
        return HeldOut(self.images, frozen(self.responses[:, positions]), self.image_index, rates, "keep")

    def select_trials(self, which: np.ndarray) -> "HeldOut":
        """Some trials (one boolean each), without the images that no trial of them shows."""
        if not which.any():
            raise InputError("no test trial would be left: every trial holds a value that is not finite.")
        images, index = np.unique(self.image_index[which], return_inverse=True)
        rates = None if self.rates is None else self.rates[images]
        return HeldOut(read_rows(self.images, images), self.responses[which], index, rates, "keep")

    def with_responses(self, responses: np.ndarray) -> "HeldOut":
        """The same trials with other responses, of the same shape."""
        return HeldOut(self.images, responses, self.image_index, self.rates, "keep")

    def noise_share(self) -> np.ndarray | None:
        """`metrics.normalized_noise_power` of these trials, (n_neurons,); None without a repeated image.

        NaN for a neuron that never varies. 0: the same response in every repeat; 1: nothing repeats.
        """
        if self.n_images < 2 or not (self.n_repeats > 1).any():
            return None
        return normalized_noise_power(self.responses, self.image_index)


def trial_means(responses: Any, image_index: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the trials of each of these images, and its standard error, both (n_rows, n_neurons), float64.

    The error is the standard deviation (one degree of freedom less) over the root of the number of trials, NaN for one
    trial; both are NaN for an image without a trial.

    - `responses` (n_trials, n_neurons), `image_index` (n_trials,): which image each trial showed; `rows`: of images

    >>> means, errors = trial_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 2]), np.array([2, 1, 0]))
    >>> means.ravel(), errors.ravel()  # deviations of 1 and -1: variance 2, over two trials
    (array([ 5., nan,  2.]), array([nan, nan,  1.]))
    """
    means, errors = (np.full((len(rows), responses.shape[1]), np.nan) for _ in range(2))
    order = np.argsort(image_index, kind="stable")
    first, last = (np.searchsorted(image_index, rows, side, sorter=order) for side in ("left", "right"))
    for place, (start, end) in enumerate(zip(first, last, strict=True)):
        trials = responses[order[start:end]].astype(np.float64)
        if len(trials):
            means[place] = trials.mean(0)
        if len(trials) > 1:
            errors[place] = trials.std(0, ddof=1) / np.sqrt(len(trials))
    return means, errors


def as_responses(name: str, responses: Any) -> np.ndarray:
    """`responses` as read-only float32 (n_rows, n_neurons); one dimension is one neuron."""
    responses = np.asarray(responses)
    check_numeric(name, responses)
    if responses.ndim == 1:
        responses = responses[:, None]
    check_ndim(name, responses, ("n_rows", "n_neurons"))
    if 0 in responses.shape:
        raise InputError(f"{name} is empty, shape {responses.shape}: expected at least one row and one neuron.")
    if responses.dtype == np.float32:
        return read_only(responses)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which check_finite then names
        return frozen(responses.astype(np.float32))


def _as_index(image_index: Any, n_images: int, n_trials: int) -> np.ndarray:
    index = np.asarray(image_index)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise InputError(
            f"image_index has shape {index.shape} and dtype {index.dtype}: expected one integer per trial, the row of"
            " the test images that it showed."
        )
    check_same_rows("test responses", n_trials, "image_index", len(index), each="trial")
    bad = np.flatnonzero((index < 0) | (index >= n_images))
    if len(bad):
        raise InputError(
            f"image_index is out of range in trial {some_of(bad)}: got {some_of(index[bad])}, expected 0 to"
            f" {n_images - 1:,}, for there are {n_images:,} test images."
        )
    unseen = np.flatnonzero(np.bincount(index, minlength=n_images) == 0)
    if len(unseen):
        raise InputError(
            f"image_index names no trial of test image {some_of(unseen)}. Leave out images that were not shown."
        )
    return frozen(index.astype(np.intp))


def _check_neurons(name: str, n_neurons: int, other: str, n_other: int) -> None:
    if n_neurons != n_other:
        raise InputError(
            f"{name} has {n_neurons:,} neurons but {other} has {n_other:,}: expected the same neurons in the same"
            " order."
        )


def check_fits(test: HeldOut, n_neurons: int, image_shape: tuple[int, ...]) -> None:
    """Raises `InputError` unless `test` has this number of neurons and images of this shape."""
    if not isinstance(test, HeldOut):
        raise InputError(
            f"test is a {type(test).__name__}: expected a HeldOut(images, responses, image_index) or None."
        )
    _check_neurons("test", test.n_neurons, "responses", n_neurons)
    if test.image_shape != image_shape:
        raise InputError(
            f"test images have shape {test.image_shape} but images {image_shape}: expected the same (n_channels,"
            " height, width). Crop or resample one of them."
        )


class LazyColumns:
    """Some columns of a table that stays on disk until it is sliced."""

    def __init__(self, source: Any, columns: np.ndarray) -> None:
        self.source, self.columns = source, columns
        self.shape = (source.shape[0], len(columns))
        self.dtype = source.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.asarray(self.source[rows])[:, self.columns]


@dataclass(frozen=True, eq=False, repr=False)
class Truth:
    """What a simulation knows and no experiment does; it stands beside the responses and is no part of any fit.

    - `rates` (n_images, n_neurons): the responses to the images before the noise; a table on disk stays there
    - `locations` (n_neurons, 2): row and column of each receptive field's centre, pixels
    - `types` (n_neurons,), int
    - `kernels` None or the linear filters, (n_neurons, kernel height, kernel width), or (n_neurons, n_channels, kernel
      height, kernel width)
    - `quadrature` None or the second filters of energy-model neurons, in the shape of `kernels`; zeros for others
    - `description` how all this was made

    Raises `InputError` where the arrays are not of the same neurons.
    """

    rates: Any
    locations: Any
    types: Any
    kernels: Any = None
    quadrature: Any = None
    description: str = ""

    def __post_init__(self) -> None:
        rates = self.rates if is_lazy(self.rates) else as_responses("truth.rates", self.rates)
        check_ndim("truth.rates", rates, ("n_images", "n_neurons"))
        object.__setattr__(self, "rates", rates)
        for name in ("locations", "types", "kernels", "quadrature"):
            values = getattr(self, name)
            if values is None and name in ("kernels", "quadrature"):
                continue
            values = np.asarray(values)
            check_numeric(f"truth.{name}", values)
            _check_neurons(f"truth.{name}", len(values), "truth.rates", rates.shape[1])
            object.__setattr__(self, name, read_only(values))

    def __repr__(self) -> str:
        n_images, n_neurons = self.rates.shape
        return f"Truth({n_images:,} images, {n_neurons:,} neurons, {len(np.unique(self.types))} types)"

    def read_rates(self, rows: Any = None) -> np.ndarray:
        """The rates of these images, in this order (all by default), (n_rows, n_neurons), float32."""
        return np.array(read_rows(self.rates, rows), dtype=np.float32)

    def select_neurons(self, positions: np.ndarray) -> "Truth":
        """The truth of some neurons, given by position."""
        chosen = {
            name: None if (values := getattr(self, name)) is None else frozen(values[positions])
            for name in ("locations", "types", "kernels", "quadrature")
        }
        rates = LazyColumns(self.rates, positions) if is_lazy(self.rates) else frozen(self.rates[:, positions])
        return Truth(rates, **chosen, description=self.description)

    def select_images(self, rows: np.ndarray) -> "Truth":
        """The truth of some images, given by position."""
        return replace(self, rates=take_rows(self.rates, rows))


def check_truth_fits(truth: Truth, shape: tuple[int, ...]) -> None:
    """Raises `InputError` unless `truth` is of responses of this shape."""
    if not isinstance(truth, Truth):
        raise InputError(f"truth is a {type(truth).__name__}: expected a Truth(rates, locations, types) or None.")
    if tuple(truth.rates.shape) != tuple(shape):
        raise InputError(
            f"truth.rates has shape {tuple(truth.rates.shape)} but responses {tuple(shape)}: expected the same images"
            " and the same neurons in the same order."
        )
