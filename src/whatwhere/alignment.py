"""What neurons share once each is seen from its own place, found from spike-triggered averages alone.

Before anything is fitted, kernels and places are unknown, and each needs the other. Averages are cheap: from a soft
guess of the places follow the kernels that most neurons see there, from those the places that match them best, and so
on.
"""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from whatwhere.initialisation import resample, smoothed_energy
from whatwhere.stored_responses import Responses, std_of

_CHUNK = 1024
_MOST_NEURONS = 256
"""Neurons that the starts are compared on."""

_GUESSES = (1.0, 0.6, 1.4)
"""Starts differ in the extent of the first guess, relative to the one given."""

_ROUNDS = 10
_BLUR = 1 / 17
"""Kernels are smooth: each is blurred by this share of its side, in every round."""


def chance_scores(averages: Tensor, deviations: Tensor, responses: Responses) -> Tensor:
    """The averages over the standard deviation that they have where responses do not depend on images.

    averages: (n_neurons, C, H, W) of these responses (n_images, n_neurons); deviations: of the pixels that they are
    averages of, (C, H, W). 0 for silent neurons and constant pixels.
    """
    chance = std_of(responses)[:, None, None, None] * deviations / len(responses) ** 0.5
    return torch.where(chance > 0, averages / chance.clamp(min=1e-12), 0.0)


def start_probabilities(
    scores: Tensor, map_size: tuple[int, int], offset: tuple[float, float], smoothing: float
) -> Tensor:
    """How probable each pixel of the map is as a neuron's place before anything is fitted: (n_neurons, h, w).

    scores: (n_neurons, C, H, W), averages in units of their own chance deviation (`chance_scores`). The log odds of a
    place are the sum of (score^2 - 1) / 2 over the pixels under its Gaussian: what white images would say of a filter
    of which only the extent is known. map_size, offset, smoothing: as in `mask_peaks`.
    """
    area = max(1.0, 2 * np.pi * smoothing**2)  # pixels under the Gaussian
    energy = smoothed_energy(scores, smoothing)
    energy -= smoothed_energy((scores != 0).to(scores), smoothing)  # its mean by chance, 0 where nothing varies
    for axis, (start, size) in enumerate(zip(offset, map_size, strict=True), start=1):
        energy = resample(energy, start, size, axis)
    odds = torch.from_numpy(0.5 * area * energy).double().flatten(1)
    return torch.softmax(odds, 1).view(-1, *map_size).to(scores)


def aligned_components(scores: Tensor, places: Tensor, n_components: int) -> Tensor:
    """What neurons have in common around their places: (n_components, C, kh, kw), of norm one, the strongest first.

    scores: (n_neurons, C, h + kh - 1, w + kw - 1); places: (n_neurons, h, w), probabilities. p_n(u) = sum_l places_n(l)
    scores_n(l + u) is a neuron's average as seen from its place; these are the leading principal components of all
    p_n, not centred, so that neurons of opposite sign share one. Its sign is that of most neurons. As many as there are
    neurons or pixels at most, and none of averages that are zero.
    """
    height, width = (scores.shape[axis] - places.shape[axis - 1] + 1 for axis in (2, 3))  # of the kernels
    size = scores.shape[-2:]
    patches = []
    for some, at in zip(scores.split(_CHUNK), places.split(_CHUNK), strict=True):
        products = torch.fft.rfft2(some) * torch.fft.rfft2(at, s=size).conj()[:, None]
        patches.append(torch.fft.irfft2(products, s=size)[..., :height, :width].flatten(1))
    seen = torch.cat(patches)  # (n_neurons, C * kh * kw)
    if not seen.any():
        return seen.new_zeros((0, *scores.shape[1:2], height, width))
    components = torch.linalg.svd(seen, full_matrices=False).Vh[:n_components]
    signs = torch.where((seen @ components.T).sum(0) < 0, -1.0, 1.0)
    return (components * signs[:, None].to(components)).view(-1, scores.shape[1], height, width)


def shared_kernels(
    scores: Tensor, kernel_size: tuple[int, int], smoothing: float, n_kernels: int
) -> tuple[Tensor, Tensor]:
    """Kernels (n_kernels, C, kh, kw) and places (n_neurons, h, w) that explain each other, from the averages alone.

    scores: (n_neurons, C, h + kh - 1, w + kw - 1), see `chance_scores`; smoothing: as in `start_probabilities`. Rounds
    of `aligned_components` and `matched`, from guesses of several extents on the neurons that say most; the start
    whose kernels match best goes on with all neurons. Kernels shifted one way and places the other match as well, but
    kernels off the middle are cropped, so they are moved there. They are orthonormal, but for what that move cuts off;
    fewer where there is nothing to see.
    """
    offset = (kernel_size[0] - 1) / 2, (kernel_size[1] - 1) / 2
    map_size = scores.shape[2] - kernel_size[0] + 1, scores.shape[3] - kernel_size[1] + 1
    strength = torch.from_numpy(smoothed_energy(scores, smoothing)).flatten(1).amax(1)
    some = scores[strength.topk(min(len(scores), _MOST_NEURONS)).indices.sort().values]
    starts = []
    for guess in _GUESSES:
        places = start_probabilities(some, map_size, offset, guess * smoothing)
        starts.append(_alternated(some, places, n_kernels))
    kernels = max(starts, key=lambda start: start[1])[0]
    if not len(kernels):
        return kernels, start_probabilities(scores, map_size, offset, smoothing)
    kernels = _centred(kernels)
    kernels = _centred(_alternated(scores, matched(scores, kernels)[0], n_kernels)[0])
    return kernels, matched(scores, kernels)[0]


def _alternated(scores: Tensor, places: Tensor, n_kernels: int) -> tuple[Tensor, float]:
    """The kernels after some rounds from these places, and how well they match."""
    evidence = -np.inf
    for _ in range(_ROUNDS):
        kernels = _smooth(aligned_components(scores, places, n_kernels))
        if not len(kernels):
            break
        places, evidence = matched(scores, kernels)
    return kernels, evidence


def _centred(kernels: Tensor) -> Tensor:
    rows, columns = off_centre(kernels)
    return shifted(kernels, (-rows, -columns))


def _smooth(kernels: Tensor) -> Tensor:
    """Blurred, and orthonormal again: the same span, the order and sign kept as far as they can be."""
    height, width = kernels.shape[2:]
    blurred = gaussian_filter(kernels.cpu().numpy(), (0, 0, _BLUR * height, _BLUR * width), mode="constant")
    flat = torch.from_numpy(blurred).to(kernels).flatten(1)
    q, r = torch.linalg.qr(flat.T)
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0)).T.reshape(kernels.shape)


def matched(scores: Tensor, kernels: Tensor) -> tuple[Tensor, float]:
    """Where each neuron's average matches these kernels: probabilities (n_neurons, h, w), and their log evidence.

    kernels: (n_kernels, C, kh, kw), orthonormal, so that a place's log odds are half the squared length of the scores'
    projection on them: what white images say of a filter of this span and any strength.
    """
    size = scores.shape[-2:]
    height, width = (scores.shape[axis] - kernels.shape[axis] + 1 for axis in (2, 3))
    transformed = torch.fft.rfft2(kernels, s=size).conj()
    odds = []
    for some in scores.split(max(1, _CHUNK // len(kernels))):
        products = torch.einsum("nchw,kchw->nkhw", torch.fft.rfft2(some), transformed)
        odds.append(0.5 * torch.fft.irfft2(products, s=size)[..., :height, :width].square().sum(1).flatten(1))
    log_odds = torch.cat(odds)
    evidence = float(torch.logsumexp(log_odds, 1).double().sum())
    return torch.softmax(log_odds, 1).view(-1, height, width), evidence


def off_centre(kernels: Tensor) -> tuple[int, int]:
    """Rows and columns from the middle to the centre of mass of the squared kernels, whole pixels."""
    energy = kernels.square()
    energy = (energy / energy.sum((1, 2, 3), keepdim=True).clamp(min=1e-12)).sum((0, 1))
    energy = energy / energy.sum().clamp(min=1e-12)
    rows, columns = (torch.arange(size).to(energy) - (size - 1) / 2 for size in energy.shape)
    return round((energy.sum(1) @ rows).item()), round((energy.sum(0) @ columns).item())


def shifted(values: Tensor, shift: tuple[int, int]) -> Tensor:
    """The last two dimensions moved by whole pixels, zeros where nothing came from."""
    out = values.roll(shift, (-2, -1))
    for axis, by in zip((-2, -1), shift, strict=True):
        size = values.shape[axis]
        gone = range(min(by, size)) if by > 0 else range(max(size + by, 0), size)
        out.index_fill_(axis, torch.tensor(list(gone), dtype=torch.int64, device=values.device), 0.0)
    return out
