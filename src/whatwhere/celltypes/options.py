"""How barcodes are put into types: the options, checked when made."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from whatwhere.config import Count, Positive
from whatwhere.plain_options import with_own_errors

Covariance = Literal["full", "tied", "diag", "spherical"]

MAX_TYPES, MIN_SIZE = 12, 5
COVARIANCE: Covariance = "full"


@with_own_errors
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class TypeOptions:
    """How neurons are put into types by their barcodes.

    - `method`: "gmm", a mixture of Gaussians, or "hdbscan", clusters of any shape that are denser than what is between
    - `metric`: "weights" compares barcodes weight by weight; "signal" by the correlation of what two neurons would
      answer at one place, so that feature maps that are alike count as alike (needs a recording's images)
    - `n_types`: of a mixture; None: the number with the lowest BIC
    - `max_types`: up to which numbers are tried for the BIC
    - `covariance`: of a mixture's Gaussians: "full", "tied" (one for all), "diag" or "spherical"
    - `floor`: differences between barcodes, of length one, that count as none. A mixture's Gaussians have at least this
      standard deviation along any axis; clusters of HDBSCAN that come nearer to each other are one
    - `min_size`: neurons in the smallest cluster of HDBSCAN
    - `explained`: share of the barcodes' variance that the principal components have on which neurons are clustered;
      never more components than `max_components`, or than a tenth of the neurons (or two)
    - `perplexity` of the t-SNE map, at most a third of the neurons
    - `seed` of the mixture's starts and of t-SNE; `n_starts`: of each mixture, the best is kept

    Raises `OptionError` for a value out of range, or one that has nothing to act on under the method.
    """

    method: Literal["gmm", "hdbscan"] = "gmm"
    metric: Literal["weights", "signal"] = "weights"
    n_types: Count | None = None
    max_types: Count = MAX_TYPES
    covariance: Covariance = COVARIANCE
    floor: Positive = 0.06
    min_size: Annotated[int, Field(ge=2)] = MIN_SIZE
    explained: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_components: Count = 10
    perplexity: Annotated[float, Field(ge=1)] = 30.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    n_starts: Count = 5

    @model_validator(mode="after")
    def _of_the_method(self) -> "TypeOptions":
        usual: dict[str, Any] = {"min_size": MIN_SIZE}
        if self.method == "hdbscan":
            usual = {"n_types": None, "max_types": MAX_TYPES, "covariance": COVARIANCE}
        for name, value in usual.items():
            if getattr(self, name) != value:
                other = "gmm" if self.method == "hdbscan" else "hdbscan"
                raise ValueError(
                    f"{name} (={getattr(self, name)}) has nothing to act on with method {self.method!r}: leave it out,"
                    f" or choose {other!r}."
                )
        return self
