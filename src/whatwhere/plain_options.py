"""From plain values to options and back: dataclasses checked when made, with errors in the project's words."""

import functools
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from whatwhere.checks import check_keys
from whatwhere.errors import OptionError

Kind = TypeVar("Kind")


def with_own_errors(kind: type[Kind]) -> type[Kind]:
    """Makes the class say what does not fit in the project's words: an `OptionError`, with the nearest known name."""
    made = kind.__init__

    @functools.wraps(made)
    def make(self: Any, **values: Any) -> None:
        check_keys("option", values, [option.name for option in fields(kind)])  # type: ignore[arg-type]  # a dataclass
        try:
            made(self, **values)
        except ValidationError as error:
            raise OptionError(explain(error)) from None

    kind.__init__ = make  # type: ignore[method-assign]  # pydantic's own has no hook for other errors
    return kind


def make_options(kind: type[Any], values: dict[str, Any], where: str = "") -> Any:
    """An options dataclass from plain values, nested ones too.

    Raises `OptionError` that names an unknown key with the nearest known one, or the value that does not fit.

    >>> from whatwhere.config import CoreOptions
    >>> make_options(CoreOptions, {"n_map": 4})
    Traceback (most recent call last):
    ...
    whatwhere.errors.OptionError: unknown option 'n_map': known are 'kernel_sizes', 'n_maps', ... Did you mean 'n_maps'?
    """
    if not isinstance(values, dict):
        raise OptionError(f"{where or 'options'}: expected a mapping of names to values (got {values!r}).")
    options = {option.name: option for option in fields(kind)}
    check_keys(f"option{' of ' + where if where else ''}", values, options)
    nested = {
        name: make_options(kind_of, value, name)
        for name, value in values.items()
        if isinstance(kind_of := options[name].type, type) and is_dataclass(kind_of) and not is_dataclass(value)
    }
    try:
        return TypeAdapter(kind).validate_python({**values, **nested})
    except ValidationError as error:
        raise OptionError(explain(error, where)) from None


def merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes` in their place, mappings merged key by key.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
    {'a': {'b': 3, 'c': 2}}
    """
    merged = dict(values)
    for key, change in changes.items():
        both = isinstance(change, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], change) if both else change
    return merged


def as_plain(options: Any) -> dict[str, Any]:
    """Options as plain values for a file; `make_options` makes them again.

    >>> from whatwhere.config import PreprocessingOptions
    >>> as_plain(PreprocessingOptions())
    {'standardize': 'global', 'scale_responses': True}
    """
    plain: dict[str, Any] = TypeAdapter(type(options)).dump_python(options, mode="json")
    return plain


def _closeness(error: Any) -> bool:
    """Of the alternatives of a union, the one whose type was right but whose value was not says most."""
    return not error["type"].endswith(("_type", "_parsing"))


def explain(error: ValidationError, where: str = "") -> str:
    """A pydantic error in the project's words: the option, what was expected, what was got."""
    first = max(error.errors(include_url=False), key=_closeness)
    name = f"{where}.{first['loc'][0]}" if first["loc"] else where
    message = first["msg"].removeprefix("Value error, ")
    return f"{name.strip('.') or 'options'}: {message} (got {first['input']!r})."
