"""Kernels back to the middle of their window, and the places of the posterior readout the other way."""

from collections.abc import Sequence

import torch

from whatwhere.alignment import off_centre, shifted
from whatwhere.model import Model
from whatwhere.readouts import PosteriorReadout


@torch.no_grad()
def recentre(model: Model, members: Sequence[Model] = ()) -> None:
    """Moves the kernels of a core of one layer to the middle of their window, and the posterior the other way.

    A kernel shifted one way and its places the other are the same model, but a kernel off the middle is cropped.
    members: all the models that have this core, where there are several. A frozen core stays where it is.
    """
    core = model.core
    if len(core.layers) > 1 or model.frozen:
        return
    kernels = core.layers[0].spatial_kernels()
    shift = off_centre(kernels)
    if not any(shift):
        return
    kernels.copy_(shifted(kernels, (-shift[0], -shift[1])))
    for member in members or (model,):
        readout = member.readout
        assert isinstance(readout, PosteriorReadout)
        moved = shifted(readout.posterior, shift)
        total = moved.sum((1, 2, 3), keepdim=True)
        readout.set_posterior(torch.where(total > 0.5, moved / total.clamp(min=0.5), readout.posterior))
