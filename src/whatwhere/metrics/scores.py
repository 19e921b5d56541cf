"""The scores by name, and what each needs of the data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from whatwhere.errors import InputError
from whatwhere.metrics import correlations, explained, likelihood
from whatwhere.metrics.image_sums import (
    Array,
    ImageSums,
    ScoreOptions,
    Total,
    check_not_negative,
    check_repeats,
)

Kernel: TypeAlias = Callable[[ImageSums, Total, ScoreOptions], Array]


@dataclass(frozen=True)
class Score:
    """A score as a function of sums over images.

    needs: "trials" (of any number), "repeats", or "rates" (noise-free, in the place of the responses).
    repeated_images: least number of images shown more than once.
    zero_for_constant: which of the two being constant makes the score 0 by definition.
    """

    kernel: Kernel
    needs: Literal["trials", "repeats", "rates"] = "trials"
    repeated_images: int = 0
    zero_for_constant: tuple[Literal["prediction", "response"], ...] = ()
    counts: bool = False  # needs responses of 0 or more
    bounds: tuple[float, float] = (-np.inf, np.inf)  # what the score cannot exceed by definition
    of_predictions: bool = True  # higher is better; False: of the responses alone, the same for every model


BOTH: tuple[Literal["prediction", "response"], ...] = ("prediction", "response")
SCORES: dict[str, Score] = {
    "correlation": Score(correlations.average_kernel, zero_for_constant=BOTH, bounds=(-1, 1)),
    "single_trial_correlation": Score(correlations.single_trial_kernel, zero_for_constant=BOTH, bounds=(-1, 1)),
    "fev": Score(explained.fev_kernel, "rates", zero_for_constant=("response",), bounds=(-np.inf, 1)),
    "feve": Score(explained.feve_kernel, "repeats", 1),
    "explainable_variance": Score(
        explained.explainable_kernel, "repeats", 1, bounds=(-np.inf, 1), of_predictions=False
    ),
    "normalized_noise_power": Score(
        explained.noise_power_kernel, "repeats", 1, bounds=(0, np.inf), of_predictions=False
    ),
    "oracle": Score(
        correlations.oracle_kernel,
        "repeats",
        2,
        zero_for_constant=("response",),
        bounds=(-1, 1),
        of_predictions=False,
    ),
    "normalized_correlation": Score(explained.normalized_kernel, "repeats", 1, zero_for_constant=("prediction",)),
    "noise_ceiling": Score(explained.ceiling_kernel, "repeats", 1, bounds=(0, 1), of_predictions=False),
    "log_likelihood_bits_per_spike": Score(likelihood.likelihood_kernel, counts=True),
}


def check_counts(data: ImageSums, responses: ArrayLike) -> None:
    """Raises `InputError` where a Poisson likelihood is not defined: negative responses or mean rates."""
    check_not_negative("responses", responses)
    if data.mean_rate is not None:
        check_not_negative("mean_rate", data.mean_rate)


def check_applies(name: str, data: ImageSums, responses: ArrayLike) -> None:
    """Raises `InputError` saying why, where the score `name` is not defined for these data."""
    score = SCORES[name]
    if score.repeated_images:
        check_repeats(data, name, score.repeated_images)
    if score.counts:
        check_counts(data, responses)
    if score.needs == "rates" and (data.n_repeats > 1).any():
        raise InputError(
            f"{name} needs noise-free rates, one row per image, but got images of several trials. For recorded"
            " responses use 'feve'."
        )
