"""NWB: files that pynwb alone made, whose right responses are known in closed form, and what is saved is loaded."""

import pickle
import sys
import tracemalloc
from datetime import UTC, datetime

import h5py
import numpy as np
import pandas as pd
import pynwb
import pytest
from pynwb.base import ImageReferences, Images
from pynwb.epoch import TimeIntervals
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, OpticalSeries, RGBImage
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

from whatwhere import formats
from whatwhere.errors import FormatError, InputError, OptionError
from whatwhere.recording import HeldOut, Recording

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (6, 5, 8), dtype=np.uint8)  # not square
COLOURS = RNG.integers(0, 255, (6, 5, 8, 3), dtype=np.uint8)


def session():
    start = datetime(2024, 5, 31, 9, 30, tzinfo=UTC)
    return pynwb.NWBFile(session_description="a test", identifier="x", session_start_time=start)


def written(nwb, path):
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path


def add_rois(nwb, data, *, container=DfOverF, name="dff", time=None, n_rois=None, **more):
    """A plane of ROIs (made once), and a series of samples at 10 Hz or at given times."""
    n_rois = n_rois or data.shape[1]
    if "ophys" not in nwb.processing:
        device = nwb.create_device(name="microscope")
        channel = OpticalChannel(name="green", description="green", emission_lambda=520.0)
        plane = nwb.create_imaging_plane(
            name="plane",
            optical_channel=channel,
            description="layer 2/3",
            device=device,
            excitation_lambda=920.0,
            indicator="GCaMP6s",
            location="V1",
        )
        module = nwb.create_processing_module(name="ophys", description="imaging")
        segmentation = ImageSegmentation()
        module.add(segmentation)
        table = segmentation.create_plane_segmentation(name="cells", description="cells", imaging_plane=plane)
        table.add_column(name="depth", description="um")
        table.add_column(name="type", description="of cell")
        for roi in range(n_rois):
            table.add_roi(pixel_mask=[(roi, roi, 1.0)], depth=100.0 + roi, type=f"t{roi}", id=7 + roi)
    module = nwb.processing["ophys"]
    table = module["ImageSegmentation"]["cells"]
    if container.__name__ not in module.data_interfaces:
        module.add(container())
    region = table.create_roi_table_region(description="all", region=list(range(n_rois)))
    timing = {"rate": 10.0, "starting_time": 0.0} if time is None else {"timestamps": time}
    series = RoiResponseSeries(name=name, data=data, unit="F", rois=region, **timing, **more)
    module[container.__name__].add_roi_response_series(series)


def add_trials(nwb, starts, seconds=0.5, **columns):
    for name in columns:
        nwb.add_trial_column(name=name, description=name)
    for i, start in enumerate(starts):
        row = {name: values[i] for name, values in columns.items()}
        nwb.add_trial(start_time=float(start), stop_time=float(start + seconds), **row)


def add_frames(nwb, frames=PIXELS, kind=ImageSeries, name="scenes", **more):
    extra = {"distance": 0.2, "field_of_view": [0.1, 0.1], "orientation": "upright"} if kind is OpticalSeries else {}
    series = kind(name=name, data=frames, unit="n.a.", format="raw", rate=1.0, **extra, **more)
    nwb.add_stimulus_template(series)
    return series


STARTS = 0.3 + 2.0 * np.arange(8)
SHOWN = np.array([0, 1, 2, 5, 3, 5, 4, 5])  # image 5 three times
SAMPLES = np.arange(200)[:, None] + 1000.0 * np.arange(3)  # (n_samples, n_rois): the sample's number, by ROI


def ophys(path, *, frames=PIXELS, column=None, **more):
    nwb = session()
    add_frames(nwb, frames, OpticalSeries)
    add_trials(nwb, STARTS, frame=SHOWN.astype(float) if column is None else column)
    add_rois(nwb, SAMPLES, **more)
    return written(nwb, path)


def expected(first, n_samples=5):
    """The mean of so many samples from `first` on, of each ROI."""
    return (np.asarray(first)[:, None] + (n_samples - 1) / 2) + 1000.0 * np.arange(3)


def test_the_mean_of_the_samples_in_each_window(tmp_path):
    """At 10 Hz sample k is of time k/10; 0.3 to 0.8 s holds samples 3 to 7, that at 0.8 s not."""
    made = formats.load(ophys(tmp_path / "a.nwb"))
    once = np.isin(SHOWN, [0, 1, 2, 3, 4])
    begins = 3 + 20 * np.arange(8)
    np.testing.assert_allclose(made.responses, expected(begins[once]))
    np.testing.assert_allclose(made.test.responses, expected(begins[~once]))
    np.testing.assert_array_equal(made.images[0:9], PIXELS[SHOWN[once]][:, None])
    np.testing.assert_array_equal(made.test.images, PIXELS[[5]][:, None])
    np.testing.assert_array_equal(made.test.image_index, [0, 0, 0])
    assert made.notes == ("held out: images shown 2 times or more, by no column of tiers",)
    assert list(made.neurons.index) == [7, 8, 9]
    assert list(made.neurons.columns) == ["depth", "type"]
    assert list(made.neurons["type"]) == ["t0", "t1", "t2"]
    assert (made.name, made.images.dtype, made.summary()["images_on_disk"]) == ("a", np.uint8, True)
    assert pickle.loads(pickle.dumps(made)).fingerprint() == made.fingerprint()


@pytest.mark.parametrize("most", [1, 200, 2**25])
def test_delay_duration_and_units(tmp_path, monkeypatch, most):
    monkeypatch.setattr("whatwhere.formats.nwb.responses.CHUNK_BYTES", most)
    path = ophys(tmp_path / "a.nwb", conversion=0.5, offset=10.0)
    made = formats.load(path, delay=0.2, duration=1.0, held_out="none")
    np.testing.assert_allclose(made.responses, 10 + 0.5 * expected(5 + 20 * np.arange(8), 10))
    np.testing.assert_array_equal(made.image_ids, SHOWN)
    assert made.test is None
    assert made.notes == ("no test set: none was asked for",)


def test_windows_that_overlap_and_are_out_of_order(tmp_path, monkeypatch):
    monkeypatch.setattr("whatwhere.formats.nwb.responses.CHUNK_BYTES", 24 * 30)
    nwb = session()
    add_frames(nwb)
    starts = np.array([9.0, 1.0, 5.0, 1.5, 8.0, 0.0])
    add_trials(nwb, starts, seconds=4.0, image_index=np.arange(6))
    add_rois(nwb, SAMPLES)
    made = formats.load(written(nwb, tmp_path / "a.nwb"))
    np.testing.assert_allclose(made.responses, expected(10 * starts, 40))
    assert made.notes[-1] == "no test set: no presentation is held out"


@pytest.mark.parametrize("width_first", [False, True])
def test_channels_and_axes(tmp_path, width_first):
    frames = COLOURS.swapaxes(1, 2) if width_first else COLOURS
    made = formats.load(ophys(tmp_path / "a.nwb", frames=frames), width_first=width_first, held_out="none")
    assert made.image_shape == (3, 5, 8)
    np.testing.assert_array_equal(made.images[2:4], np.moveaxis(COLOURS, 3, 1)[SHOWN[2:4]])


def test_blank_presentations_are_left_out(tmp_path):
    column = np.array([0, -1, 2, np.nan, 3, 5, 4, 5.0])
    made = formats.load(ophys(tmp_path / "a.nwb", column=column))
    np.testing.assert_array_equal(made.images[0:9], PIXELS[[0, 2, 3, 4]][:, None])
    np.testing.assert_allclose(made.responses, expected([3, 43, 83, 123]))
    assert made.notes[0] == "2 of 8 presentations show no image: not read"


def collection(nwb, images, ordered=True):
    """Images by name, in an order that is not that of their names."""
    kind = RGBImage if images[0].ndim == 3 else GrayscaleImage
    made = [kind(name=f"picture{9 - i}", data=image) for i, image in enumerate(images)]
    order = ImageReferences(name="order_of_images", data=made) if ordered else None
    images = Images(name="pictures", images=made, order_of_images=order)
    nwb.add_stimulus_template(images)
    return images


def test_a_collection_shown_by_an_index_series(tmp_path):
    nwb = session()
    images = collection(nwb, list(COLOURS))
    times = np.sort(np.concatenate([STARTS + 0.04, STARTS + 1.0]))  # an image, then another one without a trial
    index = np.stack([SHOWN, np.zeros(8, int)], axis=1).ravel()
    shown = IndexSeries(name="shown", data=index.astype(np.uint32), unit="N/A", indexed_images=images, timestamps=times)
    nwb.add_stimulus(shown)
    add_trials(nwb, STARTS)
    add_rois(nwb, SAMPLES)
    made = formats.load(written(nwb, tmp_path / "a.nwb"), held_out="none")
    np.testing.assert_array_equal(made.images[0:8], np.moveaxis(COLOURS, 3, 1)[SHOWN])
    np.testing.assert_allclose(made.responses, expected(3 + 20 * np.arange(8)))
    assert list(made.image_ids) == [f"picture{9 - i}" for i in SHOWN]
    assert "that of presentation/shown in the middle of its interval of trials" in made.notes[0]


def two_index_series(path, *, table=False):
    """`one` shows images 0 to 3 from 1, 2, 4 and 6 s on, `two` 5 to 2."""
    nwb = session()
    pictures = collection(nwb, list(PIXELS))
    for name, index in (("one", [0, 1, 2, 3]), ("two", [5, 4, 3, 2])):
        data, times = np.array(index, np.uint32), [1.0, 2.0, 4.0, 6.0]
        nwb.add_stimulus(IndexSeries(name=name, data=data, unit="N/A", indexed_images=pictures, timestamps=times))
    nwb.add_stimulus(ImageSeries(name="film", data=PIXELS[:2], unit="n.a.", format="raw", timestamps=[1.0, 3.0]))
    if table:
        add_trials(nwb, [2.0, 4.0], image_index=[0, 1])
    add_rois(nwb, SAMPLES)
    return written(nwb, path)


def test_of_several_series_that_say_what_was_shown_one_is_chosen(tmp_path):
    path = two_index_series(tmp_path / "a.nwb")
    several = r"2 of the kind series .*: presentation/one, presentation/two\. Choose one with shown=.*--set shown=pres"
    with pytest.raises(FormatError, match=several):
        formats.load(path)
    one, two = (formats.load(path, shown=name) for name in ("presentation/one", "two"))
    np.testing.assert_array_equal(one.images[0:4], PIXELS[[0, 1, 2, 3]][:, None])
    np.testing.assert_array_equal(two.images[0:4], PIXELS[[5, 4, 3, 2]][:, None])
    np.testing.assert_allclose(one.responses[:, 0], [14.5, 29.5, 49.5, 69.5])
    np.testing.assert_allclose(two.responses[:, 0], one.responses[:, 0])
    film = formats.load(path, shown="film")  # for 2 s each
    np.testing.assert_array_equal(film.images[0:2], PIXELS[:2, None])
    np.testing.assert_allclose(film.responses[:, 0], [19.5, 39.5])
    assert formats.load(path, shown="film", images="film").fingerprint() == film.fingerprint()
    with pytest.raises(
        OptionError, match="images='pictures' has nothing to act on: presentation/film holds the images"
    ):
        formats.load(path, shown="film", images="pictures")
    with pytest.raises(OptionError, match=r"shown='three': there is no series that says which .* of that name, but"):
        formats.load(path, shown="three")
    assert "presentation/film" in [item.name for item in formats.inspect(path).items]


def test_two_films_are_told_apart(tmp_path):
    nwb = session()
    for name, frames in (("one", PIXELS[:3]), ("two", PIXELS[3:])):
        nwb.add_stimulus(ImageSeries(name=name, data=frames, unit="n.a.", format="raw", rate=1.0, starting_time=0.0))
    add_rois(nwb, SAMPLES)
    path = written(nwb, tmp_path / "a.nwb")
    with pytest.raises(FormatError, match=r"presentation/one, presentation/two\. Choose one with shown="):
        formats.load(path)
    np.testing.assert_array_equal(formats.load(path, shown="two").images[0:3], PIXELS[3:, None])


def test_a_series_that_is_named_goes_before_a_column_and_a_column_before_a_series(tmp_path):
    path = two_index_series(tmp_path / "a.nwb", table=True)
    np.testing.assert_array_equal(formats.load(path, images="pictures").images[0:2], PIXELS[:2, None])
    shown = formats.load(path, shown="two")  # the middle of the trials, 2.25 and 4.25 s
    np.testing.assert_array_equal(shown.images[0:2], PIXELS[[4, 3]][:, None])
    assert "that of presentation/two in the middle of its interval of trials" in shown.notes[0]
    with pytest.raises(OptionError, match="shown='two' and image_column='image_index' both say which image"):
        formats.load(path, shown="two", image_column="image_index")
    columns = r"image_column='picture': .*a\.nwb has no such column .*trials \(start_time, stop_time, image_index\)"
    for table in ({}, {"intervals": "trials"}):
        with pytest.raises(OptionError, match=columns):
            formats.load(path, image_column="picture", **table)
    with pytest.raises(FormatError, match="holds no series that says which image was shown"):
        formats.load(ophys(tmp_path / "none.nwb"), shown="two")


def test_options_of_another_rule_of_what_is_held_out_are_refused(tmp_path):
    nwb = session()
    add_frames(nwb)
    add_trials(nwb, STARTS, image_index=SHOWN, tier=["train"] * 7 + ["test"], phase=["train"] * 6 + ["test"] * 2)
    add_rois(nwb, SAMPLES)
    path = written(nwb, tmp_path / "a.nwb")
    by_tiers = r"min_repeats \(=3\) has nothing to act on: the column of tiers says what is held out"
    for more in ({}, {"held_out": "tiers"}, {"tier_column": "phase"}):
        with pytest.raises(OptionError, match=by_tiers):
            formats.load(path, min_repeats=3, **more)
    with pytest.raises(OptionError, match=r"min_repeats \(=2\) has nothing to act on: held_out=none says"):
        formats.load(path, min_repeats=2, held_out="none")
    for rule in ("repeats", "none"):
        with pytest.raises(OptionError, match=rf"tier_column \(='phase'\) has nothing to act on: held_out={rule} says"):
            formats.load(path, tier_column="phase", held_out=rule)
    assert formats.load(path, tier_column="phase").n_images == 6
    assert formats.load(path, held_out="repeats").test.n_trials == 3
    assert formats.load(path, held_out="repeats", min_repeats=4).test is None


def test_without_a_table_an_image_lasts_until_the_next(tmp_path):
    nwb = session()
    data = PIXELS[[0, 1, 2, 3]]
    nwb.add_stimulus(ImageSeries(name="movie", data=data, unit="n.a.", format="raw", timestamps=[1.0, 2.0, 4.0, 6.0]))
    add_rois(nwb, SAMPLES)
    made = formats.load(written(nwb, tmp_path / "a.nwb"))
    np.testing.assert_array_equal(made.images[0:4], data[:, None])
    means = [14.5, 29.5, 49.5, 69.5]  # samples 10 to 19, 20 to 39, 40 to 59; the last as long as most: 2 s
    np.testing.assert_allclose(made.responses[:, 0], means)
    assert "there is no table of intervals" in made.notes[0]


def test_names_of_images_and_tiers(tmp_path):
    nwb = session()
    collection(nwb, list(PIXELS), ordered=False)
    names = ["picture9", "omitted", "picture4", "picture8", "picture7", "picture4", "picture6", "picture5"]
    split = ["train", "train", "test", "Val", "training", "test", "train", "pilot"]
    add_trials(nwb, STARTS, image_name=names, split=split)
    add_rois(nwb, SAMPLES)
    made = formats.load(written(nwb, tmp_path / "a.nwb"))
    np.testing.assert_array_equal(made.images[0:9], PIXELS[[0, 1, 2, 3]][:, None])
    np.testing.assert_array_equal(made.split()[1], [1])
    np.testing.assert_allclose(made.responses, expected([3, 63, 83, 123]))
    np.testing.assert_array_equal(made.test.images, PIXELS[[5]][:, None])
    np.testing.assert_allclose(made.test.responses, expected([43, 103]))
    assert made.notes == (
        "presentations of 'omitted', no images of templates/pictures: not read",
        "1 of 8 presentations show no image: not read",
        "presentations of other tiers were not read: {'pilot': 1}",
        "held out: the presentations whose tier is test",
    )
    repeats = formats.load(tmp_path / "a.nwb", held_out="repeats", min_repeats=2)
    assert repeats.n_images == 5
    assert repeats.test.n_trials == 2


def ephys(path, *, obs=True):
    """Unit j spikes every 0.1 (j + 1) s, a little after the beat; unit 2 never."""
    nwb = session()
    add_frames(nwb)
    nwb.add_unit_column(name="area", description="where")
    for unit, area in enumerate(["V1", "LM"]):
        nwb.add_unit(spike_times=np.arange(0.01, 20, 0.1 * (unit + 1)), area=area, id=40 + unit)
    nwb.add_unit(spike_times=np.empty(0), area="V1", id=42)
    starts = 2.0 * np.arange(6)
    presentations = TimeIntervals(name="scenes_presentations", description="natural scenes")
    presentations.add_column(name="stimulus_index", description="image")
    for image, start in enumerate(starts):
        presentations.add_interval(start_time=start, stop_time=start + 1.0, stimulus_index=image)
    nwb.add_time_intervals(presentations)
    nwb.add_epoch(start_time=0.0, stop_time=20.0)
    return written(nwb, path)


def test_spikes_are_counted(tmp_path):
    path = ephys(tmp_path / "a.nwb")
    made = formats.load(path)
    np.testing.assert_array_equal(made.responses, np.tile([10.0, 5.0, 0.0], (6, 1)))
    half = formats.load(path, duration=0.4, delay=0.05)  # 0.05 to 0.45: at 0.11, 0.21, 0.31, 0.41; of the other 2
    np.testing.assert_array_equal(half.responses, np.tile([4.0, 2.0, 0.0], (6, 1)))
    np.testing.assert_allclose(formats.load(path, duration=0.4, delay=0.05, rate=True).responses[0], [10.0, 5.0, 0.0])
    assert list(made.neurons.index) == [40, 41, 42]
    assert list(made.neurons["area"]) == ["V1", "LM", "V1"]
    assert list(formats.load(path, held_out="none").constant_neurons()) == [0, 1, 2]
    with pytest.raises(FormatError, match="the identifiers of the neurons, area, are not unique"):
        formats.load(path, identifiers="area")
    with pytest.raises(OptionError, match="identifiers='areas': no such column of one value a neuron, but id, area"):
        formats.load(path, identifiers="areas")


def test_what_is_there_more_than_once_is_chosen(tmp_path):
    nwb = session()
    add_frames(nwb, name="a")
    add_frames(nwb, PIXELS[::-1], name="b")
    add_trials(nwb, STARTS, image_index=SHOWN)
    other = TimeIntervals(name="others", description="others")
    other.add_column(name="image_id", description="image")
    for i in range(6):
        other.add_interval(start_time=i + 0.0, stop_time=i + 0.5, image_id=i)
    nwb.add_time_intervals(other)
    add_rois(nwb, SAMPLES)
    add_rois(nwb, -SAMPLES, container=Fluorescence, name="raw")
    nwb.add_unit(spike_times=[1.0])
    path = written(nwb, tmp_path / "a.nwb")
    sources = "ophys/DfOverF/dff, ophys/Fluorescence/raw, units"
    with pytest.raises(FormatError, match=rf"3 of the kind responses: {sources}\. Choose one with responses="):
        formats.load(path)
    with pytest.raises(FormatError, match=r"tables of intervals: .*others.* Choose one with intervals="):
        formats.load(path, responses="raw")
    with pytest.raises(FormatError, match=r"\(templates\): templates/a, templates/b\. .*--set images=templates/a"):
        formats.load(path, responses="raw", intervals="trials")
    made = formats.load(path, responses="Fluorescence/raw", intervals="others", images="b")
    np.testing.assert_array_equal(made.images[0:6], PIXELS[::-1][:, None])
    np.testing.assert_allclose(made.responses, -expected(10 * np.arange(6)))
    assert formats.load(path, responses="units", intervals="trials", images="a").n_neurons == 1
    with pytest.raises(OptionError, match=r"responses='df': there is no responses of that name, but ophys"):
        formats.load(path, responses="df")
    with pytest.raises(OptionError, match=r"unknown option 'response': .* Did you mean 'responses'"):
        formats.load(path, response="raw")
    with pytest.raises(OptionError, match="rate is for spikes"):
        formats.load(path, responses="raw", intervals="trials", images="a", rate=True)
    with pytest.raises(OptionError, match="no column tier or split"):
        formats.load(path, responses="raw", intervals="trials", images="a", held_out="tiers")
    with pytest.raises(OptionError, match="tier_column='image_index': no such column of texts in trials, but none"):
        formats.load(path, responses="raw", intervals="trials", images="a", tier_column="image_index")
    found = {item.name: item.detail for item in formats.inspect(path).items}
    assert found["ophys/DfOverF/dff"] == "(200, 3) float64, RoiResponseSeries"
    assert found["trials"] == "8 intervals: start_time, stop_time, image_index"
    assert found["templates/a"] == "(6, 5, 8) uint8, ImageSeries"
    assert found["units"].startswith("1 units")
    assert "Choose one with responses=" in formats.inspect(path).problem
    assert formats.inspect(path, responses="raw", intervals="trials", images="a").summary["n_neurons"] == 3


BROKEN = {
    "no sample": (
        {"delay": 30.0},
        r"windows of 8 of 8 .*: 30\.3 to 30\.8 s, .* from 0 to 19\.9 s, every",
    ),
    "between samples": ({"delay": 0.01, "duration": 0.05}, r"no sample in the windows of 8 of 8"),
    "all repeated": ({"min_repeats": 2, "column": np.zeros(8)}, "every presentation would be held out"),
    "no such position": ({"column": np.full(8, 6.0)}, r"trials\.frame holds 6\.0, .*expected positions from 0 to 5"),
    "no position": ({"column": np.full(8, 0.5)}, r"trials\.frame holds 0\.5"),
    "no image": ({"column": np.full(8, -1.0)}, "no row of trials shows an image"),
    "times that go back": ({"time": np.r_[np.arange(100), np.arange(100)] / 10}, "do not ascend, at sample 99"),
}


@pytest.mark.parametrize(("more", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_does_not_fit_is_named(tmp_path, more, message):
    made = {name: more[name] for name in ("column", "time") if name in more}
    path = ophys(tmp_path / "a.nwb", **made)
    with pytest.raises(FormatError, match=message) as caught:
        formats.load(path, **{name: value for name, value in more.items() if name not in made})
    assert str(path) in str(caught.value)


def test_images_and_responses_that_cannot_be_used(tmp_path):
    nwb = session()
    images = [PIXELS[0], PIXELS[1][:4]]
    collection(nwb, images)
    add_trials(nwb, STARTS[:2], image_index=[0, 1])
    add_rois(nwb, SAMPLES)
    with pytest.raises(FormatError, match=r"differ in size: 'picture8' has shape \(4, 8\), but 'picture9' \(5, 8\)"):
        formats.load(written(nwb, tmp_path / "sizes.nwb"))
    nwb = session()
    collection(nwb, list(PIXELS), ordered=False)
    add_trials(nwb, STARTS[:2], image_index=[0, 1])
    add_rois(nwb, SAMPLES)
    with pytest.raises(FormatError, match="positions, but the collection templates/pictures has no order_of_images"):
        formats.load(written(nwb, tmp_path / "order.nwb"))
    nwb = session()
    add_frames(nwb)
    add_trials(nwb, STARTS[:2], image=["a", "b"])
    add_rois(nwb, SAMPLES)
    with pytest.raises(FormatError, match=r"trials\.image holds texts, .* of templates/scenes have no names"):
        formats.load(written(nwb, tmp_path / "texts.nwb"))
    nwb = session()
    add_frames(nwb)
    with pytest.raises(FormatError, match="holds no responses"):
        formats.load(written(nwb, tmp_path / "none.nwb"))
    nwb = session()
    nwb.add_stimulus_template(
        ImageSeries(name="film", external_file=["film.avi"], starting_frame=[0], format="external", timestamps=[0.0])
    )
    add_trials(nwb, STARTS[:2], image_index=[0, 1])
    add_rois(nwb, SAMPLES)
    with pytest.raises(FormatError, match=r"images of templates/film lie in files of their own \(external_file\)"):
        formats.load(written(nwb, tmp_path / "external.nwb"))


def test_nan_is_named_or_left_out(tmp_path):
    samples = SAMPLES.copy()
    samples[25, 1] = np.nan  # in the window of the second presentation
    nwb = session()
    add_frames(nwb)
    add_trials(nwb, STARTS[:6], image_index=np.arange(6))
    add_rois(nwb, samples)
    path = written(nwb, tmp_path / "a.nwb")
    with pytest.raises(InputError, match=r"responses holds 1 value that is not finite: neuron 8 in row 1"):
        formats.load(path)
    assert formats.load(path, nonfinite="rows").n_images == 5
    assert list(formats.load(path, nonfinite="neurons").neurons.index) == [7, 9]


def test_an_nwb_file_is_known_by_its_content_and_a_truncated_one_is_named(tmp_path, monkeypatch):
    path = ophys(tmp_path / "a.nwb").rename(tmp_path / "session.h5")
    assert formats.inspect(path).format == "nwb"
    assert formats.load(path).n_neurons == 3
    cut = tmp_path / "cut.nwb"
    cut.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FormatError, match=r"cut\.nwb cannot be read as NWB .*it may be truncated"):
        formats.load(cut)
    with h5py.File(tmp_path / "other.nwb", "w") as file:
        file["images"] = PIXELS
    with pytest.raises(FormatError, match=r"other\.nwb cannot be read as NWB"):
        formats.load(tmp_path / "other.nwb")
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(FormatError, match=r'need pynwb, which is not installed .*pip install "whatwhere\[nwb\]"'):
        formats.load(path)


def recording(ids=None, *, channels=3, dtype=np.uint8, n_neurons=2, test=True, validation=True, identifiers=None):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (9, channels, 5, 8)).astype(dtype)
    held = HeldOut(images[[7, 2, 7]], rng.random((6, n_neurons)), [2, 1, 1, 0, 1, 2])
    neurons = pd.DataFrame(
        {
            "x": np.arange(n_neurons) * 1.5,
            "layer": [f"Schicht ä{i}" for i in range(n_neurons)],
            "tuned": np.arange(n_neurons) % 2 == 0,
            "depth": np.where(np.arange(n_neurons) == 0, np.nan, 1.5),
        },
        index=identifiers,
    )
    return Recording(
        images,
        rng.random((9, n_neurons)),
        test=held if test else None,
        neurons=neurons,
        validation=np.arange(9) > 6 if validation else None,
        image_ids=ids,
        name="session 3",
    )


MADE = {
    "all of it": recording(list("aabbccdde"), identifiers=["left", "right"]),
    "numbers for images": recording(np.array([255, 0, 1, 2, 3, 4, 5, 6, 255], np.uint8), identifiers=[12, 3]),
    "floats of one channel": recording(dtype=np.float64, channels=1),
    "single precision": recording(dtype=np.float32, channels=2),
    "one neuron, no test": recording(n_neurons=1, test=False),
    "many neurons": recording(n_neurons=3000),
    "no split": recording(validation=False),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_what_is_saved_is_what_is_loaded(tmp_path, made, compress):
    path = formats.save(made, tmp_path / "a.nwb", compress=compress, seconds=0.3)
    assert pynwb.validate(path=str(path)) == []
    loaded = formats.load(path)
    assert loaded.fingerprint() == made.fingerprint()
    assert (loaded.name, loaded.images.dtype) == (made.name, made.images.dtype)
    pd.testing.assert_frame_equal(loaded.neurons, made.neurons, check_names=False, check_index_type=False)
    assert [file.name for file in tmp_path.iterdir()] == ["a.nwb"]
    again = formats.load(formats.save(loaded, tmp_path / "b.h5"))
    assert again.fingerprint() == made.fingerprint()


def test_what_pynwb_finds_in_a_file_that_was_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("whatwhere.formats.nwb.writing.DISK_CHUNK_BYTES", 240)
    made = recording()
    options = {"seconds": 0.5, "session_start": "2024-05-31T09:30:00"}
    path = formats.save(made, tmp_path / "a.nwb", compress=True, **options)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwb = io.read()
        frames = nwb.stimulus_template["images"].data
        assert (frames.shape, frames.chunks, frames.compression) == ((12, 5, 8, 3), (2, 5, 8, 3), "gzip")
        np.testing.assert_array_equal(frames[:9], np.moveaxis(made.images, 1, 3))
        table = nwb.intervals["presentations"].to_dataframe()
        assert list(table["start_time"][:3]) == [0.0, 0.5, 1.0]
        assert list(table["tier"]) == ["train"] * 7 + ["validation"] * 2 + ["test"] * 6
        assert list(table["image_index"]) == [*range(9), 11, 10, 10, 9, 10, 11]
        series = nwb.processing["ophys"]["Fluorescence"]["responses"]
        np.testing.assert_array_equal(series.data[:9], made.responses)
        np.testing.assert_allclose(series.timestamps[:3], [0.25, 0.75, 1.25])
        assert list(series.rois.table["layer"][:]) == ["Schicht ä0", "Schicht ä1"]
        assert nwb.session_start_time.isoformat() == "2024-05-31T09:30:00+00:00"


def test_images_on_disk_are_never_held_whole(tmp_path):
    rng = np.random.default_rng(0)
    made = Recording(rng.integers(0, 255, (96, 3, 1024, 512), np.uint8), rng.random((96, 2)))  # 144 MiB
    stored = formats.load(formats.save(made, tmp_path / "a.h5"))
    kept = made.images[95].copy()
    del made
    tracemalloc.start()
    path = formats.save(stored, tmp_path / "a.nwb")
    loaded = formats.load(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 0.75 * stored.summary()["images_bytes"]
    np.testing.assert_array_equal(loaded.images[95:96][0], kept)


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(OptionError, match=r"session_start='yesterday': expected ISO 8601"):
        formats.save(recording(), tmp_path / "a.nwb", session_start="yesterday")
    with pytest.raises(OptionError, match=r"seconds"):
        formats.save(recording(), tmp_path / "a.nwb", seconds=0)
    taken = Recording(PIXELS, np.ones((6, 1)), neurons=pd.DataFrame({"pixel_mask": [1]}))
    with pytest.raises(FormatError, match="column 'pixel_mask' means something else in an NWB file"):
        formats.save(taken, tmp_path / "a.nwb")
    assert not list(tmp_path.iterdir())


def test_columns_of_a_table_are_told_apart(tmp_path):
    """Ragged columns, of several values a row, and columns of tables are no metadata."""
    nwb = session()
    add_frames(nwb)
    add_trials(nwb, STARTS[:6], image_index=np.arange(6))
    nwb.add_unit_column(name="quality", description="a number")
    for unit in range(2):
        mean = np.zeros((4, 2))
        nwb.add_unit(spike_times=[1.0, 2.5], obs_intervals=[[0.0, 20.0]], waveform_mean=mean, quality=float(unit))
    path = written(nwb, tmp_path / "a.nwb")
    assert list(formats.load(path).neurons.columns) == ["quality"]
