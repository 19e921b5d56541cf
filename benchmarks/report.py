"""How large the report of very many neurons is, and how long it takes to make: python benchmarks/report.py.

Everything in it is drawn at random, and noise compresses badly: a real report is smaller. With `--neurons 10000`, the
default, it must stay below 25 MB.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from whatwhere.exploration import Cropped, Explored, ExploredRun, Posterior
from whatwhere.metrics import SCORES, interval_over_neurons
from whatwhere.report.explorer import write_report
from whatwhere.run_data import HeldResponses

HEIGHT, WIDTH, MASK, FEATURES, N_TEST, THUMBNAIL = 72, 128, 25, 32, 400, (27, 48)


def simulated(n_neurons: int, seed: int = 0) -> Explored:
    """One run of so many neurons with everything that a report can show."""
    rng = np.random.default_rng(seed)
    locations = rng.uniform([0, 0], [HEIGHT - 1, WIDTH - 1], (n_neurons, 2))
    edges = (locations - MASK / 2).astype(np.float32)
    correlation = rng.beta(4, 4, n_neurons)
    scores = pd.DataFrame({name: correlation * rng.uniform(0.8, 1.2, n_neurons) for name in SCORES})
    return Explored(f"{n_neurons:,} simulated neurons", (_run(rng, n_neurons, locations, edges, scores),), ())


def _run(
    rng: np.random.Generator, n_neurons: int, locations: np.ndarray, edges: np.ndarray, scores: pd.DataFrame
) -> ExploredRun:
    masks, posterior = _masks(rng, n_neurons, edges)
    steps = np.arange(0, 5000, 50)
    loss = np.exp(-steps / 800) + 0.4
    intervals = {name: interval_over_neurons(scores[name], n_resamples=100) for name in scores}
    types = pd.DataFrame({"type": rng.choice(["on", "off", "gabor"], n_neurons), "confidence": rng.random(n_neurons)})
    return ExploredRun(
        name="simulated",
        model="posterior",
        neurons=tuple(f"cell {number}" for number in range(n_neurons)),
        image_shape=(1, HEIGHT, WIDTH),
        locations=locations,
        masks=masks,
        posterior=posterior,
        feature_weights=rng.normal(size=(n_neurons, FEATURES)),
        kernels=rng.normal(size=(FEATURES, 1, 9, 9)),
        kernels_are_features=False,
        field=Cropped(rng.normal(size=(n_neurons, 1, MASK, MASK)).astype(np.float32), edges),
        field_name="linearised field",
        exciting=rng.normal(size=(n_neurons, 1, HEIGHT // 4, WIDTH // 4)).astype(np.float32),
        scores=scores,
        summary={name: {"mean": i.mean, "low": i.low, "high": i.high} for name, i in intervals.items()},
        types=types,
        metadata=pd.DataFrame({"depth": rng.uniform(100, 500, n_neurons)}),
        held=_held(rng, n_neurons),
        history=pd.DataFrame(
            {
                "candidate": 0,
                "step": steps,
                "learning_rate": 1e-3,
                "training_loss": loss,
                "validation_loss": loss + 0.05,
            }
        ),
        facts={},
        attention=("Everything here is drawn at random.",),
        absent=(),
        settings="model: posterior\n",
        seed=0,
        stopped="converged",
        command="python benchmarks/report.py",
        command_is_exact=True,
    )


def _masks(rng: np.random.Generator, n_neurons: int, edges: np.ndarray) -> tuple[Cropped, Posterior]:
    """Gaussian masks with a little noise, and the same as probabilities."""
    grid = np.arange(MASK) - MASK // 2
    widths = rng.uniform(1, 4, (n_neurons, 1, 1))
    values = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * widths**2))[:, None].astype(np.float32)
    values *= 1 + 0.2 * rng.normal(size=values.shape).astype(np.float32)
    sums = values.sum((1, 2, 3), keepdims=True)
    probability, region = Cropped(values / sums, edges), values > 0.2
    entropy, highest = rng.uniform(0, 4, n_neurons), probability.values.max((1, 2, 3))
    return Cropped(values, edges), Posterior(probability, region, region.sum((1, 2, 3)), entropy, 0.9, highest)


def _held(rng: np.random.Generator, n_neurons: int) -> HeldResponses:
    rates = rng.gamma(1.0, 1.0, (N_TEST, n_neurons)).astype(np.float32)
    noise = rng.normal(size=rates.shape).astype(np.float32)
    thumbnails = rng.integers(0, 255, (N_TEST, 1, *THUMBNAIL)).astype(np.uint8)
    errors = np.full_like(rates, 0.3)
    every = np.arange(N_TEST)
    return HeldResponses(every, N_TEST, rates, rates + 0.5 * noise, errors, np.full(N_TEST, 10), every, thumbnails)


def main() -> None:
    """Makes the report and prints its size and the seconds that it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("report-benchmark.html"))
    arguments = parser.parse_args()
    explored = simulated(arguments.neurons)
    began = time.perf_counter()
    path = write_report(explored, arguments.out)
    seconds = time.perf_counter() - began
    print(f"{arguments.neurons:,} neurons: {path}, {path.stat().st_size / 1e6:.1f} MB, made in {seconds:.1f} s")


if __name__ == "__main__":
    main()
