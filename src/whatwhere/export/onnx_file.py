"""A fitted model as an ONNX file, checked before it is kept: it predicts without this package, or Python."""

import copy
import json
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from whatwhere.errors import OptionError, RunError
from whatwhere.estimators import CNN, Estimator
from whatwhere.export.forward import forward_graph
from whatwhere.export.graph import IMAGES, RESPONSES, Graph
from whatwhere.files import replacing

OPSET, IR_VERSION = 13, 7
"""The set of operators and the version of the format: ONNX 1.8 of 2020, which ONNX Runtime reads from 1.6 on."""

MOST_BYTES = 2**31 - 2**24
"""What an ONNX file may take without parts beside it, 2 GiB, less what is not numbers."""

_N_CHECKED = 16
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from our own prediction.

    difference: the largest on random images, relative to each neuron's largest response there; None where onnxruntime
    is not installed.
    """

    path: Path
    n_bytes: int
    difference: float | None


def export_onnx(model: Estimator, path: str | Path, *, overwrite: bool = False) -> Exported:
    """Writes a fitted model as an ONNX file that computes what `predict` does.

    Input `images`: (n_images, n_channels, height, width), float32 (other types, such as uint8, are cast before), in the
    units of the images fitted: they are standardised inside. Output `responses`: (n_images, n_neurons), float32, in
    the units of the responses fitted. Any number of images. The file's metadata has the version of whatwhere, the
    model's name, the neurons' identifiers (JSON), the recording's fingerprint, and both units in words.

    The file is checked by onnx, and where onnxruntime is installed run on random images of the training images' mean
    and standard deviation: only one whose predictions are ours, to 1e-4 of each neuron's largest, is kept.

    Raises `OptionError` where onnx is not installed or the numbers take more than 2 GiB, `RunError` where `path` exists
    already (unless `overwrite`), its folder does not, or the predictions differ; `WriteError` where the disk is full.
    """
    model.check_fitted()
    check_onnx()
    path = Path(path)
    _check_out(path, overwrite)
    graph = forward_graph(model)
    if graph.nbytes > MOST_BYTES:
        raise OptionError(
            f"the model holds {graph.nbytes / 2**30:.2f} GiB of numbers, but one ONNX file at most 2: fit fewer"
            " neurons, a smaller core, or another readout ('fixed-mask' and 'gaussian' are the smallest)."
        )
    content = _serialised(model, graph)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        difference = _difference(model, temporary)
    return Exported(path, len(content), difference)


def check_onnx() -> None:
    """Raises `OptionError` where onnx is not installed."""
    try:
        import onnx  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise OptionError(
            f'an ONNX file needs onnx, which is not installed ({error}): pip install "whatwhere[onnx]".'
        ) from None


def _check_out(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise RunError(f"{path} is a folder: give the name of a file, such as {path / 'model.onnx'}.")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists already: use --overwrite to replace it, or another name.")
    if not path.parent.is_dir():
        raise RunError(f"the folder {path.parent} does not exist: make it first.")


def _serialised(model: Estimator, graph: Graph) -> bytes:
    """The file's bytes, which onnx has checked, shapes too."""
    from onnx import TensorProto, checker, helper, numpy_helper

    shapes = model.shapes_
    images: list[str | int | None] = ["n_images", shapes.n_channels, shapes.height, shapes.width]
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(node.operator, node.inputs, [node.output], name=node.output, **node.attributes)
                for node in graph.nodes
            ],
            f"whatwhere {model.name}",
            [helper.make_tensor_value_info(IMAGES, TensorProto.FLOAT, images)],
            [helper.make_tensor_value_info(RESPONSES, TensorProto.FLOAT, ["n_images", shapes.n_neurons])],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="whatwhere",
        producer_version=version("whatwhere"),
    )
    helper.set_model_props(proto, _metadata(model))
    checker.check_model(proto, full_check=True)
    content: bytes = proto.SerializeToString()
    return content


def _metadata(model: Estimator) -> dict[str, str]:
    shapes = model.shapes_
    return {
        "whatwhere": version("whatwhere"),
        "model": model.name,
        "neurons": json.dumps(model.neurons_),
        "recording": model.fingerprint_,
        "input": (
            f"images (n_images, {shapes.n_channels}, {shapes.height}, {shapes.width}): n_channels, height, width;"
            " float32, in the units of the images fitted, which are standardised inside"
        ),
        "output": (
            f"responses (n_images, {shapes.n_neurons}): one column for each of the neurons named, in their order; in"
            " the units of the responses fitted"
        ),
    }


def _difference(model: Estimator, path: Path) -> float | None:
    """From our own predictions of random images; None without onnxruntime. Raises `RunError` where it is too large."""
    if find_spec("onnxruntime") is None:
        return None
    shapes, standardisation = model.shapes_, model.standardisation_
    size = (_N_CHECKED, shapes.n_channels, shapes.height, shapes.width)
    images = standardisation.invert(np.random.default_rng(0).standard_normal(size))
    ours, theirs = _on_cpu(model).predict(images), _run(path, images)
    scale = np.maximum(np.abs(ours).max(0), np.abs(model.mean_responses_))
    scale = np.where(scale > 0, scale, 1.0)
    difference = float((np.abs(theirs - ours) / scale).max())
    if not difference <= _TOLERANCE:  # NaN, too
        raise RunError(
            f"the exported model predicts other responses than the one fitted: they differ by {difference:.2g} of a"
            f" neuron's largest, expected at most {_TOLERANCE:g}. Nothing was written. Please report it."
        )
    return difference


def _on_cpu(model: Estimator) -> Estimator:
    """The model to compare with: a GPU may round factors of a convolution to a few digits."""
    if not isinstance(model, CNN) or model.model_.bias.device.type == "cpu":
        return model
    twin = copy.copy(model)
    twin.model_ = copy.deepcopy(model.model_).cpu().eval()
    return twin


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    responses: np.ndarray = session.run([RESPONSES], {IMAGES: images})[0]
    return responses
