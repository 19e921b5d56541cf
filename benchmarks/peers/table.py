"""Which library does which workload, and in what it differs from the mathematics of ours."""

from collections.abc import Callable

import plain
from torch import Tensor
from workloads import Workload, make_model, step_of

from peers.networks import Peer, neuralpredictors, openretina, openretina_masks

PEERS: dict[str, Callable[[Workload], Peer]] = {
    "neuralpredictors": neuralpredictors,
    "openretina": openretina,
    "openretina-masks": openretina_masks,
}

_FIXED = "its batch norm's scale is held at 1"
_POINTWISE = "each separable layer has one more 1x1 convolution, which starts as the identity"
_VIDEO = f"images are videos of one frame, kernels are one frame long; {_FIXED}, one of its two shifts at 0"
_DRAWN = "each draws its own noise, places have other units"

DIFFERS: dict[str, dict[str, str]] = {
    "1": {
        "neuralpredictors": "its feature weights are held at 1; its penalty, which sums |mask| |weights| over all"
        " pairs of neurons, is divided by their number",
    },
    "2e": {
        "neuralpredictors": _FIXED,
        "openretina": _VIDEO,
        "openretina-masks": f"masks have a Gaussian's shape, so other predictions; {_VIDEO}",
    },
    "4": {"neuralpredictors": f"{_POINTWISE}; {_FIXED}"},
    "4g": {"neuralpredictors": f"{_POINTWISE}; {_FIXED}; {_DRAWN}"},
    "5e": {
        "neuralpredictors": _FIXED,
        "openretina": _VIDEO,
        "openretina-masks": f"masks have a Gaussian's shape, so other predictions; {_VIDEO}",
    },
    "5g": {"neuralpredictors": f"{_FIXED}; {_DRAWN}", "openretina": f"{_VIDEO}; {_DRAWN}"},
}
"""By workload and library: those that are timed."""

UNLIKE = ("openretina-masks",)
"""Those that compute something else, so that there is nothing to agree."""


def implementations(workload: Workload) -> list[str]:
    """whatwhere, plain PyTorch where `plain.py` has the workload, and the libraries that have it."""
    return ["whatwhere", *(["plain"] if workload.name in plain.MODELS else []), *DIFFERS[workload.name]]


def make_step(workload: Workload, implementation: str, images: Tensor, responses: Tensor) -> Callable[[], None]:
    """One step of training, to be called again and again: of ours, or of the plain loop with another network."""
    if implementation == "whatwhere":
        return step_of(make_model(workload), images, responses)
    if implementation == "plain":
        network = plain.MODELS[workload.name]()
    else:
        network = PEERS[implementation](workload).network
    return plain.step_of(network, images, responses, workload.options.training.batch_size)
