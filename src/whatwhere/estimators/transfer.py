"""Transfer: a new recording fitted with a core that others have taught."""

from collections.abc import Mapping
from typing import Any

from whatwhere.errors import OptionError
from whatwhere.estimators.base import Estimator
from whatwhere.estimators.cnn import CNN
from whatwhere.estimators.given_core import GivenCore, options_with_core
from whatwhere.storage import checksum


def transferred(
    source: Estimator, core: str = "frozen", options: Mapping[str, Any] | None = None, *, seed: int | None = None
) -> CNN:
    """A model that is not fitted yet and begins with the core of a fitted one; the readout is that of new neurons.

    core: "frozen", neither its parameters nor the statistics of its normalisation change, and it has no penalties; or
    "trained", it is where training begins. options: by concern, `{"training": {"max_steps": 500}}`, over those that
    `source` was fitted with; strengths are searched anew. Places start from averages, and are inferred as in any
    fit. Images may have another size than those of `source`, not other channels. Raises `OptionError` for a model that
    has no core, an unknown `core`, or options that a fitted core does not allow.

    >>> transferred(model, "frozen").fit(recording)  # doctest: +SKIP
    """
    if not isinstance(source, CNN):
        raise OptionError(f"a {source.name} model has no core: expected a convolutional one.")
    source.check_fitted()
    chosen = options_with_core(source.name, source.options_, core, options or {})
    made = type(source)(
        source.preset,
        *(chosen.core, chosen.readout, chosen.penalties, chosen.training, chosen.preprocessing),
        seed=source.seed if seed is None else seed,
        device=source.device,
        threads=source.threads,
        nonfinite=source.nonfinite,
    )
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in source.model_.core.state_dict().items()}
    made.given_core = GivenCore(checksum(tensors), core == "frozen", tensors)
    made.options()  # says what does not fit
    return made
