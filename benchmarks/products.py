"""Products of matrices by the library that PyTorch leaves them to beside those of `whatwhere.matrix_products`."""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from whatwhere import matrix_products

SIZES = ((256, 1024, 1000), (64, 4096, 1000), (1024, 64, 1024), (64, 361, 103), (16, 100, 32))
"""Of left (n, k) and right (k, m): n, k, m."""


def main() -> None:
    """Prints a line for each size: milliseconds of both, and the largest relative error of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'left, right':<30}{'PyTorch ms':>12}{'oneDNN ms':>12}{'PyTorch error':>16}{'oneDNN error':>16}")
    for n, k, m in SIZES:
        left, right = torch.randn(n, k), torch.randn(m, k)
        times = [milliseconds(product, left, right, options.repeats) for product in (plain, matrix_products._product)]
        errors = [error(product, left, right) for product in (plain, matrix_products._product)]
        name = f"{n:,} x {k:,}, {k:,} x {m:,}"
        print(f"{name:<30}" + "".join(f"{each:12.3f}" for each in times) + "".join(f"{each:16.1e}" for each in errors))


def plain(left: Tensor, right: Tensor) -> Tensor:
    """As PyTorch has it."""
    return left @ right.T


def milliseconds(product: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor, repeats: int) -> float:
    """The lower quartile."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(left, right)
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[repeats // 4]


def error(product: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> float:
    """The largest, relative to the size of products."""
    exact = left.double() @ right.double().T
    return float((product(left, right) - exact).abs().max() / exact.std())


if __name__ == "__main__":
    main()
