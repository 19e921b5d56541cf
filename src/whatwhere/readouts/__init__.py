"""The readouts, chosen by name: how each neuron pools the core's feature maps."""

from whatwhere.readouts.base import Readout, Start
from whatwhere.readouts.factorized import FactorizedReadout
from whatwhere.readouts.fixed_mask import FixedMaskReadout
from whatwhere.readouts.fully_connected import FullyConnectedReadout
from whatwhere.readouts.gaussian import GaussianReadout
from whatwhere.readouts.posterior import PosteriorReadout

READOUTS: dict[str, type[Readout]] = {
    "factorized": FactorizedReadout,
    "fixed-mask": FixedMaskReadout,
    "fully-connected": FullyConnectedReadout,
    "gaussian": GaussianReadout,
    "posterior": PosteriorReadout,
}

__all__ = [
    "READOUTS",
    "FactorizedReadout",
    "FixedMaskReadout",
    "FullyConnectedReadout",
    "GaussianReadout",
    "PosteriorReadout",
    "Readout",
    "Start",
]
