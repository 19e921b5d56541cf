"""Milliseconds per step of both implementations in one process: ours, plain, ours, plain, ..., step by step."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, median

import plain
import workloads
from agreement import Pair
from contention import Load, Watch
from torch import Tensor

IMPLEMENTATIONS = ("whatwhere", "plain")
_MOST_REPEATS = 2
"""Rounds are tried at most this many times as often as asked for, when other processes disturb them."""
_MOST_SECONDS = 75.0
"""A workload begins no further round after this long: beside a busy process a step can take a hundred times longer."""


@dataclass(frozen=True)
class Round:
    """Steps of both in turn: the mean milliseconds per step of each, and what else the machine did meanwhile."""

    ms: dict[str, float]
    load: Load


@dataclass(frozen=True)
class Timing:
    """All rounds of a workload."""

    rounds: list[Round]

    @property
    def quiet(self) -> list[Round]:
        return [each for each in self.rounds if not each.load.contended]

    @property
    def contended(self) -> bool:
        """Whether not even one round was quiet, so that times are upper bounds and their ratio a guess."""
        return not self.quiet

    def ms(self, implementation: str) -> float:
        """The median of the quiet rounds; without any, the shortest of all, which load has spoiled least."""
        if self.quiet:
            return median(each.ms[implementation] for each in self.quiet)
        return min(each.ms[implementation] for each in self.rounds)


def measure(
    workload: workloads.Workload,
    pair: Pair,
    images: Tensor,
    responses: Tensor,
    watch: Watch,
    n_rounds: int,
    n_steps: int,
) -> Timing:
    """Times rounds until `n_rounds` were quiet, twice as many were tried, or time is up."""
    steps = {
        "whatwhere": workloads.step_of(pair.ours, images, responses),
        "plain": plain.step_of(pair.plain, images, responses, workload.options.training.batch_size),
    }
    for step in steps.values():
        step()
    timing, start = Timing([]), time.monotonic()
    while len(timing.quiet) < n_rounds and len(timing.rounds) < _MOST_REPEATS * n_rounds:
        if timing.rounds and time.monotonic() - start > _MOST_SECONDS:
            break
        timing.rounds.append(_round(steps, watch, n_steps, workload.plain_every))
    return timing


def _round(steps: dict[str, Callable[[], None]], watch: Watch, n_steps: int, plain_every: int) -> Round:
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def turns() -> None:
        for number in range(n_steps):
            for name, step in steps.items():
                if name == "plain" and number % plain_every:
                    continue
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)

    load = watch.run(turns)
    return Round({name: mean(each) * 1e3 for name, each in seconds.items()}, load)
