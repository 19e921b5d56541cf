"""One split, and nested subsets of it."""

import numpy as np
import pytest

import whatwhere as ww
from whatwhere.comparison.subsets import check_numbers, nested_rows
from whatwhere.errors import InputError
from whatwhere.recording import with_split


def recording(n_images: int = 200, image_ids: np.ndarray | None = None) -> ww.Recording:
    rng = np.random.default_rng(0)
    return ww.Recording(np.zeros((n_images, 4, 6)), rng.normal(size=(n_images, 2)), image_ids=image_ids)


def test_the_declared_split_is_that_of_the_first_seed() -> None:
    plain = recording()
    declared = with_split(plain, 0.25, seed=7)
    for seed in (0, 7, 8):
        for found, expected in zip(declared.split(0.1, seed), plain.split(0.25, seed=7), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert with_split(declared, 0.5, seed=1) is declared, "the experimenter's own stays"


@pytest.mark.parametrize("seed", range(5))
def test_subsets_are_nested_of_the_numbers_asked_for_and_keep_the_split(seed: int) -> None:
    declared = with_split(recording(), 0.2, seed)
    assert declared.validation is not None
    numbers = [2, 3, 7, 50, 51, 120, 199]
    found = nested_rows(declared, numbers, seed)
    smaller: set[int] = set()
    for number in numbers:
        rows = found[number]
        assert len(rows) == len(set(rows)) == number
        assert (np.diff(rows) > 0).all()
        assert smaller <= set(rows)
        smaller = set(rows)
        n_validation = int(declared.validation[rows].sum())
        assert 1 <= n_validation < number
        assert abs(n_validation - 0.2 * number) <= 1
        part = declared.select_images(rows)
        train, validation = part.split(0.5, seed=9)
        assert set(rows[validation]) <= set(np.flatnonzero(declared.validation))
        assert set(rows[train]) <= set(np.flatnonzero(~declared.validation))
    other = nested_rows(declared, numbers, seed + 1)
    assert set(other[50]) != set(found[50])


def test_rows_of_one_image_stay_together() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 60, 200)
    declared = with_split(recording(image_ids=np.array([f"image {i}" for i in ids])), 0.2, seed=0)
    numbers = [20, 60, 61, 100, 190]
    found, smaller = nested_rows(declared, numbers, seed=0), set()
    for number in numbers:
        rows = set(found[number])
        assert smaller <= rows
        smaller = rows
        assert all(
            ({*np.flatnonzero(ids == image)} <= rows) or not ({*np.flatnonzero(ids == image)} & rows) for image in ids
        )
        most = np.bincount(ids).max()
        assert abs(len(rows) - number) <= most, "each part by at most half an image's rows"


def test_a_subset_of_a_recording_without_split_is_refused() -> None:
    with pytest.raises(InputError, match="no split for validation: declare one with `with_split`"):
        nested_rows(recording(), [10], seed=0)


def test_numbers_come_in_order() -> None:
    assert check_numbers([100, "all", np.int64(30)], 200) == [30, 100, 200]
