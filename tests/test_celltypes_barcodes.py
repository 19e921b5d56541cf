"""Barcodes: what a rescaled, permuted or sign-flipped network does not change, and what maps' statistics are."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch

import whatwhere as ww
from whatwhere.celltypes import (
    WITH_BARCODES,
    MapStatistics,
    TypeOptions,
    barcodes_of,
    find_types,
    match_centres,
    match_maps,
    measured_maps,
    model_barcodes,
    model_signs,
    network_barcodes,
    stability_of,
)
from whatwhere.celltypes.barcodes import recording_maps, remembered_maps, some_images
from whatwhere.core import Core
from whatwhere.errors import InputError, OptionError
from whatwhere.estimators import CNN

SIZE = (12, 17)
LAST = {"kernel_sizes": (5, 3), "n_maps": (3, 4), "padding": "valid"}
QUICK = {"batch_size": 20, "max_steps": 3, "check_every": 3}
PENALTY = {"factorized": {"product_l1": 0.01}, "fully-connected": {"weight_l2": 0.1}}


def recording(n_neurons: int = 6, n_images: int = 60, seed: int = 0) -> ww.Recording:
    rng = np.random.default_rng(seed)
    return ww.Recording(rng.normal(size=(n_images, 2, *SIZE)), rng.poisson(2, (n_images, n_neurons)))


def fitted(name: str = "factorized", shown: ww.Recording | None = None, **core: object) -> CNN:
    penalties = {"product_l1": 0.0} if "batch_norm" in core else PENALTY.get(name, {"feature_l1": 0.01})
    values = {"core": {**LAST, **core}, "penalties": penalties, "training": QUICK}
    model = ww.make_model(name, values)
    model.fit(recording() if shown is None else shown)
    assert isinstance(model, CNN)
    return model


def varied(model: CNN, seed: int = 1) -> CNN:
    """The model with weights and masks as a long fit might leave them: some of any sign and size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in ("weights", "mask"):
            parameter = dict(model.model_.readout.named_parameters()).get(name)
            if parameter is not None:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def rewritten(model: CNN, order: list[int], factors: list[float], signs: list[float]) -> CNN:
    """The same function: maps permuted, scaled and turned over, and the weights that read them the other way."""
    again = copy.deepcopy(model)
    layer, readout = again.model_.core.layers[-1].convolution, again.model_.readout
    scale = torch.tensor(factors) * torch.tensor(signs)
    with torch.no_grad():
        layer.weight.copy_((layer.weight * scale.view(-1, 1, 1, 1))[order])
        if layer.bias is not None:
            layer.bias.copy_((layer.bias * scale)[order])
        readout.weights.copy_((readout.weights / scale)[:, order])
    return again


ORDER, FACTORS, SIGNS, SAME = [2, 0, 3, 1], [3.0, 0.2, 1.0, 7.0], [1.0, -1.0, -1.0, 1.0], [1.0] * 4


@pytest.mark.parametrize("metric", ["weights", "signal"])
@pytest.mark.parametrize(("last", "signs"), [("identity", SIGNS), ("relu", SAME)])
@pytest.mark.parametrize("name", ["factorized", "gaussian"])
def test_scales_signs_and_order_of_maps_do_not_matter(metric: str, last: str, signs: list[float], name: str) -> None:
    model = varied(fitted(name, batch_norm=False, last_nonlinearity=last))
    again = rewritten(model, ORDER, FACTORS, signs)
    shown = recording()
    np.testing.assert_allclose(again.predict(shown.images), model.predict(shown.images), rtol=1e-4, atol=1e-4)
    before = model_barcodes(model, shown, metric=metric)
    after = model_barcodes(again, shown, metric=metric)
    np.testing.assert_allclose(after, before[:, ORDER], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1.0)
    assert np.abs(model.feature_weights_ - again.feature_weights_[:, np.argsort(ORDER)]).max() > 0.5


def test_types_of_a_rewritten_network_are_the_same() -> None:
    shown = recording(n_neurons=60)
    model = varied(fitted(shown=shown, batch_norm=False))
    centres = torch.tensor([[3.0, 0.2, 0.1, 0.0], [0.1, 2.0, 0.0, 0.3], [0.0, 0.1, 0.2, 4.0]])
    with torch.no_grad():
        noise = 0.05 * torch.randn((60, 4), generator=torch.Generator().manual_seed(2))
        model.model_.readout.weights.copy_(centres[torch.arange(60) % 3] + noise)
        model.model_.readout.get_parameter("mask").abs_()
    again = rewritten(model, ORDER, FACTORS, SIGNS)
    first, second = (find_types(model_barcodes(one, shown)) for one in (model, again))
    assert first.n_types == 3
    np.testing.assert_array_equal(first.labels, np.arange(60) % 3)
    np.testing.assert_array_equal(second.labels, first.labels)
    np.testing.assert_allclose(second.confidence, first.confidence, atol=1e-6)
    np.testing.assert_allclose(second.bic["bic"], first.bic["bic"], atol=1e-2)


def test_the_sign_of_a_mask_with_its_weights_does_not_matter_but_alone_it_does() -> None:
    rng = np.random.default_rng(0)
    weights, masks, maps = rng.normal(size=(5, 3)), rng.normal(size=(5, 4, 6)), MapStatistics(np.array([1.0, 2, 3]))
    turned = np.array([1, -1, 1, -1, -1.0])
    codes = barcodes_of(weights, masks, maps)
    np.testing.assert_allclose(barcodes_of(weights * turned[:, None], masks * turned[:, None, None], maps), codes)
    np.testing.assert_allclose(barcodes_of(weights, masks * turned[:, None, None], maps), codes * turned[:, None])
    by_hand = [w * [1, 2, 3] * np.sign(m.flat[np.abs(m).argmax()]) for w, m in zip(weights, masks, strict=True)]
    np.testing.assert_allclose(codes, [code / np.linalg.norm(code) for code in by_hand])


def test_on_and_off_cells_of_one_map_are_two_types() -> None:
    masks = np.zeros((40, 3, 4))
    masks[:, 1, 2] = np.tile([1.0, -2.0], 20)
    found = find_types(barcodes_of(np.ones((40, 1)), masks, MapStatistics(np.ones(1))))
    assert found.n_types == 2
    np.testing.assert_array_equal(found.labels, np.tile([0, 1], 20))


def test_silent_neurons_have_no_barcode() -> None:
    weights, masks = np.ones((6, 2)), np.ones((6, 2, 2))
    masks[0], weights[1], masks[2] = 0.0, 0.0, 1e-6
    codes = barcodes_of(weights, masks, MapStatistics(np.ones(2)))
    np.testing.assert_array_equal(codes.any(axis=1), [False, False, False, True, True, True])
    assert not barcodes_of(0 * weights, masks, MapStatistics(np.ones(2))).any()


def test_the_inner_product_under_the_signal_metric_is_a_correlation_of_signals() -> None:
    """Of what two neurons would answer that read the maps of one core at the same pixel."""
    model, shown = varied(fitted("gaussian")), recording(n_images=200)
    codes = model_barcodes(model, shown, metric="signal")
    with torch.no_grad():
        images = torch.from_numpy(np.concatenate(list(model.standardised(some_images(shown), 64))))
        maps = model.model_.core(images).movedim(1, 0).flatten(1).numpy()
    expected = np.corrcoef(model.feature_weights_ @ maps)
    np.testing.assert_allclose(codes @ codes.T, expected, atol=1e-4)


def test_maps_that_are_alike_count_as_alike_under_the_signal_metric() -> None:
    """A map that the core has twice splits a type by weights, not by signals."""
    statistics = MapStatistics(np.ones(3), np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]]))
    weights, masks = np.repeat(np.eye(3), 20, axis=0), np.ones((60, 1, 1))
    apart = find_types(barcodes_of(weights, masks, statistics))
    alike = find_types(barcodes_of(weights, masks, statistics, metric="signal"))
    assert (apart.n_types, alike.n_types) == (3, 2)
    np.testing.assert_array_equal(alike.labels, np.repeat([0, 0, 1], 20))


@pytest.mark.parametrize("last", ["identity", "relu", "elu", "softplus"])
def test_what_batch_normalisation_remembers_is_what_white_noise_shows(last: str) -> None:
    core = Core(ww.CoreOptions(kernel_sizes=(5,), n_maps=3, last_nonlinearity=last), 1, 24, 30)
    core.initialize(torch.Generator().manual_seed(0))
    images = np.random.default_rng(0).normal(size=(600, 1, 24, 30)).astype(np.float32)
    core.layers[0].normalize.momentum = 1.0
    with torch.no_grad():
        core.layers[0].normalize.shift.copy_(torch.tensor([0.0, 1.0, -0.7]))
        core.train()(torch.from_numpy(images))
        core.eval()
    measured = measured_maps(core, np.array_split(images, 7))
    np.testing.assert_allclose(remembered_maps(core).std, measured.std, rtol=0.02)


def test_statistics_of_maps_are_those_of_numpy_whatever_the_chunks() -> None:
    model, shown = fitted(), recording()
    with torch.no_grad():
        images = torch.from_numpy(np.concatenate(list(model.standardised(shown.images, 60))))
        maps = model.model_.core(images).movedim(1, 0).flatten(1).numpy().astype(float)
    found = recording_maps(model, shown)
    np.testing.assert_allclose(found.std, maps.std(1), rtol=1e-6)
    np.testing.assert_allclose(found.correlations, np.corrcoef(maps), atol=1e-6)
    chunked = measured_maps(model.model_.core, model.standardised(shown.images, 7))
    np.testing.assert_allclose(chunked.std, found.std, rtol=1e-6)


def test_a_map_that_never_varies_is_read_by_nobody() -> None:
    model = fitted("gaussian", batch_norm=False)
    with torch.no_grad():
        model.model_.core.layers[-1].convolution.weight[1] = 0.0
    maps = recording_maps(model, recording())
    assert maps.std[1] == 0
    assert maps.correlations is not None
    np.testing.assert_array_equal(maps.correlations[1], [0, 1, 0, 0])
    for metric in ("weights", "signal"):
        codes = network_barcodes(model.model_, maps, metric=metric)
        assert np.isfinite(codes).all()
        np.testing.assert_allclose(codes[:, 1], 0, atol=1e-7)


@pytest.mark.parametrize("name", WITH_BARCODES)
def test_every_model_with_feature_weights_has_barcodes_without_a_recording(name: str) -> None:
    codes = model_barcodes(fitted(name))
    assert codes.shape == (6, 4)
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0)


def test_models_with_barcodes() -> None:
    assert WITH_BARCODES == ("factorized", "fixed-mask", "gaussian", "posterior")


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "fully connected": (
        lambda: model_barcodes(fitted("fully-connected")),
        InputError,
        r"a fully-connected model has no barcodes \(weights at every position.*factorized, fixed-mask, gaussian",
    ),
    "ridge": (
        lambda: model_barcodes(ww.Ridge(1.0).fit(recording())),
        InputError,
        "a ridge model has no barcodes: fit one of factorized, fixed-mask, gaussian, posterior",
    ),
    "no normalisation": (
        lambda: model_barcodes(fitted(batch_norm=False)),
        InputError,
        r"the core has no batch normalisation, .*: give the recording \(--recording\)",
    ),
    "signal without images": (
        lambda: model_barcodes(fitted(), metric="signal"),
        OptionError,
        "metric 'signal' needs the correlations of feature maps: give the recording",
    ),
    "other images": (
        lambda: model_barcodes(fitted(), ww.Recording(np.zeros((9, 2, 17, 12)), np.ones((9, 6)))),
        InputError,
        r"images has shape \(9, 2, 17, 12\): expected",
    ),
    "rows": (
        lambda: barcodes_of(np.ones((3, 2)), np.ones((4, 2, 2)), MapStatistics(np.ones(2))),
        InputError,
        "masks has 4 rows but feature_weights has 3: one row per neuron is needed",
    ),
    "NaN": (
        lambda: barcodes_of([[1.0, np.nan]], np.ones((1, 2, 2)), MapStatistics(np.ones(2))),
        InputError,
        "feature_weights holds 1 value that is not finite: neuron 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_barcodes_says_so(case: str) -> None:
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_maps_are_matched_though_permuted_scaled_turned_over_and_shifted() -> None:
    options = ww.CoreOptions(kernel_sizes=(7,), n_maps=4, batch_norm=False, last_nonlinearity="identity")
    first, second = (Core(options, 1, 20, 26) for _ in range(2))
    first.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        kernels = first.layers[0].convolution.weight
        kernels[:, :, :2] = kernels[:, :, :, -1:] = 0  # room for the shift
        moved = torch.roll(kernels, (-2, 1), (2, 3)) * torch.tensor([2.0, -0.5, 1, -3]).view(-1, 1, 1, 1)
        second.layers[0].convolution.weight.copy_(moved[ORDER])
    images = np.random.default_rng(0).normal(size=(40, 1, 20, 26)).astype(np.float32)
    found = match_maps(first, second, [(chunk, chunk) for chunk in np.array_split(images, 3)])
    np.testing.assert_array_equal(found.order, np.argsort(ORDER))
    np.testing.assert_array_equal(found.signs, [1, -1, 1, -1])
    assert (found.correlation > 0.97).all()
    same = match_maps(first, first, [(images, images)])
    np.testing.assert_allclose(same.correlation, 1.0)


def test_centres_are_compared_in_matched_maps() -> None:
    model, shown = varied(fitted(batch_norm=False)), recording()
    again = rewritten(model, ORDER, SAME, SIGNS)
    images = list(model.standardised(shown.images, 30))
    matched = match_maps(model.model_.core, again.model_.core, [(chunk, chunk) for chunk in images])
    np.testing.assert_array_equal(matched.order, np.argsort(ORDER))
    weights, others = model.feature_weights_, again.feature_weights_
    np.testing.assert_allclose(match_centres(weights, others[::-1], matched), 1.0, rtol=1e-6)
    assert match_centres(weights[:3], others[:2], matched).min() <= 1e-6, "the third has no partner"


TURNED = [[1.0, -1.0, -1.0, 1.0], [-1.0] * 4]


@pytest.mark.parametrize("metric", ["weights", "signal"])
@pytest.mark.parametrize("signs", TURNED)
@pytest.mark.parametrize("one_type", [True, False])
def test_types_of_a_network_with_maps_turned_over_are_wholly_similar(
    metric: str, signs: list[float], one_type: bool
) -> None:
    """Barcodes have the signs of their maps taken out already: they are not to be taken out twice."""
    shown = recording(n_neurons=30)
    model = varied(fitted(shown=shown, batch_norm=False))
    centres = torch.tensor([[3.0, 0.2, 0.1, 0.0], [0.1, 2.0, 0.0, 0.3], [0.0, 0.1, -0.2, 4.0]])
    with torch.no_grad():
        model.model_.readout.weights.copy_(centres[0 * torch.arange(30) if one_type else torch.arange(30) % 3])
        model.model_.readout.get_parameter("mask").abs_()
    again = rewritten(model, ORDER, FACTORS, signs)
    np.testing.assert_allclose(again.predict(shown.images), model.predict(shown.images), rtol=1e-4, atol=1e-4)
    images = list(model.standardised(shown.images, 30))
    matched = match_maps(model.model_.core, again.model_.core, [(chunk, chunk) for chunk in images])
    assert (matched.signs < 0).any()
    maps = matched.of_barcodes(model_signs(model, shown), model_signs(again, shown))
    found = find_types(model_barcodes(model, shown, metric=metric))
    assert found.n_types == (1 if one_type else 3)
    stability = stability_of(found, [model_barcodes(again, shown, metric=metric)], [1], [maps])
    np.testing.assert_allclose(stability.refits[["ari", "centre_similarity"]], 1.0, rtol=1e-5)


def test_maps_whose_signs_are_a_toss_up_are_compared_as_they_are() -> None:
    """On and off cells in equal numbers: which of them counts as on differs between fits, the match sets it right."""
    shown = recording(n_neurons=40)
    model = varied(fitted(shown=shown, batch_norm=False))
    weights = torch.tensor([[1.0, 0.5, 0.0, 0.0], [-1.0, 0.0, 0.5, 0.0]])[torch.arange(40) % 2]
    weights = weights / torch.from_numpy(recording_maps(model, shown).std)
    with torch.no_grad():
        model.model_.readout.get_parameter("mask").abs_()
        model.model_.readout.weights.copy_(weights)
        again = copy.deepcopy(model)
        model.model_.readout.weights[0, 0] *= 2  # more on than off in one fit
        again.model_.readout.weights[1, 0] *= 2  # and in the other less
    first, second = (model_signs(one, shown) for one in (model, again))
    assert (first != second).any()
    images = list(model.standardised(shown.images, 30))
    matched = match_maps(model.model_.core, again.model_.core, [(chunk, chunk) for chunk in images])
    found = find_types(model_barcodes(model, shown), TypeOptions(n_types=2, floor=0.5))
    stability = stability_of(found, [model_barcodes(again, shown)], [1], [matched.of_barcodes(first, second)])
    assert stability.refits["centre_similarity"][0] > 0.99


def test_signs_of_maps_that_mean_something_stay() -> None:
    model = varied(fitted("gaussian", last_nonlinearity="relu"))
    np.testing.assert_array_equal(model_signs(model), 1.0)
    free = varied(fitted("gaussian", batch_norm=False))
    raw = free.feature_weights_ * recording_maps(free, recording()).std
    signs = model_signs(free, recording())
    np.testing.assert_allclose(
        model_barcodes(free, recording()), signs * raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6
    )
