"""Types from barcodes: their number, confidence and order, awkward populations, and stability over refits."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from whatwhere.celltypes import MatchedMaps, Stability, TypeOptions, agreement, find_types, stability_of
from whatwhere.celltypes.clustering import density_clusters, reduced
from whatwhere.celltypes.finding import labels_by_number, more_could_be_tried
from whatwhere.errors import InputError, OptionError


def population(
    sizes: list[int], n_features: int = 5, spread: float = 0.05, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Barcodes (n_neurons, n_features) of length one around an axis for each type, and the types, in mixed order."""
    rng = np.random.default_rng(seed)
    types = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    codes = np.eye(n_features)[types] + rng.normal(0, spread, (len(types), n_features))
    return codes / np.linalg.norm(codes, axis=1, keepdims=True), types


@pytest.mark.parametrize(
    ("method", "n_types"), [("gmm", 1), ("gmm", 2), ("gmm", 3), ("gmm", 5), ("hdbscan", 2), ("hdbscan", 3)]
)
def test_as_many_types_are_found_as_there_are(method: str, n_types: int) -> None:
    codes, types = population([60, 50, 40, 30, 20][:n_types])
    found = find_types(codes, TypeOptions(method=method))
    assert found.n_types == n_types
    np.testing.assert_array_equal(found.labels[found.status == "typed"], types[found.status == "typed"])
    assert (found.status == "typed").mean() > 0.7
    if method == "gmm":
        assert found.confidence.min() > 0.99
        assert list(found.bic["n_types"]) == list(range(1, 13))
    assert found.centres.shape == (n_types, 5)
    np.testing.assert_array_equal(found.centres.argmax(1), np.arange(n_types))


def test_bic_and_confidence_are_those_of_their_formulas() -> None:
    """For one type in closed form, and for two against responsibilities by Bayes' rule."""
    codes, types = population([70, 50], n_features=2, spread=0.2)
    options = TypeOptions(floor=0.3, n_types=2)
    found = find_types(codes, options)
    points = reduced(codes, options)
    n, d = points.shape
    covariance = np.cov(points.T, bias=True).reshape(d, d) + 0.3**2 * np.eye(d)
    centred = points - points.mean(0)
    mahalanobis = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    log_likelihood = -0.5 * (mahalanobis + d * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]).sum()
    expected = (d + d * (d + 1) / 2) * np.log(n) - 2 * log_likelihood
    assert found.bic["bic"][0] == pytest.approx(expected, rel=1e-6)
    mixture = GaussianMixture(2, reg_covar=0.09, n_init=5, max_iter=500, random_state=0).fit(points)
    densities = [
        share * np.exp(-0.5 * ((points[:, 0] - mean) ** 2 / variance)) / np.sqrt(variance)
        for share, (mean,), ((variance,),) in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    ]
    assert d == 1
    np.testing.assert_allclose(found.confidence, np.max(densities, 0) / np.sum(densities, 0), rtol=1e-4)
    assert adjusted_rand_score(types, found.labels) > 0.9


def test_neurons_in_another_order_have_the_same_types() -> None:
    codes, _ = population([40, 30, 20])
    order = np.random.default_rng(1).permutation(len(codes))
    first, second = find_types(codes), find_types(codes[order])
    np.testing.assert_array_equal(second.labels, first.labels[order])
    np.testing.assert_allclose(second.confidence, first.confidence[order], atol=1e-6)


def test_a_given_number_goes_before_the_bic() -> None:
    codes, _ = population([40, 40, 40])
    assert [find_types(codes, TypeOptions(n_types=number)).n_types for number in (1, 2, 3)] == [1, 2, 3]
    assert find_types(codes, TypeOptions(n_types=14, max_types=2, floor=0.01)).bic["n_types"].max() == 14


def test_neurons_between_types_are_less_sure() -> None:
    codes, _ = population([60, 60], n_features=2)
    between = np.array([[1.0, 1.0]]) / np.sqrt(2)
    found = find_types(np.concatenate([codes, between]), TypeOptions(n_types=2))
    assert found.confidence.argmin() == len(codes)
    dense = find_types(np.concatenate([codes, between]), TypeOptions(method="hdbscan"))
    assert (dense.labels[-1], dense.status[-1], dense.confidence[-1]) == (-1, "noise", 0.0)


def test_silent_neurons_have_no_type_and_change_nothing() -> None:
    codes, types = population([30, 20])
    found = find_types(np.concatenate([np.zeros((2, 5)), codes]))
    np.testing.assert_array_equal(found.labels, [-1, -1, *types])
    np.testing.assert_array_equal(found.status[:3], ["silent", "silent", "typed"])
    np.testing.assert_array_equal(found.confidence[:2], 0)
    assert np.isnan(found.pca[:2]).all()
    assert found.tsne is not None
    assert np.isnan(found.tsne[:2]).all()
    assert np.isfinite(found.tsne[2:]).all()
    assert found.counts.tolist() == [30, 20]


@pytest.mark.parametrize("method", ["gmm", "hdbscan"])
@pytest.mark.parametrize("n_neurons", [1, 2, 5, 40])
def test_equal_barcodes_are_one_type(method: str, n_neurons: int) -> None:
    found = find_types(np.tile([[0.6, 0.8]], (n_neurons, 1)), TypeOptions(method=method))
    if method == "hdbscan" and n_neurons < 5:
        assert (found.n_types, set(found.status)) == (0, {"noise"})
        assert found.centres.shape == (0, 2)
        return
    np.testing.assert_array_equal(found.labels, 0)
    np.testing.assert_array_equal(found.confidence, 1)
    assert found.bic.empty


@pytest.mark.parametrize(("n_neurons", "n_features"), [(2, 1), (3, 40), (7, 40), (12, 3)])
def test_few_neurons_and_many_features(n_neurons: int, n_features: int) -> None:
    codes = np.random.default_rng(0).normal(size=(n_neurons, n_features))
    found = find_types(codes / np.linalg.norm(codes, axis=1, keepdims=True))
    assert 1 <= found.n_types <= n_neurons
    assert (found.tsne is None) == (n_neurons < 5)
    assert reduced(codes, TypeOptions()).shape[1] <= max(2, n_neurons // 10)


def test_components_explain_as_much_as_asked() -> None:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(500, 6)) * [4, 2, 1, 0.1, 0.1, 0.1]
    assert [reduced(codes, TypeOptions(explained=share)).shape[1] for share in (0.5, 0.9, 0.97, 1.0)] == [1, 2, 3, 6]
    assert reduced(codes, TypeOptions(explained=1.0, max_components=4)).shape[1] == 4
    np.testing.assert_allclose(
        np.abs(np.corrcoef(reduced(codes, TypeOptions())[:, 0], codes[:, 0])[0, 1]), 1, atol=0.01
    )


def test_clusters_nearer_than_the_floor_are_one() -> None:
    rng = np.random.default_rng(0)
    points = np.repeat([[0.0], [1.0], [5.0]], 30, axis=0) + rng.uniform(-0.1, 0.1, (90, 1))
    assert density_clusters(points, 5, 0.5).labels.max() + 1 == 3
    joined = density_clusters(points, 5, 1.0).labels
    assert joined.max() + 1 == 2
    assert len(set(joined[:60]) - {-1}) == 1


def test_the_map_keeps_types_together_and_is_the_same_twice() -> None:
    codes, types = population([40, 40, 40])
    first, second = find_types(codes), find_types(codes)
    assert first.tsne is not None
    np.testing.assert_array_equal(first.tsne, second.tsne)
    for places in (first.pca, first.tsne):
        centres = np.array([places[types == number].mean(0) for number in range(3)])
        nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(1)
        assert (nearest == types).mean() > 0.98
    other = find_types(codes, TypeOptions(seed=1))
    assert np.abs(other.pca - first.pca).max() == 0


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "all silent": (np.zeros((3, 2)), {}, InputError, "none of the 3 neurons has feature weights"),
    "too many": (np.eye(3), {"n_types": 4}, InputError, "n_types is 4, but 3 neurons have feature weights, with 3"),
    "same": (np.ones((9, 2)), {"n_types": 2}, InputError, "9 neurons have feature weights, with 1 different"),
    "NaN": ([[np.nan, 1.0]], {}, InputError, "barcodes holds 1 value that is not finite: neuron 0"),
    "flat": ([1.0, 2.0], {}, InputError, "barcodes has 1 dimensions"),
    "method": (np.eye(3), {"method": "kmeans"}, OptionError, "method: .*'gmm' or 'hdbscan'"),
    "unknown": (np.eye(3), {"n_type": 3}, OptionError, "Did you mean 'n_types'"),
    "idle number": (np.eye(3), {"method": "hdbscan", "n_types": 3}, OptionError, r"n_types \(=3\) has nothing to act"),
    "idle size": (np.eye(3), {"min_size": 3}, OptionError, r"min_size \(=3\) .*method 'gmm': .*choose 'hdbscan'"),
    "floor": (np.eye(3), {"floor": 0}, OptionError, "floor: Input should be greater than 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_said(case: str) -> None:
    codes, options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        find_types(codes, TypeOptions(**options))


def test_agreement_knows_no_names_and_leaves_out_who_has_no_type() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    assert agreement(a, (a + 1) % 4) == 1.0
    assert abs(agreement(a, b)) < 0.03
    assert agreement(a, b) == pytest.approx(adjusted_rand_score(a, b))
    with_noise = np.where(rng.random(300) < 0.3, -1, a)
    assert agreement(a, with_noise) == 1.0
    assert np.isnan(agreement([0, -1], [0, 1]))
    with pytest.raises(InputError, match="second has 3 rows but first has 2"):
        agreement([0, 1], [0, 1, 2])


def refitted(codes: np.ndarray, seed: int, noise: float = 0.1) -> tuple[np.ndarray, MatchedMaps]:
    """Barcodes of another fit, maps permuted and turned over, a little noise; the match has the barcodes' signs."""
    rng = np.random.default_rng(seed)
    order, signs = rng.permutation(codes.shape[1]), rng.choice([-1.0, 1.0], codes.shape[1])
    again = (codes * signs)[:, order] + rng.normal(0, noise, codes.shape)
    back = np.argsort(order)
    return again / np.linalg.norm(again, axis=1, keepdims=True), MatchedMaps(back, signs, np.full(len(back), 0.9))


@pytest.mark.parametrize("method", ["gmm", "hdbscan"])
def test_types_that_return_are_stable_and_their_number_is_found(method: str) -> None:
    codes, _ = population([50, 40, 30])
    found = find_types(codes, TypeOptions(method=method, floor=0.1))
    again = [refitted(codes, seed) for seed in (1, 2)]
    stability = stability_of(found, [codes for codes, _ in again], [1, 2], [maps for _, maps in again])
    assert list(stability.refits["seed"]) == [1, 2]
    assert (stability.refits["n_types"] == 3).all()
    assert (stability.refits["ari"] > 0.97).all()
    assert (stability.refits["n_neurons"] > 60).all()
    assert (stability.refits["centre_similarity"] > 0.98).all()
    np.testing.assert_allclose(stability.refits["map_correlation"], 0.9)
    if method == "hdbscan":
        assert stability.curve.empty
        assert stability.n_types is None
        return
    curve = stability.curve.set_index("n_types")
    assert stability.n_types == 3
    assert stability.best_ari == curve.loc[3, "ari"] > 0.97
    assert (curve.loc[curve.index > 4, "ari"] < 0.9).all()
    assert (curve["low"] <= curve["ari"]).all()
    assert (curve["ari"] <= curve["high"]).all()


def test_types_that_do_not_return_are_not_stable() -> None:
    codes, _ = population([40, 40], n_features=2)
    found = find_types(codes)
    rng = np.random.default_rng(3)
    other = codes[rng.permutation(len(codes))]
    maps = MatchedMaps(np.arange(2), np.ones(2), np.ones(2))
    stability = stability_of(found, [other, codes], [1, 2], [maps, maps])
    assert abs(stability.refits["ari"][0]) < 0.1
    assert stability.refits["ari"][1] == 1.0
    with pytest.raises(InputError, match="a refit's barcodes has 3 rows but barcodes has 80"):
        stability_of(found, [codes[:3]], [1], [maps])
    with pytest.raises(InputError, match="no refits: stability needs at least one"):
        stability_of(found, [], [], [])


def straight(n_features: int) -> MatchedMaps:
    return MatchedMaps(np.arange(n_features), np.ones(n_features), np.ones(n_features))


def random_fits(n_neurons: int, n_fits: int, n_features: int = 5) -> list[np.ndarray]:
    codes = np.random.default_rng(0).normal(size=(n_fits, n_neurons, n_features))
    return list(codes / np.linalg.norm(codes, axis=2, keepdims=True))


@pytest.mark.parametrize("n_neurons", [7, 12])
def test_random_barcodes_do_not_agree_in_types_of_a_neuron_each(n_neurons: int) -> None:
    first, *others = random_fits(n_neurons, 3)
    options = TypeOptions(n_starts=2, floor=0.001)
    alone = labels_by_number(others[0], [n_neurons], options)[n_neurons]
    assert agreement(np.arange(n_neurons), alone) == 1.0, "whatever the barcodes"
    stability = stability_of(find_types(first, options), others, [1, 2], [straight(5)] * 2)
    assert stability.curve["n_types"].max() <= n_neurons // 3
    assert stability.best_ari is not None
    assert stability.best_ari < 0.5


def test_types_that_hold_no_neuron_are_no_number_of_types() -> None:
    """Of tight clusters a mixture with more Gaussians leaves some empty: fits that agree then have fewer types."""
    fits = [population([50, 30], spread=0.02, seed=0)[0]]
    fits += [population([50, 30], spread=0.02, seed=0)[0] + 0.001 * seed for seed in (1, 2)]
    held = [len(set(labels)) for labels in labels_by_number(fits[0], range(2, 13), TypeOptions()).values()]
    assert min(np.array(held) - np.arange(2, 13)) < 0
    stability = stability_of(find_types(fits[0]), fits[1:], [1, 2], [straight(5)] * 2)
    full = [number for number, n_held in zip(range(2, 13), held, strict=True) if n_held == number]
    assert set(stability.curve["n_types"]) == set(full) != set()


@pytest.mark.parametrize("seed", [7, 9, 10])
def test_a_refit_that_leaves_a_gaussian_empty_has_centres_of_the_others(seed: int) -> None:
    """Two tight types, put into three: any of the three may be the empty one, and the others are as they were."""
    found = find_types(population([30, 25, 20])[0])
    tight, types = population([50, 25], spread=0.005, seed=seed)
    stability = stability_of(found, [tight], [1], [straight(5)])
    assert stability.refits["n_types"].tolist() == [2]
    own = np.array([tight[types == number].mean(0) for number in (0, 1)])
    cosines = [ours @ theirs / np.linalg.norm(ours) for ours, theirs in zip(found.centres, own, strict=False)]
    expected = sum(cosines / np.linalg.norm(own, axis=1)) / 3  # the third type has no partner
    assert stability.refits["centre_similarity"][0] == pytest.approx(expected, abs=1e-3)
    labels = labels_by_number(tight, [3], TypeOptions())[3]
    np.testing.assert_array_equal(np.bincount(labels), [50, 25])


def test_more_types_are_advised_only_where_they_can_be_had() -> None:
    on_and_off = np.repeat([[1.0], [-1.0]], [6, 4], axis=0)  # one feature map: two barcodes, two types at most
    assert not more_could_be_tried(find_types(on_and_off))
    codes = population([30, 25, 20])[0]
    assert more_could_be_tried(find_types(codes, TypeOptions(max_types=2)))
    assert not more_could_be_tried(find_types(codes, TypeOptions(max_types=4)))
    assert not more_could_be_tried(find_types(codes, TypeOptions(n_types=2, max_types=2)))
    assert not more_could_be_tried(find_types(codes, TypeOptions(method="hdbscan")))
    three = np.repeat(np.eye(3), 10, axis=0)
    assert not more_could_be_tried(find_types(three, TypeOptions(max_types=3))), "there are no four barcodes"


def test_of_equal_agreement_the_largest_number_is_taken_and_none_of_nothing() -> None:
    nan = float("nan")
    curves = {3: [0.9, 1.0 - 1e-12, 0.995], 4: [0.2, 0.1, 0.4], 2: [0.3, nan, 0.1], None: [nan] * 3}
    for expected, values in curves.items():
        curve = pd.DataFrame({"n_types": [2, 3, 4], "ari": values, "low": values, "high": values})
        stability = Stability(pd.DataFrame(), curve)
        assert stability.n_types == expected
        assert stability.best_ari == (None if expected is None else values[expected - 2])
    empty = stability_of(find_types(np.eye(5)), [np.eye(5)], [1], [straight(5)])
    assert (empty.curve.empty, empty.n_types, empty.best_ari) == (True, None, None)


@pytest.mark.parametrize(
    "options", [TypeOptions(max_types=4), TypeOptions(n_types=3, max_types=4), TypeOptions(method="hdbscan")]
)
def test_a_silent_refit_is_left_out(options: TypeOptions) -> None:
    codes, _ = population([30, 20, 10])
    found = find_types(codes, options)
    maps = straight(5)
    stability = stability_of(found, [np.zeros_like(codes), codes], [7, 8], [maps, maps])
    assert stability.left_out == (7,)
    silent, same = stability.refits.to_dict("records")
    assert (silent["n_types"], silent["n_neurons"]) == (0, 0)
    assert np.isnan([silent["ari"], silent["centre_similarity"]]).all()
    assert (same["ari"], same["centre_similarity"]) == (1.0, pytest.approx(1.0))
    alone = stability_of(found, [codes], [8], [maps])
    pd.testing.assert_frame_equal(stability.curve, alone.curve)
    nothing = stability_of(found, [np.zeros_like(codes)], [7], [maps])
    assert (nothing.n_types, nothing.left_out, nothing.curve.empty) == (None, (7,), True)


def test_a_refit_with_fewer_barcodes_than_types_has_as_many_as_it_can() -> None:
    codes, _ = population([30, 20, 10])
    flat = np.repeat(np.eye(5)[:2], 30, axis=0)
    stability = stability_of(find_types(codes, TypeOptions(n_types=3)), [flat], [1], [straight(5)])
    assert list(stability.refits["n_types"]) == [2]
    with pytest.raises(InputError, match="a refit's barcodes holds 60 values that are not finite"):
        stability_of(find_types(codes), [np.where(np.arange(5) == 1, np.nan, codes)], [1], [straight(5)])
