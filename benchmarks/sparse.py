"""The readout's product over the support of its masks beside that of whole masks, for masks of more and more pixels."""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from whatwhere.readouts.products import factorized_product, supported_product
from whatwhere.readouts.support import Support

SIZES = ((1000, (32, 32), 64, 4), (1000, (36, 64), 64, 64), (103, (19, 19), 256, 48))
"""Neurons, map, images and features: about those of workloads 2, 4 and 3."""
DENSITIES = (0.01, 0.03, 1 / 16, 0.1, 0.2)


def main() -> None:
    """Prints a line for each size: the ratio of times at each density."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("time over that of whole masks, at densities " + ", ".join(f"{density:.3f}" for density in DENSITIES))
    for n_neurons, size, n_images, n_features in SIZES:
        ratios = [ratio(n_neurons, size, n_images, n_features, density, options.repeats) for density in DENSITIES]
        name = f"{n_neurons} neurons, {size[0]} x {size[1]}, {n_images} images, {n_features} maps"
        print(f"{name:<45}" + "".join(f"{each:8.2f}" for each in ratios), flush=True)


def ratio(n_neurons: int, size: tuple[int, int], n_images: int, n_features: int, density: float, repeats: int) -> float:
    """Shortest time, forward and backward, of the sparse product over that of the dense one."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(n_images, n_features, *size, generator=generator).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(n_neurons, n_features, generator=generator).requires_grad_()
    maps.requires_grad_()
    masks = torch.randn(n_neurons, size[0] * size[1], generator=generator)
    masks[torch.rand(masks.shape, generator=generator) > density] = 0.0
    support = Support.of(masks != 0)
    values = support.gathered(masks).requires_grad_()
    whole = masks.clone().requires_grad_()
    dense = _shortest(lambda: factorized_product(whole, weights, maps), repeats)
    return _shortest(lambda: supported_product(values, weights, maps, support), repeats) / dense


def _shortest(forward: Callable[[], Tensor], repeats: int) -> float:
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        forward().square().sum().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


if __name__ == "__main__":
    main()
