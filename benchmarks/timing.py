"""Milliseconds per step of several implementations in one process: ours, plain, ours, plain, ..., step by step."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from contention import Load, Watch

_MOST_REPEATS = 2
"""Rounds are tried at most this many times as often as asked for, when other processes disturb them."""
_MOST_SECONDS = 37.5
"""Of each implementation: a workload begins no further round after as long as theirs together; beside a busy process a
step can take a hundred times longer."""


@dataclass(frozen=True)
class Round:
    """Steps of all in turn: the mean milliseconds per step of each, and what else the machine did meanwhile."""

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

    def row(self, implementation: str) -> dict[str, Any]:
        """What a file of results says of time and of the rounds."""
        return {
            "ms_per_step": round(self.ms(implementation), 3),
            "contended": self.contended,
            "quiet_rounds": len(self.quiet),
            "rounds": len(self.rounds),
            "ms_per_round": [round(each.ms[implementation], 3) for each in self.rounds],
            "other_cores_busy": [round(each.load.others, 2) for each in self.rounds],
        }


def measure(
    steps: Mapping[str, Callable[[], None]], every: Mapping[str, int], watch: Watch, n_rounds: int, n_steps: int
) -> Timing:
    """Times rounds until `n_rounds` were quiet, twice as many were tried, or time is up.

    steps: one of each implementation, by its name; every: of those that take every step alike, one in so many is taken.
    """
    for step in steps.values():
        step()
    timing, start = Timing([]), time.monotonic()
    while len(timing.quiet) < n_rounds and len(timing.rounds) < _MOST_REPEATS * n_rounds:
        if timing.rounds and time.monotonic() - start > _MOST_SECONDS * len(steps):
            break
        timing.rounds.append(_round(steps, every, watch, n_steps))
    return timing


def _round(steps: Mapping[str, Callable[[], None]], every: Mapping[str, int], watch: Watch, n_steps: int) -> Round:
    seconds: dict[str, list[float]] = {name: [] for name in steps}

    def turns() -> None:
        for number in range(n_steps):
            for name, step in steps.items():
                if number % every.get(name, 1):
                    continue
                start = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - start)

    load = watch.run(turns)
    return Round({name: mean(each) * 1e3 for name, each in seconds.items()}, load)
