"""The examples run, small, and show what they say."""

import importlib.util
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import whatwhere as ww
from whatwhere.catalogue import MODELS
from whatwhere.errors import OptionError
from whatwhere.formats import FORMATS
from whatwhere.presets import PRESETS
from whatwhere.readouts import READOUTS
from whatwhere.simulation import hit_rate

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def optimisers() -> ModuleType:
    return load("optimisers")


def test_the_optimisers_are_compared_from_one_start(optimisers: ModuleType) -> None:
    results = optimisers.compare(n_neurons=3, n_images=60, max_seconds=2.0)
    assert set(results) == {"L-BFGS-B", "Newton-CG", "Nelder-Mead", "adam", "sgd"}
    starts = [result.values[0] for result in results.values()]
    np.testing.assert_allclose(starts, starts[0], rtol=1e-12)
    lowest = min(result.best_value for result in results.values())
    for name, result in results.items():
        assert result.seconds[-1] < 3.0
        assert result.best_value < starts[0]
        if name != "Nelder-Mead":
            assert result.best_value - lowest < 0.1 * (starts[0] - lowest), name
    assert results["Nelder-Mead"].best_value > results["L-BFGS-B"].best_value


def test_the_comparison_of_optimisers_is_drawn(optimisers: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "optimisers.png"
    optimisers.main(["--out", str(out), "--neurons", "2", "--images", "60", "--seconds", "0.2"])
    assert out.read_bytes().startswith(b"\x89PNG")


def test_fit_and_see_finds_places_and_types() -> None:
    shown = load("fit_and_see")
    assert shown.fev["mean"] > 0.8
    assert hit_rate(shown.errors) > 0.9
    assert shown.accuracy > 0.9


def test_own_recording_is_fitted_and_what_does_not_fit_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shown = load("own_recording")
    assert "responses has 699 rows but images has 700: one row per image is needed." in capsys.readouterr().out
    assert shown.recording.neurons.index[2] == "cell-2"
    assert shown.correlation["mean"] > 0.5
    assert set(shown.table.absent) == {"fev"}


def test_models_compared_have_the_networks_before_the_linear_one() -> None:
    found = load("compare_models").found
    scores = found.results.set_index("model")["score"]
    assert set(scores.index) == {"posterior", "factorized", "fixed-mask", "ridge"}
    assert scores["posterior"] > scores["ridge"] + 0.05
    assert len(found.differences) == 6


def test_readouts_are_told_apart_by_score_and_place() -> None:
    rows = {name: values for name, *values in load("choose_a_readout").rows}
    assert set(rows) == {"posterior", "factorized", "gaussian", "fixed-mask"}
    fev, _, hits = rows["posterior"]
    assert fev > max(values[0] for name, values in rows.items() if name != "posterior")
    assert hits > 0.9


def test_the_learning_curve_rises() -> None:
    curve = load("learning_curve").found.curve
    for _, rows in curve.groupby("model"):
        assert rows["n_images"].tolist() == [250, 500, 1000]
        assert rows["score"].iloc[-1] > rows["score"].iloc[0]


def test_credible_regions_hold_about_what_they_say() -> None:
    shown = load("where_neurons_look")
    for coverage in shown.coverages:
        assert coverage.low - 0.1 <= coverage.level <= coverage.high + 0.1


def test_types_are_found_as_they_are_and_are_there_again_in_refits() -> None:
    shown = load("cell_types")
    assert shown.found.types.n_types == 3
    assert shown.found.types.bic["n_types"].tolist() == list(range(1, 13))
    assert shown.ari > 0.95
    assert (shown.found.stability.refits["ari"] > 0.95).all()
    curve = shown.found.stability.curve.set_index("n_types")["ari"]
    assert curve[3] > 0.95 > curve[2] + 0.2
    assert shown.by_weights.n_types >= 3  # kernels to spare may split a type where they do not count as alike


def test_a_fitted_network_is_asked_and_answers_as_the_simulated_cells_do() -> None:
    shown = load("ask_the_model")
    assert np.median(shown.error) < 3
    assert (shown.error < 10).mean() > 0.9
    assert shown.right.mean() > 0.9
    assert np.median(shown.same[: shown.N]) > 0.95 > np.median(shown.same[shown.N :]) + 0.1
    np.testing.assert_allclose(shown.tuning.phase_invariance[: shown.N], 0.39, atol=0.05)
    np.testing.assert_allclose(shown.truth.phase_invariance[shown.N :], 1, atol=0.01)
    best = shown.best
    for place, neuron in enumerate(shown.some):  # better than any image that was shown
        assert best.responses[place] > shown.model.predict(shown.recording.images[:500])[:, neuron].max()
    fields = shown.population.parts[0].receptive_fields()
    for place in range(2):
        assert np.corrcoef(best.images[place].ravel(), fields[place].ravel())[0, 1] > 0.8


@pytest.fixture
def registries() -> Iterator[None]:
    """The dicts of names as they were, whatever an example adds."""
    dicts: list[dict] = [FORMATS, READOUTS, MODELS, *PRESETS.values()]
    before = [copy(names) for names in dicts]
    yield
    for names, known in zip(dicts, before, strict=True):
        names.clear()
        names.update(known)


@pytest.mark.usefixtures("registries")
def test_a_reader_and_a_readout_of_ones_own_work_like_the_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = load("own_extension")
    out = capsys.readouterr().out
    assert "Recording('tuesday', 300 images of 1x16x22, 5 neurons, no test set)" in out
    assert "tuesday holds no spikes.npy: copy it from the rig." in out
    assert "the same after loading: True" in out
    model, recording = shown.model, shown.recording
    assert model.evaluate(recording).summary["fev"]["mean"] > 0.3
    maps = np.random.default_rng(0).standard_normal((4, *model.model_.core.output_shape)).astype(np.float32)
    pooled = model.model_.readout(shown.torch.from_numpy(maps)).detach().numpy()
    expected = np.einsum("bkij,nij,nk->bn", maps, model.masks_, model.feature_weights_)  # equation 2, written out
    np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.masks_.sum((1, 2)), 1, rtol=1e-6)
    again = shown.PatchCNN("simulation", core={"kernel_sizes": [9]}, training={"max_steps": 250}).fit(recording)
    np.testing.assert_array_equal(again.feature_weights_, model.feature_weights_)  # the same seed, the same numbers
    with pytest.raises(OptionError, match="the patch readout has no penalty 'mask_l1'"):
        ww.make_model("patch", {"penalties": {"mask_l1": 0.1}}).options()
    pytest.importorskip("onnx")
    with pytest.raises(OptionError, match="a PatchReadout cannot be exported: expected one of FactorizedReadout, "):
        ww.export_onnx(model, tmp_path / "model.onnx")


def test_every_example_is_tested_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    assert all(f'load("{path.stem}")' in tested for path in EXAMPLES.glob("*.py"))
