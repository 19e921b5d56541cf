"""Epochs of images read from disk beside epochs of the same images in memory, in turn, in one process.

`python benchmarks/streaming.py [--images N] [--memory MIB] [--epochs N]` writes a recording of noise into a temporary
folder, asks the system to forget its copy before each epoch, and prints seconds of both and their ratio.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from workloads import WORKLOADS, make_model

from whatwhere.standardisation import Standardisation
from whatwhere.stored_images import StoredImages
from whatwhere.training import Trainer, TrainingData

_AS_IT_IS = Standardisation(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))


def main() -> None:
    """Epochs in turn, in memory and stored."""
    options = _options()
    torch.set_num_threads(options.threads)
    workload = WORKLOADS["2"]
    shapes = workload.shapes
    rng = np.random.default_rng(0)
    responses = torch.from_numpy(rng.exponential(size=(options.images, shapes.n_neurons)).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.h5"
        _write(path, (options.images, shapes.n_channels, shapes.height, shapes.width))
        with h5py.File(path) as file:
            rows = np.arange(options.images)
            memory = options.memory * 2**20
            stored = StoredImages(file["images"], rows, _AS_IT_IS, torch.device("cpu"), memory)
            held = stored[:]
            _forget(path)
            trainers = {}
            for name, images in (("memory", held), ("disk", stored)):
                data = TrainingData(images, responses, held[:64], responses[:64])
                trainers[name] = Trainer(make_model(workload), data, seed=0)
                trainers[name].model.train()
            seconds: dict[str, list[float]] = {name: [] for name in trainers}
            for _ in range(options.epochs):
                for name, trainer in trainers.items():
                    _forget(path)
                    start = time.perf_counter()
                    for _ in range(trainer.batches.n_batches):
                        trainer.step()
                    seconds[name].append(time.perf_counter() - start)
                    trainer.batches.close()  # nothing is read while the other is timed
    size = held.nbytes / 2**20
    print(f"{options.images:,} images of {size:,.0f} MiB, {options.memory} MiB of them held; {options.threads} threads")
    for name, each in seconds.items():
        print(f"{name:<7}" + "".join(f"{one:8.1f}" for one in each) + "   seconds an epoch")
    print(f"ratio of the sums {sum(seconds['disk']) / sum(seconds['memory']):.3f}")


def _write(path: Path, shape: tuple[int, ...]) -> None:
    """Noise, in chunks of 256 KiB as `whatwhere.save` writes them."""
    rng = np.random.default_rng(1)
    each = max(1, 2**18 // (4 * int(np.prod(shape[1:]))))
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", shape, np.float32, chunks=(each, *shape[1:]))
        for start in range(0, shape[0], 1024):
            some = min(1024, shape[0] - start)
            images[start : start + some] = rng.standard_normal((some, *shape[1:]), np.float32)


def _forget(path: Path) -> None:
    """Asks the system to drop its copy of the file, so that the disk is read."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Epochs of images on disk beside epochs of images in memory.")
    parser.add_argument("--images", type=int, default=8192, help="of 44 x 44 x 3 (8192)")
    parser.add_argument("--memory", type=int, default=32, help="MiB held of stored images (32)")
    parser.add_argument("--epochs", type=int, default=2, help="of each (2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: one a core")
    return parser.parse_args()


if __name__ == "__main__":
    main()
