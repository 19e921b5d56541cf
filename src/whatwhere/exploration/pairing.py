"""Whether two runs are of one recording, so that neurons of the same identifier are the same."""

import numpy as np

from whatwhere.errors import InputError
from whatwhere.exploration.explored import ExploredRun

_TOLERANCE = 1e-4  # of responses that another type of numbers kept


def check_one_recording(first: ExploredRun, other: ExploredRun, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises `InputError` where what the runs keep shows that they are of different recordings.

    They are of one where the fingerprints are equal, or the test images' observed responses of the neurons in common:
    runs of some of the neurons, or of some of the images, have other fingerprints. Where one keeps no responses the
    names of the recordings decide, and where those are not known either, nothing is refused.

    ours, theirs: positions of the same identifiers in both, (n_common,).
    """
    if first.fingerprint and first.fingerprint == other.fingerprint:
        return
    if first.held is not None and other.held is not None:
        differs = _of_test_responses(first, other, ours, theirs)
    else:
        names = [run.facts["recording"]["name"] if run.facts else None for run in (first, other)]
        differs = "" if None in names or names[0] == names[1] else f"they are called {names[0]} and {names[1]}"
    if differs:
        raise InputError(
            f"{first.name} and {other.name} are of different recordings: {differs}. Neurons of the same identifier are"
            " compared as one, which needs runs of one recording: make a report of each."
        )


def _of_test_responses(first: ExploredRun, other: ExploredRun, ours: np.ndarray, theirs: np.ndarray) -> str:
    """How the observed test responses differ, in words; empty where they do not."""
    one, two = first.held, other.held
    assert one is not None  # both were asked for
    assert two is not None
    if one.n_images != two.n_images:
        return f"they have {one.n_images:,} and {two.n_images:,} test images"
    _, rows, their_rows = np.intersect1d(one.rows, two.rows, return_indices=True)
    observed, their_observed = one.observed[np.ix_(rows, ours)], two.observed[np.ix_(their_rows, theirs)]
    size = float(np.abs(np.nan_to_num(observed)).max(initial=0.0))
    same = np.isclose(observed, their_observed, rtol=_TOLERANCE, atol=_TOLERANCE * size, equal_nan=True)
    unlike = np.flatnonzero(~same.all(0))
    if not len(unlike):
        return ""
    neuron = first.neurons[ours[unlike[0]]]
    return f"{len(unlike):,} of {len(ours):,} neurons in common, the first of them {neuron}, have other test responses"
