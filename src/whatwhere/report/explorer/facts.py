"""Facts and names in words, for the page."""

from typing import Any

from whatwhere.exploration import Explored, ExploredRun

_LABELS = {
    "correlation": "Correlation",
    "single_trial_correlation": "Single-trial correlation",
    "fev": "FEV",
    "feve": "FEVE",
    "explainable_variance": "Explainable variance",
    "normalized_noise_power": "Normalised noise power",
    "oracle": "Oracle",
    "normalized_correlation": "Normalised correlation",
    "noise_ceiling": "Noise ceiling",
    "log_likelihood_bits_per_spike": "Bits per spike",
}
_MEANINGS = {
    "correlation": "of the prediction with the response averaged over repeats",
    "single_trial_correlation": "of the prediction with the responses in single trials",
    "fev": "fraction of explainable variance explained, against the true rates",
    "feve": "fraction of explainable variance explained, corrected for noise",
    "explainable_variance": "share of the variance that repeats with the image",
    "normalized_noise_power": "noise variance over total variance",
    "oracle": "correlation of each trial with the mean of the others",
    "normalized_correlation": "correlation over the noise ceiling",
    "noise_ceiling": "the correlation that a perfect model would reach",
    "log_likelihood_bits_per_spike": "Poisson log-likelihood over that of the mean rate",
}


def score_labels() -> dict[str, dict[str, str]]:
    """What each score is called, and what it means."""
    return {name: {"label": label, "meaning": _MEANINGS[name]} for name, label in _LABELS.items()}


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
    return found


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


_ENDED = {
    "converged": "converged",
    "solved": "solved exactly",
    "max_steps": "at the limit of steps",
    "interrupted": "interrupted",
}
