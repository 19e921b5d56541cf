"""Pooling by masks that are mostly zero: only the pixels that neurons look at are read, forward and backward."""

import warnings
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

DENSEST = 1 / 16
"""Share of a mask's pixels above which a dense product is as fast; measured, see `benchmarks/README.md`."""


@dataclass(frozen=True, eq=False)
class Support:
    """The pixels that each of some neurons looks at: a sparse (n_neurons, n_pixels) pattern without values.

    - `starts` (n_neurons + 1,), `pixels` (n_values,): the pixels of neuron n are pixels[starts[n] : starts[n + 1]]
    - `rows` (n_values,): the neuron of each value
    """

    starts: Tensor
    pixels: Tensor
    rows: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, pattern: Tensor) -> "Support":
        """Where a pattern (n_neurons, n_pixels) is true."""
        neurons, pixels = pattern.nonzero(as_tuple=True)
        return cls(_starts(neurons, pattern.shape[0]), pixels, neurons, (pattern.shape[0], pattern.shape[1]))

    @cached_property
    def by_pixel(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same by pixel: where each one's neurons begin (n_pixels + 1,), which they are, where their values are."""
        order = torch.argsort(self.pixels, stable=True)
        return _starts(self.pixels[order], self.shape[1]), self.rows[order], order

    def pattern(self) -> Tensor:
        """(n_neurons, n_pixels), true here."""
        found = torch.zeros(self.shape, dtype=torch.bool, device=self.pixels.device)
        found[self.rows, self.pixels] = True
        return found

    def gathered(self, dense: Tensor) -> Tensor:
        """The values of something (n_neurons, n_pixels) here: (n_values,)."""
        return dense.reshape(self.shape)[self.rows, self.pixels]

    def scatter_(self, dense: Tensor, values: Tensor) -> None:
        """Puts the values where they belong in something (n_neurons, n_pixels), the rest as it is."""
        dense.view(self.shape)[self.rows, self.pixels] = values

    def masks(self, values: Tensor) -> Tensor:
        """A sparse matrix (n_neurons, n_pixels) of these values."""
        return _csr(self.starts, self.pixels, values, self.shape)

    def transposed(self, values: Tensor) -> Tensor:
        """A sparse matrix (n_pixels, n_neurons) of these values."""
        starts, neurons, order = self.by_pixel
        return _csr(starts, neurons, values[order], (self.shape[1], self.shape[0]))

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """The values of left @ right.T here, left (n_neurons, m), right (n_pixels, m): (n_values,)."""
        zeros = self.masks(left.new_zeros(len(self.pixels)))
        found: Tensor = torch.sparse.sampled_addmm(zeros, left, right.T, beta=0.0)
        return found.values()


@dataclass(frozen=True, eq=False)
class Restricted:
    """Masks (n_neurons, n_pixels) that are these values (n_values,) on a support, and elsewhere as they were."""

    support: Support
    values: Tensor

    def norms(self) -> Tensor:
        """The sum of the magnitudes of each neuron's values: (n_neurons,)."""
        return self._sums(self.values.abs())

    def lengths(self) -> Tensor:
        """The root of the sum of the squares of each neuron's values: (n_neurons,)."""
        return self._sums(self.values.square()).sqrt()

    def most(self, sizes: Tensor) -> Tensor:
        """The largest of each neuron's sizes (n_values,), which are not negative, 0 where it has none: (n_neurons,)."""
        zeros = self.values.new_zeros(self.support.shape[0])
        return zeros.scatter_reduce_(0, self.support.rows, sizes, "amax")

    def _sums(self, of_values: Tensor) -> Tensor:
        return self.values.new_zeros(self.support.shape[0]).index_add_(0, self.support.rows, of_values)


class SupportCache:
    """The support of masks, found once for all predictions without gradients from one `clear` to the next.

    What changes masks in between must do so through PyTorch's own in-place operations, which it counts; its fused
    optimisers are not counted, so whoever steps calls `clear`, as a readout does where its mode changes.
    """

    def __init__(self, least: float = 0.0) -> None:
        self.least = least
        self.key: tuple[int, int, torch.device] | None = None
        self.support: Support | None = None

    def of(self, masks: Tensor) -> Support | None:
        """As `sparse_support` of the flattened masks (n_neurons, ...)."""
        if torch.is_grad_enabled():
            return sparse_support(masks.detach().flatten(1), self.least)
        key = masks.data_ptr(), masks._version, masks.device
        if key != self.key:
            self.key, self.support = key, sparse_support(masks.flatten(1), self.least)
        return self.support

    def clear(self) -> None:
        """Forgets the support."""
        self.key = self.support = None


def sparse_support(masks: Tensor, least: float = 0.0) -> Support | None:
    """Where masks (n_neurons, n_pixels) are above `least` in magnitude; None where that is not sparse enough to pay.

    NaN counts as above: it must not vanish from what is computed.
    """
    pattern = ~(masks.abs() <= least)
    return Support.of(pattern) if pattern.sum() <= DENSEST * pattern.numel() else None


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse matrix by rows."""
    _hear_warning()
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


@cache
def _hear_warning() -> None:
    """PyTorch says once in a process that such matrices are beta, which tells the user nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False)


def _starts(sorted_numbers: Tensor, size: int) -> Tensor:
    """Where each of the numbers 0 .. size - 1 begins in a sorted list, and the list's length: (size + 1,)."""
    return torch.searchsorted(sorted_numbers, torch.arange(size + 1, device=sorted_numbers.device))
