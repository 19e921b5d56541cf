"""Recordings as NWB files (Neurodata Without Borders), read and written with pynwb, the extra `nwb`.

Read are

- the images shown: a stimulus template that is an `ImageSeries` (`OpticalSeries`, ...) of (n_images, height, width) or
  (n_images, height, width, n_channels), or a collection `Images`. They stay in the file until they are asked for, and
  pixels are as stored;
- the presentations: a table of intervals (`trials`, or any other) with a column of images, `image_index`, `frame`,
  `stimulus_index`, `template_index`, `image_name`, `image` or `image_id`: positions from 0, negative or NaN for none,
  or names of the collection's images. Without such a column, an `IndexSeries`, or an `ImageSeries` that was presented
  itself, says what was on in the middle of each interval;
- the responses: of a `RoiResponseSeries` the mean of the samples whose time t is in start + delay <= t < stop + delay,
  in its unit (conversion and offset applied); of `units` the number of spikes in that window, or their rate;
- the neurons: every column of the ROIs' or units' table with one value a row;
- the test set: presentations whose `tier` or `split` is test, with validation as the predeclared split; without such a
  column, images presented more than once. A note says which rule was used. Other tiers are not read.

What is there more than once is chosen by name: see `Reading` for the options, of `load(path, delay=0.1)` or of
`whatwhere data convert session.nwb session.h5 --set delay=0.1`.

Written are the images, in one `ImageSeries`, the test images last; the table `presentations` of start_time, stop_time,
image_index, tier and, where the recording has them, image_id; and in the processing module `ophys` a
`RoiResponseSeries` with one sample a trial, in the middle of its presentation, and a plane segmentation with the
neurons' identifiers and metadata. A recording knows neither times nor masks nor the microscope: times are evenly spaced
(see `Writing`), masks are of one pixel, and the rest says unknown. Truth, test rates and notes are not written; images
of truth values become uint8.

Source: Rübel et al. 2022, eLife 11:e78362, and the schema at https://nwb-schema.readthedocs.io.
"""

from whatwhere.formats.nwb.options import Reading, Writing
from whatwhere.formats.nwb.reading import inspect, read, recognises
from whatwhere.formats.nwb.writing import write
from whatwhere.formats.reader import Format

__all__ = ["FORMAT", "Reading", "Writing"]

FORMAT = Format(
    "nwb",
    "an NWB file (.nwb) with images, a table of presentations and responses",
    recognises,
    read,
    inspect,
    write,
    (".nwb",),
    read_options=Reading,
    write_options=Writing,
)
