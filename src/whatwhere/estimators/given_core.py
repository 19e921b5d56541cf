"""A core that was fitted to other recordings, and what becomes of options where a fit begins with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whatwhere.checks import check_choice
from whatwhere.config import ModelOptions
from whatwhere.errors import InputError, OptionError
from whatwhere.model import Model
from whatwhere.plain_options import as_plain, make_options, merge
from whatwhere.presets import READOUT_STRENGTHS, without_idle

CORES = ("frozen", "trained")
"""What becomes of the core: it stays as it is, or it is where training begins."""


@dataclass(frozen=True)
class GivenCore:
    """Parameters and statistics of a fitted core, by name, and whether they stay as they are.

    checksum: names them. tensors: None where a model was read from a file that holds those of its own fit alone.
    """

    checksum: str
    frozen: bool
    tensors: Mapping[str, Tensor] | None = None

    def asked(self) -> dict[str, Any]:
        """What of it decides how a fit ends, as plain values."""
        return {"checksum": self.checksum, "frozen": self.frozen}

    def put_into(self, model: Model) -> None:
        """Gives the core of a model these values; raises as `check`."""
        self.check(model)
        assert self.tensors is not None
        model.core.load_state_dict(dict(self.tensors))

    def check(self, model: Model) -> None:
        """Raises `InputError` for a core of images with other channels, `OptionError` where there are no tensors."""
        if self.tensors is None:
            raise OptionError(
                "the core that this model was begun with is not in its file: transfer it anew from the model that has"
                " it, or fit a model of its own."
            )
        ours = {name: tensor.shape for name, tensor in model.core.state_dict().items()}
        if ours != {name: tensor.shape for name, tensor in self.tensors.items()}:
            raise InputError(
                f"the core was not fitted to images of {model.shapes.n_channels} channels: expected as many as in the"
                " recordings that it was fitted to. Their height and width may differ."
            )


def options_with_core(model: str, fitted: ModelOptions, core: str, values: Mapping[str, Any]) -> ModelOptions:
    """The options of a fit that begins with a fitted core: those that it was fitted with, and `values` over them.

    A frozen core has no penalties. Neurons start from averages: types (`readout.start`) would begin with a feature map
    each, which the core has long given to something else. Raises `OptionError` where `values` ask for what a fitted
    core does not allow.
    """
    check_choice("core", core, CORES)
    if values.get("core"):
        raise OptionError(f"core options ({values['core']!r}) are those that the core was fitted with: leave them out.")
    plain = {name: as_plain(value) if not isinstance(value, Mapping) else dict(value) for name, value in values.items()}
    penalties, readout = plain.get("penalties", {}), plain.get("readout", {})
    if readout.get("start", "average") != "average" or readout.get("hold_features"):
        raise OptionError("with a fitted core neurons start from averages: leave readout.start and hold_features out.")
    of_core = [name for name in ("smoothness", "group_sparsity") if penalties.get(name)]
    if core == "frozen" and of_core:
        raise OptionError(f"{of_core[0]} (={penalties[of_core[0]]}) has nothing to act on: the core is frozen.")
    base = merge(as_plain(fitted), {"readout": {"start": "average", "hold_features": 0}})
    if any(strength in penalties for strength in READOUT_STRENGTHS):
        base["penalties"].update(dict.fromkeys(READOUT_STRENGTHS, 0.0))
    if core == "frozen":
        base["penalties"].update({"smoothness": 0.0, "group_sparsity": 0.0})
    return without_idle(model, make_options(ModelOptions, merge(base, plain)), plain)
