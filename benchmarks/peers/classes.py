"""The other libraries' public classes, and what stands in for what they import and these classes never use."""

import collections
import collections.abc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LIBRARIES = ("neuralpredictors", "openretina")

CLASSES = {
    "Stacked2dCore": "neuralpredictors.layers.cores",
    "FullFactorized2d": "neuralpredictors.layers.readouts",
    "FullGaussian2d": "neuralpredictors.layers.readouts",
    "SimpleCoreWrapper": "openretina.modules.core.base_core",
    "FactorizedReadout": "openretina.modules.readout.factorized",
    "GaussianMaskReadout": "openretina.modules.readout.factorized_gaussian",
    "PointGaussianReadout": "openretina.modules.readout.gaussian",
}
"""The module of each class that is timed."""

MODULES = {"torchvision": "an empty module: neuralpredictors imports it for its TransferLearningCore alone"}
NAMES = {"Iterable": "collections.abc.Iterable: neuralpredictors imports it from where it was before Python 3.10"}
"""Of `collections`."""


class PeerError(Exception):
    """A library that is not there, or not as it is expected."""


def public(name: str) -> Any:
    """The class of that name in `CLASSES`.

    Raises `PeerError` where it cannot be imported.
    """
    module = CLASSES[name]
    try:
        with shimmed():
            return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PeerError(
            f"{name} cannot be imported from {module}: {error}. `make bench-peers` makes an environment with the"
            " versions of benchmarks/peers/requirements.txt; remove .venv-peers to have it made anew."
        ) from error


def shims() -> dict[str, str]:
    """What stands in for what is not there, and why, by name; without an import of any library."""
    modules = {name: reason for name, reason in MODULES.items() if name not in sys.modules and find_spec(name) is None}
    names = {f"collections.{name}": reason for name, reason in NAMES.items() if not hasattr(collections, name)}
    return modules | names


@contextmanager
def shimmed() -> Iterator[None]:
    """The stand-ins are in their places in here, and nowhere after."""
    wanted = shims()
    modules = [name for name in MODULES if name in wanted]
    names = [name for name in NAMES if f"collections.{name}" in wanted]
    try:
        sys.modules.update({name: ModuleType(name) for name in modules})
        for name in names:
            setattr(collections, name, getattr(collections.abc, name))
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        for name in names:
            delattr(collections, name)
