"""Kernels back to the middle of their window, and the places of the posterior readout the other way."""

import torch
from torch import Tensor

from whatwhere.model import Model
from whatwhere.readouts import PosteriorReadout


@torch.no_grad()
def recentre(model: Model) -> None:
    """Moves the kernels of a core of one layer to the middle of their window, and the posterior the other way.

    A kernel shifted one way and its places the other are the same model, but a kernel off the middle is cropped.
    """
    core, readout = model.core, model.readout
    assert isinstance(readout, PosteriorReadout)
    if len(core.layers) > 1:
        return
    kernels = core.layers[0].spatial_kernels()
    shift = _off_centre(kernels)
    if not any(shift):
        return
    kernels.copy_(_shifted(kernels, (-shift[0], -shift[1])))
    moved = _shifted(readout.posterior, shift)
    total = moved.sum((1, 2, 3), keepdim=True)
    readout.set_posterior(torch.where(total > 0.5, moved / total.clamp(min=0.5), readout.posterior))


def _off_centre(kernels: Tensor) -> tuple[int, int]:
    """Rows and columns from the middle to the centre of mass of the squared kernels, whole pixels."""
    energy = kernels.square()
    energy = (energy / energy.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)).sum((0, 1))
    energy = energy / energy.sum().clamp(min=1e-12)
    rows, columns = (torch.arange(size).to(energy) - (size - 1) / 2 for size in energy.shape)
    return round((energy.sum(1) @ rows).item()), round((energy.sum(0) @ columns).item())


def _shifted(values: Tensor, shift: tuple[int, int]) -> Tensor:
    """The last two dimensions moved by whole pixels, zeros where nothing came from."""
    out = values.roll(shift, (-2, -1))
    for axis, by in zip((-2, -1), shift, strict=True):
        size = values.shape[axis]
        gone = range(min(by, size)) if by > 0 else range(max(size + by, 0), size)
        out.index_fill_(axis, torch.tensor(list(gone), dtype=torch.int64, device=values.device), 0.0)
    return out
