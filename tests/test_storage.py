"""Model files: what is written comes back to the last bit, and what is not whole or not ours is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import whatwhere as ww
from whatwhere.errors import FormatError, WriteError
from whatwhere.files import replacing, replacing_folder
from whatwhere.storage import (
    CONFIG_FILE,
    HISTORY_FILE,
    MODEL,
    MODEL_FILE,
    MODEL_VERSION,
    read_npz,
    read_tensors,
    write_tensors,
    write_text,
)

CNNS = {kind.name: kind for kind in (ww.FactorizedCNN, ww.FixedMaskCNN, ww.FullyConnectedCNN, ww.GaussianCNN)}


def recording() -> ww.Recording:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 12, 17)).astype(np.float32)
    responses = rng.poisson(3, size=(60, 5)).astype(np.float32)
    return ww.Recording(images, responses, neurons={"identifier": list("abcde")})


def fitted(name: str) -> ww.FactorizedCNN | ww.Ridge:
    if name == "ridge":
        return ww.Ridge(strengths=[0.1, 10], standardize="pixel", seed=3).fit(recording())
    return CNNS[name](
        core=ww.CoreOptions(kernel_sizes=(5, 3), n_maps=3, padding=("valid", "same"), separable=(False, True)),
        penalties=ww.PenaltyOptions(smoothness=(0.0, 0.1)),
        training=ww.TrainingOptions(batch_size=20, max_steps=4, check_every=2),
        preprocessing=ww.PreprocessingOptions(standardize="pixel"),
        seed=3,
    ).fit(recording())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted("factorized").save(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """The saved model in a folder that a test may harm."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", [*CNNS, "ridge"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_loaded_model_is_the_one_that_was_saved(name: str, whole_folder: bool, tmp_path: Path) -> None:
    model = fitted(name)
    images = np.random.default_rng(1).normal(size=(9, 1, 12, 17))
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_FILE, HISTORY_FILE, MODEL_FILE]
    loaded = ww.load_model(tmp_path if whole_folder else tmp_path / MODEL_FILE)
    assert type(loaded) is type(model)
    assert loaded.predict(images).tobytes() == model.predict(images).tobytes()
    for attribute in ("neurons_", "shapes_", "stopped_", "fingerprint_"):
        assert getattr(loaded, attribute) == getattr(model, attribute), attribute
    np.testing.assert_array_equal(loaded.mean_responses_, model.mean_responses_)
    assert loaded.asked() == model.asked()
    assert loaded.seed == 3
    history = loaded.history_.to_numpy() if whole_folder else model.history_.to_numpy()
    np.testing.assert_allclose(history, model.history_.to_numpy(), rtol=1e-12)
    for attribute in () if name == "ridge" else ("masks_", "feature_weights_", "locations_"):
        np.testing.assert_array_equal(getattr(loaded, attribute), getattr(model, attribute))
    again = loaded.save(tmp_path / "again")
    assert (again / MODEL_FILE).read_bytes() == (tmp_path / MODEL_FILE).read_bytes()


def test_a_loaded_model_can_be_cloned_and_fitted_to_the_same_end(saved: Path) -> None:
    from sklearn.base import clone

    loaded = ww.FactorizedCNN.load(saved)
    again = clone(loaded).fit(recording())
    for name, tensor in loaded.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_a_loaded_model_no_longer_needs_its_file(copied: Path) -> None:
    model = ww.load_model(copied)
    images = np.ones((2, 12, 17))
    before = model.predict(images)
    with open(copied / MODEL_FILE, "r+b") as file:
        file.truncate(100)
    np.testing.assert_array_equal(model.predict(images), before)


def test_config_says_what_was_asked_for_and_chosen(saved: Path) -> None:
    config = yaml.safe_load((saved / CONFIG_FILE).read_text())
    assert config["model"] == "factorized"
    assert config["options"]["core"]["n_maps"] == 3
    assert config["options"]["penalties"]["smoothness"] == [0.0, 0.1]
    assert config["penalties"]["smoothness"] in (0.0, 0.1)
    assert config["shapes"] == {"n_channels": 1, "height": 12, "width": 17, "n_neurons": 5}


def truncate(folder: Path) -> None:
    file = folder / MODEL_FILE
    file.write_bytes(file.read_bytes()[:-100])


def cut_header(folder: Path) -> None:
    file = folder / MODEL_FILE
    file.write_bytes(file.read_bytes()[:20])


def flip(where: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / MODEL_FILE).read_bytes())
        content[where] ^= 1
        (folder / MODEL_FILE).write_bytes(content)

    return damage


def change_description(folder: Path) -> None:
    content = (folder / MODEL_FILE).read_bytes()
    assert content.count(b'\\"seed\\": 3') == 1
    (folder / MODEL_FILE).write_bytes(content.replace(b'\\"seed\\": 3', b'\\"seed\\": 4'))


def pickled(folder: Path) -> None:
    with open(folder / MODEL_FILE, "wb") as file:
        pickle.dump({"weights": [1, 2, 3]}, file)


def rewritten(**changes: object) -> Callable[[Path], None]:
    """A file with a valid checksum whose description was changed; None leaves a key out."""

    def damage(folder: Path) -> None:
        tensors, description = read_tensors(folder / MODEL_FILE, MODEL, MODEL_VERSION)
        description = {key: value for key, value in {**description, **changes}.items() if value is not None}
        write_tensors(folder / MODEL_FILE, tensors, description)
        (folder / CONFIG_FILE).unlink()

    return damage


def retensored(name: str, make: Callable[[torch.Tensor], torch.Tensor] | None) -> Callable[[Path], None]:
    """A file with a valid checksum in which one tensor was changed or left out."""

    def damage(folder: Path) -> None:
        tensors, description = read_tensors(folder / MODEL_FILE, MODEL, MODEL_VERSION)
        tensor = tensors.pop(name)
        if make is not None:
            tensors[name] = make(tensor).contiguous()
        write_tensors(folder / MODEL_FILE, tensors, description)

    return damage


def foreign(folder: Path) -> None:
    save_file({"weight": torch.ones(3)}, folder / MODEL_FILE)


def edit_config(folder: Path) -> None:
    config = folder / CONFIG_FILE
    config.write_text(config.read_text().replace("n_maps: 3", "n_maps: 8"))


DAMAGES = {
    "truncated": (truncate, r"cannot be read .*: it is truncated or no safetensors file"),
    "header cut": (cut_header, r"cannot be read .*: it is truncated or no safetensors file"),
    "empty": (lambda folder: (folder / MODEL_FILE).write_bytes(b""), "cannot be read"),
    "one bit of a number": (flip(-5), r"was changed after it was written: its checksum does not match"),
    "one bit of the header": (flip(200), r"checksum does not match|cannot be read|not one of whatwhere's"),
    "description edited": (change_description, "was changed after it was written: its checksum does not match"),
    "pickle": (pickled, "it is truncated or no safetensors file"),
    "another's safetensors": (foreign, "is a safetensors file, but not one of whatwhere's"),
    "missing": (lambda folder: (folder / MODEL_FILE).unlink(), "does not exist: expected a whatwhere-model file"),
    "other format": (rewritten(format="whatwhere-checkpoint"), "holds 'whatwhere-checkpoint': expected 'whatwhere-m"),
    "newer version": (rewritten(version=99), "is of version 99, newer than version 1 that this whatwhere reads: upd"),
    "version of text": (rewritten(version="new"), "holds no description that whatwhere wrote"),
    "no format": (rewritten(format=None), "holds no description that whatwhere wrote"),
    "unknown model": (rewritten(model="factorised"), "unknown model 'factorised'.*Did you mean 'factorized'.*newer"),
    "no model": (rewritten(model=None), "unknown model 'None'"),
    "no options": (rewritten(options=None), "does not hold what its description says: 'options'"),
    "options of another kind": (rewritten(options={"core": {"n_map": 3}}), "unknown option of core 'n_map'"),
    "no shapes": (rewritten(shapes={"n_neurons": 5}), "does not hold what its description says.*n_channels"),
    "fewer names": (rewritten(neurons=["a"]), r"neurons has shape \(1,\), expected \(5,\)"),
    "names of another kind": (rewritten(neurons=7), "does not hold what its description says"),
    "config edited": (edit_config, r"config\.yaml was changed after the model was fitted: options differ"),
    "config no yaml": (lambda folder: (folder / CONFIG_FILE).write_text("{a"), r"config\.yaml cannot be read"),
    "config of another kind": (lambda folder: (folder / CONFIG_FILE).write_text("- 1"), "was changed after"),
    "history empty": (lambda folder: (folder / HISTORY_FILE).write_text(""), r"history\.csv cannot be read"),
    "mask of other size": (retensored("model/readout.mask", lambda x: x[:, 1:]), r"does not hold.*readout\.mask"),
    "mask missing": (retensored("model/readout.mask", None), r"does not hold.*readout\.mask"),
    "scale of other size": (
        retensored("response_scale", lambda x: x[:1]),
        r"response_scale has shape \(1,\), expected",
    ),
    "mean of other size": (retensored("mean_responses", lambda x: x[:2]), r"mean_responses has shape \(2,\), expected"),
    "statistics of other size": (
        retensored("standardisation/mean", lambda x: x.mT),
        r"standardisation/mean has shape \(1, 17, 12\), expected \(1, 1, 1\) or \(1, 12, 17\)",
    ),
    "statistics of zero": (
        retensored("standardisation/std", lambda x: x * 0),
        "std holds 0.0: expected values above 0",
    ),
    "statistics missing": (retensored("standardisation/std", None), "does not hold.*standardisation/std"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_refused_and_left_as_it_is(
    damage: Callable[[Path], None], message: str, copied: Path
) -> None:
    damage(copied)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    for load in (ww.load_model, ww.FactorizedCNN.load):
        if load is not ww.load_model and "unknown model" in message:
            message = "holds a .* model, not 'factorized': use whatwhere.load_model"
        with pytest.raises(FormatError, match=f"(?s){message}"):
            load(copied)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def test_a_path_that_does_not_exist_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere does not exist: expected a run's folder or a model\.safetensors"):
        ww.load_model(tmp_path / "nowhere")


def test_a_model_of_another_kind_is_not_loaded_as_this_one(tmp_path: Path) -> None:
    fitted("ridge").save(tmp_path)
    with pytest.raises(FormatError, match=r"holds a 'ridge' model, not 'factorized': use whatwhere\.load_model"):
        ww.FactorizedCNN.load(tmp_path)
    assert ww.load_model(tmp_path).name == "ridge"


@pytest.mark.parametrize("name", ["filters", "offset"])
def test_filters_of_the_wrong_size_are_refused(name: str, tmp_path: Path) -> None:
    fitted("ridge").save(tmp_path)
    retensored(name, lambda x: x[..., :-1])(tmp_path)
    with pytest.raises(FormatError, match=f"{name} has shape .*, expected"):
        ww.load_model(tmp_path)


def test_no_file_holds_a_pickle(saved: Path) -> None:
    header = (saved / MODEL_FILE).read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    yaml.safe_load((saved / CONFIG_FILE).read_text())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
        torch.tensor(3),
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.tensor([torch.nan, -0.0]),
    ],
    ids=["not contiguous", "scalar", "empty", "bool", "bfloat16", "nan"],
)
def test_tensors_come_back_bit_by_bit(tensor: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": tensor}, {"format": "f", "version": 1, "text": "Grüße"})
    tensors, description = read_tensors(path, "f", 1)
    assert description == {"format": "f", "version": 1, "text": "Grüße"}
    assert (tensors["x"].dtype, tensors["x"].shape) == (tensor.dtype, tensor.shape)
    expected, got = (x.contiguous().reshape(-1).view(torch.uint8) for x in (tensor, tensors["x"]))
    assert torch.equal(expected, got)


def test_colleagues_may_read_a_model_where_they_may_read_other_files(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in (*saved.iterdir(), tmp_path / "other")}
    assert len(modes) == 1


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"file/run cannot be made \(Not a directory\): choose another folder"):
        fitted("ridge").save(tmp_path / "file" / "run")


def test_a_failing_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"a\.txt could not be written \(No space left on device\)\. What stood"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_with_a_bit_turned_over_are_the_same_or_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    """Wherever it is: numpy, zipfile and zlib each have errors of their own, and leave files open."""
    path, numbers = tmp_path / "some.npz", np.arange(6.0).reshape(2, 3)
    save(path, numbers=numbers, names=np.array(["x", "yy"]))
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        content = bytearray(whole)
        content[at] ^= 1 << at % 8
        path.write_bytes(content)
        try:
            found = read_npz(path, ["numbers", "names"])
        except FormatError:
            refused += 1
            continue
        np.testing.assert_array_equal(found["numbers"], numbers)
        assert found["names"].tolist() == ["x", "yy"]
    assert refused > len(whole) // 6


def test_what_is_no_whole_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"absent\.npz cannot be read: .*No such file"):
        read_npz(tmp_path / "absent.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(FormatError, match=r"one\.npy cannot be read: no whole \.npz file"):
        read_npz(tmp_path / "one.npy")
    np.savez(tmp_path / "objects.npz", objects=np.array([{}], dtype=object))
    with pytest.raises(FormatError, match=r"objects\.npz cannot be read: Object arrays cannot be loaded"):
        read_npz(tmp_path / "objects.npz")
    np.savez(tmp_path / "some.npz", first=np.zeros(3))
    assert list(read_npz(tmp_path / "some.npz")) == ["first"]
    with pytest.raises(FormatError, match=r"some\.npz cannot be read: 'second is not a file in the archive'"):
        read_npz(tmp_path / "some.npz", ["first", "second"])


def test_processes_of_two_machines_with_one_number_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.node", lambda: "one")
    with replacing(tmp_path / "a.txt") as ours, replacing_folder(tmp_path / "b") as our_folder:
        ours.write_text("ours")
        monkeypatch.setattr("platform.node", lambda: "other")
        write_text(tmp_path / "a.txt", "theirs")
        with replacing_folder(tmp_path / "b") as their_folder:
            (their_folder / "theirs").touch()
        assert (tmp_path / "a.txt").read_text() == "theirs"
        assert (tmp_path / "b" / "theirs").exists()
        (our_folder / "ours").touch()
    assert (tmp_path / "a.txt").read_text() == "ours"
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["ours"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b"]
