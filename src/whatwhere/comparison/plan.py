"""What a comparison fits: which model, with which seed, to which images, and where it is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from whatwhere.catalogue import MODELS, make_model, model_of
from whatwhere.comparison.subsets import check_numbers, nested_rows
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN, Estimator
from whatwhere.plain_options import merge
from whatwhere.recording import Recording, with_split
from whatwhere.runs import own_values


@dataclass(frozen=True, eq=False)
class Fit:
    """One model to be fitted.

    name: the model's; seed: of what is drawn at random in its fit; recording: with its split declared; folder: where
    the run is kept; label: what tells it from the others; make: the model, not fitted yet.
    """

    name: str
    seed: int
    recording: Recording
    folder: Path
    label: str
    make: Callable[[], Estimator]


@dataclass(frozen=True, eq=False)
class Plan:
    """The fits of a comparison: in their order, and by number of images (rows), model and seed.

    names: the models; sizes: numbers of images, the last the largest; is_curve: whether numbers were asked for.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    fits: tuple[Fit, ...]
    is_curve: bool

    def of(self, name: str, size: int | None = None) -> list[Fit]:
        """The fits of one model to so many images (None: the most), one for each seed."""
        size = self.sizes[-1] if size is None else size
        return [fit for fit in self.fits if fit.name == name and fit.recording.n_images == size]


def draws(name: str) -> bool:
    """Whether a model's fit depends on its seed beyond the split: networks draw initial values and batches.

    >>> draws("factorized"), draws("ridge")
    (True, False)
    """
    return issubclass(MODELS[model_of(name)], CNN)


def make_plan(
    recording: Recording,
    names: Sequence[str],
    folder: Path,
    *,
    values: dict[str, Any],
    preset: str,
    seeds: int,
    images: Sequence[int | str],
    common: dict[str, Any],
) -> Plan:
    """All fits of a comparison, none of them begun; raises `OptionError` for options that do not fit.

    The split, the subsets and the folds of baselines are those of the first seed; further seeds draw a network's
    initial values and batches anew. A model's first run lies in `folder/<name>`, those of further seeds in `seed-<s>`
    beside its files, and runs of fewer images than all in the same way under `folder/images-<n>`.
    """
    options = options_of(names, values, preset)
    _check_seeds(seeds)
    if images and (recording.test is None or recording.test.n_images < 2):
        raise InputError(
            f"images: a learning curve is judged on the held-out part, of which {recording.name} has"
            f" {'none' if recording.test is None else 'one image'}: leave images out, or give two or more of them."
        )
    nonfinite = common.get("nonfinite", "error")
    if nonfinite != "error":  # once for all, or each model would have images of its own
        recording = replace(recording, nonfinite=nonfinite)
    first = int(common.get("seed", 0))
    recording = with_split(recording, fraction_of(names, options, preset), first)
    fits = []
    sizes = []
    for part, place in _parts(recording, images, folder, first):
        sizes.append(part.n_images)
        about = f" {part.n_images:,} images" if len(images) > 1 else ""
        for name in names:
            for seed in range(first, first + (seeds if draws(name) else 1)):
                make = partial(make_model, name, options[name], preset=preset, **{**common, "seed": seed})
                label = name + about + (f" seed {seed}" if seeds > 1 and draws(name) else "")
                at = place / name if seed == first else place / name / f"seed-{seed}"
                fits.append(Fit(name, seed, part, at, label, make))
    return Plan(tuple(names), tuple(sizes), tuple(fits), bool(images))


def _parts(recording: Recording, images: Sequence[int | str], folder: Path, seed: int) -> list[tuple[Recording, Path]]:
    """The recording's subsets from few images to many, each with the folder of its runs."""
    if not images:
        return [(recording, folder)]
    numbers = check_numbers(images, recording.n_images)
    rows = nested_rows(recording, [number for number in numbers if number < recording.n_images], seed)
    parts = [(recording.select_images(some), folder / f"images-{number}") for number, some in rows.items()]
    if numbers[-1] == recording.n_images:
        parts.append((recording, folder))
    sizes = [part.n_images for part, _ in parts]
    if len(set(sizes)) < len(sizes):
        raise OptionError(
            f"images: {', '.join(map(str, numbers))} are {', '.join(map(str, sizes))} rows, since rows that show one"
            " image stay together: give numbers that lie further apart."
        )
    return parts


def _check_seeds(seeds: Any) -> None:
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise OptionError(f"seeds must be a whole number of at least 1, how many of them, got {seeds!r}.")


def options_of(names: Sequence[str], values: dict[str, Any], preset: str) -> dict[str, dict[str, Any]]:
    """Each model's own values, with one validation fraction for all; raises `OptionError` before anything is done.

    >>> options_of(["factorized", "ridge"], {"ridge": {"validation_fraction": 0.1}}, "recording")["factorized"]
    {'training': {'validation_fraction': 0.1}}
    """
    if not names:
        raise OptionError("no models to compare: name at least one.")
    if len(set(names)) < len(names):
        raise OptionError(f"models {', '.join(names)}: each can be compared once.")
    options = {name: own_values(name, names, values) for name in names}
    for name in names:
        make_model(name, options[name], preset=preset)
    given = {name: found for name in names if (found := _given_fraction(name, options[name])) is not None}
    if len(set(given.values())) > 1:
        told = ", ".join(f"{name} {fraction}" for name, fraction in given.items())
        raise OptionError(f"validation_fraction differs ({told}): all models share one split, so give one.")
    fraction = fraction_of(names, options, preset)
    if any(fraction != _fraction(make_model(name, options[name], preset=preset)) for name in names):
        own = {name: {"validation_fraction": fraction} for name in names}
        options = {name: merge(options[name], {"training": own[name]} if draws(name) else own[name]) for name in names}
    return options


def fraction_of(names: Sequence[str], options: dict[str, dict[str, Any]], preset: str) -> float:
    """Of the images for validation: what is given, else what the first network has, else the first model."""
    by_rank = sorted(names, key=lambda name: (_given_fraction(name, options[name]) is None, not draws(name)))
    return _fraction(make_model(by_rank[0], options[by_rank[0]], preset=preset))


def _given_fraction(name: str, values: dict[str, Any]) -> float | None:
    concern = values.get("training", {}) if draws(name) else values
    fraction: float | None = concern.get("validation_fraction") if isinstance(concern, dict) else None
    return fraction


def _fraction(model: Estimator) -> float:
    options = model.asked()["options"]
    return float(options.get("training", options)["validation_fraction"])
