"""All experiments on one fitted model, and the files that keep what they found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from whatwhere.errors import OptionError, RunError
from whatwhere.files import make_folder, replacing
from whatwhere.insilico.choosing import as_subject
from whatwhere.insilico.fields import SPRITE, LinearFields, linear_fields
from whatwhere.insilico.gratings import GratingOptions, GratingTuning, grating_tuning
from whatwhere.insilico.most_exciting import MostExciting, MostExcitingOptions, most_exciting_images
from whatwhere.insilico.places import find_places, noise_images
from whatwhere.insilico.sizes import SizeOptions, SizeTuning, size_tuning
from whatwhere.insilico.statistics import ImageStatistics
from whatwhere.insilico.subjects import Subject, images_at_once, statistics_for
from whatwhere.recording_parts import check_image_rows
from whatwhere.rows import as_images, read_rows, spaced
from whatwhere.simulation.counts import check_count
from whatwhere.storage import CURVES_FILE, EXCITING_FILE, FIELDS_FILE, TUNING_FILE, write_text

_USUAL = GratingOptions()
FILES = (TUNING_FILE, FIELDS_FILE, CURVES_FILE, EXCITING_FILE)


@dataclass(frozen=True)
class StudyOptions:
    """Which experiments are made, and how. Fields and gratings are cheap; sizes and most exciting images are not.

    - `fields`: linearised receptive fields, cropped to `crop` (height, width), or to the image where it is smaller;
      averaged over `n_field_images` of the recording's images, evenly from the first to the last, or of white noise
      where there are none; 0: at the mean image, where rectified neurons may be silent
    - `gratings`, `sizes` (None: not shown; sizes need gratings), `most_exciting` (None: not sought)
    - `n_neurons`: so many, drawn at random with the `seed`; None: all
    - `memory_gib`: what images and feature maps may take at once, roughly

    Raises `OptionError` where nothing is asked for, or sizes without gratings.
    """

    fields: bool = True
    crop: tuple[int, int] = SPRITE
    n_field_images: int = 8
    gratings: GratingOptions | None = _USUAL
    sizes: SizeOptions | None = None
    most_exciting: MostExcitingOptions | None = None
    n_neurons: int | None = None
    seed: int = 0
    memory_gib: float = 1.0

    def __post_init__(self) -> None:
        if not self.fields and self.gratings is None and self.sizes is None and self.most_exciting is None:
            raise OptionError("no experiment is asked for: choose fields, gratings, sizes or most exciting images.")
        if self.sizes is not None and self.gratings is None:
            raise OptionError("sizes are tested with the gratings that neurons prefer: ask for gratings, too.")
        check_count("seed", self.seed, least=0)
        check_count("n_field_images", self.n_field_images, least=0)
        if self.n_neurons is not None:
            check_count("n_neurons", self.n_neurons)


@dataclass(frozen=True, eq=False)
class Study:
    """What was found; None for experiments that were not asked for. `table`: one row a neuron, see `study`."""

    table: pd.DataFrame
    fields: LinearFields | None
    gratings: GratingTuning | None
    sizes: SizeTuning | None
    most_exciting: MostExciting | None


def study(
    model: Any, options: StudyOptions | None = None, *, images: Any = None, told: Callable[[str], None] | None = None
) -> Study:
    """Makes the experiments asked for on a fitted network or filter model.

    images: of the recording, (n_images, n_channels, height, width), in memory or on disk, which tell what grey and
    contrast are, and how the neurons' responses to them compare; None: what the model knows of them. told: called with
    a line as each experiment begins, and as the slowest goes on.

    The table has the neuron's identifier, `row` and `column` of its place in pixels (NaN for none), the columns of
    `GratingTuning.table`, `SizeTuning.table` and `MostExciting.table`, and with images `best_image_response`, the
    largest predicted one to any of them.

    >>> from whatwhere.simulation import gabor_population
    >>> study(gabor_population(2, image_size=(32, 40)), StudyOptions(gratings=None)).table.columns.tolist()
    ['neuron', 'row', 'column']
    """
    subject, options, say = as_subject(model), options or StudyOptions(), told or (lambda text: None)
    chosen = _draw(subject.n_neurons, options)
    if images is not None:
        images = as_images("images", images)
    statistics = None if images is None else ImageStatistics.of(images)
    common: dict[str, Any] = {"statistics": statistics, "memory_gib": options.memory_gib}
    number = f"{len(chosen):,} neurons" if len(chosen) > 1 else "1 neuron"
    fields = gratings = sizes = exciting = None
    if options.fields:
        say(f"linearised receptive fields of {number}")
        crop = tuple(np.minimum(options.crop, subject.image_shape[1:]).tolist())
        over = _field_images(subject, images, statistics, options.n_field_images)
        fields = linear_fields(subject, over, crop=(crop[0], crop[1]), neurons=chosen, **common)
    places = find_places(subject, neurons=chosen, **common) if fields is None else fields.places
    if options.gratings is not None:
        say(f"gratings for {number}")
        gratings = grating_tuning(subject, options.gratings, neurons=chosen, **common)
    if options.sizes is not None and gratings is not None:
        say(f"gratings of growing size for {number}")
        sizes = size_tuning(subject, gratings, options.sizes, places=places, **common)
    if options.most_exciting is not None:
        say(f"most exciting images of {number}")
        exciting = most_exciting_images(
            subject,
            options.most_exciting,
            neurons=chosen,
            told=lambda done, of: say(f"  {done:,} of {of:,}") if done < of else None,
            **common,
        )
    table = pd.DataFrame(
        {"neuron": [subject.names[each] for each in chosen], "row": places[:, 0], "column": places[:, 1]}
    )
    found = [part.table().drop(columns="neuron") for part in (gratings, sizes, exciting) if part is not None]
    table = pd.concat([table, *found], axis=1)
    if images is not None:
        say(f"the recording's {images.shape[0]:,} images")
        table["best_image_response"] = best_responses(subject, images, options.memory_gib)[chosen]
    return Study(table, fields, gratings, sizes, exciting)


def _field_images(subject: Subject, images: Any, statistics: ImageStatistics | None, n_images: int) -> Any:
    """What fields are averaged over; None: nothing, they are at the mean image."""
    if not n_images:
        return None
    if images is None:
        return noise_images(subject, statistics_for(subject, statistics), n_images).cpu().numpy()
    return read_rows(images, spaced(images.shape[0], n_images))


def _draw(n_neurons: int, options: StudyOptions) -> np.ndarray:
    """Positions of the neurons, ascending."""
    if options.n_neurons is None or options.n_neurons >= n_neurons:
        return np.arange(n_neurons)
    return np.sort(np.random.default_rng(options.seed).choice(n_neurons, options.n_neurons, replace=False))


def best_responses(subject: Subject, images: Any, memory_gib: float = 1.0) -> np.ndarray:
    """The largest predicted response of every neuron to any of the images, (n_neurons,), read some at a time."""
    most = images_at_once(subject, memory_gib)
    best = np.full(subject.n_neurons, -np.inf)
    for start in range(0, images.shape[0], most):
        some = np.asarray(images[start : start + most])
        check_image_rows("images", some, range(start, start + len(some)))
        rates = subject.rates(torch.from_numpy(some.astype(np.float32)).to(subject.device))
        best = np.maximum(best, rates.amax(0).cpu().numpy())
    return best


def check_out(folder: Path, *, overwrite: bool = False) -> None:
    """Raises `RunError` where the folder is a file, or holds a study already that is not to be overwritten."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder.")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not overwrite:
        raise RunError(f"{folder} holds {there[0]} already: use --overwrite to replace it, or another folder.")


def write_study(found: Study, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Writes what was found into a folder, made where it is missing, and returns the files; no pickles.

    - `tuning.csv`: the table
    - `fields.npz`: `fields` (n_neurons, n_channels, height, width), `corners`, `places`, `neurons` (identifiers),
      `image_size`, as in `LinearFields`
    - `curves.npz`: `orientations`, `frequencies`, `mean`, `modulation`, `grey`, as in `GratingTuning`; with sizes
      `radii`, `size_mean`, `size_modulation`, as in `SizeTuning`; `neurons`
    - `most_exciting.npz`: `images`, `responses`, `contrasts`, `converged`, `neurons`, as in `MostExciting`

    Files of an earlier study that this one lacks are removed. Raises `RunError` as `check_out`.
    """
    check_out(folder, overwrite=overwrite)
    make_folder(folder)
    written = []
    for name, arrays in _arrays(found).items():
        if arrays:
            _write_arrays(folder / name, arrays)
            written.append(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
    write_text(folder / TUNING_FILE, found.table.to_csv(index=False))
    return [folder / TUNING_FILE, *written]


def _arrays(found: Study) -> dict[str, dict[str, np.ndarray]]:
    """What each file holds; nothing where it is not to be written."""
    arrays: dict[str, dict[str, np.ndarray]] = {FIELDS_FILE: {}, CURVES_FILE: {}, EXCITING_FILE: {}}
    names = np.array(found.table["neuron"].tolist(), np.str_)
    if (fields := found.fields) is not None:
        arrays[FIELDS_FILE] = {
            "fields": fields.values,
            "corners": fields.corners,
            "places": fields.places,
            "neurons": names,
            "image_size": np.array(fields.image_size),
        }
    if (gratings := found.gratings) is not None:
        kept = ("orientations", "frequencies", "mean", "modulation", "grey")
        arrays[CURVES_FILE] = {"neurons": names, **{name: getattr(gratings, name) for name in kept}}
    if (sizes := found.sizes) is not None:
        arrays[CURVES_FILE] |= {"radii": sizes.radii, "size_mean": sizes.mean, "size_modulation": sizes.modulation}
    if (exciting := found.most_exciting) is not None:
        found_images = ("images", "responses", "contrasts", "converged")
        arrays[EXCITING_FILE] = {"neurons": names, **{name: getattr(exciting, name) for name in found_images}}
    return arrays


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """An .npz, whole or not at all."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
