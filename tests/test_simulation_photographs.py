"""Crops of photographs: every pixel from where it should be, training and test apart, files streamed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from whatwhere.errors import FormatError, OptionError
from whatwhere.simulation import Photographs, make_stimuli, make_stimulus, photographs, simulate, simulate_population

SIZE = (6, 9)  # height, width of the crops


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(path, **options)


def place_map(height: int = 20, width: int = 31) -> np.ndarray:
    """A photograph whose pixels say where they are: red the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=2).astype(np.uint8)


def levels(images: np.ndarray) -> np.ndarray:
    """8-bit values of crops."""
    return np.round((images.astype(float) + 1) * 127.5).astype(int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten photographs of one grey level each, 5, 15, ..., 95, of several sizes; one in a folder within."""
    for number in range(10):
        name = f"{number}.png" if number else "inner/0.PNG"
        save(tmp_path / "photos" / name, np.full((7 + number, 12 - number % 4, 3), 10 * number + 5, np.uint8))
    return tmp_path / "photos"


def test_a_crop_is_a_window_of_the_photograph_and_reaches_every_place(tmp_path: Path) -> None:
    save(tmp_path / "a.png", place_map())
    images = levels(make_stimuli(Photographs(tmp_path), 3000, SIZE, n_channels=3, seed=1))
    corners = images[:, :2, 0, 0]
    rows, columns = np.mgrid[:6, :9]
    np.testing.assert_array_equal(images[:, 0], corners[:, 0, None, None] + rows)
    np.testing.assert_array_equal(images[:, 1], corners[:, 1, None, None] + columns)
    assert (images[:, 2] == 7).all()
    places, counts = np.unique(corners, axis=0, return_counts=True)
    assert len(places) == (20 - 5) * (31 - 8)
    assert counts.max() < 30  # 8.7 expected


def test_values_lie_between_minus_one_and_one(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.array([[0, 255], [51, 204]], np.uint8))
    image = make_stimuli(Photographs(tmp_path), 1, (2, 2))
    np.testing.assert_allclose(image[0, 0], [[-1, 1], [-0.6, 0.6]], rtol=1e-6)


def test_every_photograph_is_drawn_as_often_whatever_its_size(folder: Path) -> None:
    seen = levels(make_stimuli(Photographs(folder), 2000, SIZE, seed=3))
    assert (seen == seen[:, :, :1, :1]).all()  # no crop reaches over an edge
    values, counts = np.unique(seen[:, 0, 0, 0], return_counts=True)
    assert values.tolist() == list(range(5, 105, 10))
    assert np.abs(counts - 200).max() < 4.5 * np.sqrt(200 * 0.9)


def test_training_and_test_crops_come_from_disjoint_photographs(folder: Path) -> None:
    population = simulate_population(2, image_size=SIZE, kernel_size=5)
    splits = set()
    for seed in range(4):
        recording = simulate(population, 300, n_test_images=60, stimuli=Photographs(folder), seed=seed)
        training, test = (set(levels(images)[:, 0, 0, 0]) for images in (recording.images, recording.test.images))
        assert not training & test
        assert len(training) == 8
        assert len(test) == 2
        splits.add(tuple(sorted(test)))
        assert "training images are crops of 8 photographs, test images of 2 others" in recording.notes
    assert len(splits) > 1  # the seed splits
    again = Photographs(folder, test_share=0.5).split(1, SIZE)
    assert [len(part.names) for part in again] == [5, 5]
    assert Photographs(folder).split(1, SIZE)[0].names == Photographs(folder).split(1, SIZE)[0].names


def test_images_are_the_same_in_chunks_of_any_size_and_however_little_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_stimuli(Photographs(folder), 40, SIZE, n_channels=3, seed=2)
    monkeypatch.setattr(photographs, "CACHE_BYTES", 1)  # one at a time
    stimulus = Photographs(folder)
    chunks = [make_stimuli(stimulus, min(7, 40 - i), SIZE, n_channels=3, seed=2, first=i) for i in range(0, 40, 7)]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert len(stimulus._library._decoded) == 1


def test_files_are_opened_when_they_are_drawn_and_kept_within_the_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    decode = photographs._decode
    monkeypatch.setattr(photographs, "_decode", lambda path, *rest: decoded.append(path.name) or decode(path, *rest))
    monkeypatch.setattr(photographs, "CACHE_BYTES", 400)  # a few of at most 16 x 12
    stimulus = Photographs(folder)
    assert decoded == []
    kept = []
    for first in range(200):
        make_stimuli(stimulus, 1, SIZE, first=first)
        kept.append(sum(array.nbytes for array in stimulus._library._decoded.values()))
    assert max(kept) <= 400
    assert 50 < len(decoded) < 200  # some were still there
    monkeypatch.setattr(photographs, "CACHE_BYTES", 10**6)
    decoded.clear()
    make_stimuli(Photographs(folder), 200, SIZE)
    assert sorted(decoded) == sorted(set(decoded))


def test_grey_is_luma_and_every_kind_of_file_is_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    grey = (pixels @ [299, 587, 114]) / 1000  # ITU-R 601-2
    save(tmp_path / "colour" / "a.png", pixels)
    save(tmp_path / "alpha" / "a.png", np.dstack([pixels, np.full(SIZE, 200, np.uint8)]))
    save(tmp_path / "tiff" / "a.tif", pixels)
    for name in ("colour", "alpha", "tiff"):
        np.testing.assert_array_equal(
            levels(make_stimuli(Photographs(tmp_path / name), 1, SIZE, n_channels=3))[0], pixels.transpose(2, 0, 1)
        )
        found = levels(make_stimuli(Photographs(tmp_path / name), 1, SIZE))[0, 0]
        assert np.abs(found - grey).max() <= 1
    deep = np.random.default_rng(1).integers(0, 65535, SIZE, np.uint16)
    save(tmp_path / "deep" / "a.png", deep)
    np.testing.assert_array_equal(levels(make_stimuli(Photographs(tmp_path / "deep"), 1, SIZE))[0, 0], deep >> 8)
    palette = Image.fromarray(pixels).quantize(8)
    (tmp_path / "palette").mkdir()
    palette.save(tmp_path / "palette" / "a.png")
    np.testing.assert_array_equal(
        levels(make_stimuli(Photographs(tmp_path / "palette"), 1, SIZE, n_channels=3))[0],
        np.asarray(palette.convert("RGB")).transpose(2, 0, 1),
    )


def test_a_photograph_taken_on_its_side_stands_upright(tmp_path: Path) -> None:
    upright = place_map(9, 14)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter, clockwise
    save(tmp_path / "a.png", np.rot90(upright).copy(), exif=exif)
    image = levels(make_stimuli(Photographs(tmp_path), 1, (9, 14), n_channels=3))[0]
    np.testing.assert_array_equal(image, upright.transpose(2, 0, 1))


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 9
    save(tmp_path / "a.png", place_map(9, 14), exif=exif)
    image = levels(make_stimuli(Photographs(tmp_path), 1, (9, 14), n_channels=3))[0]
    np.testing.assert_array_equal(image, place_map(9, 14).transpose(2, 0, 1))
    with pytest.raises(FormatError, match=r"a\.png \(9 x 14 pixels\)"):
        make_stimuli(Photographs(tmp_path), 1, (12, 5))


def test_an_orientation_that_stands_at_the_end_is_seen_when_the_photograph_is_decoded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    save(tmp_path / "a.png", np.rot90(place_map(9, 14)).copy(), exif=exif)
    whole = (tmp_path / "a.png").read_bytes()
    start = whole.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    end = whole.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(whole[:start] + whole[stop:end] + whole[start:stop] + whole[end:])
    image = levels(make_stimuli(Photographs(tmp_path), 1, (8, 9), n_channels=3))[0]
    rows, columns = np.mgrid[:8, :9]
    np.testing.assert_array_equal(image[0] - image[0, 0, 0], rows)  # upright
    np.testing.assert_array_equal(image[1] - image[1, 0, 0], columns)
    with pytest.raises(FormatError, match=r"a\.png \(9 x 14 pixels\)"):
        make_stimuli(Photographs(tmp_path), 1, (12, 5))  # its header says 14 x 9


def test_sizes_are_read_without_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *args: pytest.fail("it was decoded"))
    training, test = Photographs(folder).split(0, SIZE)
    assert len(training.names) + len(test.names) == 10


def test_scale_resamples_the_photograph_before_it_is_cropped(tmp_path: Path) -> None:
    rows = np.linspace(20, 220, 40)[:, None] + np.zeros(60)
    save(tmp_path / "a.png", np.round(rows).astype(np.uint8))
    half = levels(make_stimuli(Photographs(tmp_path, scale=0.5), 1, (20, 30)))[0, 0]
    means = rows.reshape(20, 2, 60).mean(axis=(1, 2))  # of pairs of rows
    assert np.abs(half - means[:, None])[2:-2].max() <= 1
    double = make_stimuli(Photographs(tmp_path, scale=2), 1, (80, 120))
    assert double.shape == (1, 1, 80, 120)
    with pytest.raises(FormatError, match=r"none of 1 photographs in .* can be cropped to 21 x 30.*20 x 30 pixels"):
        make_stimuli(Photographs(tmp_path, scale=0.5), 1, (21, 30))


def test_what_cannot_be_used_is_passed_over_and_named(folder: Path) -> None:
    save(folder / "cut.jpg", np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])  # its header says that it is large enough
    (folder / "text.jpg").write_text("no photograph")
    save(folder / "small.png", np.zeros((6, 8), np.uint8))
    (folder / ".hidden.jpg").write_bytes(whole)
    # On its side, and with a width in letters: what Pillow raises for it is no ValueError. Nor may it warn.
    odd = b"Exif\0\0II*\0\x08\0\0\0\2\0" + struct.pack("<HHIHHHHI2sxxI", 274, 3, 1, 6, 0, 256, 2, 2, b"ab", 0)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "odd.jpg", exif=odd)
    stimulus = Photographs(folder)
    assert len(stimulus.names) == 14
    images = levels(make_stimuli(stimulus, 300, SIZE))
    assert set(images[:, 0, 0, 0]) == set(range(5, 105, 10))
    (note,) = stimulus.notes
    assert note.startswith("photographs passed over: 4, cut.jpg (cannot be decoded: ")
    assert "odd.jpg (cannot be decoded: required argument is not an integer)" in note
    assert "small.png (6 x 8 pixels)" in note
    assert "text.jpg (cannot be decoded: " in note
    recording = simulate(simulate_population(1, image_size=SIZE, kernel_size=5), 100, stimuli=stimulus, seed=1)
    assert recording.notes.count(note) == 1
    found = {part.names for part in (*stimulus.split(1, SIZE), *Photographs(folder).split(1, SIZE))}
    assert len(found) == 2  # what was drawn before does not change the split
    assert {name for names in found for name in names} == set(stimulus.names) - {"small.png", "text.jpg"}


def test_what_pillow_warns_of_is_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors here."""
    palette = Image.fromarray(place_map()).quantize(16)
    palette.save(tmp_path / "a.png", transparency=bytes(range(16)))
    assert make_stimuli(Photographs(tmp_path), 1, SIZE).shape == (1, 1, *SIZE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # of 620: more than Pillow likes, less than it refuses
    assert make_stimuli(Photographs(tmp_path), 1, SIZE).shape == (1, 1, *SIZE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(FormatError, match=r"a\.png \(cannot be decoded: Image size \(620 pixels\) exceeds limit"):
        make_stimuli(Photographs(tmp_path), 1, SIZE)


def test_folders_without_use_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for build, error, message in (
        (lambda: make_stimulus("photographs"), OptionError, "photographs need the folder that holds them"),
        (lambda: Photographs(tmp_path / "nowhere"), FormatError, "nowhere is no folder: expected one that holds"),
        (lambda: Photographs(tmp_path / "empty"), FormatError, "holds no photographs: expected files that end in .bmp"),
        (lambda: Photographs(folder, scale=0), OptionError, "scale must be a number above 0, got 0"),
        (lambda: Photographs(5), OptionError, "folder must be a path, got 5"),
        (lambda: Photographs(folder, names="1.png"), OptionError, "names must be several files' names, got '1.png'"),
        (lambda: Photographs(folder, test_share=1), OptionError, "test_share must be a number above 0 and below 1"),
        (lambda: Photographs(folder, names=("1.png",)).split(0, SIZE), FormatError, "holds 1 photographs that can be"),
        (lambda: make_stimuli(Photographs(folder), 1, SIZE, n_channels=2), OptionError, "but 2 were asked for"),
        (lambda: make_stimuli(Photographs(folder), 1, (90, 8)), FormatError, "none of 10 photographs in .* 90 x 8"),
        (lambda: make_stimulus("photographs", folders=folder), OptionError, r"Did you mean 'folder'\?"),
    ):
        with pytest.raises(error, match=message):
            build()
