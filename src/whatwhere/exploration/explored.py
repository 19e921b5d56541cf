"""What a report shows of a run: plain arrays and tables, made by `collecting`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.run_data import HeldResponses


@dataclass(frozen=True, eq=False)
class Cropped:
    """Something of each neuron on the pixels around the place where it is.

    - values (n_neurons, n_channels, height, width), float32
    - edges (n_neurons, 2): row and column, in pixels of the image, of the upper left corner (not the centre) of the
      first value
    - step: pixels of the image from one value to the next
    - made (n_neurons,), bool: neurons that there is something of, the others have zeros; None: all
    """

    values: np.ndarray
    edges: np.ndarray
    step: int = 1
    made: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Posterior:
    """Where neurons may look, on the pixels of their masks' `Cropped`.

    - probability (n_neurons, 1, height, width); region, bool: the smallest set of pixels that holds `level` of it
    - region_pixels (n_neurons,): how many pixels that set has, beyond the crop too; entropy (n_neurons,), nats;
      highest (n_neurons,): probability of the most probable pixel, of the image as it is
    """

    probability: Cropped
    region: np.ndarray
    region_pixels: np.ndarray
    entropy: np.ndarray
    level: float
    highest: np.ndarray


@dataclass(frozen=True, eq=False)
class ExploredRun:
    """One fitted model and what is known of its recording; None or empty for what there is not.

    - name: of the run; model: of its kind, as on the command line; neurons: identifiers
    - image_shape: (n_channels, height, width)
    - locations (n_neurons, 2): row and column in pixels of the image, NaN for a neuron that looks nowhere
    - masks, posterior: where; feature_weights (n_neurons, K): what; kernels (n_kernels, n_channels, kh, kw) of the
      first layer, which are the features themselves where `kernels_are_features`
    - field: each neuron's linear filter or linearised field, called `field_name`
    - exciting (n_neurons, n_channels, height, width): the image that excites it most
    - scores: one row a neuron, one column a score; summary: each score's `mean`, `low`, `high` over neurons
    - types: columns `type` and `confidence`; metadata: the recording's own columns
    - held: predicted and observed responses
    - history: the course of the fit, or a loss for each strength
    - facts: see `run_data.describe`; empty where nothing of the recording is known
    - attention: what a reader should know first; absent: what is not shown, and why
    - settings: every option as YAML; command: what repeats the fit, `exact` where it is what began it, empty where
      none would; command_note: what to know of one that is not exact, or why there is none
    - fingerprint: of the recording as it was fitted, see `Recording.fingerprint`; empty where that is not known
    """

    name: str
    model: str
    neurons: tuple[str, ...]
    image_shape: tuple[int, int, int]
    locations: np.ndarray | None
    masks: Cropped | None
    posterior: Posterior | None
    feature_weights: np.ndarray | None
    kernels: np.ndarray | None
    kernels_are_features: bool
    field: Cropped | None
    field_name: str
    exciting: np.ndarray | None
    scores: pd.DataFrame | None
    summary: dict[str, dict[str, Any]]
    types: pd.DataFrame | None
    metadata: pd.DataFrame
    held: HeldResponses | None
    history: pd.DataFrame
    facts: dict[str, Any]
    attention: tuple[str, ...]
    absent: tuple[str, ...]
    settings: str
    seed: int
    stopped: str
    command: str
    command_is_exact: bool
    command_note: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class Difference:
    """A score of one run minus that of another, over the neurons that both have."""

    first: str
    minus: str
    score: str
    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, eq=False)
class Explored:
    """All that a report shows: runs, and each pair's differences."""

    title: str
    runs: tuple[ExploredRun, ...]
    differences: tuple[Difference, ...]
