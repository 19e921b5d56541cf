"""From flags and a YAML file to options: the file first, flags over it, one check for both."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from whatwhere.catalogue import COMMON, MODELS, is_label
from whatwhere.checks import check_keys
from whatwhere.config import ModelOptions, RunOptions
from whatwhere.errors import FormatError, OptionError
from whatwhere.estimators import CNN
from whatwhere.plain_options import as_plain, make_options, merge
from whatwhere.presets import PRESETS, preset_options


def gather(config: Path | None, assignments: list[str], flags: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """Options of the run, and the models' own values by concern.

    config: a YAML file; assignments: `concern.option=value`, values in YAML; flags: those given, None where not.
    Raises `OptionError` for a key that is not known, naming the nearest; `FormatError` for a file that is no YAML.
    """
    values = merge(read_config(config) if config is not None else {}, parse_assignments(assignments))
    run_keys = [option.name for option in fields(RunOptions)]
    concerns = [option.name for option in fields(ModelOptions)]
    check_keys("option", [key for key in values if not is_label(key)], [*run_keys, *concerns, *MODELS])
    run = {key: value for key, value in values.items() if key in run_keys}
    run.update({key: value for key, value in flags.items() if value is not None})
    models = {key: value for key, value in values.items() if key not in run_keys}
    for key, value in models.items():
        if not isinstance(value, dict):
            raise OptionError(f"{key} must hold options, {key}.NAME=VALUE: got {value!r}.")
    return make_options(RunOptions, run), models


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path} holds {type(values).__name__}: expected a mapping of options to values.")
    return values


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """All of them as one nested mapping; of two for the same option the last counts."""
    values: dict[str, Any] = {}
    for text in texts:
        values = merge(values, parse_assignment(text))
    return values


def parse_assignment(text: str) -> dict[str, Any]:
    """`concern.option=value` as a nested mapping.

    >>> parse_assignment("core.kernel_sizes=[9, 5]")
    {'core': {'kernel_sizes': [9, 5]}}
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OptionError(f"{text!r}: expected concern.option=value, for example core.n_maps=8.")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or error
        raise OptionError(f"{text!r}: the value cannot be read as YAML ({reason}).") from None
    if isinstance(nested, str):
        nested = _number(nested)
    for key in reversed(name.strip().split(".")):
        nested = {key: nested}
    return dict(nested)


def _number(text: str) -> Any:
    """YAML 1.1 reads 1e-3 as text: the number it means."""
    try:
        return float(text)
    except ValueError:
        return text


def options_help(models: Iterable[str] = MODELS) -> str:
    """Every option of these models with its default for recordings and its meaning, for the help of what fits them."""
    lines = ["Options for --set and --config; defaults are for recordings, of factorized and of others that differ:"]
    of_models = {model: as_plain(preset_options(model, "recording")) for model in PRESETS["recording"]}
    for concern in fields(ModelOptions):
        kind: Any = concern.type
        for option in fields(kind):
            values = {model: _plain(of[concern.name][option.name]) for model, of in of_models.items()}
            others = [f"{model}: {value}" for model, value in values.items() if value != values["factorized"]]
            default = values["factorized"] + (f" ({'; '.join(others)})" if others else "")
            lines.append(f"  {concern.name}.{option.name}={default}  {option.metadata['doc']}")
    for name in models:
        if not issubclass(MODELS[name], CNN):
            own = MODELS[name]().get_params()
            lines += [f"  {name}.{key}={_plain(own[key])}" for key in sorted(own.keys() - COMMON)]
    return "\n\n".join(lines)


def transfer_help() -> str:
    """Every option of a fit that begins with a fitted core, and its meaning; those of the core are given with it."""
    lines = ["Options for --set and --config; what is not given is as the fitted model has it:"]
    for concern in fields(ModelOptions):
        if concern.name != "core":
            kind: Any = concern.type
            lines += [f"  {concern.name}.{option.name}  {option.metadata['doc']}" for option in fields(kind)]
    return "\n\n".join(lines)


def _plain(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
