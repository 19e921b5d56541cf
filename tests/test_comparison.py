"""Models compared under one split: what is fitted, kept, judged, resumed, and refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere.comparison import Comparison, compare, fits
from whatwhere.comparison.plan import options_of
from whatwhere.errors import FormatError, InputError, OptionError, RunError
from whatwhere.estimators import Estimator
from whatwhere.metrics import correlation_with_average, holm, interval_over_neurons, paired_difference
from whatwhere.run_data import read_data
from whatwhere.runs import fit_run
from whatwhere.storage import read_model, write_tensors

VALUES: dict[str, Any] = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
    "factorized": {"penalties": {"product_l1": 0.01}},
    "ridge": {"strengths": [1.0, 10.0]},
}
NAMES = ["ridge", "factorized"]
SEEDED = {"values": VALUES, "seed": 3, "seeds": 2, "images": (30, 50, "all")}


def recording(test: bool = True, n_neurons: int = 4) -> ww.Recording:
    rng = np.random.default_rng(0)
    images, shown = rng.normal(size=(80, 1, 12, 17)).astype(np.float32), np.repeat(np.arange(9), 3)
    held_out = ww.HeldOut(rng.normal(size=(9, 1, 12, 17)), rng.poisson(2, (27, 4)), shown)
    neurons = pd.DataFrame(index=["n7", "n3", "n5", "n1"])
    whole = ww.Recording(images, rng.poisson(2, (80, 4)), test=held_out if test else None, neurons=neurons)
    return whole.select_neurons(np.arange(n_neurons))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("compared")
    return compare(recording(), NAMES, folder, values=VALUES, seed=3), folder


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """Two seeds, three numbers of images."""
    folder = tmp_path_factory.mktemp("seeded")
    return compare(recording(), NAMES, folder, **SEEDED), folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def exact(path: Path) -> pd.DataFrame:
    """A table whose numbers are read to the last digit."""
    texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    words = [name for name in texts if name in ("neuron", "model") or str(name).startswith("constant")]
    return pd.DataFrame(
        {name: texts[name] if name in words else [float(text or "nan") for text in texts[name]] for name in texts}
    )


def kept_scores(folder: Path) -> np.ndarray:
    return exact(folder / "scores.csv")["correlation"].to_numpy()


# ----------------------------------------------------------------------------------------------- one seed, all images


def test_a_comparison_keeps_every_run_and_what_differs(compared: tuple[Comparison, Path]) -> None:
    comparison, folder = compared
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == NAMES
    for name in NAMES:
        assert metrics[name] == json.loads((folder / name / "metrics.json").read_text())
        assert ww.load_model(folder / name).name == name
    table = pd.read_csv(folder / "differences.csv")
    assert table[["model", "minus", "score"]].to_numpy().tolist() == [["ridge", "factorized", "correlation"]]
    scores = [kept_scores(folder / name) for name in NAMES]
    expected = paired_difference(*scores)
    assert table["mean"][0] == pytest.approx((scores[0] - scores[1]).mean())
    assert table["low"][0] == pytest.approx(expected.difference.low)
    assert table["high"][0] == pytest.approx(expected.difference.high)
    assert table["p_value"][0] == pytest.approx(expected.p_value)
    assert table["p_holm"][0] == pytest.approx(expected.p_value), "one pair"
    assert comparison.summaries == metrics


def test_the_tables_are_those_of_the_runs(compared: tuple[Comparison, Path]) -> None:
    comparison, folder = compared
    results = pd.read_csv(folder / "results.csv").set_index("model")
    assert list(results.index) == NAMES
    for name in NAMES:
        summary, row = json.loads((folder / name / "metrics.json").read_text()), results.loc[name]
        entry = summary["correlation"]
        assert (row["score"], row["low"], row["high"]) == pytest.approx([entry[key] for key in ("mean", "low", "high")])
        for score in ("feve", "log_likelihood_bits_per_spike", "single_trial_correlation"):
            for column, key in ((score, "mean"), (f"{score}_low", "low"), (f"{score}_high", "high")):
                value = summary[score][key]
                assert row[column] == pytest.approx(np.nan if value is None else value, nan_ok=True)
        assert (row["n_neurons"], row["n_images"], row["seeds"]) == (4, 80, 1)
        assert row["seconds"] == json.loads((folder / name / "timing.json").read_text())["seconds"] > 0
        assert np.isnan(row["seed_sd"])
    assert "fev" not in results, "without noise-free rates there is none"
    assert results.loc["factorized", "strengths"].startswith("product_l1=0.01")
    assert results.loc["ridge", "strengths"] == f"strength={comparison.runs['ridge'].model.strength_:g}"  # type: ignore[attr-defined]
    neurons = exact(folder / "neurons.csv")
    assert list(neurons) == ["neuron", *NAMES]
    assert list(neurons["neuron"]) == ["n7", "n3", "n5", "n1"]
    for name in NAMES:
        np.testing.assert_array_equal(neurons[name], kept_scores(folder / name))
    assert comparison.curve is None
    assert not (folder / "curve.csv").exists()


def test_all_models_have_one_split_and_their_own_options(compared: tuple[Comparison, Path]) -> None:
    comparison, _ = compared
    ridge, cnn = (comparison.runs[name].model for name in NAMES)
    rows, _ = recording().split(0.2, seed=3)
    np.testing.assert_allclose(ridge.mean_responses_, recording().responses[rows].mean(0, dtype=np.float64))
    np.testing.assert_array_equal(ridge.mean_responses_, cnn.mean_responses_)
    np.testing.assert_array_equal(ridge.standardisation_.mean, cnn.standardisation_.mean)
    assert list(ridge.history_["strength"]) == [1.0, 10.0]
    assert cnn.asked()["options"]["penalties"]["product_l1"] == 0.01
    assert cnn.asked()["options"]["core"]["n_maps"] == 2


def test_the_strengths_chosen_are_told_for_every_model() -> None:
    data = recording()
    lnp = ww.LNP(smoothness=(0.1,), sparsity=(0.05,)).fit(data)
    assert fits.strengths_of(lnp) == "smoothness=0.1 sparsity=0.05"
    each = ww.Ridge(strengths=(1.0, 10.0), per_neuron=True).fit(data)
    expected = "strength=1 to 10" if len(set(each.strength_)) > 1 else f"strength={each.strength_[0]:g}"
    assert fits.strengths_of(each) == expected
    assert fits.strengths_of(ww.OLS(crop=3).fit(data)) == ""


def test_every_pair_is_compared_and_p_corrected_for_their_number(tmp_path: Path) -> None:
    found = compare(recording(), ["ridge", "ols", "lasso"], tmp_path)
    pairs = found.differences
    assert pairs[["model", "minus"]].to_numpy().tolist() == [["ridge", "ols"], ["ridge", "lasso"], ["ols", "lasso"]]
    np.testing.assert_allclose(pairs["p_holm"], holm(pairs["p_value"]))
    scores = found.neurons
    np.testing.assert_allclose(
        pairs["mean"], [(scores[a] - scores[b]).mean() for a, b in pairs[["model", "minus"]].to_numpy()]
    )


def test_holms_correction_is_the_hand_computed_one() -> None:
    """0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1, which may not fall below the one before it."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.9, 0.6]), [0.03, np.nan, 1.0, 1.0])
    assert holm([]).shape == (0,)
    with pytest.raises(InputError, match=r"p_values holds 1\.5: expected chances, from 0 to 1"):
        holm([0.1, 1.5])


def test_one_validation_fraction_serves_all_models() -> None:
    own = options_of(["factorized", "ridge"], {}, "nonlinear")
    assert own["ridge"] == {"validation_fraction": 0.125}, "the first network's, of its preset"
    own = options_of(["factorized", "ridge"], {"ridge": {"validation_fraction": 0.3}}, "nonlinear")
    assert own["factorized"] == {"training": {"validation_fraction": 0.3}}, "what is given goes over a preset"
    assert options_of(["factorized", "ridge"], {}, "recording") == {"factorized": {}, "ridge": {}}
    values = {"training": {"validation_fraction": 0.1}, "ridge": {"validation_fraction": 0.3}}
    with pytest.raises(OptionError, match=r"validation_fraction differs \(factorized 0\.1, ridge 0\.3\)"):
        options_of(["factorized", "ridge"], values, "recording")


def test_nothing_is_judged_before_all_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fit, evaluate = ww.Ridge.fit, Estimator.evaluate
    monkeypatch.setattr(ww.Ridge, "fit", lambda self, *a, **k: (order.append("fit"), fit(self, *a, **k))[1])
    monkeypatch.setattr(ww.OLS, "fit", lambda self, *a, **k: (order.append("fit"), fit(self, *a, **k))[1])
    monkeypatch.setattr(
        Estimator, "evaluate", lambda self, *a, **k: (order.append("judge"), evaluate(self, *a, **k))[1]
    )
    compare(recording(), ["ridge", "ols"], tmp_path)
    assert order == ["fit", "fit", "judge", "judge"]


# ----------------------------------------------------------------------------------------------- seeds and ensembles


def test_a_seed_changes_the_network_and_keeps_split_and_neurons(seeded: tuple[Comparison, Path]) -> None:
    _, folder = seeded
    first, second = (ww.load_model(folder / "factorized" / part) for part in ("", "seed-4"))
    assert (first.asked()["seed"], second.asked()["seed"]) == (3, 4)
    np.testing.assert_array_equal(first.mean_responses_, second.mean_responses_)
    assert first.fingerprint_ == second.fingerprint_
    assert np.abs(first.kernels_ - second.kernels_).max() > 0.01  # type: ignore[attr-defined]
    assert not list((folder / "ridge").glob("seed-*")), "ridge draws nothing: it is fitted once"
    alone = ww.make_model(
        "factorized", {key: VALUES[key] for key in ("core", "training")} | VALUES["factorized"], seed=3
    )
    alone.fit(recording())
    np.testing.assert_array_equal(alone.predict(recording().images), first.predict(recording().images))


def test_the_ensemble_is_the_mean_of_the_seeds_predictions(seeded: tuple[Comparison, Path]) -> None:
    comparison, folder = seeded
    test = recording().test
    assert test is not None
    models = [ww.load_model(folder / "factorized" / part) for part in ("", "seed-4")]
    mean = np.mean([model.predict(test.read_images()).astype(float) for model in models], axis=0)
    expected = correlation_with_average(mean, test.responses, test.image_index)
    np.testing.assert_allclose(comparison.neurons["factorized-ensemble"], expected, atol=1e-12)
    results = comparison.results.set_index("model")
    assert list(results.index) == ["ridge", "factorized", "factorized-ensemble"]
    assert results.loc["factorized-ensemble", "score"] == pytest.approx(expected.mean())
    assert "factorized-ensemble" not in set(comparison.differences["minus"]), "it costs several fits"
    assert list(comparison.summaries) == ["ridge", "factorized", "factorized/seed-4", "factorized-ensemble"]


def test_a_models_score_is_the_mean_over_seeds_with_their_spread(seeded: tuple[Comparison, Path]) -> None:
    comparison, folder = seeded
    scores = [kept_scores(folder / "factorized" / part) for part in ("", "seed-4")]
    row = comparison.results.set_index("model").loc["factorized"]
    assert row["score"] == pytest.approx(np.mean(scores))
    assert row["seed_sd"] == pytest.approx(abs(scores[0].mean() - scores[1].mean()) / np.sqrt(2))
    interval = interval_over_neurons(np.mean(scores, axis=0), n_resamples=1000)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["seeds"] == 2
    np.testing.assert_allclose(comparison.neurons["factorized"], np.mean(scores, axis=0))
    difference = paired_difference(kept_scores(folder / "ridge"), np.mean(scores, axis=0))
    assert comparison.differences["mean"][0] == pytest.approx(difference.difference.mean)
    assert comparison.differences["p_value"][0] == pytest.approx(difference.p_value)


# ------------------------------------------------------------------------------------------------ numbers of images


def test_every_number_of_images_is_fitted_and_judged_alike(seeded: tuple[Comparison, Path]) -> None:
    comparison, folder = seeded
    curve = comparison.curve
    assert curve is not None
    pd.testing.assert_frame_equal(exact(folder / "curve.csv"), curve, check_dtype=False, check_exact=True)
    found = curve[["model", "n_images", "seed"]].to_numpy().tolist()
    runs = [["ridge", 3], ["factorized", 3], ["factorized", 4]]
    assert found == [[model, n, seed] for n in (30, 50, 80) for model, seed in runs]
    places = {30: folder / "images-30", 50: folder / "images-50", 80: folder}
    for row in curve.itertuples():
        place = places[row.n_images] / row.model
        run = place if row.seed == 3 else place / f"seed-{row.seed}"
        assert row.score == pytest.approx(kept_scores(run).mean())
        entry = json.loads((run / "metrics.json").read_text())["correlation"]
        assert (row.low, row.high) == (entry["low"], entry["high"])
    assert [outlook.model for outlook in comparison.outlooks] == NAMES
    table = pd.read_csv(folder / "extrapolation.csv")
    assert list(table["words"]) == [outlook.words() for outlook in comparison.outlooks]
    assert list(table["twice"]) == [160, 160]
    assert list(comparison.results["n_images"].unique()) == [80], "the other tables are of the most images"


def test_with_fewer_than_three_numbers_it_says_that_nothing_is_extrapolated(tmp_path: Path) -> None:
    found = compare(recording(), ["ridge"], tmp_path, images=[30, 50])
    words = [outlook.words() for outlook in found.outlooks]
    assert words == ["ridge: 2 of the 3 numbers of images that an extrapolation needs"]
    assert list(found.results["n_images"]) == [50]
    assert not (tmp_path / "ridge").exists(), "all images were not asked for"


# ------------------------------------------------------------------------------------------------ resuming


def test_a_finished_comparison_is_read_again_and_more_models_join_it(
    compared: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison, folder = compared
    before = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(ww.FactorizedCNN, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
        patch.setattr(ww.Ridge, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
        again = compare(recording(), NAMES, folder, values=VALUES, seed=3, resume=True)
    assert again.summaries == comparison.summaries
    assert content(folder) == before
    more = compare(recording(), [*NAMES, "fixed-mask"], folder, values=VALUES, seed=3, resume=True)
    assert list(more.runs) == [*NAMES, "fixed-mask"]
    assert len(more.differences) == 3
    after = content(folder)
    assert {name: after[name] for name in before if "/" in name} == {k: v for k, v in before.items() if "/" in k}


def test_seeds_and_images_join_a_plain_comparison(
    compared: tuple[Comparison, Path], seeded: tuple[Comparison, Path], tmp_path: Path
) -> None:
    compare(recording(), NAMES, tmp_path, values=VALUES, seed=3)
    before = {name: data for name, data in content(tmp_path).items() if "/" in name}
    compare(recording(), NAMES, tmp_path, **SEEDED, resume=True)
    after, other = content(tmp_path), content(seeded[1])
    assert {name: after[name] for name in before} == before
    timed = ("results.csv", "timing.json", "history.csv")  # these hold seconds
    for name in other:
        assert name.endswith(timed) or after[name] == other[name], name


class StoppedError(Exception):
    """Stands for a kill between two fits."""


def unfinished(folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, **options: Any) -> list[Path]:
    """A comparison that ended after so many fits; returns their folders."""
    fit_kept, done = fits.fit_kept, []

    def some(model: ww.FactorizedCNN, data: ww.Recording, place: Path, **how: Any) -> Any:
        if len(done) == after:
            raise StoppedError
        done.append(place)
        return fit_kept(model, data, place, **how)

    with monkeypatch.context() as patch:
        patch.setattr(fits, "fit_kept", some)
        with pytest.raises(StoppedError):
            compare(recording(), NAMES, folder, **options)
    return done


def test_an_unfinished_comparison_is_refused_resumed_or_replaced(
    compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"values": VALUES, "seed": 3}
    unfinished(tmp_path, monkeypatch, 1, **options)
    before = content(tmp_path)
    with pytest.raises(RunError, match="holds a run already"):
        compare(recording(), NAMES, tmp_path, **options)
    assert content(tmp_path) == before
    with monkeypatch.context() as patch:
        patch.setattr(ww.Ridge, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
        resumed = compare(recording(), NAMES, tmp_path, **options, resume=True)
    assert resumed.summaries == compared[0].summaries
    again = compare(recording(), NAMES, tmp_path, values=VALUES, seed=4, overwrite=True)
    assert again.summaries != compared[0].summaries
    with pytest.raises(RunError, match=r"begun with something else: data .*seed \(4, now 5\)"):
        compare(recording(), NAMES, tmp_path, values=VALUES, seed=5, resume=True)


def test_seeds_and_images_resume_to_the_same_numbers(
    seeded: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = unfinished(tmp_path, monkeypatch, 5, **SEEDED)
    assert done[-1] == tmp_path / "images-50" / "factorized"
    assert not list(tmp_path.rglob("metrics.json")), "nothing is judged before all is fitted"
    times = {place: (place / "model.safetensors").stat().st_mtime_ns for place in done}
    resumed = compare(recording(), NAMES, tmp_path, **SEEDED, resume=True)
    assert {place: (place / "model.safetensors").stat().st_mtime_ns for place in done} == times
    pd.testing.assert_frame_equal(resumed.curve, seeded[0].curve)  # type: ignore[arg-type]
    columns = [name for name in resumed.results if name != "seconds"]
    pd.testing.assert_frame_equal(resumed.results[columns], seeded[0].results[columns])
    assert resumed.summaries == seeded[0].summaries
    before = {name: data for name, data in content(tmp_path).items() if "neurons" not in name}
    compare(recording(), NAMES, tmp_path, **SEEDED, overwrite=True)
    assert set(before) <= set(content(tmp_path))


def test_ctrl_c_keeps_what_is_done_and_judges_nothing(
    compared: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    with monkeypatch.context() as patch:
        from contextlib import contextmanager

        @contextmanager
        def pressed() -> Any:
            yield lambda: next(calls) >= 3

        patch.setattr("whatwhere.estimators.candidates.interruptible", pressed)
        stopped = compare(recording(), NAMES, tmp_path, values=VALUES, seed=3)
    assert stopped.interrupted
    assert stopped.runs == {}
    assert not list(tmp_path.rglob("metrics.json"))
    assert ww.load_model(tmp_path / "factorized").stopped_ == "interrupted"
    resumed = compare(recording(), NAMES, tmp_path, values=VALUES, seed=3, resume=True)
    assert resumed.summaries == compared[0].summaries


KILLED = """
import os, sys, whatwhere as ww
from whatwhere import comparison
from whatwhere.comparison import comparing
comparing.judge = lambda *a: os.kill(os.getpid(), 9)
comparison.compare(ww.load(sys.argv[1]), ["ridge", "ols"], sys.argv[2])
"""


def test_a_kill_before_the_scores_loses_no_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ww.save(recording(), tmp_path / "session.npz")
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "session.npz", out], check=False, timeout=120)
    assert killed.returncode == -9
    monkeypatch.setattr(ww.Ridge, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
    monkeypatch.setattr(ww.OLS, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
    resumed = compare(ww.load(tmp_path / "session.npz"), ["ridge", "ols"], out, resume=True)
    assert list(resumed.summaries) == ["ridge", "ols"]
    (out / "ridge" / "timing.json").write_text("{}")
    with pytest.raises(FormatError, match=r"timing\.json cannot be read .* delete it"):
        compare(ww.load(tmp_path / "session.npz"), ["ridge", "ols"], out, resume=True)


def test_overwriting_removes_a_comparisons_files_and_no_others(tmp_path: Path) -> None:
    compare(recording(), ["ridge", "ols"], tmp_path, images=[30, "all"])
    mine = ("notes.txt", "images-30/notes.txt", "seed-old/metrics.json", "images-x/ridge/model.safetensors")
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("mine")
    from whatwhere.runs import open_folder

    open_folder(tmp_path, overwrite=True)
    assert content(tmp_path) == dict.fromkeys(mine, b"mine")
    (tmp_path / "results.csv").write_text("of something else")
    open_folder(tmp_path, overwrite=True)
    assert (tmp_path / "results.csv").exists(), "no comparison stands here"


# ------------------------------------------------------------------------------------------------ hard recordings


def test_without_held_out_part_models_are_fitted_and_not_judged(tmp_path: Path) -> None:
    found = compare(recording(test=False), NAMES, tmp_path, values=VALUES, seeds=2)
    assert found.summaries == {"ridge": {}, "factorized": {}, "factorized/seed-1": {}}
    assert list(found.results["model"]) == NAMES
    assert found.results["score"].isna().all()
    assert len(found.differences) == 0
    assert list(found.neurons) == ["neuron"]
    with pytest.raises(
        InputError, match="a learning curve is judged on the held-out part, of which recording has none"
    ):
        compare(recording(test=False), NAMES, tmp_path / "new", values=VALUES, images=[30, 50])
    assert not (tmp_path / "new").exists()


def test_one_neuron_and_a_constant_one(tmp_path: Path) -> None:
    single = compare(recording(n_neurons=1), ["ridge", "ols"], tmp_path / "one", images=[30, 50, 80])
    assert list(single.results["n_neurons"]) == [1, 1]
    assert all("the points do not tell" in outlook.words() for outlook in single.outlooks)
    whole = recording()
    responses = whole.responses.copy()
    responses[:, 1] = 2
    still = ww.Recording(whole.images, responses, test=whole.test, neurons=whole.neurons)
    found = compare(still, ["ridge", "ols", "factorized"], tmp_path / "still", values=VALUES)
    assert found.neurons.loc[1, ["ridge", "ols"]].tolist() == [0, 0]
    assert list(found.results["n_neurons"]) == [4, 4, 4]
    for name in NAMES:  # what is worth saying of a fit is kept as by a fit of its own
        values = {key: value for key, value in VALUES.items() if key in ("core", "training")}
        values = {**values, **VALUES[name]} if name == "factorized" else VALUES[name]
        run = fit_run(ww.make_model(name, values), still, tmp_path / "alone" / name)
        kept = [read_data(folder / name, 4) for folder in (tmp_path / "alone", tmp_path / "still")]
        assert kept[0].facts["notes"] == kept[1].facts["notes"] == list(run.model.notes_)
        assert "1 of 4 neurons never vary (kept, scored 0): n3" in run.model.notes_
        assert ww.load_model(tmp_path / "still" / name).notes_ == run.model.notes_


def test_a_model_of_a_version_that_kept_no_notes_is_read(tmp_path: Path) -> None:
    model = ww.Ridge([1.0]).fit(recording())
    tensors, description, _ = read_model(model.save(tmp_path))
    del description["notes"]
    (tmp_path / "before").mkdir()
    write_tensors(tmp_path / "before" / "model.safetensors", tensors, description)
    found = ww.load_model(tmp_path / "before")
    assert found.notes_ == ()
    np.testing.assert_array_equal(found.predict(recording().images), model.predict(recording().images))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "no models to compare: name at least one"),
        (["ridge", "ridge"], {}, "models ridge, ridge: each can be compared once"),
        (["ridge", "rigde"], {}, r"unknown model 'rigde'.* Did you mean 'ridge'\?"),
        (["ridge"], {"values": {"core": {}}}, r"core: options of the convolutional models, but ridge has none of them"),
        (["ridge", "factorized"], {"values": {"fixed-mask": {}}}, "unknown model in the options 'fixed-mask'"),
        (["factorized"], {"values": {"factorized": {"core": {"n_map": 1}}}}, "unknown option of core 'n_map'"),
        (["ridge"], {"seeds": 0}, "seeds must be a whole number of at least 1, how many of them, got 0"),
        (["ridge"], {"seeds": True}, "seeds must be a whole number of at least 1"),
        (["ridge"], {"images": [30, 81]}, "images holds 81, but the recording has 80 to train and validate with"),
        (["ridge"], {"images": [1]}, "images holds 1: expected whole numbers of at least 2"),
        (["ridge"], {"images": ["some"]}, "images holds 'some': expected whole numbers"),
        (["ridge"], {"images": [80, "all"]}, r"images holds 80 more than once \(all are 80\)"),
    ],
)
def test_a_comparison_refuses_what_does_not_fit_before_it_fits(
    names: list[str], options: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        compare(recording(), names, tmp_path, **options)
    assert not list(tmp_path.iterdir())
