"""A point of a grid: what is fitted to what, what came of it, and how that is kept in a folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from whatwhere.errors import FormatError, InputError
from whatwhere.files import replacing
from whatwhere.storage import read_npz, write_text

POINTS = "points"
DONE, FAILED = "done", "failed"
ALL = "all"
COLUMNS = (
    *("model", "n_neurons", "n_images", "seed", "fev", "fev_clipped", "seconds", "strength", "n_validation"),
    *("status", "reason"),
)


@dataclass(frozen=True, order=True)
class Point:
    """One fit of a grid: a model, the population's size, the number of images (training and validation), a seed.

    >>> Point("cnn", 100, 256, 0).name
    'cnn-n100-d256-s0'
    """

    model: str
    n_neurons: int
    n_images: int
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.model}-n{self.n_neurons}-d{self.n_images}-s{self.seed}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a point.

    - `fev`: mean over neurons of the fraction of explainable variance explained, on test images (equation 5)
    - `seconds` that the fit took, all strengths together
    - `strength`: of the penalty chosen, in the units that the experiment states; None where there is none
    - `n_validation`: of the images, how many the fit chose its strength and its end on; `ALL` ("all") for a last fit
      that uses all of them
    - `measured`: further numbers, each a column of the table
    - `arrays`: what a figure needs
    """

    fev: float
    seconds: float
    strength: float | None = None
    n_validation: int | str = 0
    measured: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a point has no outcome."""

    reason: str


Ending: TypeAlias = Outcome | Failure


def write_point(folder: Path, point: Point, ending: Ending) -> None:
    """Keeps how a point ended, as one JSON and, where there are arrays, an npz, each whole or not at all.

    Raises `InputError` for an outcome that is not finite, `WriteError` where the disk is full.
    """
    row: dict[str, Any] = asdict(point)
    if isinstance(ending, Failure):
        row |= {"status": FAILED, "reason": ending.reason}
    else:
        numbers = {"fev": ending.fev, "seconds": ending.seconds, **ending.measured}
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        if wrong:
            raise InputError(f"{point.name}: {', '.join(wrong)} is not finite, nothing to put into a table.")
        row |= {"fev": ending.fev, "fev_clipped": max(ending.fev, 0.0), "seconds": ending.seconds}
        row |= {"strength": ending.strength, "n_validation": ending.n_validation, "status": DONE, **ending.measured}
        if ending.arrays:  # before the JSON, which says that the point is done
            with replacing(folder / POINTS / f"{point.name}.npz") as temporary, open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **ending.arrays)
    write_text(folder / POINTS / f"{point.name}.json", json.dumps(row, indent=1, allow_nan=False) + "\n")


def is_done(folder: Path, point: Point) -> bool:
    """Whether the folder holds an outcome of the point, not a failure."""
    file = folder / POINTS / f"{point.name}.json"
    return file.exists() and _read_row(file)["status"] == DONE


def read_arrays(folder: Path, point: Point) -> dict[str, np.ndarray]:
    """The arrays kept of a point; raises `FormatError` where they are missing or damaged."""
    file = folder / POINTS / f"{point.name}.npz"
    try:
        return read_npz(file)
    except FormatError as error:
        raise FormatError(f"{file} cannot be read ({error}): delete {point.name}.json too, and run again.") from error


def results_table(folder: Path) -> pd.DataFrame:
    """A row for every point that the folder holds, sorted by model, neurons, images and seed.

    The columns of `COLUMNS`, then those that the points measured. `fev_clipped` is `fev`, at least 0.
    """
    rows = [_read_row(file) for file in sorted((folder / POINTS).glob("*.json"))]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)])
    return table.sort_values(["model", "n_neurons", "n_images", "seed"], ignore_index=True)


def _read_row(file: Path) -> dict[str, Any]:
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        return {**row, "status": str(row["status"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} cannot be read ({error!r}): delete it, and run again.") from error
