"""The workloads that other libraries have, too."""

from dataclasses import replace

from workloads import WORKLOADS, Workload

from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.model import Shapes


def _equal_layers(name: str, n_maps: int, n_neurons: int, steps: int) -> Workload:
    """As 2 and 5, but with what neuralpredictors and openretina have: as many maps in all layers, ELU after each."""
    return Workload(
        name,
        f"44x44x3, three 5x5 layers of {n_maps} maps, valid, ELU, batch norm with shift, softplus, Poisson,"
        f" {n_neurons:,} neurons, batch 64",
        ModelOptions(
            core=CoreOptions(
                kernel_sizes=(5, 5, 5),
                n_maps=n_maps,
                padding="valid",
                nonlinearity="elu",
                last_nonlinearity="elu",
            ),
            readout=ReadoutOptions(nonlinearity="softplus"),
            training=TrainingOptions(loss="poisson", learning_rate=1e-3, batch_size=64),
        ),
        Shapes(n_channels=3, height=44, width=44, n_neurons=n_neurons),
        steps=steps,
    )


def _gaussian(workload: Workload, name: str) -> Workload:
    return replace(
        workload, name=name, readout="gaussian", description=f"{workload.description}; Gaussian point readout"
    )


_FEW, _MANY = _equal_layers("2e", 32, 1000, steps=4), _equal_layers("5e", 64, 8192, steps=2)

PEER_WORKLOADS = {
    workload.name: workload
    for workload in (
        WORKLOADS["1"],
        _FEW,
        WORKLOADS["4"],
        _gaussian(WORKLOADS["4"], "4g"),
        _MANY,
        _gaussian(_MANY, "5g"),
    )
}
