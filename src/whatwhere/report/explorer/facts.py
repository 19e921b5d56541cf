"""Facts and names in words, for the page."""

from typing import Any

import pandas as pd

from whatwhere.exploration import Explored, ExploredRun
from whatwhere.metrics import SCORES

_WORDS = {  # of each score: what it is called, and what it means
    "correlation": ("Correlation", "of the prediction with the response averaged over repeats"),
    "single_trial_correlation": ("Single-trial correlation", "of the prediction with the responses in single trials"),
    "fev": ("FEV", "fraction of explainable variance explained, against the true rates"),
    "feve": ("FEVE", "fraction of explainable variance explained, corrected for noise"),
    "explainable_variance": ("Explainable variance", "share of the variance that repeats with the image"),
    "normalized_noise_power": ("Normalised noise power", "noise variance over total variance"),
    "oracle": ("Oracle", "correlation of each trial with the mean of the others"),
    "normalized_correlation": ("Normalised correlation", "correlation over the noise ceiling"),
    "noise_ceiling": ("Noise ceiling", "the correlation that a perfect model would reach"),
    "log_likelihood_bits_per_spike": ("Bits per spike", "Poisson log-likelihood over that of the mean rate"),
}


def score_labels() -> dict[str, dict[str, Any]]:
    """What each score is called, what it means, and whether models can be compared by it."""
    return {
        name: {"label": label, "meaning": meaning, "compared": SCORES[name].of_predictions}
        for name, (label, meaning) in _WORDS.items()
    }


def recording_facts(explored: Explored) -> list[list[str]]:
    """Name and value of what is known of the recording; of several runs' recordings the first that is known."""
    facts = next((run.facts["recording"] for run in explored.runs if run.facts), None)
    channels, height, width = explored.runs[0].image_shape
    size = f"{height} × {width} pixels" + (f", {channels} channels" if channels > 1 else "")
    if facts is None:
        return [["Neurons", f"{len(explored.runs[0].neurons):,}"], ["Images", size]]
    found = [["Neurons", f"{facts['n_neurons']:,}"], ["Images", f"{facts['n_images']:,}, {size}"]]
    if "n_test_images" in facts:
        low, high = facts["repeats_min"], facts["repeats_max"]
        repeats = f"{low}" if low == high else f"{low} to {high}"
        found.append(["Test images", f"{facts['n_test_images']:,}, shown {repeats} time{'s'[: high > 1]}"])
    else:
        found.append(["Test images", "none"])
    if facts.get("reliability") is not None:
        found.append(["Reliability", f"{facts['reliability']:.2f} (median share of variance that repeats)"])
    known = next((run.metadata for run in explored.runs if not run.metadata.empty), pd.DataFrame())
    common = [f"{name} {_short(column.iloc[0])}" for name, column in known.items() if is_common(column)]
    return [*found, ["All neurons", ", ".join(common)]] if common else found


def facts_of(run: ExploredRun) -> list[list[Any]]:
    """Name and value of what a run was made with."""
    found: list[list[Any]] = [
        ["Model", run.model],
        ["Seed", str(run.seed)],
        ["Ended", _ENDED.get(run.stopped, run.stopped)],
    ]
    versions = run.facts.get("versions", {})
    if versions:
        found.append(["Versions", ", ".join(f"{name} {number}" for name, number in versions.items())])
    return found


def _short(value: Any) -> str:
    """Whole numbers without decimals: those of a table with gaps are floats.

    >>> _short(5.0), _short(0.25), _short("V1")
    ('5', '0.25', 'V1')
    """
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def is_common(column: pd.Series) -> bool:
    """Whether all neurons, two or more, have the same in a column: that is a fact of the recording."""
    return len(column) > 1 and bool(column.notna().all()) and column.nunique() == 1


_ENDED = {
    "converged": "converged",
    "solved": "solved exactly",
    "max_steps": "at the limit of steps",
    "interrupted": "interrupted",
}
