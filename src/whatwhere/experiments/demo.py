"""The demonstration: two simulated cell types, fitted, and what was found set beside the truth."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.config import PenaltyOptions
from whatwhere.estimators import FactorizedCNN, Observer
from whatwhere.metrics import ScoreTable
from whatwhere.presets import SIMULATION
from whatwhere.recording import Recording
from whatwhere.run_data import data_of, keep_data
from whatwhere.runs import write_metrics, write_run
from whatwhere.simulation import location_errors, simulate, simulate_population, type_accuracy

IMAGE_SIZE = (36, 48)
N_NEURONS, N_IMAGES = 100, 4096
MAX_STEPS = 6000


@dataclass(frozen=True)
class DemoResult:
    """The fitted model, the simulation it was fitted to, and how well it found the truth.

    location_errors: (n_neurons,) pixels, after the offset that each feature channel leaves open.
    """

    model: FactorizedCNN
    recording: Recording
    scores: ScoreTable
    location_errors: np.ndarray
    type_accuracy: float

    def metrics(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        fev = self.scores.summary["fev"]
        return {
            "fev": fev["mean"],
            "fev_low": fev["low"],
            "fev_high": fev["high"],
            "location_error_median": float(np.median(self.location_errors)),
            "location_error_mean": float(np.mean(self.location_errors)),
            "type_accuracy": self.type_accuracy,
            "n_neurons": self.recording.n_neurons,
            "n_images": self.recording.n_images,
        }

    def story(self) -> str:
        """The result in words."""
        found = self.metrics()
        return (
            f"{found['n_neurons']} neurons of two types, {found['n_images']:,} images of {IMAGE_SIZE[0]} x"
            f" {IMAGE_SIZE[1]} pixels of white noise, a fifth of them for validation; mean rate 0.1, noise of variance"
            " |r| as in the paper.\n"
            f"FEV (fraction of explainable variance explained): {found['fev']:.3f} [{found['fev_low']:.3f},"
            f" {found['fev_high']:.3f}]\n"
            f"location error: median {found['location_error_median']:.2f} pixels, mean"
            f" {found['location_error_mean']:.2f}\n"
            f"neurons told apart by type: {found['type_accuracy']:.0%}"
        )


def run_demo(
    folder: Path,
    *,
    seed: int = 0,
    n_neurons: int = N_NEURONS,
    n_images: int = N_IMAGES,
    max_steps: int = MAX_STEPS,
    observer: Observer | None = None,
) -> DemoResult:
    """Simulates, fits, scores, and writes the run with its `metrics.json` into `folder`.

    The paper's schedule with three times its learning rate, and without counting checks at first: it takes a while
    until two kernels that start alike have each found a type.
    """
    population = simulate_population(n_neurons, image_size=IMAGE_SIZE, seed=seed)
    recording = simulate(population, n_images, seed=seed)
    model = FactorizedCNN(
        "simulation",
        core=replace(SIMULATION.core, n_maps=2),
        penalties=PenaltyOptions(mask_l1=0.1),
        training=replace(SIMULATION.training, learning_rate=3e-3, patience=10, patience_from=1500, max_steps=max_steps),
        seed=seed,
    )
    model.fit(recording, observer=observer)
    scores = model.evaluate(recording)
    features = np.abs(model.feature_weights_)
    truth = recording.neurons[["row", "column"]].to_numpy()
    result = DemoResult(
        model,
        recording,
        scores,
        location_errors(model.locations_, truth, features.argmax(1)),
        type_accuracy(features, recording.neurons["type"]),
    )
    keep_data(data_of(model, recording, "whatwhere demo" if seed == 0 else f"whatwhere demo --seed {seed}"), folder)
    write_run(model, scores, folder)
    write_metrics(result.metrics(), folder)
    return result
