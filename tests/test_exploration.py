"""What a report shows, as data: crops in their places, warnings, commands, and runs beside each other."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import runs
from whatwhere.catalogue import make_model
from whatwhere.cli.options import gather
from whatwhere.comparison.fits import kept_scores
from whatwhere.core import map_offset
from whatwhere.errors import FormatError, InputError, OptionError, RunError
from whatwhere.exploration import explore_models, explore_runs, parts
from whatwhere.exploration.attention import attention
from whatwhere.exploration.commands import command_of
from whatwhere.exploration.crops import around_peaks
from whatwhere.exploration.parts import filters_of, where_parts
from whatwhere.insilico import StudyOptions, study
from whatwhere.metrics import SCORES
from whatwhere.recording import Standardisation, with_split

SMALL = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}


def recording(seed: int = 0, n_channels: int = 1, n_neurons: int = 4, test: bool = True) -> ww.Recording:
    rng = np.random.default_rng(seed)
    held = ww.HeldOut(
        rng.normal(size=(9, n_channels, 12, 17)), rng.poisson(2, (27, n_neurons)), np.repeat(np.arange(9), 3)
    )
    images = rng.normal(size=(80, n_channels, 12, 17)).astype(np.float32)
    neurons = pd.DataFrame(index=[f"n{7 - 2 * i}" for i in range(n_neurons)])
    return ww.Recording(images, rng.poisson(2, (80, n_neurons)), test=held if test else None, neurons=neurons)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    for name in ("factorized", "posterior", "ridge"):
        model = make_model(name, SMALL if name != "ridge" else {"strengths": [1.0, 10.0], "crop": 7})
        runs.fit_run(model, recording(), folder / name)
    return folder


def test_a_piece_put_back_in_its_place_is_what_was_there(rng: np.random.Generator) -> None:
    values = np.zeros((3, 2, 20, 33), np.float32)
    for neuron, (row, column) in enumerate([(0, 0), (10, 30), (19, 16)]):
        values[neuron, :, max(0, row - 2) : row + 3, max(0, column - 3) : column + 4] = rng.normal(
            size=values[neuron, :, max(0, row - 2) : row + 3, max(0, column - 3) : column + 4].shape
        )
        values[neuron, 1, row, column] = 9.0
    piece = around_peaks(values, (4.0, 2.5))
    assert piece.step == 1
    assert piece.values.shape[2] < 20
    again = np.zeros_like(values)
    for neuron, (top, left) in enumerate(piece.edges):
        row, column = round(top + 0.5 - 4.0), round(left + 0.5 - 2.5)  # from the edge to the first pixel of the map
        height, width = piece.values.shape[2:]
        again[neuron, :, row : row + height, column : column + width] = piece.values[neuron]
    np.testing.assert_array_equal(again, values)


def test_masks_lie_where_their_locations_say(folder: Path) -> None:
    model = ww.load_model(folder / "factorized")
    masks, posterior = where_parts(model)
    assert posterior is None
    for neuron, location in enumerate(model.locations_):
        peak = np.unravel_index(np.abs(masks.values[neuron, 0]).argmax(), masks.values.shape[2:])
        np.testing.assert_allclose(masks.edges[neuron] + 0.5 + peak, location)
    assert map_offset(model.options_.core) == (2.0, 2.0)


def test_the_posterior_is_the_models(folder: Path) -> None:
    model = ww.load_model(folder / "posterior")
    run = explore_runs([folder / "posterior"]).runs[0]
    np.testing.assert_allclose(run.posterior.entropy, model.location_entropy_)
    np.testing.assert_array_equal(run.posterior.region_pixels, model.credible_regions(0.9).sum((1, 2)))
    assert run.posterior.region.any((1, 2, 3)).all()
    inside = np.where(run.posterior.region, run.posterior.probability.values, 0).sum((1, 2, 3))
    assert (inside >= 0.9 - 1e-4).all()
    np.testing.assert_array_equal(run.posterior.highest, model.location_posterior_.max((1, 2)))


def test_filters_of_a_cropped_baseline_lie_in_their_windows(folder: Path) -> None:
    model = ww.load_model(folder / "ridge")
    pieces = filters_of(model)
    whole = model.whole_filters()
    for neuron, (top, left) in enumerate(pieces.edges + 0.5):
        height, width = pieces.values.shape[2:]
        there = whole[neuron, :, int(top) : int(top) + height, int(left) : int(left) + width]
        np.testing.assert_array_equal(there, pieces.values[neuron])


def test_scores_and_their_means_are_the_runs(folder: Path) -> None:
    run = explore_runs([folder / "factorized"]).runs[0]
    kept = pd.read_csv(folder / "factorized" / "scores.csv")
    assert run.neurons == tuple(kept["neuron"])
    np.testing.assert_array_equal(run.scores["correlation"], kept["correlation"])
    assert run.summary["correlation"]["mean"] == pytest.approx(kept["correlation"].mean())
    assert run.held is not None
    assert run.kernels_are_features
    assert len(run.kernels) == run.feature_weights.shape[1] == 2


def test_kernels_are_not_the_features_of_a_second_layer(tmp_path: Path) -> None:
    deep = {**SMALL, "core": {"kernel_sizes": [5, 3], "n_maps": [2, 3]}}
    runs.fit_run(make_model("factorized", deep), recording(), tmp_path)
    run = explore_runs([tmp_path]).runs[0]
    assert not run.kernels_are_features
    assert (len(run.kernels), run.feature_weights.shape[1]) == (2, 3)


def test_neurons_may_be_called_anything(tmp_path: Path) -> None:
    given = recording()
    names = ["NA", "007", "a,b", "\ra\r"]
    renamed = ww.Recording(given.images, given.responses, test=given.test, neurons=pd.DataFrame(index=names))
    runs.fit_run(ww.Ridge(strengths=[1.0]), renamed, tmp_path)
    types = pd.DataFrame({"neuron": names, "type": list("0110"), "confidence": [1.0, 0.5, np.nan, 0.8]})
    types.to_csv(tmp_path / "types.csv", index=False)
    run = explore_runs([tmp_path]).runs[0]
    assert run.neurons == tuple(names)
    assert list(run.types["type"]) == list("0110")
    np.testing.assert_array_equal(run.types["confidence"], types["confidence"])
    again = kept_scores(tmp_path).neurons
    np.testing.assert_array_equal(again["correlation"], run.scores["correlation"])
    assert list(run.scores["constant_response"]) == [False] * 4
    assert run.scores["correlation"].notna().all()


def test_a_folder_and_its_model_give_the_same(folder: Path) -> None:
    kept = explore_runs([folder / "factorized"]).runs[0]
    made = explore_models({"factorized": ww.load_model(folder / "factorized")}, recording()).runs[0]
    pd.testing.assert_frame_equal(kept.scores, made.scores, check_exact=False, rtol=1e-12)
    np.testing.assert_array_equal(kept.masks.values, made.masks.values)
    np.testing.assert_array_equal(kept.held.predictions, made.held.predictions)
    assert kept.summary["feve"]["mean"] == made.summary["feve"]["mean"]


def test_runs_are_paired_by_identifier(folder: Path, tmp_path: Path) -> None:
    part = recording().select_neurons([3, 1])
    runs.fit_run(ww.Ridge(strengths=[1.0]), part, tmp_path / "some")
    found = explore_runs([folder / "ridge", tmp_path / "some"])
    first, other = (
        pd.read_csv(path / "scores.csv", index_col="neuron") for path in (folder / "ridge", tmp_path / "some")
    )
    difference = next(one for one in found.differences if one.score == "correlation")
    common = list(other.index)
    assert difference.n == 2
    assert difference.mean == pytest.approx((first["correlation"][common] - other["correlation"][common]).mean())
    assert (difference.first, difference.minus) == ("ridge", "some")
    kept = {name for name in SCORES if name in first.columns}
    of_responses = {"explainable_variance", "normalized_noise_power", "oracle", "noise_ceiling"}
    assert of_responses < kept  # shown of each run, but no model is better in them
    assert {one.score for one in found.differences} == kept - of_responses


def test_runs_without_a_neuron_in_common_are_refused(folder: Path, tmp_path: Path) -> None:
    given = recording()
    renamed = ww.Recording(given.images, given.responses, neurons=pd.DataFrame(index=["x", "y", "z", "w"]))
    runs.fit_run(ww.Ridge(strengths=[1.0]), renamed, tmp_path / "other")
    with pytest.raises(InputError, match="ridge and other have no neuron in common, n7, n5 and 2 more and x, y"):
        explore_runs([folder / "ridge", tmp_path / "other"])


def test_runs_of_different_recordings_are_refused_though_their_identifiers_are_equal(
    folder: Path, tmp_path: Path
) -> None:
    def fitted(given: ww.Recording, name: str) -> Path:
        runs.fit_run(ww.Ridge(strengths=[1.0]), given, tmp_path / name)
        return tmp_path / name

    whole = recording()
    needed = "Neurons of the same identifier are compared as one, which needs runs of one recording: make a report of"
    with pytest.raises(
        InputError, match=f"ridge and other are of different recordings: 4 of 4 neurons .* first of them n7.*{needed}"
    ):
        explore_runs([folder / "ridge", fitted(recording(1), "other")])
    fewer = ww.HeldOut(whole.test.images[:8], whole.test.responses[:24], np.repeat(np.arange(8), 3))
    fewer = ww.Recording(whole.images, whole.responses, test=fewer, neurons=whole.neurons)
    with pytest.raises(InputError, match="different recordings: they have 9 and 8 test images"):
        explore_runs([folder / "ridge", fitted(fewer, "fewer")])
    untested = [replace(recording(seed, test=False), name=name) for seed, name in ((0, "a"), (1, "b"), (1, "a"))]
    first, other, same = (fitted(given, f"untested {place}") for place, given in enumerate(untested))
    with pytest.raises(InputError, match="different recordings: they are called a and b"):
        explore_runs([first, other])
    assert explore_runs([first, same]).differences == ()
    part = fitted(whole.select_images(np.arange(40)).select_neurons([3, 1]), "part")  # of the same recording
    assert {one.n for one in explore_runs([folder / "ridge", part]).differences if one.score == "correlation"} == {2}
    ww.load_model(first).save(tmp_path / "bare")  # nothing is known of its recording
    assert explore_runs([folder / "ridge", tmp_path / "bare"]).differences == ()


def test_a_run_that_keeps_nothing_takes_the_recording(folder: Path, tmp_path: Path) -> None:
    model = ww.load_model(folder / "factorized")
    model.save(tmp_path / "bare")
    without = explore_runs([tmp_path / "bare"]).runs[0]
    assert (without.held, without.scores, without.facts) == (None, None, {})
    assert any("give it with --recording" in reason for reason in without.absent)
    given = explore_runs([tmp_path / "bare"], recording()).runs[0]
    kept = explore_runs([folder / "factorized"]).runs[0]
    np.testing.assert_array_equal(given.held.observed, kept.held.observed)
    pd.testing.assert_frame_equal(given.scores, kept.scores, check_exact=False, rtol=1e-12)
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == [
        "config.yaml",
        "history.csv",
        "model.safetensors",
    ]


def test_another_recording_than_was_fitted_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    """Its identifiers may be the same: those of arrays without any are 0, 1, ..."""
    model = ww.load_model(folder / "ridge")
    model.save(tmp_path)
    given, needle = recording(), "recording is not what the model was fitted to, or not all of it"
    for told, other in ((True, recording(1)), (False, given), (True, with_split(given, 0.2, 0))):
        told_of_folder = explore_runs([tmp_path], other).runs[0].attention
        assert [line.startswith(needle) for line in told_of_folder[:1]] == [told]
        assert explore_models({tmp_path.name: model}, other).runs[0].attention == told_of_folder
    more = recording(0, n_neurons=5)
    part = ww.Ridge(strengths=[1.0]).fit(with_split(more.select_neurons([3, 1]), 0.2, 0))
    assert part.was_fitted_to(more), "its neurons among others, the split its own"
    assert not part.was_fitted_to(replace(more, validation=np.arange(80) < 9))
    assert not part.was_fitted_to(more.select_images(np.arange(40)))
    with pytest.raises(InputError, match="lacks 1 of the 2 neurons"):
        part.was_fitted_to(more.select_neurons([3]))
    assert part.doubt(more.select_neurons([3])).startswith(needle)


def test_a_recording_is_taken_for_what_a_run_lacks_and_else_refused(folder: Path, tmp_path: Path) -> None:
    runs.fit_run(ww.Ridge(strengths=[1.0]), recording(), tmp_path / "run")
    kept = explore_runs([tmp_path / "run"]).runs[0]
    with pytest.raises(OptionError, match="the recording has nothing to act on: every run keeps what its report shows"):
        explore_runs([tmp_path / "run", folder / "ridge"], recording())
    (tmp_path / "run" / "scores.csv").unlink()
    assert explore_runs([tmp_path / "run"]).runs[0].scores is None
    scored = explore_runs([tmp_path / "run"], recording()).runs[0]
    pd.testing.assert_frame_equal(scored.scores, kept.scores, check_exact=False, rtol=1e-12)
    assert scored.absent == kept.absent


def test_types_fields_and_images_of_other_analyses_are_read(folder: Path, tmp_path: Path, rng) -> None:
    model = ww.load_model(folder / "factorized")
    model.save(tmp_path)
    pd.DataFrame(
        {"neuron": ["n1", "n3", "n5", "n7"], "type": ["a", "b", "a", "c"], "confidence": [0.1, 0.2, 0.3, 0.4]}
    ).to_csv(tmp_path / "types.csv", index=False)
    fields, corners = rng.normal(size=(4, 1, 5, 6)), np.array([[0, 0], [3, 4], [1, 1], [7, 11]])
    names = ["n1", "n3", "n5", "n7"]
    np.savez(tmp_path / "fields.npz", fields=fields, corners=corners, neurons=names)
    images = rng.normal(size=(2, 1, 12, 17))
    np.savez(tmp_path / "most_exciting.npz", images=images, neurons=["n5", "n7"])
    run = explore_runs([tmp_path]).runs[0]
    assert list(run.types["type"]) == ["c", "a", "b", "a"]  # in the model's order, n7, n5, n3, n1
    assert list(run.types["confidence"]) == [0.4, 0.3, 0.2, 0.1]
    np.testing.assert_allclose(run.field.values, fields[::-1], rtol=1e-6)
    np.testing.assert_array_equal(run.field.edges, corners[::-1] - 0.5)
    assert run.field_name == "linearised field"
    np.testing.assert_allclose(run.exciting[:2], images[::-1], rtol=1e-6)
    assert np.isnan(run.exciting[2:]).all()


def test_neurons_without_a_type_are_of_type_none(folder: Path, tmp_path: Path) -> None:
    ww.load_model(folder / "factorized").save(tmp_path)
    (tmp_path / "types.csv").write_text("neuron,type,confidence\nn1,0,0.9\nn3,,0\nn5,1,0.8\nn7,,0\n")
    assert list(explore_runs([tmp_path]).runs[0].types["type"]) == ["none", "1", "none", "0"]


def test_fields_are_found_where_none_of_all_neurons_were_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ww.load_model(folder / "factorized")
    model.save(tmp_path)
    np.savez(tmp_path / "fields.npz", fields=np.ones((1, 1, 2, 2)), corners=np.zeros((1, 2)), neurons=["n3"])
    run = explore_runs([tmp_path]).runs[0]
    expected = study(model, StudyOptions(gratings=None)).fields
    np.testing.assert_array_equal(run.field.values, expected.values)
    np.testing.assert_array_equal(run.field.edges, expected.corners - 0.5)
    assert run.field.made is None
    monkeypatch.setattr(parts, "MOST_FIELDS", 3)
    run = explore_runs([tmp_path]).runs[0]
    np.testing.assert_array_equal(run.field.made, [neuron == "n3" for neuron in model.neurons_])
    np.testing.assert_array_equal(run.field.values[run.field.made], np.ones((1, 1, 2, 2)))
    assert not run.field.values[~run.field.made].any()
    np.testing.assert_array_equal(run.field.edges[run.field.made], [[-0.5, -0.5]])
    reason = "no linearised fields of 3 of 4 neurons: `whatwhere insilico` has written those of the others alone"
    assert any(line.startswith(reason) for line in run.absent)
    (tmp_path / "fields.npz").unlink()
    run = explore_runs([tmp_path]).runs[0]
    assert run.field is None
    assert any("no linearised fields: of more than" in line for line in run.absent)


def test_fields_of_images_of_unknown_contrast_are_not_shown(folder: Path, tmp_path: Path) -> None:
    """As of a model that takes images as they are, kept before models knew how their images look."""
    model = ww.load_model(folder / "factorized")
    model.standardisation_ = Standardisation(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    model.save(tmp_path)
    run = explore_runs([tmp_path]).runs[0]
    assert run.field is None
    (reason,) = [line for line in run.absent if "linearised" in line]
    assert reason.startswith("no linearised fields: of images of unknown contrast (it takes them as they are, and was")
    assert reason.endswith("shown once `whatwhere insilico --recording` has written them into the run's folder")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("types.csv", "neuron,type\nn7,a\n", r"types.csv lacks 3 of the 4 neurons of the model, n5, n3, n1: write it"),
        ("types.csv", "cell,type\nn7,a\n", r"types.csv cannot be read .*expected columns neuron, type and confidence"),
        (
            "fields.npz",
            {"fields": np.zeros((3, 1, 5, 5)), "corners": np.zeros((3, 2)), "neurons": ["n1", "n3", "n5", "n7"]},
            r"fields has shape \(3, 1, 5, 5\)",
        ),
        (
            "fields.npz",
            {"fields": np.zeros((4, 1, 5, 5))},
            r"fields.npz cannot be read .*expected arrays fields, corners, neurons",
        ),
        (
            "most_exciting.npz",
            {"images": np.zeros((2, 1, 17, 12)), "neurons": ["n1", "n3"]},
            r"expected \(2, 1, 12, 17\), an image of each",
        ),
        (
            "most_exciting.npz",
            {"images": np.zeros((1, 1, 12, 17)), "neurons": ["n2"]},
            r"is of neurons that the model lacks, n2: write it again",
        ),
    ],
)
def test_files_of_another_run_are_refused(folder: Path, tmp_path: Path, file: str, content, message: str) -> None:
    ww.load_model(folder / "factorized").save(tmp_path)
    if isinstance(content, str):
        (tmp_path / file).write_text(content)
    else:
        np.savez(tmp_path / file, **content)
    with pytest.raises(FormatError, match=message):
        explore_runs([tmp_path])


def test_folders_that_are_no_runs_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no run was named"):
        explore_runs([])
    with pytest.raises(RunError, match="is no folder: expected that of a run"):
        explore_runs([tmp_path / "nothing"])
    with pytest.raises(RunError, match=r"holds no fitted model\. Name one that `whatwhere fit` wrote"):
        explore_runs([tmp_path])
    ww.load_model(folder / "factorized").save(tmp_path / "ridge")
    with pytest.raises(RunError, match=r"It has runs within it: name one, .*ridge\."):
        explore_runs([tmp_path])


def test_the_reader_is_told_what_matters() -> None:
    summary = recording(test=False).summary()
    facts = {
        "recording": {**summary, "n_constant_neurons": 2, "constant_neurons": ["n1", "n3"]},
        "notes": ["3 rows left out"],
    }
    scores = pd.DataFrame({"explainable_variance": [0.1, 0.3, np.nan], "constant_prediction": [False, True, False]})
    told = " ".join(attention(facts, "max_steps", ["n1", "n2", "n3"], scores, np.array([[1, 2], [np.nan] * 2, [3, 4]])))
    assert "Training stopped at its limit of steps" in told
    assert "2 of 4 neurons never respond differently (dead or constant): n1, n3" in told
    assert "Few images: 80" in told
    assert "No test set" in told
    assert "1 of 3 neurons respond unreliably: less than 15% of their variance" in told
    assert "1 of 3 neurons are predicted to respond the same to every image: n2" in told
    assert "1 of 3 neurons look nowhere, their masks are zero: n2" in told
    assert "Note: 3 rows left out." in told


def test_of_a_good_recording_nothing_is_said(rng: np.random.Generator) -> None:
    test = ww.HeldOut(rng.normal(size=(30, 4, 4)), rng.normal(size=(60, 2)), np.repeat(np.arange(30), 2))
    good = ww.Recording(rng.normal(size=(600, 4, 4)), rng.normal(size=(600, 2)), test=test)
    scores = pd.DataFrame({"explainable_variance": [0.4, 0.3], "constant_prediction": [False, False]})
    assert (
        attention({"recording": good.summary(), "notes": []}, "converged", ["a", "b"], scores, np.zeros((2, 2))) == ()
    )


@pytest.mark.parametrize(
    ("name", "preset", "values"),
    [
        ("factorized", "recording", SMALL),
        ("factorized", "simulation", {"penalties": {"mask_l1": 0.1}, "core": {"n_maps": 3}}),
        ("posterior", "nonlinear", {"readout": {"noise": "rate"}}),
        ("ridge", "recording", {"strengths": [1.0, 10.0], "crop": 7}),
        ("lnp", "recording", {}),
    ],
)
def test_the_command_asks_for_the_same_model(name: str, preset: str, values: dict) -> None:
    model = make_model(name, values, preset=preset, seed=5)
    words = shlex.split(command_of(model, "a run"))
    assert words[:5] == ["whatwhere", "fit", "RECORDING", "--out", "a run"]
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    flags = {key: words[words.index(f"--{key}") + 1] for key in ("model", "seed", "preset") if f"--{key}" in words}
    options, own = gather(None, sets, {"seed": int(flags["seed"]), "preset": flags.get("preset")})
    again = make_model(
        flags["model"], runs.own_values(flags["model"], [flags["model"]], own), preset=options.preset, seed=options.seed
    )
    assert again.asked() == model.asked()


def test_no_command_is_shown_of_a_core_that_another_fit_gave(folder: Path) -> None:
    source = ww.load_model(folder / "factorized")
    moved = ww.transferred(source, "frozen", {"training": {"max_steps": 3}}).fit(recording(1))
    run = explore_models({"moved": moved}, recording(1)).runs[0]
    assert (run.command, run.command_is_exact) == ("", False)
    assert run.command_note.startswith("No command is shown: the core came from another model, by whatwhere transfer")
    both = ww.SharedCoreCNN("factorized", **SMALL).fit({"a": recording(0), "b": recording(1)})
    run = explore_models({"b": both["b"]}, recording(1)).runs[0]
    assert run.command == ""
    assert "several recordings together, by whatwhere fit-shared (a, b)" in run.command_note


def test_a_command_is_said_to_need_a_recording_of_these_neurons_alone(folder: Path) -> None:
    part = recording().select_neurons([3, 1])
    ridge = ww.Ridge(strengths=[1.0]).fit(part)
    run = explore_models({"ridge": ridge}, recording()).runs[0]
    assert run.command.startswith("whatwhere fit RECORDING")
    assert "a recording that has these 2 neurons alone, and the same images" in run.command_note
    kept = explore_runs([folder / "ridge"]).runs[0]
    assert "these 4 neurons alone" in kept.command_note
