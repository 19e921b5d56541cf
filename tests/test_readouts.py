"""Every readout against sum_ijk c_kij q_kijn as an einsum; their constraints, penalties and start."""

import numpy as np
import pytest
import torch

from whatwhere.config import PenaltyOptions, ReadoutOptions
from whatwhere.penalties import weighted_sum
from whatwhere.readouts import (
    READOUTS,
    FactorizedReadout,
    FixedMaskReadout,
    FullyConnectedReadout,
    GaussianReadout,
    PosteriorReadout,
    Readout,
    Start,
)

N_IMAGES, N_NEURONS, HEIGHT, WIDTH = 6, 5, 3, 4
POINTS = [[0.25, 1.5], [1.875, 2.75], [1.75, 0.25], [0.5, 2.5], [1.25, 1.125]]


def build(name: str, n_features: int = 3, **options: object) -> Readout:
    """A readout of random weights in double precision and evaluation mode; a point or pixel a neuron inside the map."""
    readout = READOUTS[name](N_NEURONS, (n_features, HEIGHT, WIDTH), ReadoutOptions(**options)).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.normal_(generator=generator)
        if name == "fixed-mask":
            readout.pixels.copy_(torch.tensor([11, 4, 0, 7, 6]))
        if name == "gaussian":
            readout.move_to(torch.tensor(POINTS))
        if name == "posterior":
            shape = (N_NEURONS, len(readout.options.widths), HEIGHT, WIDTH)
            odds = torch.rand(shape, generator=generator, dtype=torch.float64)
            readout.set_posterior(odds / odds.sum((1, 2, 3), keepdim=True))
    return readout


def full_weights(readout: Readout) -> np.ndarray:
    """q (n_neurons, K, h, w), from the readout's parameters."""
    if isinstance(readout, FullyConnectedReadout):
        return readout.weights.detach().numpy()
    weights = readout.weights.detach().numpy()
    if isinstance(readout, FactorizedReadout | PosteriorReadout):
        return np.einsum("nij,nk->nkij", readout.mask.detach().numpy(), weights)
    q = np.zeros((N_NEURONS, weights.shape[1], HEIGHT, WIDTH))
    if isinstance(readout, FixedMaskReadout):
        for n, pixel in enumerate(readout.pixels.tolist()):
            q[n, :, pixel // WIDTH, pixel % WIDTH] = weights[n]
    if isinstance(readout, GaussianReadout):  # each pixel's share falls to 0 at its neighbours
        for n, (row, column) in enumerate(readout.positions().tolist()):
            shares = [np.maximum(1 - np.abs(np.arange(size) - at), 0) for size, at in ((HEIGHT, row), (WIDTH, column))]
            q[n] = np.einsum("k,i,j->kij", weights[n], *shares)
    return q


@pytest.fixture
def maps(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(N_IMAGES, 3, HEIGHT, WIDTH)))


@pytest.mark.parametrize("n_features", [1, 3])
@pytest.mark.parametrize("name", READOUTS)
def test_forward_is_the_sum_over_features_and_pixels(name: str, n_features: int, maps: torch.Tensor) -> None:
    readout, maps = build(name, n_features), maps[:, :n_features]
    expected = np.einsum("bkij,nkij->bn", maps.numpy(), full_weights(readout))
    np.testing.assert_allclose(readout(maps).detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def test_factorized_equals_fully_connected_with_the_same_weights(maps: torch.Tensor) -> None:
    factorized, full = build("factorized"), build("fully-connected")
    with torch.no_grad():
        full.weights.copy_(torch.einsum("nij,nk->nkij", factorized.mask, factorized.weights))
    torch.testing.assert_close(factorized(maps), full(maps))


def test_fixed_mask_equals_factorized_with_one_hot_masks(maps: torch.Tensor) -> None:
    fixed, factorized = build("fixed-mask"), build("factorized")
    with torch.no_grad():
        factorized.weights.copy_(fixed.weights)
        factorized.mask.copy_(fixed.masks())
    torch.testing.assert_close(fixed(maps), factorized(maps))
    rows, columns = np.nonzero(fixed.masks().numpy())[1:]
    assert (rows * WIDTH + columns).tolist() == fixed.pixels.tolist()
    assert fixed.masks().sum().item() == N_NEURONS


@pytest.mark.parametrize("name", READOUTS)
def test_masks_and_feature_weights_rebuild_the_full_weights(name: str) -> None:
    readout = build(name)
    if isinstance(readout, FullyConnectedReadout):  # of rank one, so that nothing is lost
        q = torch.from_numpy(full_weights(build("factorized")))
        with torch.no_grad():
            readout.weights.copy_(q)
    rebuilt = torch.einsum("nij,nk->nkij", readout.masks(), readout.feature_weights())
    np.testing.assert_allclose(rebuilt.numpy(), full_weights(readout), rtol=1e-9, atol=1e-12)
    assert not readout.masks().requires_grad
    assert not readout.feature_weights().requires_grad


def test_fully_connected_masks_are_the_best_rank_one_approximation() -> None:
    readout = build("fully-connected")
    masks, features = readout.masks().numpy(), readout.feature_weights().numpy()
    for n in range(N_NEURONS):
        q = full_weights(readout)[n].reshape(3, -1)
        values = np.linalg.svd(q, compute_uv=False)
        error = np.linalg.norm(q - np.outer(features[n], masks[n].ravel()))
        assert error == pytest.approx(np.sqrt((values[1:] ** 2).sum()))
        assert np.linalg.norm(features[n]) == pytest.approx(1.0)
        assert masks[n].ravel()[np.abs(masks[n]).argmax()] > 0


def test_one_feature_has_no_feature_weights_to_learn(maps: torch.Tensor) -> None:
    readout = build("factorized", n_features=1, nonnegative_features=True, feature_norm="unit")
    assert [name for name, _ in readout.named_parameters()] == ["mask"]
    before = readout(maps[:, :1])
    readout.project()
    torch.testing.assert_close(readout(maps[:, :1]), before)
    assert readout.feature_weights().tolist() == [[1.0]] * N_NEURONS


def test_a_fixed_masks_pixels_are_never_trained() -> None:
    assert [name for name, _ in build("fixed-mask").named_parameters()] == ["weights"]


@pytest.mark.parametrize("name", READOUTS)
def test_without_constraints_project_changes_nothing(name: str) -> None:
    readout = build(name)
    before = {key: value.clone() for key, value in readout.state_dict().items()}
    readout.project()
    for key, value in readout.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_project_sets_negative_entries_to_zero_and_leaves_the_rest() -> None:
    readout = build("factorized", nonnegative_masks=True, nonnegative_features=True)
    masks, features = readout.masks().clone(), readout.feature_weights().clone()
    readout.project()
    torch.testing.assert_close(readout.masks(), masks.clamp(min=0), rtol=0, atol=0)
    torch.testing.assert_close(readout.feature_weights(), features.clamp(min=0), rtol=0, atol=0)
    fixed = build("fixed-mask", nonnegative_features=True)
    features = fixed.feature_weights().clone()
    fixed.project()
    torch.testing.assert_close(fixed.feature_weights(), features.clamp(min=0), rtol=0, atol=0)


def test_each_sign_constraint_is_an_option_of_its_own() -> None:
    masks, features = (
        build("factorized", nonnegative_masks=True),
        build("factorized", nonnegative_features=True),
    )
    masks.project()
    features.project()
    assert masks.masks().min() >= 0 > masks.feature_weights().min()
    assert features.feature_weights().min() >= 0 > features.masks().min()


def test_unit_norm_keeps_the_function(maps: torch.Tensor) -> None:
    readout = build("factorized", feature_norm="unit")
    before = readout(maps)
    readout.project()
    torch.testing.assert_close(readout.feature_weights().norm(dim=1), torch.ones(N_NEURONS, dtype=torch.float64))
    torch.testing.assert_close(readout(maps), before)


def test_feature_weights_projected_to_zero_can_grow_again(maps: torch.Tensor) -> None:
    readout = build("factorized", feature_norm="unit", nonnegative_features=True)
    with torch.no_grad():
        readout.weights[0].fill_(-1.0)
    readout.project()
    assert all(value.isfinite().all() for value in readout.state_dict().values())
    readout(maps)[:, 0].sum().backward()
    assert readout.weights.grad[0].abs().max() > 1e-3, "the neuron's mask has died: nothing can move it any more"


def penalties_by_hand(readout: Readout, predictions: np.ndarray) -> dict[str, float]:
    """Each strength's term, from the equations."""
    if isinstance(readout, FullyConnectedReadout):
        return {
            "weight_l2": np.mean([(full_weights(readout)[n] ** 2).sum() for n in range(N_NEURONS)]),
            "activity_l1": np.abs(predictions).sum() / predictions.size,
        }
    features = readout.feature_weights().numpy()
    terms = {"feature_l1": np.mean([np.abs(w).sum() for w in features])}
    if isinstance(readout, FactorizedReadout):
        masks = readout.masks().numpy()
        terms["mask_l1"] = np.mean([np.abs(m).sum() for m in masks])
        terms["product_l1"] = np.mean([np.abs(q).sum() for q in full_weights(readout)])
    return terms


def penalty(readout: Readout, options: PenaltyOptions, predictions: torch.Tensor) -> torch.Tensor:
    return weighted_sum(options.single(), readout.penalties(predictions), predictions.new_zeros(()))


@pytest.mark.parametrize("name", READOUTS)
def test_each_penalty_with_its_strength_and_their_sum(name: str, rng: np.random.Generator) -> None:
    readout, predictions = build(name), rng.normal(size=(N_IMAGES, N_NEURONS))
    terms = penalties_by_hand(readout, predictions)
    assert readout.strengths == set(terms) == set(readout.penalties(torch.from_numpy(predictions)))
    strengths = {term: 0.3 + number for number, term in enumerate(terms)}
    inputs = torch.from_numpy(predictions)
    for term, strength in strengths.items():
        got = penalty(readout, PenaltyOptions(**{term: strength}), inputs).item()
        assert got == pytest.approx(strength * terms[term], rel=1e-9)
    everything = sum(strengths[term] * terms[term] for term in terms)
    assert penalty(readout, PenaltyOptions(**strengths), inputs).item() == pytest.approx(everything, rel=1e-9)
    assert penalty(readout, PenaltyOptions(), inputs).item() == 0.0


@pytest.mark.parametrize("name", READOUTS)
def test_gradients_are_those_of_finite_differences(name: str, maps: torch.Tensor) -> None:
    readout = build(name)
    names, parameters = zip(*readout.named_parameters(), strict=True)
    penalties = PenaltyOptions(**dict.fromkeys(readout.strengths, 0.7))

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.readout = readout

        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            drive = self.readout(inputs)
            return drive, penalty(self.readout, penalties, drive)

    both = Both()

    def forward(inputs: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        named = {f"readout.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(both, named, inputs)

    assert torch.autograd.gradcheck(forward, (maps.requires_grad_(), *parameters), fast_mode=True)


PEAKS = torch.tensor([9, 4, 0, 11, 6])
AMPLITUDES = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25])


def started(name: str, n_features: int = 3, noise: float = 0.001, **options: object) -> Readout:
    readout = READOUTS[name](N_NEURONS, (n_features, HEIGHT, WIDTH), ReadoutOptions(**options))
    readout.initialize(Start(PEAKS, AMPLITUDES, noise), torch.Generator().manual_seed(0))
    return readout


@pytest.mark.parametrize("n_features", [1, 3])
@pytest.mark.parametrize("name", READOUTS)
def test_initial_weights_peak_where_told_with_the_amplitude(name: str, n_features: int) -> None:
    q = full_weights(started(name, n_features)).sum(1).reshape(N_NEURONS, -1)  # sum over K of w = 1/K is about 1
    assert np.abs(q).argmax(1).tolist() == PEAKS.tolist()
    np.testing.assert_allclose(q[np.arange(N_NEURONS), PEAKS], AMPLITUDES, rtol=0.1)
    off_peak = np.ones_like(q, dtype=bool)
    off_peak[np.arange(N_NEURONS), PEAKS] = False
    assert np.abs(q[off_peak]).max() < 0.01


def test_initial_masks_and_feature_weights_have_the_papers_distributions() -> None:
    readout = FactorizedReadout(400, (5, 4, 6), ReadoutOptions())
    peaks, amplitudes = torch.full((400,), 13), torch.full((400,), 0.7)
    readout.initialize(Start(peaks, amplitudes, 0.02), torch.Generator().manual_seed(0))
    masks, features = readout.masks(), readout.feature_weights()
    assert (masks[:, 2, 1] == 0.7).all()  # pixel 13 of 4 x 6
    rest = np.delete(masks.flatten(1).numpy(), 13, axis=1)
    assert rest.mean() == pytest.approx(0.0, abs=1e-3)
    assert rest.std() == pytest.approx(0.02, rel=0.05)
    assert features.mean().item() == pytest.approx(1 / 5, abs=1e-3)
    assert features.std().item() == pytest.approx(0.01, rel=0.1)
    fixed = FixedMaskReadout(400, (5, 4, 6), ReadoutOptions())
    fixed.initialize(Start(peaks, amplitudes, 0.0), torch.Generator().manual_seed(0))
    assert fixed.feature_weights().mean().item() == pytest.approx(0.7 / 5, rel=0.02)


@pytest.mark.parametrize("name", READOUTS)
def test_initial_weights_come_from_the_generator(name: str) -> None:
    first, second = started(name), started(name)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=0, atol=0)


def test_initial_weights_obey_the_constraints() -> None:
    readout = started("factorized", noise=0.1, nonnegative_masks=True, feature_norm="unit")
    assert readout.masks().min() >= 0
    torch.testing.assert_close(readout.feature_weights().norm(dim=1), torch.ones(N_NEURONS))
    assert (started("factorized", noise=0.0).masks() != 0).sum() == N_NEURONS
