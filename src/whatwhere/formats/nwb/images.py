"""Images in an NWB file, left there until they are asked for: (n_images, n_channels, height, width)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from whatwhere.errors import FormatError


def channels_first(images: np.ndarray, width_first: bool) -> np.ndarray:
    """Stored images (n, height, width) or (n, height, width, n_channels) as (n, n_channels, height, width)."""
    images = images[..., None] if images.ndim == 3 else images
    if width_first:
        images = images.swapaxes(1, 2)
    return np.ascontiguousarray(np.moveaxis(images, 3, 1))


def _shape(stored: tuple[int, ...], width_first: bool) -> tuple[int, ...]:
    """(n_channels, height, width) of one image as it is stored."""
    first, second, *rest = stored
    height, width = (second, first) if width_first else (first, second)
    return (rest[0] if rest else 1, height, width)


class SeriesImages:
    """The frames of one dataset, read slice by slice; another process opens the file anew."""

    def __init__(self, file: Path, dataset: str, width_first: bool = False) -> None:
        self.file, self.dataset, self.width_first = file, dataset, width_first
        self._frames = h5py.File(file, "r")[dataset]
        self.shape = (self._frames.shape[0], *_shape(self._frames.shape[1:], width_first))
        self.dtype: np.dtype = self._frames.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return channels_first(self._frames[rows], self.width_first)

    def __reduce__(self) -> tuple[Any, ...]:
        return SeriesImages, (self.file, self.dataset, self.width_first)


class CollectionImages:
    """Images that are a dataset each, all of one shape, read as they are asked for; another process opens anew."""

    def __init__(self, file: Path, datasets: tuple[str, ...], width_first: bool = False) -> None:
        self.file, self.datasets, self.width_first = file, datasets, width_first
        self._file = h5py.File(file, "r")
        first = self._file[datasets[0]]
        self.shape = (len(datasets), *_shape(first.shape, width_first))
        self.dtype: np.dtype = np.result_type(*{self._file[name].dtype for name in datasets})

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        names = self.datasets[rows]
        if not names:
            return np.empty((0, *self.shape[1:]), self.dtype)
        return channels_first(np.stack([self._file[name][()] for name in names]).astype(self.dtype), self.width_first)

    def __reduce__(self) -> tuple[Any, ...]:
        return CollectionImages, (self.file, self.datasets, self.width_first)


@dataclass(frozen=True)
class Template:
    """Images that could be shown: `names` None or one each; `ordered`, whether their positions mean anything."""

    place: str
    images: SeriesImages | CollectionImages
    names: tuple[str, ...] | None
    ordered: bool


def read_template(path: Path, place: str, thing: Any, width_first: bool) -> Template:
    """The images of an `ImageSeries` or of a collection `Images`; raises `FormatError` for what cannot be used."""
    from pynwb.base import Images

    if isinstance(thing, Images):
        return _collection(path, place, thing, width_first)
    if thing.external_file is not None:
        raise FormatError(
            f"{path}: the images of {place} lie in files of their own (external_file), which are not read. Store their"
            " pixels in the series."
        )
    if not isinstance(thing.data, h5py.Dataset) or 0 in thing.data.shape:
        raise FormatError(f"{path}: {place} holds no pixels. Choose another with images=..., or store them.")
    images = SeriesImages(Path(thing.data.file.filename).absolute(), thing.data.name, width_first)
    return Template(place, images, None, True)


def _collection(path: Path, place: str, thing: Any, width_first: bool) -> Template:
    ordered = thing.order_of_images is not None
    pictures = list(thing.order_of_images[:]) if ordered else list(thing.images.values())
    if not pictures:
        raise FormatError(f"{path}: the collection {place} is empty.")
    first = pictures[0]
    for picture in pictures:
        if not isinstance(picture.data, h5py.Dataset):
            raise FormatError(f"{path}: {picture.name!r} in {place} holds no pixels: external images are not read.")
        if picture.data.shape != first.data.shape:
            raise FormatError(
                f"{path}: the images of {place} differ in size: {picture.name!r} has shape {picture.data.shape}, but"
                f" {first.name!r} {first.data.shape}. Crop or resample them to one."
            )
    datasets = tuple(picture.data.name for picture in pictures)
    images = CollectionImages(Path(first.data.file.filename).absolute(), datasets, width_first)
    return Template(place, images, tuple(picture.name for picture in pictures), ordered)
