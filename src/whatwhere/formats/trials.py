"""A recording as one list of trials: the rows fitted to in their order, then the trials of its test set."""

import numpy as np

from whatwhere.recording import Recording


def tiers(recording: Recording) -> np.ndarray:
    """Each trial's tier, "train", "validation" or "test", (n_trials,)."""
    chosen = np.zeros(recording.n_images, bool) if recording.validation is None else recording.validation
    n_test = 0 if recording.test is None else recording.test.n_trials
    return np.concatenate([np.where(chosen, "validation", "train"), np.full(n_test, "test")]).astype("U10")


def image_ids(recording: Recording) -> np.ndarray:
    """Each trial's image, (n_trials,): the recording's ids, or row numbers; test images get others that ascend."""
    ids = np.arange(recording.n_images) if recording.image_ids is None else recording.image_ids
    if recording.test is None:
        return ids
    n_test = recording.test.n_images
    if ids.dtype.kind == "U":
        stem = "test"
        while any(name.startswith(stem) for name in ids):
            stem += "_"
        own = np.array([f"{stem}{number:0{len(str(n_test))}}" for number in range(n_test)])
    elif recording.image_ids is None:
        own = recording.n_images + np.arange(n_test)
    else:
        own = np.setdiff1d(np.arange(len(ids) + n_test), ids)[:n_test]
        small = own.max() <= np.iinfo(ids.dtype).max
        own = own.astype(ids.dtype if small else np.result_type(ids.dtype, np.min_scalar_type(own.max())))
    return np.concatenate([ids, own[recording.test.image_index]])
