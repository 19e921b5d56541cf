"""The tables of a comparison: models, their paired differences, neurons, and the learning curve."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pandas as pd

from whatwhere.comparison.fits import Judged
from whatwhere.metrics import ScoreTable, holm, interval_over_neurons, paired_difference

MAIN = "correlation"
"""The score that decides: correlation with the repeat-averaged response (Table 1 of the paper)."""
OTHERS = ("feve", "fev", "log_likelihood_bits_per_spike", "single_trial_correlation", "normalized_correlation")
ENSEMBLE = "-ensemble"

RESULT_COLUMNS = ("model", "score", "low", "high", "n_neurons", "n_images", "seeds", "seed_sd", "seconds", "strengths")
DIFFERENCE_COLUMNS = ("model", "minus", "score", "mean", "low", "high", "level", "n", "n_left_out", "p_value", "p_holm")
CURVE_COLUMNS = ("model", "n_images", "seed", "score", "low", "high")


def ensemble_name(name: str) -> str:
    """What the mean of a model's seeds is called.

    >>> ensemble_name("factorized")
    'factorized-ensemble'
    """
    return name + ENSEMBLE


def seed_mean(runs: Sequence[Judged], score: str) -> np.ndarray | None:
    """Each neuron's score, averaged over seeds, (n_neurons,); None where there is no such score."""
    found = [
        run.scores.neurons[score].to_numpy() for run in runs if run.scores is not None and score in run.scores.neurons
    ]
    return np.mean(found, axis=0) if found else None


def results_table(models: dict[str, list[Judged]], ensembles: dict[str, ScoreTable]) -> pd.DataFrame:
    """One row a model, below it one for the ensemble of its seeds where there are several.

    - `score`, `low`, `high`: the mean over neurons of the main score, averaged over seeds neuron by neuron, with its
      interval over neurons; the same for every other score that the recording allows, `feve`, `feve_low`, `feve_high`
    - `seeds`: how many; `seed_sd`: standard deviation over seeds of the mean score (n - 1 in the denominator), empty
      for one
    - `seconds`: of all fits together; `strengths`: those chosen, by seed with | between where they differ
    """
    rows = []
    for name, runs in models.items():
        rows.append({"model": name, **_scores(runs), **_of_fits(runs)})
        if name in ensembles:
            neurons = ensembles[name].neurons
            scores = {score: neurons[score].to_numpy() for score in (MAIN, *OTHERS) if score in neurons}
            row = {**_of_fits(runs), "seed_sd": np.nan}
            rows.append({"model": ensemble_name(name), **_means(scores), **row})
    table = pd.DataFrame(rows)
    rest = [column for column in table if column not in RESULT_COLUMNS]
    return table.reindex(columns=[*RESULT_COLUMNS, *rest])


def _scores(runs: Sequence[Judged]) -> dict[str, float]:
    means = {score: seed_mean(runs, score) for score in (MAIN, *OTHERS)}
    return _means({score: values for score, values in means.items() if values is not None})


def _means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    row: dict[str, float] = {}
    for score, values in scores.items():
        interval = interval_over_neurons(values, n_resamples=1000)  # as in each run's summary
        names = ("score", "low", "high") if score == MAIN else (score, f"{score}_low", f"{score}_high")
        row.update(zip(names, (interval.mean, interval.low, interval.high), strict=True))
        if score == MAIN:
            row["n_neurons"] = interval.n
    return row


def _of_fits(runs: Sequence[Judged]) -> dict[str, object]:
    """What there is to say of the fits of one model."""
    means = [run.scores.summary[MAIN]["mean"] for run in runs if run.scores is not None]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    strengths = [run.strengths for run in runs]
    return {
        "n_images": runs[0].fit.recording.n_images,
        "seeds": len(runs),
        "seed_sd": float(np.std(np.array(means, float), ddof=1)) if len(means) > 1 else np.nan,
        "seconds": sum(seconds) if len(seconds) == len(runs) else np.nan,
        "strengths": strengths[0] if len(set(strengths)) == 1 else " | ".join(strengths),
    }


def differences_table(models: dict[str, list[Judged]]) -> pd.DataFrame:
    """Every pair of models, in order: the mean over neurons of the first's main score minus the second's.

    `low`, `high`: its interval over neurons; `p_value`: Wilcoxon's; `p_holm`: corrected for the number of pairs. A
    model of several seeds counts with each neuron's mean over them; ensembles, which cost several fits, are left out.
    """
    scores = {name: values for name, runs in models.items() if (values := seed_mean(runs, MAIN)) is not None}
    rows = []
    for (first, ours), (second, theirs) in combinations(scores.items(), 2):
        found = paired_difference(ours, theirs)
        about = {"model": first, "minus": second, "score": MAIN}
        rows.append({**about, **asdict(found.difference), "p_value": found.p_value})
    table = pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))
    table["p_holm"] = holm(table["p_value"].to_numpy(float))
    return table


def neurons_table(
    models: dict[str, list[Judged]], ensembles: dict[str, ScoreTable], neurons: Sequence[str]
) -> pd.DataFrame:
    """One row a neuron: its identifier, and its main score under each model (averaged over seeds) and ensemble."""
    columns: dict[str, object] = {"neuron": list(neurons)}
    for name, runs in models.items():
        values = seed_mean(runs, MAIN)
        if values is not None:
            columns[name] = values
        if name in ensembles:
            columns[ensemble_name(name)] = ensembles[name].neurons[MAIN].to_numpy()
    return pd.DataFrame(columns)


def curve_table(runs: Sequence[Judged]) -> pd.DataFrame:
    """One row a fit, of any number of images: its main score with its interval over neurons."""
    rows = []
    for run in runs:
        entry = {} if run.scores is None else run.scores.summary[MAIN]
        about = {"model": run.fit.name, "n_images": run.fit.recording.n_images, "seed": run.fit.seed}
        rows.append({**about, "score": entry.get("mean"), "low": entry.get("low"), "high": entry.get("high")})
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))
