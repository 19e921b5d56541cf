"""Table 1 of the paper: models of visual cortex compared on each scan, on its data or on any recording."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere import formats
from whatwhere.catalogue import model_of
from whatwhere.checks import check_choice
from whatwhere.comparison import Comparison, compare
from whatwhere.comparison.fits import Observe
from whatwhere.comparison.plan import draws
from whatwhere.comparison.tables import MAIN
from whatwhere.config import ModelOptions
from whatwhere.errors import InputError, OptionError
from whatwhere.experiments.paper_numbers import TABLE_1_SCANS, table_1
from whatwhere.formats.antolik import regions_of
from whatwhere.metrics import holm, interval_over_neurons, paired_difference
from whatwhere.parallel import helps
from whatwhere.plain_options import merge
from whatwhere.recording import Recording
from whatwhere.runs import DIFFERENCES_FILE, RESULTS_FILE, TABLE_OF_SCANS, check_folder
from whatwhere.storage import write_text

MODELS = ("ridge", "lnp", "fixed-mask", "fully-connected", "factorized", "gaussian", "posterior")
LAYERS = ("factorized@1-layer", "factorized@2-layers")
"""The published networks of fewer layers; those of three are `factorized`."""
AVERAGE = "average"
_LATER_KERNELS = {"region3": 8}
"""Pixels of the kernels after the first layer, where they are not 3: the paper's best networks (section 5.2)."""


@dataclass(frozen=True)
class Table1:
    """What came of it.

    - results: a row for each model and scan: `model`, `correlation` (mean over neurons, with the repeat-averaged
      response), `low`, `high` (its interval over neurons), `scan`, `paper` (the published number, where there is one),
      and the columns of `comparison.results_table`; of several scans also the average over the neurons of all
    - differences: every pair of models, paired over neurons, in each scan and over all
    - comparisons: by scan
    """

    results: pd.DataFrame
    differences: pd.DataFrame
    comparisons: Mapping[str, Comparison]


def quick_values(recording: Recording) -> dict[str, Any]:
    """The defaults for recordings, 16 maps, two strengths a model."""
    return {
        "core": {"n_maps": 16},
        "ridge": {"strengths": [1.0, 10.0]},
        "lnp": {"smoothness": [0.1], "sparsity": [0.02, 0.04]},
        "fully-connected": {
            "readout": {"dropout": 0.5},
            "penalties": {"weight_l2": [3.0, 30.0], "activity_l1": 0.01},
        },
        "factorized@1-layer": {"core": {"kernel_sizes": [9]}},
        "factorized@2-layers": {"core": {"kernel_sizes": [9, 5]}},
    }


def paper_values(recording: Recording) -> dict[str, Any]:
    """The published settings and grids, in our units.

    48 maps, kernels of 13 and then 3 pixels (scan 3: 8), images z-scored pixel by pixel, responses as they are, masks
    and feature weights not negative, Adam at 1e-3, batches of 256, a look each 50 steps, the rate divided by 3 twice.
    The published loss sums over the scan's N neurons, and its Laplacian is half of equation 6's: so smoothness is
    theirs / (4 N), group sparsity theirs / N; the readout's is the same, since ours is a mean over neurons. Text and
    supplement do not give the grids of the other readouts, nor of the LNP: these are ours.
    """
    n = recording.n_neurons
    smoothness = [value / (4 * n) for value in (0.001, 0.003, 0.01, 0.03)]
    kernels = {"smoothness": smoothness, "group_sparsity": [value / n for value in (0.0, 0.025, 0.05)]}
    later = _LATER_KERNELS.get(recording.name, 3)
    readout = [0.02, 0.03, 0.04, 0.05]
    return {
        "core": {"kernel_sizes": [13, later, later], "n_maps": 48, "nonlinearity": "softplus"},
        "preprocessing": {"standardize": "pixel", "scale_responses": False},
        "training": {
            "learning_rate": 1e-3,
            "batch_size": 256,
            "check_every": 50,
            "patience": 10,
            "rate_factor": 1 / 3,
            "n_rates": 3,
        },
        "ridge": {"standardize": "pixel"},
        "lnp": {"standardize": "pixel"},
        "factorized": {
            "readout": {
                "nonnegative_masks": True,
                "nonnegative_features": True,
                "mask_norm": "free",
                "hold_masks": 0,
            },
            "penalties": {**kernels, "product_l1": readout},
            "training": {"proximal": False},
        },
        "factorized@1-layer": {"core": {"kernel_sizes": [13]}, "penalties": {"group_sparsity": 0.0}},
        "factorized@2-layers": {"core": {"kernel_sizes": [13, later]}},
        "fixed-mask": {"penalties": {**kernels, "feature_l1": [0.003, 0.01, 0.03]}},
        "fully-connected": {
            "readout": {"dropout": 0.5},
            "penalties": {**kernels, "weight_l2": [0.3, 3.0, 30.0], "activity_l1": [0.0, 0.01]},
            "training": {"learning_rate": 2e-4},  # at 1e-3 its first steps throw it far off
        },
    }


@dataclass(frozen=True)
class Preset:
    """Models that are compared where none are named, and each one's options for a recording."""

    models: Sequence[str]
    values: Callable[[Recording], dict[str, Any]]


PRESETS = {
    "quick": Preset(MODELS, quick_values),
    "paper": Preset((*MODELS[:4], *LAYERS, *MODELS[4:]), paper_values),
}


def load_scans(
    data: str | Path,
    scans: Sequence[int] | None = None,
    *,
    format: str | None = None,
    neurons: int | None = None,
    seed: int = 0,
    nonfinite: str = "error",
) -> dict[str, Recording]:
    """The recordings to compare models on, by name: the regions of an Antolik folder, or any recording by itself.

    scans: numbers of regions, all if not given. neurons: so many are drawn with the seed. Raises before anything long
    where a region's file is missing, saying which, where it is from and where it belongs; `InputError` for a
    recording without a held-out part of two images or more; `OptionError` for scans that are not there.
    """
    data = Path(data).expanduser()
    regions = regions_of(data) if data.is_dir() and format in (None, "antolik") else []
    if not regions:
        if scans is not None:
            raise OptionError(f"scans (={list(scans)}) are those of an Antolik folder, and {data} is none: leave it.")
        found = [formats.load(data, format, nonfinite=nonfinite)]
    else:
        places = {int(region.name.removeprefix("region")): region for region in regions}
        missing = sorted(set(scans or places) - set(places))
        if missing:
            raise OptionError(f"{data} has no region{missing[0]}: it has {', '.join(p.name for p in regions)}.")
        found = [formats.load(places[number], nonfinite=nonfinite) for number in scans or sorted(places)]
    for recording in found:
        if recording.test is None or recording.test.n_images < 2:
            raise InputError(f"{recording.name} has no held-out part of two images or more to judge models on.")
    if neurons is not None:
        found = [recording.select_neurons(neurons, seed=seed) for recording in found]
    return {recording.name: recording for recording in found}


def run_table1(
    recordings: Mapping[str, Recording],
    folder: str | Path,
    preset: str = "quick",
    *,
    models: Sequence[str] | None = None,
    values: Mapping[str, Any] | None = None,
    seeds: int = 1,
    overwrite: bool = False,
    resume: bool = False,
    observe: Callable[[str], Observe] = lambda scan: lambda label: None,
    **common: Any,
) -> Table1:
    """Compares the models on every recording, and writes `results.csv` and `differences.csv` into the folder.

    models: names or labels, the preset's if not given. values: options over the preset's, as for `compare`. Each
    recording's comparison is kept in `folder/<recording>`, and is resumed as comparisons are. observe: from a scan to
    what tells how a fit goes. common: seed, device, threads, ... Raises `RunError` before anything is fitted where the
    folder holds work of another kind, or this one's and neither `overwrite` nor `resume` is given.
    """
    if not helps():
        check_folders(Path(folder), list(recordings), overwrite=overwrite, resume=resume)
    chosen = PRESETS[check_choice("preset", preset, PRESETS)]
    names = list(chosen.models if models is None else models)
    comparisons: dict[str, Comparison] = {}
    for scan, recording in recordings.items():
        of_preset = {key: value for key, value in chosen.values(recording).items() if _is_meant(key, names)}
        comparisons[scan] = compare(
            *(recording, names, Path(folder) / scan),
            values=merge(of_preset, dict(values or {})),
            seeds=seeds,
            overwrite=overwrite,
            resume=resume,
            observe=observe(scan),
            **common,
        )
        if comparisons[scan].interrupted:
            return Table1(pd.DataFrame(), pd.DataFrame(), comparisons)
    table = Table1(results_table(comparisons), differences_table(comparisons), comparisons)
    write_text(Path(folder) / RESULTS_FILE, table.results.to_csv(index=False))
    write_text(Path(folder) / DIFFERENCES_FILE, table.differences.to_csv(index=False))
    return table


def check_folders(folder: Path, scans: Sequence[str], *, overwrite: bool = False, resume: bool = False) -> None:
    """Raises where the tables, or a scan's comparison, must not begin in their folders; see `runs.check_folder`."""
    check_folder(folder, overwrite=overwrite, resume=resume, kind=TABLE_OF_SCANS, writes=RESULTS_FILE)
    for scan in scans:
        check_folder(folder / scan, overwrite=overwrite, resume=resume, writes=RESULTS_FILE)


def _is_meant(key: str, names: Sequence[str]) -> bool:
    """Whether a preset's options under this key are for some of the models; a concern's are for all networks."""
    if key in ModelOptions.__dataclass_fields__:
        return any(map(draws, names))
    return key in (*names, *map(model_of, names))


def results_table(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """See `Table1.results`."""
    tables = []
    for scan, comparison in comparisons.items():
        table = comparison.results.rename(columns={"score": MAIN})
        table.insert(4, "scan", scan)
        tables.append(table)
    if len(comparisons) > 1:
        tables.append(_average(tables, comparisons))
    table = pd.concat(tables, ignore_index=True)
    is_papers = set(comparisons) == set(TABLE_1_SCANS)  # or the average would be another one
    told = [(model, scan) for model, scan in zip(table["model"], table["scan"], strict=True)]
    table.insert(5, "paper", [table_1(*key) if is_papers or key[1] != AVERAGE else None for key in told])
    return table


def _average(tables: Sequence[pd.DataFrame], comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Each model's mean over the neurons of all scans, as the paper averages."""
    rows = []
    for model in tables[0]["model"]:
        values = np.concatenate([comparison.neurons[model].to_numpy(float) for comparison in comparisons.values()])
        found = interval_over_neurons(values, n_resamples=1000)
        seconds = sum(float(table.loc[table["model"] == model, "seconds"].iloc[0]) for table in tables)
        rows.append(
            {
                "model": model,
                MAIN: found.mean,
                "low": found.low,
                "high": found.high,
                "scan": AVERAGE,
                "n_neurons": found.n,
                "seconds": seconds,
            }
        )
    return pd.DataFrame(rows)


def differences_table(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Every pair of models in each scan, and of several scans over the neurons of all, `scan` average."""
    tables = []
    for scan, comparison in comparisons.items():
        tables.append(comparison.differences.assign(scan=scan))
    if len(comparisons) > 1:
        neurons = pd.concat([comparison.neurons for comparison in comparisons.values()], ignore_index=True)
        table = tables[0].copy()
        for number, row in enumerate(table.to_dict("records")):
            found = paired_difference(neurons[row["model"]].to_numpy(float), neurons[row["minus"]].to_numpy(float))
            for name, value in {**vars(found.difference), "p_value": found.p_value}.items():
                table.loc[number, name] = value
        tables.append(table.assign(scan=AVERAGE, p_holm=holm(table["p_value"].to_numpy(float))))
    return pd.concat(tables, ignore_index=True)


def paper_form(results: pd.DataFrame) -> pd.DataFrame:
    """As the paper has it: a row a model, its correlation in each scan and on average, the paper's in brackets."""
    scans = list(dict.fromkeys(results["scan"]))
    rows = []
    for model in dict.fromkeys(results["model"]):
        row: dict[str, Any] = {"model": model}
        for scan in scans:
            found = results[(results["model"] == model) & (results["scan"] == scan)]
            row[_heading(scan)] = "" if found.empty else _cell(found.iloc[0])
        rows.append(row)
    return pd.DataFrame(rows)


def _heading(scan: str) -> str:
    return f"scan {TABLE_1_SCANS.index(scan) + 1}" if scan in TABLE_1_SCANS else scan


def _cell(row: pd.Series) -> str:
    paper = "" if pd.isna(row["paper"]) else f" (paper {row['paper']:.2f})"
    return f"{row[MAIN]:.3f} [{row['low']:.3f}, {row['high']:.3f}]{paper}"
