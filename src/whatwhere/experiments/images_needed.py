"""How many images reach a wanted FEV, and the cheapest recording that has as many: from curves measured on a grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.isotonic import isotonic_regression

from whatwhere.experiments.points import DONE
from whatwhere.simulation.counts import check_number
from whatwhere.storage import write_text

_PLAN_FILE = "plan.csv"
NOT_COUNTED = "Images count for training and validation together; the test set and its repeats are not counted."


@dataclass(frozen=True)
class Goal:
    """What is wanted of a recording, and what it costs: n_images s / 60 + n_neurons m minutes.

    - `fev`, between 0 and 1: mean over neurons of the fraction of explainable variance explained (equation 5)
    - `seconds_per_image` s: from one image's onset to the next one's
    - `minutes_per_neuron` m: what a neuron more costs; 0: they come together

    `NOT_COUNTED`: the test set. Raises `OptionError` for a number out of range.

    >>> Goal(seconds_per_image=1.5).minutes(1000, n_neurons=100)
    25.0
    """

    fev: float = 0.8
    seconds_per_image: float = 1.0
    minutes_per_neuron: float = 0.0

    def __post_init__(self) -> None:
        check_number("target", self.fev, above=0, below=1)
        check_number("seconds_per_image", self.seconds_per_image, above=0)
        check_number("minutes_per_neuron", self.minutes_per_neuron, least=0)

    def minutes(self, n_images: float, n_neurons: int) -> float:
        """The cost of a recording of so many images and neurons."""
        return n_images * self.seconds_per_image / 60 + n_neurons * self.minutes_per_neuron


@dataclass(frozen=True)
class Need:
    """How many images a model needs of a population of one size.

    - `n_images`: where the monotone curve of the medians over seeds meets the target, rounded up; infinite where it
      does not on the grid, and the fewest measured where these are enough already
    - `low`, `high`: the same for the best and for the worst seed at each number of images
    - `minutes`: of a recording of `n_images`
    - `fewest`, `most`: numbers of images measured; `highest`: the monotone curve at `most`
    - `n_seeds`: at the number of images that has the fewest
    """

    model: str
    n_neurons: int
    n_images: float
    low: float
    high: float
    minutes: float
    fewest: int
    most: int
    highest: float
    n_seeds: int

    @property
    def reached(self) -> bool:
        """Whether the target is met on the grid."""
        return math.isfinite(self.n_images)

    @property
    def at_most(self) -> bool:
        """Whether the fewest images measured are enough: how many fewer would be, is not known."""
        return self.n_images == self.fewest

    def cells(self) -> tuple[str, str, str]:
        """Images, their range over seeds, and minutes, as a table shows them.

        >>> Need("posterior", 10, 517, 433, math.inf, 8.617, 64, 2048, 0.9, 3).cells()
        ('517', '433 to > 2,048', '8.6')
        """
        if not self.reached:
            return f"> {self.most:,}", f"best FEV {self.highest:.2f}", ""
        low, middle, high = (self._cell(n_images) for n_images in (self.low, self.n_images, self.high))
        return middle, low if low == high else f"{low} to {high}", f"{self.minutes:,.1f}"

    def _cell(self, n_images: float) -> str:
        if not math.isfinite(n_images):
            return f"> {self.most:,}"
        return f"{'<= ' if n_images == self.fewest else ''}{n_images:,.0f}"


def images_to_reach(n_images: Sequence[int], fev: Sequence[float], target: float) -> float:
    """The fewest images at which a curve reaches the target, by linear interpolation in log n_images.

    - `n_images`, ascending; `fev` at each of them, made monotone first by isotonic regression: more images are no worse

    Never extrapolated: infinite where the target is not reached, the first of `n_images` where that is enough.

    >>> images_to_reach([64, 256, 1024], [0.0, 0.6, 1.0], 0.8)  # half way from 256 to 1024, four times as many
    512.0
    >>> images_to_reach([64, 256, 1024], [0.0, 1.0, 0.6], 0.8)  # the last two are both 0.8
    256.0
    >>> images_to_reach([64, 256, 1024], [0.0, 0.6, 0.7], 0.8), images_to_reach([64, 256], [0.9, 1.0], 0.8)
    (inf, 64.0)
    """
    curve = monotone(fev)
    enough = np.flatnonzero(curve >= target - 1e-12)  # of rounding
    if not len(enough):
        return math.inf
    after = int(enough[0])
    if after == 0 or curve[after] <= target:
        return float(n_images[after])
    share = (target - curve[after - 1]) / (curve[after] - curve[after - 1])
    return float(n_images[after - 1] * (n_images[after] / n_images[after - 1]) ** share)


def monotone(fev: Sequence[float]) -> np.ndarray:
    """The nearest curve that never falls, by squared distance (isotonic regression): more images are no worse.

    >>> monotone([0.1, 0.7, 0.5, 0.9])
    array([0.1, 0.6, 0.6, 0.9])
    """
    curve: np.ndarray = isotonic_regression(np.asarray(fev, np.float64))
    return curve


def find_needs(table: pd.DataFrame, goal: Goal) -> list[Need]:
    """The images that each model needs of each population, from the results of a grid (`run_grid`).

    table: columns `model`, `n_neurons`, `n_images`, `seed`, `fev_clipped`, `status`; points that failed are left out.

    >>> rows = [(3, d, seed, fev + seed / 10) for d, fev in ((64, 0.3), (256, 0.7)) for seed in (-1, 0, 1)]
    >>> table = pd.DataFrame(rows, columns=["n_neurons", "n_images", "seed", "fev_clipped"])
    >>> need, = find_needs(table.assign(model="cnn", status="done"), Goal(0.5, seconds_per_image=3))
    >>> need.n_images, need.low, need.high, need.minutes, need.n_seeds  # 64 times the root of 4, of 2, of 8
    (128, 91, 182, 6.4, 3)
    """
    done = table[table["status"] == DONE]
    curves = done[["model", "n_neurons"]].drop_duplicates().sort_values(["model", "n_neurons"])
    found = []
    for model, n_neurons in curves.itertuples(index=False):
        rows = done[(done["model"] == model) & (done["n_neurons"] == n_neurons)]
        found.append(_find_need(str(model), int(n_neurons), rows, goal))
    return found


def _find_need(model: str, n_neurons: int, rows: pd.DataFrame, goal: Goal) -> Need:
    """From the rows of one model and population."""
    by_images = rows.groupby("n_images")["fev_clipped"].agg(["median", "max", "min", "count"])
    measured = [int(n) for n in by_images.index.to_numpy()]
    needed, low, high = (
        _whole(images_to_reach(measured, by_images[over_seeds].to_list(), goal.fev))
        for over_seeds in ("median", "max", "min")
    )
    return Need(
        model,
        n_neurons,
        n_images=needed,
        low=low,
        high=high,
        minutes=goal.minutes(needed, n_neurons),
        fewest=measured[0],
        most=measured[-1],
        highest=float(monotone(by_images["median"].to_list())[-1]),
        n_seeds=int(by_images["count"].min()),
    )


def _whole(n_images: float) -> float:
    """The next whole number, of which a millionth may be rounding."""
    return math.ceil(n_images - 1e-6) if math.isfinite(n_images) else n_images


def cheapest(needs: Sequence[Need]) -> Need | None:
    """The recording that reaches the target in the fewest minutes, of equals that with fewer neurons; None: none does.

    >>> needs = [Need("cnn", n, d, d, d, d / 60, 64, 2048, 0.9, 3) for n, d in ((10, 2000), (1000, 500), (100, 500))]
    >>> cheapest(needs).n_neurons
    100
    """
    reached = [need for need in needs if need.reached]
    return min(reached, key=lambda need: (need.minutes, need.n_neurons), default=None)


def as_good(best: Need, needs: Sequence[Need]) -> Need | None:
    """Of the same model the smallest population whose range over seeds overlaps the best one's; None: it is itself.

    >>> few, more, many = (Need("cnn", n, d, d - 50, d + 50, d / 60, 64, 2048, 0.9, 3)
    ...                    for n, d in ((10, 900), (100, 560), (1000, 500)))
    >>> as_good(many, [few, more, many]).n_neurons, as_good(more, [few, more, many])
    (100, None)
    """
    rivals = [
        need
        for need in needs
        if need.reached and need.model == best.model and need.n_neurons < best.n_neurons and need.low <= best.high
    ]
    return min(rivals, key=lambda need: need.n_neurons, default=None)


def write_needs(needs: Sequence[Need], folder: Path) -> Path:
    """Writes `plan.csv`, see `plan_table`; returns the file."""
    write_text(folder / _PLAN_FILE, plan_table(needs).to_csv(index=False))
    return folder / _PLAN_FILE


def plan_table(needs: Sequence[Need]) -> pd.DataFrame:
    """A row a model and population, as `plan.csv` has it; empty where the target is not reached on the grid."""
    rows = [
        {
            "model": need.model,
            "n_neurons": need.n_neurons,
            "images_needed": need.n_images,
            "low": need.low,
            "high": need.high,
            "minutes": need.minutes,
            "reached": ("at most" if need.at_most else "yes") if need.reached else "no",
            "highest_fev": need.highest,
            "fewest_images": need.fewest,
            "most_images": need.most,
            "n_seeds": need.n_seeds,
        }
        for need in needs
    ]
    table = pd.DataFrame(rows)
    numbers = ["images_needed", "low", "high", "minutes"]
    table[numbers] = table[numbers].where(np.isfinite(table[numbers].astype(float)))
    return table


def answer(needs: Sequence[Need], goal: Goal) -> list[str]:
    """The plan in plain words, a sentence each: the cheapest recording, then that of every other model."""
    best = cheapest(needs)
    if best is None:
        return [_not_reached(needs, goal), NOT_COUNTED]
    sentences = [in_words(best, goal)]
    rival = as_good(best, needs)
    if rival is not None:
        sentences.append(
            f"Fewer neurons may do as well: the range of {_neurons(rival)}, {_images(rival)}, overlaps that one."
        )
    for model in sorted({need.model for need in needs} - {best.model}):
        of_model = [need for need in needs if need.model == model]
        other = cheapest(of_model)
        sentences.append(_not_reached(of_model, goal) if other is None else in_words(other, goal))
    return [*sentences, NOT_COUNTED]


def in_words(need: Need, goal: Goal) -> str:
    """What a recording that reaches the target takes.

    >>> in_words(Need("posterior", 1000, 517, 433, math.inf, 8.617, 64, 2048, 0.9, 3), Goal())
    'FEV 0.80 needs about 520 images (430 to more than 2,048 over 3 seeds) from 1,000 neurons with the posterior
    readout: 8.6 minutes at 1 s an image.'
    """
    if need.at_most:
        what = f"FEV {goal.fev:.2f} is reached with {_images(need)}, the fewest measured,"
    else:
        what = f"FEV {goal.fev:.2f} needs {_images(need)}"
    each = f"{goal.seconds_per_image:g} s an image"
    if goal.minutes_per_neuron:
        each += f" and {goal.minutes_per_neuron:g} minutes a neuron"
    return f"{what} from {_neurons(need)} with the {need.model} readout: {_minutes(need.minutes)} at {each}."


def in_short(need: Need) -> str:
    """Images and neurons, for a label.

    >>> in_short(Need("posterior", 10, 517, 433, 608, 8.617, 64, 2048, 0.9, 3))
    '520 images from 10 neurons'
    """
    return f"{_rounded(need.n_images)} images from {_neurons(need)}"


def _not_reached(needs: Sequence[Need], goal: Goal) -> str:
    best = max(needs, key=lambda need: need.highest)
    models = " or ".join(sorted({need.model for need in needs}))
    return (
        f"FEV {goal.fev:.2f} is not reached on this grid with the {models} readout: the highest is {best.highest:.2f},"
        f" with {best.most:,} images from {_neurons(best)}. Measure with more images or neurons."
    )


def _images(need: Need) -> str:
    about = f"{need.n_images:,.0f} images" if need.at_most else f"about {_rounded(need.n_images)} images"
    if need.n_seeds == 1:
        return f"{about} (one seed)"
    if need.high == need.fewest:
        return f"{about} (with each of {need.n_seeds} seeds)"
    low = f"{need.fewest:,} or fewer" if need.low == need.fewest else _rounded(need.low)
    high = _rounded(need.high) if math.isfinite(need.high) else f"more than {need.most:,}"
    return f"{about} ({low} to {high} over {need.n_seeds} seeds)"


def _neurons(need: Need) -> str:
    return f"{need.n_neurons:,} neuron" + ("" if need.n_neurons == 1 else "s")


def _rounded(number: float) -> str:
    """Two digits, three where the first is 1: the rest is interpolation.

    >>> _rounded(517), _rounded(1449), _rounded(70), _rounded(31_999)
    ('520', '1,450', '70', '32,000')
    """
    digits = math.floor(math.log10(number))
    unit = 10 ** max(0, digits - (2 if number < 2 * 10**digits else 1))
    return f"{round(number / unit) * unit:,}"


def _minutes(minutes: float) -> str:
    """Minutes as a reader wants them.

    >>> _minutes(8.617), _minutes(25), _minutes(0.21), _minutes(300)
    ('8.6 minutes', '25 minutes', '0.2 minutes', '5.0 hours')
    """
    if minutes >= 180:
        return f"{minutes / 60:,.1f} hours"
    return f"{minutes:.1f} minutes" if minutes < 10 else f"{minutes:.0f} minutes"
