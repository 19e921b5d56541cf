"""The command that fits a model again."""

import json
import shlex
from dataclasses import fields
from typing import Any

from whatwhere.config import ModelOptions
from whatwhere.estimators import CNN, Estimator
from whatwhere.plain_options import as_plain
from whatwhere.presets import options_over_preset

RECORDING = "RECORDING"
"""Stands for the recording's path where that is not known."""


def command_of(model: Estimator, folder: str) -> str:
    """The command that fits a model with the same options: those that differ from the defaults are in it.

    The recording's path is left as the word RECORDING. Empty of a model whose core came from another fit or is shared
    with other recordings: no `whatwhere fit` gives that one again.
    """
    asked = model.asked()
    if "recordings" in asked or "given_core" in asked:
        return ""
    words = ["whatwhere", "fit", RECORDING, "--out", folder, "--model", model.name, "--seed", str(asked["seed"])]
    if isinstance(model, CNN):
        words += ["--preset", model.preset]
        chosen = _over_preset(model.name, model.preset, asked["options"])
        pairs = {f"{concern}.{name}": value for concern, own in chosen.items() for name, value in own.items()}
    else:
        usual = type(model)().asked()["options"]
        pairs = {f"{model.name}.{name}": value for name, value in asked["options"].items() if value != usual[name]}
    words += [word for name, value in pairs.items() for word in ("--set", f"{name}={_plain(value)}")]
    return shlex.join(words)


def said_of_command(model: Estimator) -> str:
    """What to know of the command of a fitted model, or why it has none."""
    asked = model.asked()
    if "recordings" in asked:
        names = ", ".join(asked["recordings"])
        return (
            "No command is shown: the core was fitted to several recordings together, by whatwhere fit-shared"
            f" ({names}), and a fit of one of them would give another model."
        )
    if "given_core" in asked:
        return (
            "No command is shown: the core came from another model, by whatwhere transfer, and the run does not keep"
            " which that was."
        )
    n = model.shapes_.n_neurons
    return (
        "A command that fits the same model again; put in place of RECORDING the path of a recording that has"
        f" {f'these {n:,} neurons' if n > 1 else 'this neuron'} alone, and the same images. Of a larger recording it"
        " fits another model:"
    )


def _over_preset(name: str, preset: str, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options that must be set over the preset; all of a concern where fewer would give others."""
    usual = as_plain(options_over_preset(name, preset, {}))
    concerns = [concern.name for concern in fields(ModelOptions)]
    chosen = {
        concern: {key: value for key, value in options[concern].items() if value != usual[concern][key]}
        for concern in concerns
    }
    if as_plain(options_over_preset(name, preset, chosen)) == options:
        return chosen
    return {concern: dict(options[concern]) for concern in concerns}


def _plain(value: Any) -> str:
    """YAML of one line; strings as they are.

    >>> _plain([9, 5]), _plain("relu"), _plain(None)
    ('[9, 5]', 'relu', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value)
