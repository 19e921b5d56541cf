"""What a reader of an NWB file may be told, and what a writer."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _doc(text: str) -> dict[str, Any]:
    return {"doc": text}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Where in an NWB file things are; what is not given must be there once.

    A name is the last part of a place, or as much of it as tells it from others: `dff`, `DfOverF/dff`.
    """

    images: str | None = field(default=None, metadata=_doc("the images shown: an ImageSeries, or a collection Images"))
    intervals: str | None = field(default=None, metadata=_doc("the table of presentations, for example trials"))
    image_column: str | None = field(
        default=None, metadata=_doc("its column that says which image: positions from 0, or images' names")
    )
    shown: str | None = field(
        default=None,
        metadata=_doc("in place of such a column, the IndexSeries or ImageSeries that says which image was shown"),
    )
    tier_column: str | None = field(
        default=None, metadata=_doc("its column that says train, validation or test; tier or split if there")
    )
    responses: str | None = field(default=None, metadata=_doc("a RoiResponseSeries, or units for spikes"))
    identifiers: str | None = field(
        default=None, metadata=_doc("the neurons' column of identifiers; identifier if there, else id")
    )
    delay: Annotated[float, Field(allow_inf_nan=False)] = field(
        default=0.0, metadata=_doc("seconds from an image to its response")
    )
    duration: Seconds | None = field(
        default=None, metadata=_doc("seconds over which a response is taken; the presentation's if not given")
    )
    rate: bool = field(default=False, metadata=_doc("spikes per second instead of counts"))
    held_out: Literal["auto", "tiers", "repeats", "none"] = field(
        default="auto",
        metadata=_doc("the test set: tiers, repeats or none; auto is tiers where there are some, else repeats"),
    )
    min_repeats: Annotated[int, Field(ge=2)] | None = field(
        default=None, metadata=_doc("images shown at least so often are held out by repeats; 2 if not given")
    )
    width_first: bool = field(default=False, metadata=_doc("images are stored (width, height), not (height, width)"))


@dataclass(frozen=True, kw_only=True)
class Writing:
    """What an NWB file says that a recording does not know."""

    seconds: Seconds = field(default=1.0, metadata=_doc("how long each presentation is said to last"))
    session_start: str = field(
        default="1970-01-01T00:00:00+00:00", metadata=_doc("the session's date and time, ISO 8601")
    )
