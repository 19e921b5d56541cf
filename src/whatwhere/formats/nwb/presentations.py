"""When which image was shown, and which presentations are held out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.checks import some_of
from whatwhere.errors import FormatError, OptionError
from whatwhere.formats.nwb.images import Template, read_template
from whatwhere.formats.nwb.options import Reading
from whatwhere.formats.nwb.structure import (
    as_array,
    choose,
    plain_columns,
    sample_times,
    shown_series,
    tables,
    templates,
)

IMAGE_COLUMNS = ("image_index", "frame", "stimulus_index", "template_index", "image_name", "image", "image_id")
TIER_COLUMNS = ("tier", "split")
IDS = "image_id"
TIERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Presentations:
    """Times in seconds, the position of each presentation's image among the template's, tiers and ids where given."""

    starts: np.ndarray
    stops: np.ndarray
    shown: np.ndarray
    tiers: np.ndarray | None
    ids: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Presentations":
        """Some of them, one boolean each."""
        parts = (self.starts, self.stops, self.shown, self.tiers, self.ids)
        return Presentations(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]  # fields in order


def read_presentations(path: Path, nwb: Any, options: Reading, notes: list[str]) -> tuple[Presentations, Template]:
    """The presentations of an image, in the order of their table, and the images.

    An image is named by a column of the table; without one, or where `shown` names one, by an `IndexSeries` or a
    presented `ImageSeries`: the entry in force in the middle of the presentation. Without a table, each entry of that
    series is a presentation, which lasts until the next one.
    """
    if options.shown is not None and options.image_column is not None:
        raise OptionError(
            f"shown={options.shown!r} and image_column={options.image_column!r} both say which image was shown: give"
            " one of them."
        )
    table, columns = _table(path, nwb, options)
    name = _image_column(columns, options)
    if table is not None and name is not None:
        where, thing = choose(path, "images (templates)", "images", options.images, templates(nwb))
        template = read_template(path, where, thing, options.width_first)
        shown = positions(path, f"{table}.{name}", columns[name], template, notes)
        starts, stops = _times(path, table, columns)
    else:
        found = shown_series(nwb, every=options.shown is not None)
        place, series = choose(path, "series that says which image was shown", "shown", options.shown, found)
        template = _indexed_template(path, nwb, place, series, options)
        starts, stops, shown = _from_series(path, place, series, columns, table, template, options, notes)
    ids = columns[IDS] if name not in (None, IDS) and IDS in columns and columns[IDS].dtype.kind in "iuU" else None
    made = Presentations(starts, stops, shown, _tiers(table, columns, options), ids)
    return _without_blanks(path, made, table or "the series", notes), template


def _table(path: Path, nwb: Any, options: Reading) -> tuple[str | None, dict[str, np.ndarray]]:
    """The table of presentations: the one asked for, or the only one with a column of images, or the only one."""
    found = {name: plain_columns(table) for name, table in tables(nwb).items()}
    if options.intervals is not None:
        name, columns = choose(path, "tables of intervals", "intervals", options.intervals, found)
        found = {name: columns}
    naming = {name: columns for name, columns in found.items() if _image_column(columns, options) is not None}
    there = "; ".join(f"{name} ({', '.join(columns)})" for name, columns in found.items()) or "none"
    if not naming and options.image_column is not None:
        raise OptionError(
            f"image_column={options.image_column!r}: {path} has no such column of one value a row. Tables of intervals:"
            f" {there}."
        )
    if not naming and options.shown is None and not shown_series(nwb):
        raise FormatError(
            f"{path} holds no table of intervals with a column {' or '.join(IMAGE_COLUMNS)}, that says which image was"
            f" shown, and no IndexSeries. Tables of intervals: {there}. Name the column with image_column=..."
        )
    found = naming or found
    return choose(path, "tables of intervals", "intervals", None, found) if found else (None, {})


def _image_column(columns: dict[str, np.ndarray], options: Reading) -> str | None:
    if options.shown is not None:
        return None
    names = IMAGE_COLUMNS if options.image_column is None else (options.image_column,)
    return next((name for name in names if name in columns), None)


def positions(path: Path, where: str, values: np.ndarray, template: Template, notes: list[str]) -> np.ndarray:
    """Which image each value means, -1 for none: a position from 0, or an image's name."""
    if values.dtype.kind == "U":
        if template.names is None:
            raise FormatError(
                f"{path}: {where} holds texts, but the images of {template.place} have no names: expected positions."
                " Name another column with image_column=..."
            )
        known = {name: position for position, name in enumerate(template.names)}
        others = sorted(set(values.tolist()) - set(known))
        if len(others) == len(set(values.tolist())):
            raise FormatError(
                f"{path}: {where} names no image of {template.place}, but {some_of(map(repr, others))}; there are"
                f" {some_of(map(repr, known))}. Choose another column or template."
            )
        if others:
            notes.append(f"presentations of {some_of(map(repr, others))}, no images of {template.place}: not read")
        return np.array([known.get(value, -1) for value in values.tolist()])
    if not template.ordered:
        raise FormatError(
            f"{path}: {where} holds positions, but the collection {template.place} has no order_of_images. Store the"
            " order, or a column of the images' names."
        )
    values = values.astype(float)
    none = np.isnan(values) | (values < 0)
    wrong = ~none & ((values % 1 != 0) | (values >= len(template.images)))
    if wrong.any():
        raise FormatError(
            f"{path}: {where} holds {some_of(values[wrong])}: expected positions from 0 to {len(template.images) - 1:,}"
            f" of the images in {template.place}, negative or NaN for none."
        )
    return np.where(none, -1, values).astype(int)


def _times(path: Path, table: str, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    for name in ("start_time", "stop_time"):
        if name not in columns:
            raise FormatError(f"{path}: {table} has no column {name}: expected when each presentation began and ended.")
    return columns["start_time"].astype(float), columns["stop_time"].astype(float)


def _indexed_template(path: Path, nwb: Any, place: str, series: Any, options: Reading) -> Template:
    """The images that a series of indices means, or those that it holds itself."""
    from pynwb.image import IndexSeries

    asked = options.images
    if asked is not None and isinstance(series, IndexSeries):
        place, series = choose(path, "images (templates)", "images", asked, templates(nwb))
    elif asked is not None and not f"/{place}".endswith(f"/{asked}"):
        raise OptionError(
            f"images={asked!r} has nothing to act on: {place} holds the images that it shows. Leave it, or choose"
            " another series with shown=..."
        )
    elif isinstance(series, IndexSeries):
        series = series.indexed_images if series.indexed_images is not None else series.indexed_timeseries
        place = f"templates/{series.name}"
    return read_template(path, place, series, options.width_first)


def _from_series(
    path: Path,
    place: str,
    series: Any,
    columns: dict[str, np.ndarray],
    table: str | None,
    template: Template,
    options: Reading,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, stops and images, from a series of which image was shown from when on."""
    from pynwb.image import IndexSeries

    times = sample_times(path, place, series)
    entries = np.arange(len(times))
    if isinstance(series, IndexSeries):
        entries = positions(path, place, as_array(series.data), template, notes)
    if table is not None:
        starts, stops = _times(path, table, columns)
        at = np.searchsorted(times, (starts + stops) / 2, side="right") - 1
        notes.append(f"the image of a presentation is that of {place} in the middle of its interval of {table}")
        return starts, stops, np.where(at >= 0, entries[np.maximum(at, 0)], -1)
    if len(times) == 1 and options.duration is None:
        raise FormatError(f"{path}: {place} shows one image, and nothing says for how long. Give duration=...")
    last = times[-1] + (float(np.median(np.diff(times))) if len(times) > 1 else float(options.duration or 0))
    notes.append(f"there is no table of intervals: an image of {place} was shown until the next one")
    return times, np.append(times[1:], last), entries


def _tiers(table: str | None, columns: dict[str, np.ndarray], options: Reading) -> np.ndarray | None:
    """Each presentation's tier as written, or None."""
    asked = options.tier_column
    if asked is not None and (asked not in columns or columns[asked].dtype.kind != "U"):
        texts = [name for name, values in columns.items() if values.dtype.kind == "U"]
        raise OptionError(
            f"tier_column={asked!r}: no such column of texts in {table or 'the file, which has no table'}, but"
            f" {', '.join(texts) or 'none'}."
        )
    names = TIER_COLUMNS if asked is None else (asked,)
    name = next((name for name in names if name in columns and columns[name].dtype.kind == "U"), None)
    return None if name is None else columns[name]


def _without_blanks(path: Path, made: Presentations, where: str, notes: list[str]) -> Presentations:
    """Only the presentations of an image; raises `FormatError` where one has no times."""
    image = made.shown >= 0
    if not image.any():
        raise FormatError(f"{path}: no row of {where} shows an image.")
    if not image.all():
        notes.append(f"{np.sum(~image):,} of {len(image):,} presentations show no image: not read")
    bad = np.flatnonzero(image & ~(np.isfinite(made.starts) & np.isfinite(made.stops) & (made.stops > made.starts)))
    if len(bad):
        raise FormatError(
            f"{path}: {where} has {len(bad):,} presentations that do not end after they begin: rows {some_of(bad)}."
            " Mend their start_time and stop_time."
        )
    return made.take(image)


def split(path: Path, made: Presentations, options: Reading, notes: list[str]) -> tuple[Presentations, np.ndarray]:
    """The presentations to be read, and each one's tier: train, validation or test.

    Raises `FormatError` where none is left to fit to, `OptionError` for tiers that are not there, or an option of what
    is held out that would be ignored.
    """
    if options.held_out == "tiers" and made.tiers is None:
        raise OptionError(f"held_out='tiers': no column {' or '.join(TIER_COLUMNS)}. Name it with tier_column=...")
    by_tiers = options.held_out == "tiers" or (options.held_out == "auto" and made.tiers is not None)
    _check_used(options, by_tiers)
    if options.held_out == "none":
        notes.append("no test set: none was asked for")
        return made, np.full(len(made.shown), "train")
    if made.tiers is not None and by_tiers:
        named = np.array([TIERS.get(tier.lower(), "") for tier in made.tiers])
        if (named == "").any():
            others = {str(tier): int(np.sum(made.tiers == tier)) for tier in np.unique(made.tiers[named == ""])}
            notes.append(f"presentations of other tiers were not read: {others}")
        notes.append("held out: the presentations whose tier is test")
        made, tiers = made.take(named != ""), named[named != ""]
    else:
        least = 2 if options.min_repeats is None else options.min_repeats
        often = np.bincount(made.shown)[made.shown] >= least
        notes.append(f"held out: images shown {least} times or more, by no column of tiers")
        tiers = np.where(often, "test", "train")
    if not (tiers != "test").any():
        raise FormatError(
            f"{path}: every presentation would be held out, none is left to fit to. Give a column of tiers"
            " (tier_column=...), a larger min_repeats, or held_out=none."
        )
    return made, tiers


def _check_used(options: Reading, by_tiers: bool) -> None:
    """Raises `OptionError` for an option of another rule of what is held out than the one in force."""
    rule = "the column of tiers" if by_tiers else f"held_out={options.held_out}"
    if options.min_repeats is not None and (by_tiers or options.held_out == "none"):
        raise OptionError(
            f"min_repeats (={options.min_repeats}) has nothing to act on: {rule} says what is held out. Leave it, or"
            " give held_out=repeats."
        )
    if options.tier_column is not None and not by_tiers:
        raise OptionError(
            f"tier_column (={options.tier_column!r}) has nothing to act on: {rule} says what is held out. Leave one"
            " of them out."
        )
