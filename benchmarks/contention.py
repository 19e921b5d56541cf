"""Whether other processes were busy while something was timed: on a loaded machine a time says nothing."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

MOST_OTHERS = 0.1
"""Cores' worth of other processes (and of time stolen by the host) that may take from our threads in a quiet round."""
MOST_SLOWER = 1.3
"""A fixed matrix product may take this many times its shortest time so far."""

_STAT = Path("/proc/stat")


@dataclass(frozen=True)
class Load:
    """What was seen while something ran.

    others: cores busy with other processes (0 where unknown); spare: cores that our threads left free; slowdown: the
    calibration's time over its shortest so far.
    """

    others: float
    spare: int
    slowdown: float

    @property
    def contended(self) -> bool:
        return self.others - self.spare > MOST_OTHERS or self.slowdown > MOST_SLOWER


class Watch:
    """Runs work and says how busy the machine was with other processes meanwhile."""

    def __init__(self) -> None:
        self._matrix = torch.full((384, 384), 0.5)
        self._product = torch.empty(384, 384)
        self._shortest = min(self._calibrate() for _ in range(5))

    def run(self, work: Callable[[], None]) -> Load:
        machine, own, wall = _busy_seconds(), time.process_time(), time.perf_counter()
        work()
        calibration = self._calibrate()
        machine, own, wall = _busy_seconds() - machine, time.process_time() - own, time.perf_counter() - wall
        self._shortest = min(self._shortest, calibration)
        spare = max((os.cpu_count() or 1) - torch.get_num_threads(), 0)
        return Load(max(machine - own, 0.0) / wall, spare, calibration / self._shortest)

    def _calibrate(self) -> float:
        """Seconds of one of several equal matrix products, their median."""
        seconds = []
        for _ in range(9):
            start = time.perf_counter()
            torch.mm(self._matrix, self._matrix, out=self._product)
            seconds.append(time.perf_counter() - start)
        return sorted(seconds)[len(seconds) // 2]


def _busy_seconds() -> float:
    """Processor time of all processes since the machine started, and of its host's others (steal); 0 if unknown."""
    if not _STAT.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, _STAT.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
