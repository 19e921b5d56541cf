"""A program for `test_parallel`: ten steps of every readout, shared by the processes asked for.

Arguments: the number of processes, and the file to write.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch

from whatwhere.config import (
    CoreOptions,
    ModelOptions,
    PenaltyOptions,
    ReadoutOptions,
    TrainingOptions,
)
from whatwhere.core import UnitBatchNorm
from whatwhere.model import Model, Shapes, initialize
from whatwhere.parallel import Parallel, join_processes
from whatwhere.standardisation import Standardisation
from whatwhere.stored_images import StoredImages
from whatwhere.training import TrainingData, train

L1, PLACES = PenaltyOptions(feature_l1=0.01), ReadoutOptions(locate_from=4, locate_every=3)
CASES = {
    "factorized": (PenaltyOptions(mask_l1=0.01, feature_l1=0.01), ReadoutOptions()),
    "fixed-mask": (L1, ReadoutOptions()),
    "fully-connected": (PenaltyOptions(weight_l2=0.1, activity_l1=0.1), ReadoutOptions()),
    "gaussian": (L1, ReadoutOptions()),
    "posterior": (L1, PLACES),
    "held": (L1, replace(PLACES, start="features", hold_features=3)),
    "held-masks": (
        PenaltyOptions(mask_l1=0.05, feature_l1=0.01),
        ReadoutOptions(hold_masks=7, locate_from=4, locate_every=2, mask_norm="unit"),
    ),
}
"""For each readout its penalties and options."""
SHAPES = Shapes(n_channels=2, height=12, width=17, n_neurons=6)


@contextmanager
def stored(images: torch.Tensor) -> Iterator[StoredImages]:
    """The images in a file, of which an epoch holds a part at once."""
    with tempfile.TemporaryDirectory() as folder, h5py.File(Path(folder) / "images.h5", "w") as file:
        file["images"] = images.numpy()
        as_they_are = Standardisation(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
        yield StoredImages(file["images"], np.arange(len(images)), as_they_are, torch.device("cpu"), 2**17)


def simulated() -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(210, 2, 12, 17, generator=generator)
    filters = torch.randn(2 * 12 * 17, 6, generator=generator) / 12
    responses = torch.poisson(torch.nn.functional.softplus(images.flatten(1) @ filters), generator=generator)
    return TrainingData(images[40:], responses[40:], images[:40], responses[:40])


def fitted(
    readout: str, data: TrainingData, parallel: Parallel, *, proximal: bool = False, compiled: bool = False
) -> dict[str, torch.Tensor]:
    """The state after ten steps of batches of 33 images, and the losses on the way."""
    penalties, choices = CASES[readout]
    if proximal:
        penalties = replace(penalties, mask_l1=0.05)
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5, 3), n_maps=3, padding=("valid", "same"), batch_norm_shift=True),
        readout=choices,
        penalties=replace(penalties, smoothness=0.1, group_sparsity=0.1),
        training=TrainingOptions(
            batch_size=33,
            max_steps=10,
            check_every=5,
            compile=compiled,
            proximal=proximal,
            whole_every=3 if proximal else 10,
        ),
    )
    model = Model({"held": "posterior", "held-masks": "factorized"}.get(readout, readout), options, SHAPES)
    initialize(model, data.images, data.responses, seed=0)
    if proximal:  # so sparse that steps are of the support alone
        with torch.no_grad():
            masks = model.readout.get_parameter("mask").flatten(1)
            masks *= masks >= masks.topk(4, 1).values[:, -1:]
    result = train(model, data, seed=1, parallel=parallel)
    losses = [[check.training_loss, check.validation_loss] for check in result.history[1:]]
    return {**{name: tensor.clone() for name, tensor in model.state_dict().items()}, "losses": torch.tensor(losses)}


def normalised(parallel: Parallel) -> dict[str, torch.Tensor]:
    """Maps under batch normalisation, with gradients: one map all 0 far from its running mean, one far from 0."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(13, 3, 5, 7, generator=generator)
    maps[:, 0], maps[:, 1] = 0.0, 10 + 0.2 * maps[:, 1]
    wanted = torch.randn(maps.shape, generator=generator)
    module = UnitBatchNorm(3, shift=True, momentum=0.1).train()
    module.parallel = parallel
    module.running_mean.copy_(torch.tensor([30.7, 0.0, 0.0]))
    start, stop, _ = parallel.part(len(maps))
    mine = maps[start:stop].requires_grad_()
    out = module(mine)
    (out * wanted[start:stop]).sum().backward()
    whole, gradient = torch.zeros(maps.shape), torch.zeros(maps.shape)
    whole[start:stop], gradient[start:stop] = out.detach(), mine.grad
    parallel.sum_([whole, gradient])
    scale = torch.tensor([1e-3, 0.2, 1.0]).view(3, 1, 1)  # of such a map the gradient is as much larger
    return {"maps": whole, "gradient": gradient * scale, "mean": module.running_mean, "variance": module.running_var}


def main(n_processes: int, path: str) -> None:
    parallel = join_processes(n_processes, 1, "cpu")
    torch.set_num_threads(1)
    data = simulated()
    found = {readout: fitted(readout, data, parallel) for readout in CASES}
    found["normalised"] = normalised(parallel)
    found["sparse"] = fitted("factorized", data, parallel, proximal=True)
    if shutil.which("g++"):
        found["compiled"] = fitted("gaussian", data, parallel, compiled=True)
    with stored(data.images[:]) as images:
        streamed = TrainingData(images, data.responses, data.validation_images, data.validation_responses)
        found["streamed"] = fitted("factorized", streamed, parallel)
    if parallel.first:
        np.savez(path, **{f"{case}/{name}": value.numpy() for case in found for name, value in found[case].items()})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
