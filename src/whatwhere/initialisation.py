"""Initial values: spike-triggered averages, the pixel where each mask starts, and how large it starts."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from whatwhere.stored_images import Images
from whatwhere.stored_responses import Responses, mean_of

_CHUNK = 1024
_NUMBERS = 2**22
"""Of maps that are transformed at once."""

_RIDGE = 10.0
"""Power that decorrelation adds to every frequency, relative to the mean power of the images."""


def spike_triggered_averages(images: Images, responses: Responses) -> Tensor:
    """STA_n = mean_b (y_bn - mean y_n) (x_b - mean x): (n_neurons, n_channels, height, width).

    images: (n_images, n_channels, height, width), float; responses: (n_images, n_neurons). The result has the units
    of their product.
    """
    means = images.mean(0).flatten()
    mean_responses = mean_of(responses).to(responses[:1].dtype)
    total = mean_responses.new_zeros(len(mean_responses), means.numel())
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].flatten(1) - means
        total.addmm_((responses[start : start + _CHUNK] - mean_responses).T, chunk)
    return (total / len(images)).view(-1, *images.shape[1:])


def decorrelation(images: Tensor) -> Tensor:
    """The filter that takes from averages what images merely have in common: (C, C, H, W), by spatial frequency.

    Neighbouring pixels of a natural image are alike, so a spike-triggered average spreads far beyond what the neuron
    sees, and its peak may lie elsewhere. The remedy is ridge regression, (S + ridge I)^-1 at each frequency, with S
    the power of the images there (between channels, too), taken to be the same everywhere. It leaves averages of white
    images as they are. images: (n_images, C, H, W). See `filtered`.
    """
    means = images.mean(0)
    n_channels = images.shape[1]
    nothing = images.new_zeros(n_channels, n_channels, *images.shape[2:])
    power = torch.complex(nothing, nothing)
    for chunk in images.split(_few(images)):
        transformed = torch.fft.fft2(chunk - means)
        power += torch.einsum("bchw,bdhw->cdhw", transformed, transformed.conj())
    level = torch.einsum("cchw->chw", power).real.mean()
    one = torch.eye(n_channels, dtype=power.dtype, device=images.device)
    if level <= 0:  # constant images
        return one[:, :, None, None].expand_as(power)
    relative = (power / level).permute(2, 3, 0, 1)
    return ((1 + _RIDGE) * torch.linalg.inv(relative + _RIDGE * one)).permute(2, 3, 0, 1)


def filtered(maps: Tensor, kernel: Tensor) -> Tensor:
    """Maps (n, C, H, W) under a filter given by spatial frequency (C, C, H, W); circular."""
    out = [
        torch.fft.ifft2(torch.einsum("cdhw,bdhw->bchw", kernel, torch.fft.fft2(chunk))).real
        for chunk in maps.split(_few(maps))
    ]
    return torch.cat(out)


def _few(maps: Tensor) -> int:
    """How many maps are transformed at once."""
    return max(1, _NUMBERS // maps[0].numel())


def smoothed_energy(averages: Tensor, smoothing: float) -> np.ndarray:
    """The squared average, summed over channels and smoothed by a Gaussian of `smoothing` pixels: (n_neurons, H, W).

    The square comes first: a signed average with centre and surround cancels itself under the Gaussian, and its peak
    would then fall on the surround.
    """
    energy = averages.square().sum(1).cpu().numpy()
    if smoothing:
        for axis in (1, 2):
            energy = gaussian_filter1d(energy, smoothing, axis=axis, mode="constant")
    return energy


def mask_peaks(averages: Tensor, map_size: tuple[int, int], offset: tuple[float, float], smoothing: float) -> Tensor:
    """For each neuron the pixel of the feature map that looks where its average is strongest: (n_neurons,) int64.

    averages: (n_neurons, C, H, W); map_size: (h, w); offset: image position (row, column) of the map's first pixel,
    from `core.map_offset`. Positions out of the map's reach are not considered.
    """
    energy = smoothed_energy(averages, smoothing)
    for axis, (start, size) in enumerate(zip(offset, map_size, strict=True), start=1):
        energy = resample(energy, start, size, axis)
    return torch.from_numpy(energy.reshape(len(energy), -1).argmax(1))


def resample(energy: np.ndarray, start: float, size: int, axis: int) -> np.ndarray:
    """`size` values along `axis` at start, start + 1, ...; between pixels (even kernels) the mean of both."""
    below = np.minimum(np.arange(size) + int(np.floor(start)), energy.shape[axis] - 1)
    above = np.minimum(below + int(start % 1 > 0), energy.shape[axis] - 1)
    return (np.take(energy, below, axis) + np.take(energy, above, axis)) / 2


def signal_std(images: Tensor, responses: Tensor, averages: Tensor, peaks: np.ndarray, reach: int) -> Tensor:
    """Standard deviation of the part of each response that a linear filter at its peak explains: (n_neurons,).

    The filter is the average inside a window of `reach` pixels around the peak (n_neurons, 2: row, column), learned
    on one half of the images and scored on the other, both ways; so noise does not count as signal. The result lies
    between 5 % and 100 % of the response's standard deviation; with fewer than four images it is 5 %.
    """
    total = responses.std(0, correction=0)
    if len(images) < 4:
        return 0.05 * total
    halves = torch.arange(len(images), device=images.device) % 2 == 0
    window = _windows(peaks, averages.shape[2:], reach).to(images.device)
    correlations = []
    for learn in (halves, ~halves):
        filters = (spike_triggered_averages(images[learn], responses[learn]) * window[:, None]).flatten(1)
        projected = images[~learn].flatten(1) @ filters.T  # (n_images / 2, n_neurons)
        correlations.append(_correlation(projected, responses[~learn]))
    fraction = torch.stack(correlations).mean(0).clamp(0.05, 1.0)
    return fraction * total


def _windows(peaks: np.ndarray, image_size: torch.Size, reach: int) -> Tensor:
    rows, columns = (torch.arange(size)[None] for size in image_size)
    near_row = (rows - torch.from_numpy(peaks[:, :1])).abs() <= reach  # (n_neurons, H)
    near_column = (columns - torch.from_numpy(peaks[:, 1:])).abs() <= reach  # (n_neurons, W)
    return (near_row[:, :, None] & near_column[:, None, :]).float()


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(0), b - b.mean(0)
    norms = (a.square().sum(0) * b.square().sum(0)).sqrt()
    return (a * b).sum(0) / norms.clamp(min=1e-12)


def initial_bias(drive: np.ndarray, mean_responses: np.ndarray, nonlinearity: str, floor: float = 1e-3) -> np.ndarray:
    """b_n such that mean_b f(drive_bn + b_n) is the mean response: (n_neurons,).

    drive: (n_images, n_neurons), the readout's output before the bias. The mean is floored where f cannot reach it
    (silent neurons). Solved by bisection, since f is increasing: the bias passes through the inverse of f averaged
    over the images.
    """
    if nonlinearity == "identity":
        return mean_responses - drive.mean(0)
    target = np.maximum(mean_responses, floor)
    low = -drive.max(0) - 20.0
    high = target - drive.min(0) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        above = _output(drive + middle, nonlinearity).mean(0) > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def _output(values: np.ndarray, nonlinearity: str) -> np.ndarray:
    if nonlinearity == "relu":
        return np.maximum(values, 0.0)
    return np.logaddexp(values, 0.0)
