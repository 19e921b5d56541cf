"""Responses to presentations: samples of ROI series averaged, or spikes counted, between two times."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.checks import some_of
from whatwhere.errors import FormatError, OptionError
from whatwhere.formats.nwb.options import Reading
from whatwhere.formats.nwb.structure import as_array, plain_columns, sample_times
from whatwhere.rows import CHUNK_BYTES

SLACK = 1e-6  # of the time between two samples: a sample on a window's edge is there whatever its rounding
IDENTIFIERS = "identifier"


def read_responses(
    path: Path, where: str, source: Any, starts: np.ndarray, stops: np.ndarray, options: Reading
) -> tuple[np.ndarray, pd.DataFrame]:
    """Each neuron's response between `starts` and `stops`, (n_presentations, n_neurons) float32, and their table."""
    if where == "units":
        responses = _spike_counts(path, source, starts, stops)
        if options.rate:
            responses = responses / (stops - starts)[:, None]
        return responses.astype(np.float32), _neurons(path, source, slice(None), options.identifiers)
    if options.rate:
        raise OptionError(f"rate is for spikes, but the responses are the samples of {where}. Leave it out.")
    times = sample_times(path, where, source)
    data = source.data
    n_neurons = 1 if len(data.shape) == 1 else data.shape[1]
    rows = np.asarray(source.rois.data[:], dtype=int)
    if len(rows) != n_neurons:
        raise FormatError(
            f"{path}: {where} has shape {data.shape} for {len(rows):,} ROIs: expected (n_samples, n_ROIs). Transpose"
            " it."
        )
    means = window_means(path, where, data, times, starts, stops)
    responses = means * float(source.conversion) + float(source.offset)
    return responses.astype(np.float32), _neurons(path, source.rois.table, rows, options.identifiers)


def window_means(
    path: Path, where: str, data: Any, times: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> np.ndarray:
    """The mean of the samples with start <= time < stop, (n_windows, n_columns) float64, read block by block.

    Raises `FormatError` where a window holds no sample.
    """
    between = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    first, last = (np.searchsorted(times, edges - SLACK * between) for edges in (starts, stops))
    empty = np.flatnonzero(last <= first)
    if len(empty):
        named = some_of((f"{starts[i]:g} to {stops[i]:g} s" for i in empty), most=3)
        raise FormatError(
            f"{path}: {where} has no sample in the windows of {len(empty):,} of {len(starts):,} presentations: {named}."
            f" It was sampled from {times[0]:g} to {times[-1]:g} s, every {between:g} s. Choose delay and duration so"
            " that each window holds one, or leave these presentations out of the table."
        )
    means = np.empty((len(starts), 1 if len(data.shape) == 1 else data.shape[1]))
    for windows, begin, end in _blocks(first, last, max(1, CHUNK_BYTES // (8 * means.shape[1]))):
        block = np.asarray(data[begin:end]).reshape(end - begin, -1)
        for window in windows:
            means[window] = block[first[window] - begin : last[window] - begin].mean(axis=0, dtype=np.float64)
    return means


def _blocks(first: np.ndarray, last: np.ndarray, most: int) -> Iterator[tuple[list[int], int, int]]:
    """Windows that follow each other, with the samples that hold them: at most so many unless one window has more."""
    windows: list[int] = []
    begin = end = 0
    for window in np.argsort(first, kind="stable").tolist():
        if windows and max(end, int(last[window])) - begin > most:
            yield windows, begin, end
            windows = []
        if not windows:
            begin = end = int(first[window])
        windows.append(window)
        end = max(end, int(last[window]))
    if windows:
        yield windows, begin, end


def _spike_counts(path: Path, units: Any, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """How many spikes of each unit lie in start <= time < stop, (n_presentations, n_units)."""
    index = units["spike_times"]
    ends = np.asarray(index.data[:], dtype=int)
    counts = np.empty((len(starts), len(ends)))
    for unit, (begin, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        times = np.sort(np.asarray(index.target.data[int(begin) : int(end)], dtype=float))
        if not np.isfinite(times).all():
            raise FormatError(f"{path}: unit {unit} of units has spike times that are not finite. Mend them.")
        counts[:, unit] = np.searchsorted(times, stops) - np.searchsorted(times, starts)
    return counts


def _neurons(path: Path, table: Any, rows: Any, asked: str | None) -> pd.DataFrame:
    """The table's rows with one value a column, by identifiers; what is ragged, like masks, is left out."""
    columns = {name: values[rows] for name, values in plain_columns(table).items()}
    if asked is not None and asked != "id" and asked not in columns:
        raise OptionError(
            f"identifiers={asked!r}: no such column of one value a neuron, but id, {', '.join(columns) or 'no other'}."
        )
    own = columns.get(IDENTIFIERS)
    if asked is None and own is not None and len(np.unique(own)) == len(own):
        asked = IDENTIFIERS
    identifiers = as_array(table.id.data)[rows] if asked in (None, "id") else columns.pop(asked)
    if len(np.unique(identifiers)) < len(identifiers):
        raise FormatError(
            f"{path}: the identifiers of the neurons, {asked or 'id'}, are not unique. Name another column with"
            " identifiers=..."
        )
    return pd.DataFrame(columns, index=pd.Index(identifiers))
