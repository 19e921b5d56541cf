"""Writing a recording as an NWB file."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.errors import FormatError, OptionError
from whatwhere.formats.columns import encode_neurons
from whatwhere.formats.nwb.options import Writing
from whatwhere.formats.nwb.responses import IDENTIFIERS
from whatwhere.formats.nwb.structure import library, start_io
from whatwhere.formats.trials import image_ids, tiers
from whatwhere.recording import Recording
from whatwhere.rows import row_chunks

DISK_CHUNK_BYTES = 2**18  # of one chunk of images on disk
UNKNOWN = "unknown"
RESERVED = (IDENTIFIERS, "id", "name", "description", "colnames", "columns", "image_mask", "pixel_mask", "voxel_mask")


def write(
    recording: Recording,
    path: Path,
    *,
    compress: bool = False,
    options: Writing = Writing(),  # noqa: B008  # frozen
) -> None:
    """Writes the recording in chunks of images, which need not fit into memory; `compress` by gzip."""
    pynwb = library(path)
    neurons = _neuron_columns(recording)
    nwb = pynwb.NWBFile(
        session_description=f"{recording!r}",
        identifier=recording.fingerprint(),
        session_start_time=_session_start(options.session_start),
        session_id=recording.name,
    )
    nwb.add_stimulus_template(_images(recording, compress))
    nwb.add_time_intervals(_presentations(recording, options.seconds))
    _add_responses(nwb, recording, neurons, options.seconds, compress)
    with start_io(pynwb, path, "w") as io:
        io.write(nwb)


def _session_start(text: str) -> datetime:
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise OptionError(
            f"session_start={text!r}: expected ISO 8601, for example 2024-05-31T09:30:00+02:00."
        ) from None
    return start if start.tzinfo is not None else start.replace(tzinfo=UTC)


def _neuron_columns(recording: Recording) -> dict[str, np.ndarray]:
    """The columns of the neurons' table by name, their identifiers first."""
    identifiers, columns = encode_neurons(recording.neurons)
    for name in columns:
        if name in RESERVED:
            raise FormatError(f"the neurons' column {name!r} means something else in an NWB file. Rename it.")
    return {IDENTIFIERS: identifiers, **columns}


def _all_images(recording: Recording) -> Iterator[Any]:
    yield recording.images
    if recording.test is not None:
        yield recording.test.images


def _images(recording: Recording, compress: bool) -> Any:
    """The series of all images, the test images last: (n, height, width), or with n_channels last."""
    from hdmf.backends.hdf5 import H5DataIO
    from hdmf.data_utils import DataChunkIterator
    from pynwb.image import ImageSeries

    n_channels, height, width = recording.image_shape
    shape = (height, width) if n_channels == 1 else (height, width, n_channels)
    dtype = np.result_type(*(images.dtype for images in _all_images(recording)))
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    n_images = sum(images.shape[0] for images in _all_images(recording))
    rows = min(n_images, max(1, DISK_CHUNK_BYTES // (int(np.prod(shape)) * dtype.itemsize)))

    def stored() -> Iterator[np.ndarray]:
        for images in _all_images(recording):
            for chunk in row_chunks(images):
                for image in np.moveaxis(np.asarray(images[chunk]).astype(dtype, copy=False), 1, 3):
                    yield image.reshape(shape)

    frames = DataChunkIterator(data=stored(), maxshape=(n_images, *shape), dtype=dtype, buffer_size=rows)
    data = H5DataIO(frames, chunks=(rows, *shape), **_compression(compress))
    order = "height, width" if n_channels == 1 else "height, width, channels"
    return ImageSeries(
        name="images",
        data=data,
        unit="n.a.",
        format="raw",
        starting_time=0.0,
        rate=1.0,
        description=f"Images by position, (image, {order}). Its times mean nothing: presentations has those.",
    )


def _compression(compress: bool) -> dict[str, Any]:
    return {"compression": "gzip", "compression_opts": 1, "shuffle": True} if compress else {}


def _table(kind: Any, name: str, description: str, columns: dict[str, Any], **more: Any) -> Any:
    """A table of the given kind with these columns."""
    from hdmf.common import ElementIdentifiers, VectorData

    made = [
        VectorData(name=column, description=f"{column} of each row", data=_storable(values))
        for column, values in columns.items()
    ]
    rows = ElementIdentifiers(name="id", data=np.arange(len(next(iter(columns.values())))))
    names = list(columns)
    return kind(name=name, description=description, columns=made, colnames=names, id=rows, **more)


def _storable(values: np.ndarray) -> Any:
    """Text as a list, which is what an NWB column of text is made from."""
    return values.tolist() if values.dtype.kind == "U" else values


def _presentations(recording: Recording, seconds: float) -> Any:
    """One row a trial, evenly spaced, the rows of the recording first and then the trials of its test set."""
    from pynwb.epoch import TimeIntervals

    shown = np.arange(recording.n_images)
    if recording.test is not None:
        shown = np.concatenate([shown, recording.n_images + recording.test.image_index])
    starts = seconds * np.arange(len(shown))
    columns = {
        "start_time": starts,
        "stop_time": starts + seconds,
        "image_index": shown,
        "tier": tiers(recording),
    }
    if recording.image_ids is not None:
        columns["image_id"] = image_ids(recording)
    about = "Presentations; image_index is the position in the series images."
    return _table(TimeIntervals, "presentations", about, columns)


def _add_responses(
    nwb: Any, recording: Recording, neurons: dict[str, np.ndarray], seconds: float, compress: bool
) -> None:
    """The neurons' table, and their responses, one sample in the middle of each presentation."""
    from hdmf.backends.hdf5 import H5DataIO
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, PlaneSegmentation, RoiResponseSeries

    channel = OpticalChannel(name="channel", description=UNKNOWN, emission_lambda=float("nan"))
    plane = nwb.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description=UNKNOWN,
        device=nwb.create_device(name="microscope", description=UNKNOWN),
        excitation_lambda=float("nan"),
        indicator=UNKNOWN,
        location=UNKNOWN,
    )
    module = nwb.create_processing_module(name="ophys", description="Neurons, and their responses to presentations.")
    segmentation, fluorescence = ImageSegmentation(), Fluorescence()
    module.add(segmentation)
    module.add(fluorescence)
    masks = {"image_mask": np.ones((recording.n_neurons, 1, 1), np.uint8)}  # the standard wants some
    about = "One row a neuron. The masks, of one pixel, stand for masks that the recording does not have."
    table = _table(PlaneSegmentation, "neurons", about, {**neurons, **masks}, imaging_plane=plane)
    segmentation.add_plane_segmentation(table)
    responses = recording.responses
    if recording.test is not None:
        responses = np.concatenate([responses, recording.test.responses])
    series = RoiResponseSeries(
        name="responses",
        data=H5DataIO(responses, **_compression(compress)),
        unit="n.a.",
        rois=table.create_roi_table_region(description="all neurons", region=list(range(recording.n_neurons))),
        timestamps=seconds * (np.arange(len(responses)) + 0.5),
        description="One sample a presentation, in its middle.",
    )
    fluorescence.add_roi_response_series(series)
