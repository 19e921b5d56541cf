"""VGG-19's first five convolutions, evaluated at every pixel: what a photograph's crop makes of every unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from whatwhere.checks import check_choice, some_of
from whatwhere.errors import FormatError
from whatwhere.simulation.seeds import stream

LAYERS = {
    "conv1_1": (3, 64),
    "conv1_2": (64, 64),
    "conv2_1": (64, 128),
    "conv2_2": (128, 128),
    "conv3_1": (128, 256),
}
"""Maps that each convolution reads and makes."""

POOLED = ("conv1_2", "conv2_2")
"""Followed by a maximum over 2 x 2."""

HUB = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
"""The PyTorch hub's weights; the end of the name is the start of the file's SHA-256, which is checked."""

_HUB_NAMES = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10}  # features.N.weight and .bias
_SIDE = 3  # pixels of every kernel


@dataclass(frozen=True)
class InputConvention:
    """What a network was trained to be shown, given crops between -1 and 1 in red, green, blue: (x - mean) / std.

    In the order of `channels`, of values that were first scaled to lie between 0 and `top`.
    """

    channels: tuple[int, int, int] = (0, 1, 2)
    top: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def apply(self, images: Tensor) -> Tensor:
        """Images (n, 3, height, width) between -1 and 1, as the network wants them."""
        scaled = (images[:, list(self.channels)] + 1) * (self.top / 2)
        mean, std = (torch.tensor(values).to(images)[:, None, None] for values in (self.mean, self.std))
        return (scaled - mean) / std


TORCHVISION = InputConvention()
CAFFE = InputConvention((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
"""Blue, green, red, 0 to 255, minus the mean: the authors' own weights, and Gatys' normalised ones."""

PLAIN = InputConvention((0, 1, 2), 2.0, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
"""Between -1 and 1, as they are."""


@dataclass(frozen=True, eq=False)
class VGG:
    """The network up to one of `LAYERS`: its weights, and the input that they were trained for.

    - `weights`: of each layer, kernels (n_maps, n_maps_before, 3, 3) and biases (n_maps,), float32
    - `source`: where they come from, for the notes of a recording

    Raises `FormatError` for a layer that is missing or of another shape.
    """

    weights: Mapping[str, tuple[Tensor, Tensor]]
    convention: InputConvention
    source: str

    def __post_init__(self) -> None:
        for layer, (n_before, n_maps) in LAYERS.items():
            if layer not in self.weights:
                raise FormatError(f"{self.source} has no {layer}: it holds {some_of(self.weights)}.")
            shapes = [tuple(tensor.shape) for tensor in self.weights[layer]]
            if shapes != [(n_maps, n_before, _SIDE, _SIDE), (n_maps,)]:
                raise FormatError(
                    f"{self.source}: {layer} has kernels of shape {shapes[0]} and biases of {shapes[1]}: expected"
                    f" {(n_maps, n_before, _SIDE, _SIDE)} and {(n_maps,)}, VGG-19's."
                )

    def maps(self, images: Tensor, layer: str, chosen: Sequence[int]) -> Tensor:
        """The responses max(0, .) of the chosen maps at every pixel that they can see whole: (n, n_chosen, h, w).

        images: (n, 3, height, width), between -1 and 1; h = height - `reach(layer)`, and so is w. Nothing is padded;
        pooling goes on in steps of one pixel and later kernels are dilated, so that where images are shifted by a pixel
        so are the maps. At every second pixel after one pooling, every fourth after two, they are the published
        network's.
        """
        out, dilation = self.convention.apply(images), 1
        for name, (kernels, biases) in self.weights.items():
            if name == layer:
                some = list(chosen)
                return functional.relu_(functional.conv2d(out, kernels[some], biases[some], dilation=dilation))
            out = functional.relu_(functional.conv2d(out, kernels, biases, dilation=dilation))
            if name in POOLED:
                out = functional.max_pool2d(out, 2, stride=1, dilation=dilation)
                dilation *= 2
        raise AssertionError(layer)


def reach(layer: str) -> int:
    """Pixels that a unit sees beyond its first one, along each side; a map is smaller than the image by as many.

    >>> reach("conv2_2"), reach("conv3_1")
    (13, 23)
    """
    check_choice("layer", layer, LAYERS)
    total, dilation = 0, 1
    for name in LAYERS:
        total += (_SIDE - 1) * dilation
        if name == layer:
            break
        if name in POOLED:
            total += dilation
            dilation *= 2
    return total


def load_vgg(weights: str | Path = "seeded") -> VGG:
    """The network with these weights.

    - "seeded": a stand-in that needs no download, the same everywhere, see `seeded_vgg`
    - "hub": the PyTorch hub's, trained on ImageNet, downloaded once (550 MB) and checked against its hash
    - a file, .safetensors, .pth or .pt (tensors alone, no code), with torchvision's names (`features.0.weight`, ...;
      trained for red, green, blue) or those of the layers (`conv1_1.weight`, ...; for blue, green, red, 0 to 255)

    Raises `FormatError` where the download fails, or a file is none of these.
    """
    if weights == "seeded":
        return seeded_vgg()
    if weights == "hub":
        return _named(_download(), "VGG-19 of the PyTorch hub")
    return _named(_read(Path(weights).expanduser()), Path(weights).name)


def _download() -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            HUB, progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(
            f"VGG-19 cannot be downloaded ({error}): get {HUB} by other means and give the file, or take 'seeded'."
        ) from None
    return found


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FormatError(f"{path} is no file: weights are 'seeded', 'hub', or a .safetensors, .pth or .pt file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors', pickle's, and whatever a stranger's file makes them raise
        raise FormatError(
            f"{path} cannot be read as tensors ({str(error).partition(chr(10))[0]}): expected VGG-19's weights."
        ) from None
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds a {type(found).__name__}: expected tensors by name.")
    return found


def _named(tensors: Mapping[str, Tensor], source: str) -> VGG:
    hub = "features.0.weight" in tensors
    prefixes = {layer: f"features.{number}" if hub else layer for layer, number in _HUB_NAMES.items()}
    names = [f"{prefix}.{part}" for prefix in prefixes.values() for part in ("weight", "bias")]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise FormatError(
            f"{source} has no {some_of(missing)}: expected VGG-19's tensors by torchvision's names (features.0.weight,"
            f" ...) or the layers' (conv1_1.weight, ...). It holds {some_of(tensors)}."
        )
    weights = {
        layer: (tensors[f"{prefix}.weight"].float(), tensors[f"{prefix}.bias"].float())
        for layer, prefix in prefixes.items()
    }
    return VGG(weights, TORCHVISION if hub else CAFFE, source)


def seeded_vgg() -> VGG:
    """A stand-in for the trained network, from a fixed seed: for tests, and for machines without its weights.

    First edges and bars of sixteen orientations in four colours; then each map adds up eight maps of the layer before,
    each seen through a random kernel that sums to zero, so that a unit responds to where features meet and a linear
    model of the pixels explains little of it. Kernels are scaled to keep a variance of one; biases are zero.
    """
    weights = {}
    for number, (layer, (n_before, n_maps)) in enumerate(LAYERS.items()):
        rng = np.random.default_rng(stream(19, number))
        kernels = _oriented(n_maps) if n_before == 3 else _combining(rng, n_before, n_maps)
        kernels *= np.sqrt(2) / np.linalg.norm(kernels.reshape(n_maps, -1), axis=1)[:, None, None, None]
        weights[layer] = torch.from_numpy(kernels.astype(np.float32)), torch.zeros(n_maps)
    return VGG(weights, PLAIN, "seeded stand-in for VGG-19")


def _oriented(n_maps: int) -> np.ndarray:
    """Derivatives of a Gaussian along sixteen directions, in grey and three opponent colours: (n_maps, 3, 3, 3)."""
    colours = np.array([[1, 1, 1], [1, -1, 0], [0.5, 0.5, -1], [1, 0, -1]])
    i, j = np.mgrid[-1:2, -1:2]
    blob = np.exp(-(i**2 + j**2) / 2)
    kernels = np.empty((n_maps, 3, _SIDE, _SIDE))
    for number in range(n_maps):
        angle = 2 * np.pi * (number % 16) / 16
        kernels[number] = colours[number // 16 % 4][:, None, None] * (np.cos(angle) * i + np.sin(angle) * j) * blob
    return kernels


def _combining(rng: np.random.Generator, n_before: int, n_maps: int) -> np.ndarray:
    """(n_maps, n_before, 3, 3), zeros but for eight maps each."""
    kernels = np.zeros((n_maps, n_before, _SIDE, _SIDE))
    for number in range(n_maps):
        read = rng.choice(n_before, 8, replace=False)
        drawn = rng.standard_normal((8, _SIDE, _SIDE))
        kernels[number, read] = drawn - drawn.mean((1, 2), keepdims=True)
    return kernels
