"""Scores over the neurons of several recordings, each judged on its own images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.errors import InputError
from whatwhere.metrics.intervals import interval_over_neurons
from whatwhere.metrics.table import ScoreTable


def pooled_table(
    tables: Mapping[str, ScoreTable], *, level: float = 0.95, n_resamples: int = 1000, seed: int = 0
) -> ScoreTable:
    """One table of the neurons of all, with a first column `recording`, and the averages over all of them.

    Intervals are over neurons; recordings have different test images, so there is none over images. A score that a
    recording does not have is NaN for its neurons, which are then counted as left out. Raises `InputError` without
    tables.

    >>> from whatwhere.metrics import score_table
    >>> parts = {"a": [[0.0], [1.0], [2.0]], "b": [[0.0], [1.0], [4.0]]}
    >>> tables = {key: score_table(rates, rates=[[0.0], [1.0], [2.0]]) for key, rates in parts.items()}
    >>> pooled = pooled_table(tables)
    >>> pooled.summary["fev"]["mean"], list(pooled.neurons["recording"])
    (0.0, ['a', 'b'])
    """
    if not tables:
        raise InputError("none of the recordings has a held-out part of two images or more to score on.")
    parts = [table.neurons.assign(recording=key) for key, table in tables.items()]
    neurons = pd.concat(parts, ignore_index=True)
    neurons.insert(0, "recording", neurons.pop("recording"))
    neurons.index.name = "neuron"
    summary: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for table in tables.values() for name in table.summary):
        found = interval_over_neurons(
            neurons[name].to_numpy(np.float64), level=level, n_resamples=n_resamples, seed=seed
        )
        entry = {"mean": found.mean, "level": level, "over": "neurons", "low": found.low, "high": found.high}
        entry |= dict.fromkeys(("low_images", "high_images", "low_both", "high_both"))
        entry["n_neurons"], entry["n_left_out"] = found.n, found.n_left_out
        entry["n_constant"] = sum(
            table.summary[name]["n_constant"] for table in tables.values() if name in table.summary
        )
        summary[name] = {key: None if value != value else value for key, value in entry.items()}
    absent = {name: reason for table in tables.values() for name, reason in table.absent.items() if name not in summary}
    return ScoreTable(neurons, summary, absent)
