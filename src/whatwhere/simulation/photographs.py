"""Crops of a folder of photographs, decoded one at a time."""

import hashlib
import struct
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from whatwhere.checks import some_of
from whatwhere.errors import FormatError, OptionError
from whatwhere.simulation.counts import check_number
from whatwhere.simulation.seeds import Seed, stream

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}  # Pillow's names of what one and three channels hold
CACHE_BYTES = 2**27  # of decoded photographs, one byte a value
UNREADABLE = (  # what Pillow was seen to raise for broken files, and its kin
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, Image.DecompressionBombError),
)
QUARTER_TURNS = range(5, 9)  # orientations that exchange height and width


@dataclass(frozen=True)
class Photographs:
    """Random crops of the photographs in a folder and the folders within it, grey (1 channel) or in colour (3).

    For each image a photograph is drawn, each as likely as any other, and then a place in it. Values are
    value / 127.5 - 1 of 8-bit values, so they lie between -1 and 1.

    - `folder`: files that end in .jpg, .png, .tif and the like, of any sizes. They are decoded when they are drawn, and
      the last ones kept, 128 MiB at most
    - `scale`: photographs are made this much larger before they are cropped; 0.5 halves height and width
    - `test_share`: the share of the photographs, of two or more, that test images are cropped from
    - `names`: the files to use, relative to the folder; if not given, all

    Photographs smaller than the crop and files that cannot be decoded are passed over; `notes` says which.
    Raises `OptionError` for options out of range or without a folder, `FormatError` for a folder that does not exist
    or holds no photograph, and when no photograph can be used.
    """

    folder: str | Path | None = None
    scale: float = 1.0
    test_share: float = 0.2
    names: tuple[str, ...] = field(default=(), repr=False)
    _library: "_Library" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.folder is None:
            raise OptionError("photographs need the folder that holds them: give folder=..., or --photographs DIR.")
        if not isinstance(self.folder, str | Path):
            raise OptionError(f"folder must be a path, got {self.folder!r}.")
        if isinstance(self.names, str):
            raise OptionError(f"names must be several files' names, got {self.names!r}: put it in a tuple.")
        check_number("scale", self.scale, above=0)
        check_number("test_share", self.test_share, above=0, below=1)
        folder = Path(self.folder).expanduser()
        object.__setattr__(self, "names", tuple(self.names) or _names(folder))
        object.__setattr__(self, "_library", _Library(folder, self.scale))

    def draw(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
        """One crop (n_channels, height, width), float32, between -1 and 1."""
        n_channels, *size = shape
        if n_channels not in MODES:
            raise OptionError(f"photographs have 1 channel (grey) or 3 (colour), but {n_channels} were asked for.")
        while True:
            photograph = self._library.read(self.names[rng.integers(len(self.names))], n_channels, size)
            if photograph is not None:
                break
            if not any(self._library.may_be_read(name, size) for name in self.names):
                raise FormatError(
                    f"none of {len(self.names):,} photographs in {self.folder} can be cropped to {size[0]} x {size[1]}"
                    f" pixels: {self._library.failures()}. Choose larger photographs, smaller images or a larger scale."
                )
        row, column = rng.integers(0, np.subtract(photograph.shape[1:], size) + 1)
        crop = photograph[:, row : row + size[0], column : column + size[1]]
        return crop.astype(np.float32) / np.float32(127.5) - np.float32(1)

    def split(self, seed: Seed, image_size: tuple[int, int]) -> tuple["Photographs", "Photographs"]:
        """For training and for test: disjoint photographs, chosen by seed over the names of the files.

        Only those count that are at least of `image_size` (height, width) by their headers, whatever was drawn before.
        Raises `FormatError` where there are fewer than two.
        """
        usable = [name for name in self.names if self._library.fits(name, list(image_size))]
        if len(usable) < 2:
            failures = self._library.failures()
            raise FormatError(
                f"{self.folder} holds {len(usable)} photographs that can be cropped to {image_size[0]} x"
                f" {image_size[1]} pixels{failures and f' (passed over: {failures})'}: at least 2 are needed, for test"
                " images come from photographs that no training image comes from."
            )
        salt = stream(seed).generate_state(4).tobytes()
        order = sorted(usable, key=lambda name: hashlib.sha256(salt + name.encode()).digest())
        n_test = min(max(1, round(self.test_share * len(order))), len(order) - 1)
        training, test = (replace(self, names=tuple(sorted(names))) for names in (order[n_test:], order[:n_test]))
        for part in (training, test):
            object.__setattr__(part, "_library", self._library)  # sizes and failures are known there
        return training, test

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over so far."""
        failures = self._library.failures()
        return (f"photographs passed over: {failures}",) if failures else ()


def _names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder: expected one that holds photographs.")
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    if not names:
        raise FormatError(f"{folder} holds no photographs: expected files that end in {', '.join(SUFFIXES)}.")
    return tuple(names)


class _Library:
    """Decodes photographs when they are asked for and keeps the last ones; remembers sizes and what failed."""

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.scale = folder, scale
        self._sizes: dict[str, tuple[int, int] | None] = {}  # None: the header cannot be read
        self._broken: set[str] = set()  # what follows the header cannot be decoded
        self._failures: dict[str, str] = {}
        self._decoded: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()

    def read(self, name: str, n_channels: int, least: list[int]) -> np.ndarray | None:
        """The photograph (n_channels, height, width), uint8; None where it is too small or cannot be decoded."""
        if not self.may_be_read(name, least):
            return None
        if (name, n_channels) not in self._decoded:
            try:
                decoded = _decode(self.folder / name, n_channels, self.scale)
            except UNREADABLE as error:
                self._broken.add(name)
                self._failures[name] = f"cannot be decoded: {error}"
                return None
            self._decoded[name, n_channels] = decoded
            self._sizes[name] = decoded.shape[1], decoded.shape[2]  # a header need not tell how it was held
            while len(self._decoded) > 1 and sum(array.nbytes for array in self._decoded.values()) > CACHE_BYTES:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end((name, n_channels))
        return self._decoded[name, n_channels] if self.fits(name, least) else None

    def may_be_read(self, name: str, least: list[int]) -> bool:
        """Whether the photograph fits, and has not turned out to be broken when it was decoded."""
        return self.fits(name, least) and name not in self._broken

    def fits(self, name: str, least: list[int]) -> bool:
        """Whether the photograph is at least this large, height and width, by its header."""
        if name not in self._sizes:
            try:
                self._sizes[name] = _size(self.folder / name, self.scale)
            except UNREADABLE as error:
                self._sizes[name] = None
                self._failures[name] = f"cannot be decoded: {error}"
        size = self._sizes[name]
        if size is None:
            return False
        if size[0] < least[0] or size[1] < least[1]:
            self._failures[name] = f"{size[0]} x {size[1]} pixels"
            return False
        return True

    def failures(self) -> str:
        """Which photographs could not be used, and why."""
        named = some_of(f"{name} ({reason})" for name, reason in sorted(self._failures.items()))
        return f"{len(self._failures):,}, {named}" if named else ""


def _size(path: Path, scale: float) -> tuple[int, int]:
    """Height and width after scaling, as the camera was held; only the header is read."""
    with _opened(path) as image:
        width, height = image.size
        # Pillow's own `getexif` of a PNG decodes all of it, for the orientation may stand at its end.
        if Image.Image.getexif(image).get(ExifTags.Base.Orientation) in QUARTER_TURNS:
            height, width = width, height
    return _scaled(height, width, scale)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The photograph, not decoded yet; Pillow's warnings are of metadata, or of files that are refused anyway."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _scaled(height: int, width: int, scale: float) -> tuple[int, int]:
    return max(1, round(scale * height)), max(1, round(scale * width))


def _decode(path: Path, n_channels: int, scale: float) -> np.ndarray:
    """The photograph (n_channels, height, width), uint8, scaled by windowed sincs."""
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise ValueError("its pixels are floating-point numbers: expected integers")
        if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        image = image.convert(MODES[n_channels])
        if scale != 1:
            height, width = _scaled(image.height, image.width, scale)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)  # (height, width) or (height, width, 3)
    return np.ascontiguousarray(pixels[None] if n_channels == 1 else np.moveaxis(pixels, 2, 0))
