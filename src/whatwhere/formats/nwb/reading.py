"""A `Recording` from an NWB file: images, presentations, responses and neurons put together."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from whatwhere.checks import some_of
from whatwhere.formats.nwb.images import Template
from whatwhere.formats.nwb.options import Reading
from whatwhere.formats.nwb.presentations import Presentations, read_presentations, split
from whatwhere.formats.nwb.responses import read_responses
from whatwhere.formats.nwb.structure import (
    choose,
    opened,
    plain_columns,
    response_sources,
    shown_series,
    tables,
    templates,
)
from whatwhere.formats.reader import Item
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import frozen, read_rows, take_rows


def recognises(path: Path) -> bool:
    """Whether this is a file that ends in .nwb, or an HDF5 file that says that it is NWB."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".nwb":
        return True
    if not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "nwb_version" in file.attrs
    except OSError:
        return False


def read(path: Path, *, nonfinite: str = "error", options: Reading = Reading()) -> Recording:  # noqa: B008  # frozen
    """The recording in an NWB file, its images left there.

    Raises `FormatError` that names what is missing, does not fit, or is there more than once, with the option that
    chooses; `OptionError` for an option that names what is not there.
    """
    notes: list[str] = []
    with opened(path) as nwb:
        where, source = choose(path, "responses", "responses", options.responses, response_sources(nwb))
        made, template = read_presentations(path, nwb, options, notes)
        made, tiers = split(path, made, options, notes)
        starts = made.starts + options.delay
        stops = made.stops + options.delay if options.duration is None else starts + options.duration
        responses, neurons = read_responses(path, where, source, starts, stops, options)
        name = nwb.session_id or path.stem
    if not (tiers == "test").any() and options.held_out != "none":
        notes.append("no test set: no presentation is held out")
    fitted = tiers != "test"
    validation = tiers[fitted] == "validation"
    return Recording(
        take_rows(template.images, made.shown[fitted]),
        frozen(responses[fitted]),
        test=_test(template, made.shown[~fitted], responses[~fitted], nonfinite),
        neurons=neurons,
        validation=validation if validation.any() and not validation.all() else None,
        image_ids=_ids(template, made.take(fitted)),
        name=str(name),
        notes=tuple(notes),
        nonfinite=nonfinite,
    )


def _test(template: Template, shown: np.ndarray, responses: np.ndarray, nonfinite: str) -> HeldOut | None:
    if not len(shown):
        return None
    images, index = np.unique(shown, return_inverse=True)
    settle = "error" if nonfinite == "error" else "keep"
    return HeldOut(frozen(read_rows(template.images, images)), frozen(responses), index, nonfinite=settle)


def _ids(template: Template, fitted: Presentations) -> np.ndarray | None:
    """The column image_id; else the images' names or positions, where an image was shown more than once."""
    if fitted.ids is not None:
        return fitted.ids
    if len(np.unique(fitted.shown)) == len(fitted.shown):
        return None
    return fitted.shown if template.names is None else np.array(template.names)[fitted.shown]


def inspect(path: Path) -> list[Item]:
    """The images, tables of intervals and responses that there are, each with its size and columns."""
    with opened(path) as nwb:
        items = [_inspect_images(name, thing) for name, thing in templates(nwb).items()]
        items += [
            Item(name, "present", f"{len(thing.data):,} entries, {type(thing).__name__}")
            for name, thing in shown_series(nwb, every=True).items()
            if name not in templates(nwb)
        ]
        for name, table in tables(nwb).items():
            items.append(Item(name, "present", f"{len(table):,} intervals: {', '.join(plain_columns(table))}"))
        for name, source in response_sources(nwb).items():
            if name == "units":
                items.append(Item(name, "present", f"{len(source):,} units: {some_of(plain_columns(source))}"))
            else:
                detail = f"{tuple(source.data.shape)} {source.data.dtype}, {type(source).__name__}"
                items.append(Item(name, "present", detail))
    return items


def _inspect_images(name: str, thing: Any) -> Item:
    if hasattr(thing, "images"):
        shapes = {tuple(image.data.shape) for image in thing.images.values()}
        return Item(name, "present", f"{len(thing.images):,} images of {some_of(shapes)}, {type(thing).__name__}")
    return Item(name, "present", f"{tuple(thing.data.shape)} {thing.data.dtype}, {type(thing).__name__}")
