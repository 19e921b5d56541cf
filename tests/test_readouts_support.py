"""Pooling over the support of sparse masks: the same numbers as with whole masks, forward and backward."""

import copy

import numpy as np
import pytest
import torch

from whatwhere.config import ReadoutOptions
from whatwhere.readouts import FactorizedReadout, PosteriorReadout
from whatwhere.readouts.products import factorized_product, supported_product
from whatwhere.readouts.support import DENSEST, Restricted, Support, sparse_support

N_NEURONS, SHAPE, N_IMAGES = 7, (3, 9, 11), 5


def sparse_masks(rng: np.random.Generator, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """(7, 99), up to five pixels of each neuron, of the last none."""
    masks = torch.zeros(N_NEURONS, 99, dtype=dtype)
    for neuron in range(N_NEURONS - 1):
        at = torch.from_numpy(rng.choice(99, 1 + neuron % 5, replace=False))
        masks[neuron, at] = torch.from_numpy(rng.normal(size=len(at))).to(dtype)
    return masks


def test_a_support_keeps_and_gives_back_what_is_there(rng: np.random.Generator) -> None:
    masks = sparse_masks(rng)
    where = Support.of(masks != 0)
    values = where.gathered(masks)
    assert len(values) == int((masks != 0).sum())
    torch.testing.assert_close(where.masks(values).to_dense(), masks)
    torch.testing.assert_close(where.transposed(values).to_dense(), masks.T)
    torch.testing.assert_close(Restricted(where, values).norms(), masks.abs().sum(1))
    assert torch.equal(where.pattern(), masks != 0)
    filled = torch.full_like(masks, 7.0)
    where.scatter_(filled, values)
    torch.testing.assert_close(filled, torch.where(masks != 0, masks, 7.0))
    left, right = torch.randn(N_NEURONS, 4, dtype=masks.dtype), torch.randn(99, 4, dtype=masks.dtype)
    torch.testing.assert_close(where.products(left, right), where.gathered(left @ right.T))


def test_only_sparse_masks_have_a_support(rng: np.random.Generator) -> None:
    masks = torch.zeros(4, 160)
    masks[:, : int(160 * DENSEST)] = 1.0
    assert sparse_support(masks) is not None
    masks[0, -1] = 0.5
    assert sparse_support(masks) is None
    found = sparse_support(masks, least=0.6)
    assert found is not None
    assert len(found.pixels) == 4 * int(160 * DENSEST)
    nothing = sparse_support(torch.zeros(4, 160))
    assert nothing is not None
    maps = torch.from_numpy(rng.normal(size=(2, 3, 10, 16))).float()
    assert (supported_product(torch.zeros(0), torch.ones(4, 3), maps, nothing) == 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_restricted_readout_reads_the_same(training: bool, rng: np.random.Generator) -> None:
    readout = FactorizedReadout(N_NEURONS, SHAPE, ReadoutOptions(feature_norm="unit", nonnegative_features=True))
    masks = sparse_masks(rng, torch.float32)
    maps = torch.from_numpy(rng.normal(size=(N_IMAGES, *SHAPE))).float()
    with torch.no_grad():
        readout.mask.copy_(masks.view_as(readout.mask))
        readout.weights.copy_(torch.from_numpy(rng.normal(size=(N_NEURONS, 3))))
    expected = factorized_product(masks, readout.weights, maps)
    readout.train(training)
    torch.testing.assert_close(readout(maps), expected, rtol=1e-5, atol=1e-6)
    where = Support.of(masks != 0)
    strengths = {"mask_l1": 0.3, "feature_l1": 0.2, "product_l1": 0.1}
    (_, whole), (_, features) = readout.shrunken(strengths)
    other = copy.deepcopy(readout)
    restricted = Restricted(where, where.gathered(masks))
    readout.restrict(restricted)
    torch.testing.assert_close(readout(maps), expected, rtol=1e-5, atol=1e-6)
    (values, some), (_, as_before) = readout.shrunken(strengths)
    assert values is restricted.values
    torch.testing.assert_close(some, whole.flatten()[where.rows])
    torch.testing.assert_close(as_before, features)
    for one in (readout, other):
        one.project()
    torch.testing.assert_close(readout.masks(), other.masks())
    torch.testing.assert_close(readout.feature_weights(), other.feature_weights())
    assert not torch.equal(readout.masks().flatten(1), masks)
    assert torch.equal(readout.mask.detach().flatten(1), masks), "the parameter waits"


def test_a_support_is_found_anew_when_masks_change_or_the_mode_does() -> None:
    readout = FactorizedReadout(2, (1, 8, 8), ReadoutOptions()).eval()
    maps = torch.ones(1, 1, 8, 8)
    with torch.no_grad():
        assert readout(maps).tolist() == [[0.0, 0.0]]
        readout.mask[0, 3, 3] = 2.0
        assert readout(maps).tolist() == [[2.0, 0.0]]
    optimizer = torch.optim.Adam([readout.mask], lr=0.5, fused=True)  # whose steps PyTorch does not count
    readout.train()
    (-readout(maps)[:, 1]).sum().backward()
    readout.mask.grad[1, 1:] = 0.0
    optimizer.step()
    readout.eval()
    with torch.no_grad():
        torch.testing.assert_close(readout(maps), torch.tensor([[2.0, 4.0]]))


def test_nan_does_not_vanish_from_sparse_masks() -> None:
    readout = FactorizedReadout(2, (1, 8, 8), ReadoutOptions()).eval()
    with torch.no_grad():
        readout.mask[1, 4, 4] = torch.nan
        assert readout(torch.ones(1, 1, 8, 8)).isnan().tolist() == [[False, True]]


def test_a_certain_posterior_is_read_where_it_is(rng: np.random.Generator) -> None:
    readout = PosteriorReadout(4, SHAPE, ReadoutOptions(start="features", nonlinearity="relu")).eval()
    odds = torch.from_numpy(300 * rng.normal(size=(4, 1, 9, 11))).float()
    readout.set_posterior(torch.softmax(odds.flatten(1), 1).view(4, 1, 9, 11))
    maps = torch.from_numpy(rng.normal(size=(N_IMAGES, *SHAPE))).float()
    assert sparse_support(readout.mask.flatten(1), 1e-6 / 99) is not None
    expected = factorized_product(readout.mask.flatten(1), readout.weights, maps)
    torch.testing.assert_close(readout(maps), expected, rtol=1e-5, atol=1e-5)
