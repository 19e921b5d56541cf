"""The demonstration's figures."""

from pathlib import Path

from matplotlib.figure import Figure

from whatwhere.core import map_offset
from whatwhere.estimators import Observer
from whatwhere.experiments.demo import MAX_STEPS, N_IMAGES, N_NEURONS, DemoResult, run_demo
from whatwhere.report import barcodes, history, kernels, masks_on_visual_field, predicted_against_true
from whatwhere.report.style import save_figures


def demo_figures(result: DemoResult) -> dict[str, Figure]:
    """Masks on the visual field, kernels, barcodes, predicted against true, and the course of the fit, by file name."""
    model, recording = result.model, result.recording
    neurons = recording.neurons
    assert recording.test is not None
    assert recording.test.rates is not None
    predictions = model.predict(recording.test.read_images())
    return {
        "masks": masks_on_visual_field(
            model.masks_,
            map_offset(model.options_.core),
            (recording.height, recording.width),
            model.locations_,
            true_locations=neurons[["row", "column"]].to_numpy(),
            types=neurons["type"].to_numpy(),
        ),
        "kernels": kernels(model.kernels_),
        "barcodes": barcodes(model.feature_weights_, types=neurons["type"].to_numpy()),
        "predicted-against-true": predicted_against_true(
            predictions, recording.test.rates, result.scores.neurons["fev"].to_numpy()
        ),
        "history": history(model.history_),
    }


def draw_demo(
    folder: Path,
    *,
    seed: int = 0,
    n_neurons: int = N_NEURONS,
    n_images: int = N_IMAGES,
    max_steps: int = MAX_STEPS,
    observer: Observer | None = None,
) -> tuple[DemoResult, list[Path]]:
    """Runs the demonstration and draws it; returns the result and the figures' files."""
    result = run_demo(folder, seed=seed, n_neurons=n_neurons, n_images=n_images, max_steps=max_steps, observer=observer)
    return result, save_figures(folder, {f"{name}.png": figure for name, figure in demo_figures(result).items()})
