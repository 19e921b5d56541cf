"""Windows around neurons: where they lie, what they cut, and what is refused."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

import whatwhere as ww
from whatwhere.baselines.crops import Crops, average_locations, metadata_locations
from whatwhere.errors import InputError
from whatwhere.initialisation import smoothed_energy


@pytest.mark.parametrize(
    ("size", "location", "first"),
    [
        ((3, 5), (6, 7), (5, 5)),
        ((4, 2), (6, 7), (5, 7)),  # an even window's middle lies half a pixel past the location
        ((4, 2), (6.4, 6.6), (5, 6)),
        ((3, 5), (0, 0), (0, 0)),
        ((3, 5), (11, 16), (9, 12)),
        ((12, 17), (3, 15), (0, 0)),
    ],
)
def test_a_window_is_centred_and_shifted_inside(
    size: tuple[int, int], location: tuple[float, float], first: tuple[int, int]
) -> None:
    crops = Crops.around(np.array([location], float), size, (12, 17))
    assert crops.positions.tolist() == [list(first)]


def test_pixels_are_those_of_the_window(rng: np.random.Generator) -> None:
    images = rng.normal(size=(4, 2, 12, 17)).astype(np.float32)
    crops = Crops.around(rng.uniform(0, [12, 17], (30, 2)), (5, 3), (12, 17))
    seen = np.zeros(30, int)
    for (row, column), neurons in crops.groups():
        assert (crops.positions[neurons] == (row, column)).all()
        assert (np.diff(neurons) > 0).all()
        seen[neurons] += 1
        pixels = crops.cut(images, (row, column)).reshape(4, 2, 5, 3)
        assert pixels.dtype == np.float64
        for channel, i, j in np.ndindex(2, 5, 3):
            np.testing.assert_array_equal(pixels[:, channel, i, j], images[:, channel, row + i, column + j])
    assert (seen == 1).all(), "every neuron is in one group"


def test_filters_spread_over_the_image_see_what_the_window_sees(rng: np.random.Generator) -> None:
    images = rng.normal(size=(6, 2, 12, 17)).astype(np.float32)
    crops = Crops.around(rng.uniform(0, [12, 17], (9, 2)), (5, 3), (12, 17))
    filters = rng.normal(size=(9, 2, 5, 3))
    whole = crops.spread(filters)
    assert whole.shape == (9, 2, 12, 17)
    expected = [crops.cut(images, tuple(p)) @ f.ravel() for p, f in zip(crops.positions, filters, strict=True)]
    np.testing.assert_allclose(images.reshape(6, -1) @ whole.reshape(9, -1).T, np.stack(expected, 1), atol=1e-5)
    np.testing.assert_array_equal(crops.spread(filters, slice(2, 4)), whole[2:4])


def test_the_whole_image_is_one_window(rng: np.random.Generator) -> None:
    crops = Crops.whole((5, 8), 3)
    ((window, neurons),) = crops.groups()
    assert (window, neurons.tolist(), crops.is_whole) == ((0, 0), [0, 1, 2], True)
    filters = rng.normal(size=(3, 2, 5, 8))
    assert crops.spread(filters, slice(1, 3)).base is filters


def test_windows_reach_out_of_no_image() -> None:
    message = r"windows of 3 x 5 pixels reach out of images of 12 x 17 for neuron 1, 2: shift them inside"
    with pytest.raises(InputError, match=message):
        Crops((3, 5), np.array([[9, 12], [10, 12], [0, -1]]), (12, 17))
    with pytest.raises(InputError, match=r"positions has shape \(3, 2\) and dtype float64: expected two integers"):
        Crops((3, 5), np.zeros((3, 2)), (12, 17))


def test_average_locations_are_the_peaks_of_the_energy(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = rng.normal(size=(800, 2, 12, 17)).astype(np.float32)
    centres = np.array([[3, 4], [8, 12], [5, 9], [10, 2], [0, 16]])
    responses = np.stack([images[:, 1, i, j] - images[:, 0, i, j] for i, j in centres], 1) + 5
    responses += rng.normal(size=responses.shape).astype(np.float32)
    found = average_locations(images, responses, 1.0)
    np.testing.assert_array_equal(found, centres)
    averages = np.einsum("bn,bchw->nchw", responses - responses.mean(0), images - images.mean(0)) / 800
    energy = smoothed_energy(torch.from_numpy(averages), 1.0)
    np.testing.assert_array_equal(found, [np.unravel_index(one.argmax(), one.shape) for one in energy])
    monkeypatch.setattr("whatwhere.baselines.crops._NUMBERS", 2 * images[0].size)
    np.testing.assert_array_equal(average_locations(images, responses, 1.0), centres)  # two neurons at a time


def recording(table: object) -> ww.Recording:
    return ww.Recording(np.zeros((4, 12, 17)), np.zeros((4, 2)), neurons=table)


def test_metadata_locations_are_the_columns() -> None:
    table = pd.DataFrame({"column": [16, 3.5], "type": [0, 1], "row": [0, 11.25]}, index=["a", "b"])
    np.testing.assert_array_equal(metadata_locations(recording(table)), [[0, 16], [11.25, 3.5]])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "needs the columns 'row' and 'column' in the neurons' table, but 'row' and 'column' are missing"),
        ({"row": [1, 2]}, "but 'column' is missing: add them, in pixels, or use locations='average'"),
        ({"row": [1, 2], "column": ["left", "right"]}, "the columns 'row' and 'column' of the neurons' table are no"),
        ({"row": [1, 12], "column": [1, 2]}, "1 of 2 neurons have a location outside the images of 12 x 17 pixels"),
        ({"row": [1, 2], "column": [3, np.nan]}, "neuron 1 row 2, column nan: expected pixels, the first one's centre"),
        ({"row": [-1, 2], "column": [3, 4]}, "neuron 0 row -1, column 3"),
    ],
)
def test_metadata_that_is_no_location_is_refused(table: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        metadata_locations(recording(table))
