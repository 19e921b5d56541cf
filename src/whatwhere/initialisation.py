"""Initial values: spike-triggered averages, the pixel where each mask starts, and how large it starts."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

_CHUNK = 1024


def spike_triggered_averages(images: Tensor, responses: Tensor) -> Tensor:
    """STA_n = mean_b (y_bn - mean y_n) (x_b - mean x): (n_neurons, n_channels, height, width).

    images: (n_images, n_channels, height, width), float; responses: (n_images, n_neurons). The result has the units
    of their product.
    """
    means = images.mean(0).flatten()
    centred = responses - responses.mean(0)
    total = images.new_zeros(responses.shape[1], means.numel())
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].flatten(1) - means
        total.addmm_(centred[start : start + _CHUNK].T, chunk)
    return (total / len(images)).view(-1, *images.shape[1:])


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
        energy = _resample(energy, start, size, axis)
    return torch.from_numpy(energy.reshape(len(energy), -1).argmax(1))


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
        energy = _resample(energy, start, size, axis)
    odds = torch.from_numpy(0.5 * area * energy).double().flatten(1)
    return torch.softmax(odds, 1).view(-1, *map_size).to(scores)


def chance_scores(averages: Tensor, images: Tensor, responses: Tensor) -> Tensor:
    """The averages over the standard deviation that they have where responses do not depend on images.

    averages: (n_neurons, C, H, W) of these images and responses. 0 for silent neurons and constant pixels.
    """
    deviations = responses.std(0, correction=0)[:, None, None, None] * images.std(0, correction=0)
    scores = averages * len(images) ** 0.5 / deviations.clamp(min=1e-12)
    return torch.where(deviations > 0, scores, 0.0)


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


def _resample(energy: np.ndarray, start: float, size: int, axis: int) -> np.ndarray:
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
