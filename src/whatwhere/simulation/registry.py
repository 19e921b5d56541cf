"""Objects chosen by name, with options that are checked: stimuli, noises and arrangements of neurons."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from whatwhere.checks import check_choice, check_keys, some_of
from whatwhere.errors import OptionError

Kind = TypeVar("Kind")


def make(what: str, name: str, known: Mapping[str, type[Kind]], options: Mapping[str, Any]) -> Kind:
    """The object of that name, a dataclass, with these options.

    Raises `OptionError` for an unknown name or option, naming the nearest, and for values out of range.
    """
    kind = known[check_choice(what, name, known)]
    names = [option.name for option in fields(kind) if option.init]  # type: ignore[arg-type]  # a dataclass
    if options and not names:
        raise OptionError(f"the {what} {name!r} has no options, but got {some_of(options)}: leave them out.")
    check_keys(f"option of the {what} {name!r}", options, names)
    return kind(**options)


def resolve(what: str, asked: str | Kind, known: Mapping[str, type[Kind]]) -> Kind:
    """`asked` itself, or the object of that name with its default options."""
    return make(what, asked, known, {}) if isinstance(asked, str) else asked
