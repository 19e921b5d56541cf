"""What the reader of a report should know before the numbers."""

from typing import Any

import numpy as np
import pandas as pd

from whatwhere.checks import some_of
from whatwhere.metrics.image_sums import ScoreOptions

FEW_IMAGES, FEW_TEST_IMAGES = 500, 20
UNRELIABLE = ScoreOptions.floor
"""Explainable variance, as a share of the total, below which a neuron is called unreliable; as the floor of FEVE."""


def attention(
    facts: dict[str, Any], stopped: str, neurons: list[str], scores: pd.DataFrame | None, locations: np.ndarray | None
) -> tuple[str, ...]:
    """One sentence for each thing that makes the scores, or what is drawn, mean less than they seem to."""
    found = [*_of_training(stopped), *_of_recording(facts)]
    if scores is not None:
        found += _of_scores(scores, neurons)
    if locations is not None and (nowhere := np.isnan(locations).any(1)).any():
        named = some_of(np.array(neurons)[nowhere])
        found.append(f"{_count(nowhere, neurons)} look nowhere, their masks are zero: {named}.")
    told = " ".join(found)
    return (*found, *(f"Note: {note}." for note in facts.get("notes", []) if note not in told))


def _of_training(stopped: str) -> list[str]:
    if stopped == "max_steps":
        return ["Training stopped at its limit of steps, so a longer one may fit better: raise training.max_steps."]
    if stopped == "interrupted":
        return ["The fit was interrupted: this is the best model until then."]
    return []


def _of_recording(facts: dict[str, Any]) -> list[str]:
    of = facts.get("recording")
    if of is None:
        return []
    found = []
    if of["n_constant_neurons"]:
        named = some_of(of["constant_neurons"])
        found.append(
            f"{of['n_constant_neurons']:,} of {of['n_neurons']:,} neurons never respond differently (dead or constant):"
            f" {named}."
        )
    if of["n_images"] < FEW_IMAGES:
        found.append(f"Few images: {of['n_images']:,} to fit and to validate. More would tell more.")
    if "n_test_images" not in of:
        return [*found, "No test set: nothing here was checked on images that the fit did not see."]
    if of["repeats_max"] == 1:
        found.append("No repeats: test images were shown once each, so noise cannot be told from what is explainable.")
    if of["n_test_images"] < FEW_TEST_IMAGES:
        found.append(f"Few test images: {of['n_test_images']:,}. Each neuron's scores are rough.")
    return found


def _of_scores(scores: pd.DataFrame, neurons: list[str]) -> list[str]:
    found = []
    if "explainable_variance" in scores:
        unreliable = scores["explainable_variance"].to_numpy(float) < UNRELIABLE
        if unreliable.any():
            found.append(
                f"{_count(unreliable, neurons)} respond unreliably: less than {UNRELIABLE:.0%} of their variance"
                " repeats with the image."
            )
    if "constant_prediction" in scores:
        constant = scores["constant_prediction"].to_numpy(bool)
        if constant.any():
            named = some_of(np.array(neurons)[constant])
            found.append(f"{_count(constant, neurons)} are predicted to respond the same to every image: {named}.")
    return found


def _count(which: np.ndarray, neurons: list[str]) -> str:
    return f"{int(which.sum()):,} of {len(neurons):,} neurons"
