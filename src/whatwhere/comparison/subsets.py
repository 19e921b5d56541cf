"""One split for all models, and nested subsets of the images for a learning curve."""

from collections.abc import Sequence

import numpy as np

from whatwhere.checks import some_of
from whatwhere.errors import InputError, OptionError
from whatwhere.recording import Recording

ALL = "all"
"""In a list of numbers of images: all that there are."""


def check_numbers(images: Sequence[int | str], n_images: int) -> list[int]:
    """The numbers of images asked for, in order; raises `OptionError` for one that is not there, or is given twice.

    >>> check_numbers(["all", 250], n_images=1000)
    [250, 1000]
    """
    numbers = []
    for number in images:
        if number == ALL:
            numbers.append(n_images)
            continue
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 2:
            raise OptionError(
                f"images holds {number!r}: expected whole numbers of at least 2, one image to train and one to validate"
                f" with, or {ALL!r}."
            )
        if number > n_images:
            raise OptionError(
                f"images holds {number:,}, but the recording has {n_images:,} to train and validate with: ask for no"
                f" more, or for {ALL!r}."
            )
        numbers.append(int(number))
    twice = [number for number in sorted(set(numbers)) if numbers.count(number) > 1]
    if twice:
        raise OptionError(f"images holds {some_of(twice)} more than once (all are {n_images:,}): give each once.")
    return sorted(numbers)


def nested_rows(recording: Recording, numbers: Sequence[int], seed: int) -> dict[int, np.ndarray]:
    """Rows of so many images each, sorted; every subset holds the smaller ones.

    recording: with its split declared. Images for training and for validation are drawn each from their own part, in
    the proportion of the whole. Rows of one part that show the same image (equal `image_ids`) are drawn together: then
    the number of rows is the nearest that whole images give. Raises `InputError` where the split is not declared.
    """
    if recording.validation is None:
        raise InputError("the recording has no split for validation: declare one with `with_split` first.")
    share = recording.validation.mean()
    rng = np.random.default_rng([seed, 2])
    train, validation = (_Drawn.of(recording, part, rng) for part in recording.split())
    found = {}
    for number in numbers:
        n_validation = int(np.clip(round(number * share), 1, number - 1))
        rows = np.concatenate([train.first(number - n_validation), validation.first(n_validation)])
        found[int(number)] = np.sort(rows)
    return found


class _Drawn:
    """The rows of one part in the order in which they are taken, those of one image together."""

    def __init__(self, rows: np.ndarray, ends: np.ndarray) -> None:
        self.rows, self.ends = rows, ends  # ends: the number of rows up to the end of each image

    @classmethod
    def of(cls, recording: Recording, part: np.ndarray, rng: np.random.Generator) -> "_Drawn":
        ids = part if recording.image_ids is None else recording.image_ids[part]
        _, group, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        place = rng.permutation(len(sizes))  # of each image in the order
        order = np.argsort(place[group], kind="stable")
        return cls(part[order], np.cumsum(sizes[np.argsort(place)]))

    def first(self, number: int) -> np.ndarray:
        """As many as whole images give that are nearest to `number`, one image at the least."""
        return self.rows[: self.ends[np.argmin(np.abs(self.ends - number))]]
