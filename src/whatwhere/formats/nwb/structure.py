"""An NWB file opened: what kinds of things it holds, where, and how one of several is chosen."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.checks import did_you_mean
from whatwhere.errors import FormatError, OptionError

MISSING = 'NWB files need pynwb, which is not installed ({}): pip install "whatwhere[nwb]".'


def library(path: Path) -> Any:
    """The module pynwb; raises `FormatError` where it is missing."""
    try:
        import pynwb
    except ImportError as error:
        raise FormatError(f"{path}: {MISSING.format(error)}") from None
    return pynwb


def start_io(pynwb: Any, path: Path, mode: str) -> Any:
    """pynwb's reader or writer of a file, of whatever suffix and version of the standard, without its warnings."""
    with warnings.catch_warnings():
        for harmless in ("The file path provided", ".*cached namespace"):
            warnings.filterwarnings("ignore", message=harmless, category=UserWarning)
        return pynwb.NWBHDF5IO(str(path), mode)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as pynwb reads it; what it cannot read becomes a `FormatError`."""
    pynwb = library(path)
    with ExitStack() as stack:
        try:
            nwb = stack.enter_context(start_io(pynwb, path, "r")).read()
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{path} cannot be read as NWB ({error}): it may be truncated, or of no NWB version that pynwb reads."
                " Copy it again, or ask pynwb.validate."
            ) from None
        yield nwb


def place(thing: Any) -> str:
    """The names that lead to a thing, the file's left out: `ophys/DfOverF/dff`."""
    names: list[str] = []
    while thing is not None and thing.parent is not None:
        names.insert(0, thing.name)
        thing = thing.parent
    return "/".join(names)


def tables(nwb: Any) -> dict[str, Any]:
    """The tables of intervals by place, those of invalid times left out."""
    from pynwb.epoch import TimeIntervals

    found = [thing for thing in nwb.objects.values() if isinstance(thing, TimeIntervals)]
    return {place(table): table for table in sorted(found, key=place) if table.name != "invalid_times"}


def templates(nwb: Any) -> dict[str, Any]:
    """What holds images to be shown: stimulus templates, or without any the images among the stimuli presented."""
    from pynwb.base import Images
    from pynwb.image import ImageSeries

    for folder, things in (("templates", nwb.stimulus_template), ("presentation", nwb.stimulus)):
        found = {f"{folder}/{name}": thing for name, thing in things.items() if isinstance(thing, ImageSeries | Images)}
        if found:
            return found
    return {}


def shown_series(nwb: Any, *, every: bool = False) -> dict[str, Any]:
    """What says at which time which image was shown: an `IndexSeries`, or a presented `ImageSeries` itself.

    The latter where there is none of the former; every: of both kinds.
    """
    from pynwb.image import ImageSeries, IndexSeries

    series = {f"presentation/{name}": thing for name, thing in nwb.stimulus.items()}
    indices = {name: thing for name, thing in series.items() if isinstance(thing, IndexSeries)}
    frames = {name: thing for name, thing in series.items() if isinstance(thing, ImageSeries)}
    return {**indices, **frames} if every else indices or frames


def response_sources(nwb: Any) -> dict[str, Any]:
    """Every `RoiResponseSeries` by place, and the spikes as `units`."""
    from pynwb.ophys import RoiResponseSeries

    found = [thing for thing in nwb.objects.values() if isinstance(thing, RoiResponseSeries)]
    sources = {place(series): series for series in sorted(found, key=place)}
    if nwb.units is not None and "spike_times" in nwb.units.colnames:
        sources["units"] = nwb.units
    return sources


def choose(path: Path, what: str, option: str, asked: str | None, found: dict[str, Any]) -> tuple[str, Any]:
    """The only one, or the one asked for, with its place.

    Raises `FormatError` where there is none, or several and none is asked for; `OptionError` where it is not there.
    """
    if not found:
        raise FormatError(f"{path} holds no {what}. Look at what it holds with `whatwhere data info`.")
    there = ", ".join(found)
    if asked is None:
        if len(found) == 1:
            return next(iter(found.items()))
        raise FormatError(
            f"{path} holds {len(found)} of the kind {what}: {there}. Choose one with {option}=..., on the command line"
            f" --set {option}={next(iter(found))}."
        )
    fitting = [name for name in found if name == asked or name.endswith(f"/{asked}")]
    if len(fitting) != 1:
        count = "more than one" if fitting else "no"
        raise OptionError(
            f"{option}={asked!r}: there is {count} {what} of that name, but {there}.{did_you_mean(asked, found)}"
        )
    return fitting[0], found[fitting[0]]


def plain_columns(table: Any) -> dict[str, np.ndarray]:
    """The columns of a table that hold one number, truth value or text a row."""
    from hdmf.common import DynamicTableRegion, VectorIndex

    ragged = {column.target.name for column in table.columns if isinstance(column, VectorIndex)}
    columns = {}
    for name in table.colnames:
        column = table[name]
        if isinstance(column, VectorIndex | DynamicTableRegion) or name in ragged:
            continue
        if len(getattr(column.data, "shape", (0,))) != 1:
            continue
        values = as_array(column.data)
        if values.ndim == 1 and values.dtype.kind in "biufU":
            columns[name] = values
    return columns


def as_array(data: Any) -> np.ndarray:
    """Stored values as an array of numbers, truth values or text; other objects stay objects."""
    values = np.asarray(data[:])
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    if values.dtype.kind == "O" and all(isinstance(value, str | bytes) for value in values.ravel()):
        texts = [value.decode("utf-8") if isinstance(value, bytes) else value for value in values.ravel()]
        return np.array(texts, dtype=str).reshape(values.shape)
    return values


def sample_times(path: Path, where: str, series: Any) -> np.ndarray:
    """When each sample of a series was taken, seconds; raises `FormatError` unless the times ascend."""
    n = series.data.shape[0]
    if series.timestamps is None:
        return float(series.starting_time or 0.0) + np.arange(n) / float(series.rate)
    times = np.asarray(series.timestamps[:], dtype=float)
    if times.shape != (n,):
        raise FormatError(f"{path}: {where} has {len(times):,} timestamps for {n:,} samples: expected one each.")
    wrong = np.flatnonzero(~(np.diff(times) > 0))
    if len(wrong) or not np.isfinite(times).all():
        at = int(wrong[0]) if len(wrong) else 0
        raise FormatError(f"{path}: the timestamps of {where} do not ascend, at sample {at}. Sort or mend them.")
    return times
