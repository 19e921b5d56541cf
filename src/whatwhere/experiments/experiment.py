"""A published figure as an experiment: its grid of points, how each is solved, and the presets."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from whatwhere.checks import check_choice
from whatwhere.errors import OptionError
from whatwhere.experiments.grid import GridObserver, check_folder, run_grid
from whatwhere.experiments.points import Outcome, Point
from whatwhere.plain_options import make_options
from whatwhere.simulation.counts import check_count


@dataclass(frozen=True)
class Grid:
    """The points of a grid: every model with every number of neurons and of images, and every seed."""

    models: Sequence[str]
    neurons: Sequence[int]
    images: Sequence[int]
    seeds: Sequence[int]


@dataclass(frozen=True)
class Preset:
    """A grid, and an options dataclass of the experiment's own that decides how its points are solved."""

    grid: Grid
    options: Any


@dataclass(frozen=True)
class Experiment:
    """What `whatwhere reproduce` runs.

    - `solve`: (options, point) to an outcome; a function of a module, so that worker processes can find it
    - `seconds`: (options, point) to what it takes, roughly, on one core
    - `sizes`: (model, numbers of neurons asked for) to those that this model is fitted with
    - `check`: raises for options that no point could be solved with, before anything is begun
    - `family`: experiments of one family have the same points, with other presets, and may share a folder; by itself an
      experiment is a family of its own
    """

    name: str
    models: Collection[str]
    presets: Mapping[str, Preset]
    solve: Callable[[Any, Point], Outcome]
    seconds: Callable[[Any, Point], float]
    sizes: Callable[[str, Sequence[int]], Sequence[int]]
    check: Callable[[Any], None] = lambda options: None
    family: str = ""

    def grid(
        self,
        preset: str,
        *,
        models: Sequence[str] | None = None,
        neurons: Sequence[int] | None = None,
        images: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Grid:
        """The preset's grid with what is given in its place; raises `OptionError` for what cannot be."""
        grid = self.presets[check_choice("preset", preset, self.presets)].grid
        given: dict[str, Sequence[Any] | None] = {
            "models": models,
            "neurons": neurons,
            "images": images,
            "seeds": seeds,
        }
        for name, values in given.items():
            if values is not None and not len(values):
                raise OptionError(f"{name} is empty: give at least one.")
        changes: dict[str, Any] = {name: tuple(values) for name, values in given.items() if values is not None}
        grid = replace(grid, **changes)
        for model in grid.models:
            check_choice("model", model, self.models)
        for name, least in (("neurons", 1), ("images", 8), ("seeds", 0)):
            for value in getattr(grid, name):
                check_count(name, value, least)
        return grid

    def options(self, preset: str, changes: Mapping[str, Any] | None = None) -> Any:
        """The preset's options with `changes` in their place, by name.

        Raises `OptionError` for a name that is not known, or a value that does not fit.
        """
        base = self.presets[check_choice("preset", preset, self.presets)].options
        values = {option.name: getattr(base, option.name) for option in fields(base)}
        return make_options(type(base), {**values, **(changes or {})})

    def points(self, grid: Grid) -> list[Point]:
        """Every point of a grid, each once."""
        points = [
            Point(model, size, n_images, seed)
            for model in grid.models
            for size in self.sizes(model, grid.neurons)
            for n_images in grid.images
            for seed in grid.seeds
        ]
        return list(dict.fromkeys(points))

    def run(
        self,
        folder: str | Path,
        preset: str = "quick",
        *,
        models: Sequence[str] | None = None,
        neurons: Sequence[int] | None = None,
        images: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
        options: Any = None,
        workers: int | None = None,
        resume: bool = False,
        overwrite: bool = False,
        observer: GridObserver | None = None,
    ) -> pd.DataFrame:
        """Solves the points asked for, in `folder`, and returns the table of all that it holds; see `run_grid`.

        models, neurons, images, seeds: a part of the preset's grid, or points outside it. options: in place of the
        preset's.
        """
        points = self.points(self.grid(preset, models=models, neurons=neurons, images=images, seeds=seeds))
        options = self.presets[preset].options if options is None else options
        check_folder(Path(folder), resume=resume, overwrite=overwrite)
        self.check(options)
        return run_grid(
            points,
            partial(self.solve, options),
            Path(folder),
            asked={"experiment": self.family or self.name, **asdict(options)},
            cost=partial(self.seconds, options),
            workers=workers,
            resume=resume,
            overwrite=overwrite,
            observer=observer,
        )
