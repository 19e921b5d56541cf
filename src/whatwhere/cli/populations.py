"""What verbs that simulate share: flags to the options of a population and its recording."""

import re
from pathlib import Path
from typing import Any

from whatwhere.checks import check_keys
from whatwhere.cli.options import parse_assignments
from whatwhere.errors import OptionError

_CONCERNS = ("stimuli", "noise", "positions", "population")
_FLAGS = {
    "kind": "KIND",
    "n_neurons": "--neurons",
    "n_types": "--types",
    "image_size": "--image-size",
    "n_channels": "--channels",
    "positions": "--positions",
    "nonlinearity": "--nonlinearity",
    "mean_rate": "--mean-rate",
    "weights": "--weights",
}
"""Options of populations that the verb has itself: given twice, one of them would be ignored."""


def options_by_concern(assignments: list[str]) -> dict[str, dict[str, Any]]:
    """The options of each concern, from KEY=VALUE."""
    values = parse_assignments(assignments)
    check_keys("option", values, _CONCERNS)
    for concern, of_concern in values.items():
        if not isinstance(of_concern, dict):
            raise OptionError(f"{concern} must hold options, {concern}.NAME=VALUE: got {of_concern!r}.")
    for name in values.get("population", {}):
        if name in _FLAGS:
            raise OptionError(f"population.{name} is {_FLAGS[name]} of this verb: give it there.")
    return {concern: values.get(concern, {}) for concern in _CONCERNS}


def stimuli_name(stimuli: str | None, photographs: Path | None, options: dict[str, Any]) -> str:
    """The name of the stimuli; a folder of photographs goes into their options."""
    if photographs is None:
        return stimuli or "white-noise"
    if stimuli not in (None, "photographs"):
        raise OptionError(f"--photographs gives a folder, but --stimuli is {stimuli}: leave one of them out.")
    if "folder" in options:
        raise OptionError("--photographs gives a folder, and so does stimuli.folder: leave one of them out.")
    options["folder"] = str(photographs)
    return "photographs"


def read_size(text: str) -> tuple[int, int]:
    """Height and width.

    >>> read_size("36x64")
    (36, 64)
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if not found:
        raise OptionError(f"--image-size is {text!r}: expected height and width, for example 36x64.")
    return int(found[1]), int(found[2])
