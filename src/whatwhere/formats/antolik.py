"""One region of the recordings of Antolik et al. 2016: mouse V1, two-photon, static natural images.

| file | shape |
|---|---|
| `training_inputs.npy` | (n_images, height * width), square images flattened row by row: 961 = 31x31 |
| `training_set.npy` | (n_images, n_neurons) |
| `validation_inputs.npy` | (n_test_images, height * width) |
| `raw_validation_set.npy` | (n_repeats, n_test_images, n_neurons) |
| `validation_set.npy` | (n_test_images, n_neurons), its mean over repeats |

Source: Antolik, Hofer, Bednar & Mrsic-Flogel 2016, PLOS Computational Biology, doi
10.1371/journal.pcbi.1004927, supplement S1, a zip archive with `Data/region1` to `Data/region3`.
"""

import hashlib
import math
from pathlib import Path

import numpy as np

from whatwhere.errors import FormatError
from whatwhere.formats.npy import inspect_npy, read_npy
from whatwhere.formats.reader import Format, Item
from whatwhere.recording import HeldOut, Recording
from whatwhere.rows import frozen

DOI = "10.1371/journal.pcbi.1004927"
REGIONS = ("region1", "region2", "region3")
FILES = (
    "training_inputs.npy",
    "training_set.npy",
    "validation_inputs.npy",
    "raw_validation_set.npy",
    "validation_set.npy",
)

# Git blob hashes (SHA-1 of b"blob <size>\0" and the bytes) of the published files of regions 1, 2 and 3.
BLOBS = {
    "training_inputs.npy": (
        "25bd6a7def8597163033d762b81a8c1ebaee4ef5",
        "5651e3bdfe6d6f140d3236af14db0ddd1b56dd4d",
        "1ccc45c1c07c5002b9a01ca4793f03905eb2ce98",
    ),
    "training_set.npy": (
        "8310ad6e4730e87c67665268b7cc241f7fe08750",
        "30b75833134777834421829d92d1e1c26a99f694",
        "6a9c9b94125f94de8f7864dde483f9eff8043bf3",
    ),
    "validation_inputs.npy": (
        "90cec1e39be2fec8afa60a0e3efa26edd9144991",
        "90cec1e39be2fec8afa60a0e3efa26edd9144991",
        "b96cbbad2436226f1fb4c659df3715133a668d7f",
    ),
    "raw_validation_set.npy": (
        "bb035250a7d8d41845f3020873f1caaec3a7cd51",
        "003e9691a949d74138f93e9aa7fe8b6df590cca7",
        "5c4edcd99118b3d1635aeee2b99f595d4b2dee99",
    ),
    "validation_set.npy": (
        "a42b03968db1bf1611391208204d42808621d66b",
        "97ead8a022f5f4a06b5bdbfba260aecc3c3dd8d1",
        "6ad9f92f008fde9fa9042bcfcdf803bb352a9269",
    ),
}


def git_blob(content: bytes) -> str:
    """The SHA-1 by which git names a file of this content.

    >>> git_blob(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def recognises(path: Path) -> bool:
    """Whether this folder holds a region's files, or is a folder above that holds the regions."""
    return path.is_dir() and (any((path / name).exists() for name in FILES) or bool(regions_of(path)))


def regions_of(path: Path) -> list[Path]:
    """The region folders in this folder or in `Data/` in it."""
    for parent in (path, path / "Data"):
        found = [parent / region for region in REGIONS if (parent / region).is_dir()]
        if found:
            return found
    return []


def read(path: Path, *, nonfinite: str = "error") -> Recording:
    """The recording in one region's folder; `FormatError` names what is missing and where it belongs."""
    if not any((path / name).exists() for name in FILES):
        named = ", ".join(str(region) for region in regions_of(path))
        raise FormatError(f"{path} holds several regions, which are separate recordings: name one of them, {named}.")
    for name in ("training_inputs.npy", "training_set.npy"):
        if not (path / name).exists():
            raise FormatError(
                f"{path / name} is missing: it belongs there, and comes with supplement S1 of Antolik et al. 2016"
                f" (doi {DOI}). Get it with `whatwhere data fetch antolik2016`."
            )
    test, notes = _read_test(path, "error" if nonfinite == "error" else "keep")
    return Recording(
        _read_images(path / "training_inputs.npy"),
        read_npy(path / "training_set.npy"),
        test=test,
        name=path.resolve().name,
        notes=notes,
        nonfinite=nonfinite,
    )


def _read_images(path: Path) -> np.ndarray:
    flat = read_npy(path)
    if flat.ndim != 2:
        raise FormatError(f"{path} has shape {flat.shape}: expected (n_images, n_pixels).")
    side = math.isqrt(flat.shape[1])
    if side * side != flat.shape[1]:
        raise FormatError(
            f"{path} has {flat.shape[1]:,} pixels an image, not a square number: expected for example 961."
        )
    return frozen(flat).reshape(-1, 1, side, side)


def _read_test(path: Path, nonfinite: str) -> tuple[HeldOut | None, tuple[str, ...]]:
    inputs, raw, mean = (path / name for name in FILES[2:])
    if not inputs.exists() or not (raw.exists() or mean.exists()):
        absent = ", ".join(file.name for file in (inputs, raw) if not file.exists())
        return None, (f"no test set: {absent} is missing",)
    images = _read_images(inputs)
    if raw.exists():
        repeats = read_npy(raw)
        if repeats.ndim != 3 or repeats.shape[1] != len(images):
            raise FormatError(f"{raw} has shape {repeats.shape}: expected (n_repeats, {len(images)}, n_neurons).")
        return HeldOut.from_repeats(images, repeats, nonfinite=nonfinite), ()
    responses = read_npy(mean)
    note = f"{raw.name} is missing: the test responses are averages over repeats, without their noise"
    return HeldOut(images, responses, np.arange(len(responses)), nonfinite=nonfinite), (note,)


def inspect(path: Path) -> list[Item]:
    """Each expected file, of one region or of all: whether it is there, its shape, whether as published."""
    if any((path / name).exists() for name in FILES):
        return [_inspect_file(path / name, name) for name in FILES]
    return [_inspect_file(region / name, f"{region.name}/{name}") for region in regions_of(path) for name in FILES]


def _inspect_file(path: Path, name: str) -> Item:
    item = inspect_npy(path, name)
    if item.status != "present":
        return item
    blob = git_blob(path.read_bytes())
    regions = [region for region, published in zip(REGIONS, BLOBS[path.name], strict=True) if blob == published]
    origin = f"as published for {' and '.join(regions)}" if regions else f"not a published file (git blob {blob})"
    return Item(name, "present", f"{item.detail}, {origin}")


FORMAT = Format(
    "antolik",
    "a folder with training_inputs.npy, training_set.npy, validation_inputs.npy, raw_validation_set.npy",
    recognises,
    read,
    inspect,
)
