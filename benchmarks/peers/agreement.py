"""Whether another library's network computes what ours does: predictions, loss and gradients, from the same values."""

import torch
from agreement import N_IMAGES
from torch import Tensor

from peers.networks import Peer
from whatwhere.gradients import backpropagate


def difference(peer: Peer, images: Tensor, responses: Tensor) -> float:
    """The largest relative difference over `N_IMAGES` images in float64: of predictions, loss and gradients.

    Of predictions and of each parameter's gradient: max |a - b| / max |b|; a gradient of theirs is taken back to ours
    through the map that made theirs. Of the Gaussian readout nothing is drawn, and places lie between pixels, where
    interpolation has a derivative.
    """
    images, responses = images[:N_IMAGES].double(), responses[:N_IMAGES].double()
    ours, theirs = peer.ours.double().train(), peer.network.double().train()
    if hasattr(ours.readout, "spread"):
        _settle(peer)
    predictions = theirs(images)
    loss, penalty = theirs.loss(predictions, responses)
    (loss + penalty).backward()
    our_loss = backpropagate(ours, [images], [responses])
    found = [abs(our_loss.item() / loss.item() - 1), _relative(ours(images), predictions)]
    for each in peer.handed:
        if each.compared:
            _, back = torch.autograd.functional.vjp(each.convert, each.ours.detach(), each.theirs.grad)
            found.append(_relative(each.ours.grad, back))
    return max(found)


@torch.no_grad()
def _settle(peer: Peer) -> None:
    """Each neuron at one place, anywhere in the map."""
    readout = peer.ours.readout
    _, height, width = readout.map_shape
    places = torch.rand(readout.n_neurons, 2, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    readout.move_to(places.double() * torch.tensor([height - 1, width - 1]))
    readout.spread.zero_()
    peer.hand_over()


@torch.no_grad()
def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()
