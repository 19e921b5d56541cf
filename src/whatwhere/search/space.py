"""What a search varies: a model, options that all points share, and axes along which points differ."""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import yaml

from whatwhere.catalogue import MODELS
from whatwhere.checks import check_choice, check_keys
from whatwhere.errors import FormatError, OptionError
from whatwhere.plain_options import merge

PENALTIES = "penalties."
"""Axes that begin so do not change a model's architecture."""
_REFUSED = {
    "training.loss": "losses of different kinds cannot be compared",
    "loss": "losses of different kinds cannot be compared",
    "training.validation_fraction": "points judged on different images cannot be compared",
    "validation_fraction": "points judged on different images cannot be compared",
    "folds": "points judged on different images cannot be compared",
    "preprocessing.scale_responses": "losses in different units cannot be compared",
    "training.checkpoint_seconds": "it decides nothing that is measured",
}

Point: TypeAlias = dict[str, Any]
"""One value for each axis, by the axis's name."""


@dataclass(frozen=True)
class Choice:
    """An axis of some values: numbers, words, truth values, or lists as `core.kernel_sizes` has them."""

    values: tuple[Any, ...]

    def grid(self, name: str) -> list[Any]:
        """All of them."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """An axis from `low` to `high`, both included: whole numbers if both are, on a logarithmic scale if `log`.

    n: how many values a grid takes of it, evenly; None where only other searches have a use for it.
    """

    low: float
    high: float
    log: bool = False
    n: int | None = None

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self, name: str) -> list[Any]:
        """`n` values of it; raises `OptionError` where `n` is missing."""
        if self.n is None:
            raise OptionError(
                f"{name} is a range without n: a grid needs to know how many values to take of it. Give n, or a list."
            )
        spaced = (np.geomspace if self.log else np.linspace)(self.low, self.high, self.n)
        if self.whole:
            return [int(value) for value in dict.fromkeys(np.rint(spaced).astype(int).tolist())]
        return [float(value) for value in np.clip(spaced, self.low, self.high)]


Axis: TypeAlias = Choice | Range


@dataclass(frozen=True)
class Space:
    """A model by its name, the options shared by all points by concern, and the axes by the option that they vary."""

    model: str
    axes: Mapping[str, Axis]
    options: Mapping[str, Any]

    def grid(self) -> list[Point]:
        """Every combination, each once; the first axis varies slowest."""
        values = [[*dict.fromkeys(map(label, axis.grid(name)))] for name, axis in self.axes.items()]
        return [dict(zip(self.axes, map(unlabelled, some), strict=True)) for some in itertools.product(*values)]

    def corners(self) -> list[Point]:
        """Two points: every axis at its first value or low end, and at its last or high end."""
        ends = [
            (axis.values[0], axis.values[-1]) if isinstance(axis, Choice) else (axis.low, axis.high)
            for axis in self.axes.values()
        ]
        return [dict(zip(self.axes, some, strict=True)) for some in zip(*ends, strict=True)]

    def values(self, point: Point) -> dict[str, Any]:
        """The options of a point, as for `make_model`.

        >>> space = make_space("factorized", {"core.n_maps": [8]}, {"core": {"batch_norm": True}})
        >>> space.values({"core.n_maps": 8})
        {'core': {'batch_norm': True, 'n_maps': 8}}
        """
        values = dict(self.options)
        for name, value in point.items():
            for key in reversed(name.split(".")):
                value = {key: value}
            values = merge(values, value)
        return values

    def architecture(self, point: Point) -> str:
        """The same for points that differ in penalties alone."""
        return label({name: value for name, value in point.items() if not name.startswith(PENALTIES)})

    def plain(self) -> dict[str, Any]:
        """What decides the points, as plain values for a file."""
        axes = {name: axis.values if isinstance(axis, Choice) else vars(axis) for name, axis in self.axes.items()}
        plain: dict[str, Any] = json.loads(
            json.dumps({"model": self.model, "options": dict(self.options), "space": axes})
        )
        return plain


def label(value: Any) -> str:
    """A value as text from which it can be read again, the same for equal values: JSON with sorted keys."""
    return json.dumps(value, sort_keys=True)


def unlabelled(text: str) -> Any:
    """The value that `label` made a text of."""
    return json.loads(text)


def key_of(point: Point) -> str:
    """A name for the files of a point, from its values.

    >>> key_of({"core.n_maps": 8}) == key_of({"core.n_maps": 8}) != key_of({"core.n_maps": 16})
    True
    """
    return hashlib.sha256(label(point).encode()).hexdigest()[:12]


def read_space(path: str | Path) -> Space:
    """The space in a YAML file.

    ```yaml
    model: factorized
    options:                     # of all points, in place of the preset's
      core: {kernel_sizes: [9, 5, 5]}
    space:
      core.n_maps: [8, 16, 32]   # some values
      penalties.mask_l1: {low: 0.01, high: 0.1, log: true, n: 4}  # or a range, of which a grid takes n
    ```

    Raises `FormatError` for a file that is no such YAML, `OptionError` for a model, axis or range that cannot be.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path} holds {type(values).__name__}: expected a mapping with model and space.")
    check_keys("key of a space", values, ("model", "options", "space"))
    axes, options = values.get("space"), values.get("options") or {}
    if not isinstance(axes, dict) or not axes:
        raise FormatError(f"{path} has no space: expected a mapping from options to their values or ranges.")
    if not isinstance(options, dict):
        raise FormatError(f"{path}: options is {options!r}, expected a mapping.")
    return make_space(str(values.get("model", "factorized")), axes, options)


def make_space(model: str, axes: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Space:
    """A space from plain values: axes hold lists, or mappings with low, high, and where wanted log and n.

    >>> make_space("ridge", {"strengths": [1.0, 10.0]}).grid()
    [{'strengths': 1.0}, {'strengths': 10.0}]
    """
    check_choice("model", model, MODELS)
    if not axes:
        raise OptionError("the space is empty: give at least one axis, for example core.n_maps: [8, 16].")
    for name in axes:
        if str(name) in _REFUSED:
            raise OptionError(f"{name} cannot be searched: {_REFUSED[str(name)]}. Put it under options.")
        if str(name).split(".")[-1] == "seed":
            raise OptionError(f"{name} cannot be searched: a seed is nothing to choose. Give one for the whole search.")
    return Space(model, {str(name): _axis(str(name), axis) for name, axis in axes.items()}, dict(options or {}))


def _axis(name: str, given: Any) -> Axis:
    if isinstance(given, Choice | Range):
        return given
    if isinstance(given, list | tuple):
        if not given:
            raise OptionError(f"{name} is an empty list: give at least one value.")
        return Choice(tuple(_number(value) for value in given))
    if not isinstance(given, dict):
        raise OptionError(f"{name} is {given!r}: expected a list of values, or a range such as {{low: 1, high: 8}}.")
    check_keys(f"key of the range {name}", given, ("low", "high", "log", "n"))
    low, high, log, n = (given.get(key) for key in ("low", "high", "log", "n"))
    low, high = _number(low), _number(high)
    for end, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise OptionError(f"{name}: {end} is {value!r}, expected a number.")
    if not isinstance(log, bool | None):
        raise OptionError(f"{name}: log is {log!r}, expected true or false.")
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 2):
        raise OptionError(f"{name}: n is {n!r}, expected a whole number of at least 2.")
    if not low < high or (log and low <= 0):
        least = ", above 0 with log" if log else ""
        raise OptionError(f"{name} goes from {low} to {high}: expected low below high{least}.")
    return Range(low, high, bool(log), n)


def _number(value: Any) -> Any:
    """A plain value: YAML 1.1 reads 1e-3 as text, and NumPy's numbers are no JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
