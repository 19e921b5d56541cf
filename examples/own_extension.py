"""
A reader and a readout of your own
==================================

A format that only your lab has, and a readout that nobody has tried: each is one object under a name in a dict, and all
else (scores, comparison, runs, files) works with it as with those of the package.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import whatwhere as ww
from whatwhere import formats
from whatwhere.catalogue import MODELS
from whatwhere.config import ReadoutOptions
from whatwhere.errors import FormatError
from whatwhere.estimators import CNN
from whatwhere.formats.reader import Format, Item
from whatwhere.penalties import mean_l1
from whatwhere.presets import PRESETS
from whatwhere.readouts import READOUTS, Readout, Start
from whatwhere.readouts.base import draw_features
from whatwhere.simulation import simulate, simulate_population

# %%
# A reader
# --------
# A function from a path to a ``Recording``, one that says whether a path is of this kind, and one that lists what is
# there. What cannot be read raises ``FormatError``, naming the file and the remedy.

NAMES = ("frames.npy", "spikes.npy")


def recognises(path: Path) -> bool:
    """Whether this is a folder of our lab."""
    return path.is_dir() and (path / NAMES[0]).is_file()


def inspect(path: Path) -> list[Item]:
    """Each file, there or missing."""
    return [Item(name, "present" if (path / name).is_file() else "missing") for name in NAMES]


def read(path: Path, *, nonfinite: str = "error") -> ww.Recording:
    """``frames.npy`` (n_images, height, width) and ``spikes.npy`` (n_neurons, n_images): neurons first, at our lab."""
    missing = [item.name for item in inspect(path) if item.status == "missing"]
    if missing:
        raise FormatError(f"{path} holds no {', '.join(missing)}: copy it from the rig.")
    frames, spikes = (np.load(path / name, allow_pickle=False) for name in NAMES)
    return ww.Recording(frames, spikes.T, name=path.name, nonfinite=nonfinite)


formats.FORMATS["our-lab"] = Format("our-lab", "a folder with frames.npy and spikes.npy", recognises, read, inspect)

# %%
# Now every reader of recordings knows it:

rng = np.random.default_rng(0)
with TemporaryDirectory() as folder:
    session = Path(folder) / "tuesday"
    session.mkdir()
    np.save(session / NAMES[0], rng.integers(0, 256, (300, 16, 22), dtype=np.uint8))
    np.save(session / NAMES[1], rng.poisson(1.0, (5, 300)))
    print(ww.load(session))
    (session / NAMES[1]).unlink()
    print(formats.inspect(session).problem)

# %%
# A readout
# ---------
# The mean of a 3 x 3 patch around the place where the neuron's average peaks, times feature weights: a fixed mask that
# forgives a place that is one pixel off. It implements ``Readout``; ``strengths`` and ``choices`` name the options that
# it has, and any other that a user gives is refused.


class PatchReadout(Readout):
    """q_kijn = w_kn / 9 where (i, j) is at most one pixel from neuron n's peak, 0 elsewhere."""

    strengths: ClassVar[frozenset[str]] = frozenset({"feature_l1"})
    choices: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, n_neurons: int, map_shape: tuple[int, int, int], options: ReadoutOptions) -> None:
        super().__init__()
        self.n_neurons, self.map_shape = n_neurons, map_shape
        self.mask: Tensor
        self.register_buffer("mask", torch.zeros(n_neurons, *map_shape[1:]))
        self.weights = nn.Parameter(torch.full((n_neurons, map_shape[0]), 1.0 / map_shape[0]))

    def forward(self, maps: Tensor) -> Tensor:  # (n_images, K, h, w)
        features = maps.flatten(2) @ self.mask.flatten(1).T  # (n_images, K, n_neurons)
        return (features * self.weights.T).sum(1)  # (n_images, n_neurons)

    @torch.no_grad()
    def initialize(self, start: Start, generator: torch.Generator) -> None:
        """One patch around each peak, inside the map; weights carry the scale of the signal."""
        _, height, width = self.map_shape
        rows, columns = start.peaks.cpu() // width, start.peaks.cpu() % width
        for neuron, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            above, left = min(max(row - 1, 0), height - 3), min(max(column - 1, 0), width - 3)
            self.mask[neuron, above : above + 3, left : left + 3] = 1 / 9
        weights = draw_features(self.n_neurons, self.map_shape[0], start.features, generator)
        self.weights.copy_(weights * start.amplitudes.cpu()[:, None])

    def penalties(self, predictions: Tensor) -> dict[str, Callable[[], Tensor]]:
        """What each of ``strengths`` multiplies: a mean over neurons, so that it means the same for any number."""
        return {"feature_l1": lambda: mean_l1(self.weights)}

    def project(self) -> None:
        """No constraints."""

    def masks(self) -> Tensor:
        """*Where*, (n_neurons, h, w)."""
        return self.mask

    def positions(self) -> Tensor:
        """The patch's middle, (n_neurons, 2): row and column in pixels of the map."""
        _, height, width = self.map_shape
        rows, columns = (
            self.mask.sum(2) @ torch.arange(height).to(self.mask),
            self.mask.sum(1) @ torch.arange(width).to(self.mask),
        )
        return torch.stack([rows, columns], 1).double()

    def feature_weights(self) -> Tensor:
        """*What*, (n_neurons, K)."""
        return self.weights.detach()


class PatchCNN(CNN):
    """A shared core read at a 3 x 3 patch per neuron."""

    name: ClassVar[str] = "patch"


READOUTS["patch"] = PatchReadout
MODELS["patch"] = PatchCNN  # for load_model, compare and the command line
for of_model in PRESETS.values():
    of_model["patch"] = of_model["fixed-mask"]  # its defaults

# %%
# It is a model like any other: fitted, scored, saved and loaded.

population = simulate_population(20, image_size=(20, 28), kernel_size=9, size_factors=(0.5,), mean_rate=0.3, seed=0)
recording = simulate(population, 800, n_test_images=100, n_repeats=5, seed=0)
model = PatchCNN("simulation", core={"kernel_sizes": [9]}, training={"max_steps": 250}).fit(recording)
with TemporaryDirectory() as folder:
    again = ww.load_model(model.save(folder))
print(f"FEV {model.evaluate(recording).summary['fev']['mean']:.2f}")
print("the same after loading:", np.array_equal(again.predict(recording.images), model.predict(recording.images)))
