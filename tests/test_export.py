"""ONNX files: run by onnxruntime they predict what the model does, and say what they are."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import whatwhere as ww
from whatwhere.catalogue import MODELS, make_model
from whatwhere.errors import OptionError, RunError
from whatwhere.estimators import CNN
from whatwhere.export import Exported, export_onnx, onnx_file
from whatwhere.readouts import PosteriorReadout
from whatwhere.readouts.support import sparse_support

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
reference = pytest.importorskip("onnx.reference")

SHORT = {"batch_size": 32, "max_steps": 6, "check_every": 3}
CORE = {"kernel_sizes": [5, 3], "n_maps": 3, "padding": ["valid", "same"]}
NEURONS = ["a1", "b;2", "c,3", '"d"', "é"]


def recording(n_channels: int = 3, seed: int = 0, scale: float = 40.0) -> ww.Recording:
    """Images of 12 x 17 pixels, uint8, and responses of 5 neurons, the last of which never varies."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (160, n_channels, 12, 17), np.uint8)
    filters = rng.normal(size=(n_channels * 12 * 17, 5)) / 15
    drive = (images.reshape(160, -1) / 64.0 - 2) @ filters
    responses = scale * rng.poisson(np.logaddexp(0, 2 * drive)).astype(np.float32)
    responses[:, 4] = 3.0
    return ww.Recording(images, responses, neurons=pd.DataFrame(index=NEURONS))


def predicted(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["responses"], {"images": images.astype(np.float32)})[0]
    return found


def assert_predicts_the_same(model: ww.Ridge | CNN, path: Path, data: ww.Recording) -> None:
    """One image and a hundred, in the units of the images, against `predict`."""
    other = np.random.default_rng(9).integers(0, 256, (100, *data.image_shape), np.uint8)
    most = 1e-4 * max(1.0, float(data.responses.std()))
    for images in (other[:1], other):
        found, expected = predicted(path, images), model.predict(images)
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (len(images), 5)
        assert np.abs(found - expected).max() <= most
    (found,) = reference.ReferenceEvaluator(str(path)).run(None, {"images": other[:3].astype(np.float32)})
    assert np.abs(found - expected[:3]).max() <= most, "by the standard's own program"
    assert expected[:, :4].std(0).min() > 0, "a prediction that is the same for all images proves nothing"


def exported(model: ww.Ridge | CNN, folder: Path) -> Exported:
    written = export_onnx(model, folder / "model.onnx")
    assert written.path.stat().st_size == written.n_bytes
    assert written.difference is not None
    assert 0 <= written.difference < 1e-4
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    return written


@pytest.mark.parametrize("preset", ["recording", "simulation"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_predicts_the_same(name: str, preset: str, tmp_path: Path) -> None:
    values = {"core": CORE, "training": SHORT} if issubclass(MODELS[name], CNN) else {}
    data = recording()
    model = make_model(name, values, preset=preset).fit(data)
    assert_predicts_the_same(model, exported(model, tmp_path).path, data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "core",
    [
        {"kernel_sizes": [(4, 6)], "padding": "same"},
        {"kernel_sizes": [(4, 3), (2, 5)], "padding": "valid", "n_maps": (2, 4)},
        {"kernel_sizes": [6, (3, 2)], "padding": ["same", "same"], "separable": True},
        {"kernel_sizes": [5, 3], "separable": [False, True], "padding": ["valid", "same"], "n_maps": 1},
        {"kernel_sizes": [9], "n_maps": 1, "padding": "valid"},
        {"kernel_sizes": [5], "batch_norm": False},
        {"kernel_sizes": [5], "batch_norm": False, "batch_norm_shift": True, "separable": True},
        {"kernel_sizes": [5, 3], "batch_norm_shift": True, "nonlinearity": "elu", "last_nonlinearity": "softplus"},
        {"kernel_sizes": [5, 3], "nonlinearity": "relu", "last_nonlinearity": "identity"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["factorized", "gaussian"])
def test_every_core_predicts_the_same(name: str, core: dict, tmp_path: Path) -> None:
    data = recording()
    penalties = {"penalties": {"product_l1" if name == "factorized" else "feature_l1": 0.0}}
    values = {"core": {"n_maps": 3, **core}, "training": {**SHORT, "learning_rate": 0.05}, **penalties}
    model = make_model(name, values).fit(data)
    assert isinstance(model, CNN)
    if core["kernel_sizes"] == [9]:
        assert model.model_.core.layers[0].by_fourier
    assert_predicts_the_same(model, exported(model, tmp_path).path, data)


@pytest.mark.parametrize("nonlinearity", ["identity", "relu", "softplus"])
def test_every_output_nonlinearity_and_standardisation(nonlinearity: str, tmp_path: Path) -> None:
    data = recording()
    values = {
        "core": CORE,
        "training": {**SHORT, "loss": "squared"},
        "readout": {"nonlinearity": nonlinearity},
        "preprocessing": {"standardize": "pixel", "scale_responses": nonlinearity == "relu"},
    }
    model = make_model("factorized", values).fit(data)
    assert_predicts_the_same(model, exported(model, tmp_path).path, data)  # type: ignore[arg-type]


@pytest.mark.parametrize("nonlinearity", ["identity", "exponential", "relu"])
@pytest.mark.parametrize("options", [{"crop": (5, 4)}, {"standardize": "pixel"}, {"standardize": "none"}], ids=str)
def test_every_filter_predicts_the_same(nonlinearity: str, options: dict, tmp_path: Path) -> None:
    data = recording(scale=1.0)
    if options == {"standardize": "none"}:  # without, raw pixels make no filter of much use, but one that is the same
        options = {**options, "strengths": [1.0]}
    values = {"nonlinearity": nonlinearity, "loss": "squared", "strengths": [1.0, 100.0], **options}
    model = make_model("glm", values).fit(data)
    assert_predicts_the_same(model, exported(model, tmp_path).path, data)  # type: ignore[arg-type]


def test_an_exponential_is_cut_as_in_predict(tmp_path: Path) -> None:
    """Far from the images fitted the drive is above 50, and no prediction is infinite."""
    data = recording(scale=1.0)
    model = make_model("glm", {"nonlinearity": "exponential", "strengths": [1.0]}).fit(data)
    images = np.random.default_rng(0).normal(0, 1e6, (20, *data.image_shape)).astype(np.float32)
    found, expected = predicted(exported(model, tmp_path).path, images), model.predict(images)
    cut = np.isclose(expected, np.exp(50.0) * model.scale_)  # type: ignore[attr-defined]
    assert cut.sum() > 20
    np.testing.assert_allclose(found[cut], expected[cut], rtol=1e-5)


@pytest.mark.parametrize("name", ["factorized", "posterior"])
def test_masks_that_are_read_where_they_are_not_zero(name: str, tmp_path: Path) -> None:
    data = recording()
    model = make_model(name, {"core": CORE, "training": SHORT}).fit(data)
    assert isinstance(model, CNN)
    readout = model.model_.readout
    with torch.no_grad():
        mask = readout.mask.flatten(1)  # type: ignore[operator, union-attr]
        kept = torch.zeros_like(mask, dtype=torch.bool).scatter_(1, mask.topk(3, 1).indices, True)
        left = 0.9 * readout.cache.least if isinstance(readout, PosteriorReadout) else 0.0  # type: ignore[operator]
        mask.copy_(torch.where(kept, torch.rand(mask.shape).clamp(min=0.1), left))
    readout.train().eval()  # forgets the support
    assert sparse_support(readout.masks().flatten(1), readout.cache.least) is not None  # type: ignore[union-attr, arg-type]
    path = exported(model, tmp_path).path
    assert_predicts_the_same(model, path, data)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    assert np.count_nonzero(constants["readout/masks"]) == 15, "what is not read in a prediction is not in the file"


def test_large_products_and_one_neuron(tmp_path: Path) -> None:
    """Products so large that ours are by oneDNN, where the processor has it; and a population of one."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 1, 24, 33)).astype(np.float32)
    many = ww.Recording(images, rng.poisson(2, (60, 700)))
    for data, number in ((many, 700), (many.select_neurons([3]), 1)):
        model = make_model("fully-connected", {"core": CORE, "training": SHORT}).fit(data)
        path = export_onnx(model, tmp_path / f"{number}.onnx").path
        found, expected = predicted(path, images), model.predict(images)
        assert found.shape == (60, number)
        assert np.abs(found - expected).max() < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["factorized", "gaussian", "posterior"])
def test_a_model_on_a_gpu_is_exported_as_in_single_precision(name: str, tmp_path: Path) -> None:
    data = recording()
    model = make_model(name, {"core": CORE, "training": SHORT}, device="cuda").fit(data)
    assert isinstance(model, CNN)
    path = exported(model, tmp_path).path
    assert model.model_.bias.device.type == "cuda", "left as it was"
    model.model_.cpu().eval()
    assert_predicts_the_same(model, path, data)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    data = recording()
    model = make_model("fixed-mask", {"core": CORE, "training": SHORT}).fit(data)
    written = exported(model, tmp_path)
    proto = onnx.load(written.path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["neurons"]) == NEURONS
    assert metadata["model"] == "fixed-mask"
    assert metadata["whatwhere"] == proto.producer_version == ww.__version__
    assert metadata["recording"] == data.fingerprint()
    assert metadata["input"].startswith("images (n_images, 3, 12, 17): n_channels, height, width; float32")
    assert metadata["output"].startswith("responses (n_images, 5): one column for each of the neurons")
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", 13)]
    assert proto.ir_version == 7
    dims = [[dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in proto.graph.input]
    assert dims == [["n_images", 3, 12, 17]]
    numbers = sum(tensor.numel() for tensor in model.tensors().values()) * 4
    assert written.n_bytes < numbers + 6_000, "little but the numbers"
    assert export_onnx(model, tmp_path / "again.onnx").path.read_bytes() == written.path.read_bytes()


def test_what_was_saved_and_loaded_is_exported_alike(tmp_path: Path) -> None:
    model = make_model("ridge", {"crop": 5, "strengths": [1.0]}).fit(recording())
    export_onnx(model, tmp_path / "a.onnx")
    export_onnx(ww.load_model(model.save(tmp_path / "run")), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.fixture(scope="module")
def ridge() -> ww.Ridge:
    return ww.Ridge(strengths=[1.0]).fit(recording())


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(ridge: ww.Ridge, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="this Ridge is not fitted yet: call fit first"):
        export_onnx(ww.Ridge(), tmp_path / "model.onnx")
    with pytest.raises(RunError, match="none does not exist: make it first"):
        export_onnx(ridge, tmp_path / "none" / "model.onnx")
    with pytest.raises(RunError, match=r"is a folder: give the name of a file, such as .*model\.onnx"):
        export_onnx(ridge, tmp_path)
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(RunError, match=r"model\.onnx exists already: use --overwrite to replace it, or another name"):
        export_onnx(ridge, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_text() == "mine"
    assert export_onnx(ridge, tmp_path / "model.onnx", overwrite=True).n_bytes > 4 * ridge.filters_.size


def test_a_model_of_more_than_two_gib_is_refused(
    ridge: ww.Ridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 4 * ridge.filters_.size)
    with pytest.raises(OptionError, match=r"the model holds 0\.00 GiB of numbers, but one ONNX file at most 2: fit"):
        export_onnx(ridge, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [1.001, float("nan")])
def test_a_file_that_predicts_something_else_is_not_kept(
    wrong: float, ridge: ww.Ridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = onnx_file._run
    monkeypatch.setattr(onnx_file, "_run", lambda path, images: wrong * run(path, images))
    (tmp_path / "model.onnx").write_text("mine")
    with pytest.raises(RunError, match=r"they differ by (0\.001|nan) of a neuron's largest, expected at most 0\.0001"):
        export_onnx(ridge, tmp_path / "model.onnx", overwrite=True)
    assert (tmp_path / "model.onnx").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_onnx_it_says_what_to_install(ridge: ww.Ridge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(OptionError, match=r'needs onnx, which is not installed .*pip install "whatwhere\[onnx\]"'):
            export_onnx(ridge, tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    assert export_onnx(ridge, tmp_path / "model.onnx").difference is None
    assert_predicts_the_same(ridge, tmp_path / "model.onnx", recording())


def test_the_verb_writes_the_file(
    ridge: ww.Ridge, tmp_path: Path, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ridge.save(tmp_path / "run")
    code, out, err = command(tmp_path, "export", "run", "--out", "model.onnx")
    assert (code, err) == (0, "")
    assert out.startswith("model.onnx: 12.9 KiB\n")
    assert "it predicts what the model does: within " in out
    assert_predicts_the_same(ridge, tmp_path / "model.onnx", recording())
    assert command(tmp_path, "export", "run", "--out", "model.onnx")[0] == 4
    assert command(tmp_path, "export", "nothing", "--out", "other.onnx")[0] == 3
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    code, out, err = command(tmp_path, "export", "run", "--out", "model.onnx", "--overwrite")
    assert code == 0
    assert "note: onnxruntime is not installed: its predictions were not compared" in out
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, out, err = command(tmp_path, "export", "nothing", "--out", "other.onnx")
    assert code == 2
    assert "pip install" in err
