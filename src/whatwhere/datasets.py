"""Published recordings, downloaded on request; every file is checked against its published hash."""

import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch

from whatwhere.checks import check_choice, some_of
from whatwhere.errors import FormatError
from whatwhere.formats import antolik
from whatwhere.formats.antolik import git_blob

CACHE_VARIABLE = "WHATWHERE_CACHE"
TIMEOUT = 30.0  # seconds without an answer
MOST_BYTES = 2**30  # of one file of an archive


@dataclass(frozen=True)
class Dataset:
    """A zip archive on the net: where it is, which files of it are kept, and their git blob hashes."""

    name: str
    urls: tuple[str, ...]
    files: Mapping[str, str]
    source: str
    root: str = "."


DATASETS: dict[str, Dataset] = {
    "antolik2016": Dataset(
        name="antolik2016",
        urls=(
            f"https://journals.plos.org/ploscompbiol/article/file?type=supplementary&id=info:doi/{antolik.DOI}.s001",
            f"https://doi.org/{antolik.DOI}.s001",
        ),
        files={
            f"Data/{region}/{name}": blobs[number]
            for number, region in enumerate(antolik.REGIONS)
            for name, blobs in antolik.BLOBS.items()
        },
        source=f"supplement S1 of Antolik et al. 2016, PLOS Computational Biology, doi {antolik.DOI} (CC BY)",
        root="Data",
    ),
}


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Downloads a dataset, unless it is there already, and returns its folder.

    `folder` is the cache by default: the environment's WHATWHERE_CACHE, or the system's place for caches. A
    zip archive's own checksum may not be published, but those of the files in it are (git blob hashes,
    SHA-1): each file is compared before any is kept. Only the files of the dataset are taken from an archive,
    to names of ours. Raises `OptionError` for an unknown name; `FormatError` where the download fails, saying
    what to do by hand, where a file is not the published one, or where another file has its place.
    """
    check_choice("dataset", name, DATASETS)
    return download(DATASETS[name], folder)


def download(dataset: Dataset, folder: str | Path | None = None) -> Path:
    """As `fetch`, for any `Dataset`."""
    folder = cache_folder() / dataset.name if folder is None else Path(folder).expanduser()
    absent = [file for file in dataset.files if not (folder / file).exists()]
    _check_present(dataset, folder)
    if absent:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            archive = _retrieve(dataset, Path(temporary), folder)
            contents = _extract(dataset, archive, absent)
            for file, content in contents.items():
                part = Path(temporary) / "part"
                part.write_bytes(content)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, folder / file)
    return folder / dataset.root


def cache_folder() -> Path:
    """Where datasets are kept: the environment's WHATWHERE_CACHE, or the system's place for caches."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("whatwhere")).expanduser()


def _check_present(dataset: Dataset, folder: Path) -> None:
    others = [
        file
        for file, blob in dataset.files.items()
        if (folder / file).exists() and git_blob((folder / file).read_bytes()) != blob
    ]
    if others:
        raise FormatError(
            f"{folder} holds files that are not the published ones of {dataset.name}: {some_of(others)}. Move them"
            " away, or choose another folder."
        )


def _retrieve(dataset: Dataset, temporary: Path, folder: Path) -> Path:
    """The archive, from the first address that gives it."""
    problems = []
    for url in dataset.urls:
        try:
            with _quiet_pooch():
                downloader = pooch.HTTPDownloader(timeout=TIMEOUT)
                return Path(pooch.retrieve(url, None, "archive.zip", temporary, downloader=downloader))
        except OSError as error:  # requests' errors are among them
            problems.append(f"{url} ({type(error).__name__})")
    raise FormatError(
        f"{dataset.name} could not be downloaded from {' nor '.join(problems)}. By hand: get {dataset.source}, from"
        f" {dataset.urls[0]}, unpack it, and put these files into {folder}: {', '.join(dataset.files)}."
    )


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _extract(dataset: Dataset, archive: Path, files: list[str]) -> dict[str, bytes]:
    """The content of `files`, each found at the end of a path in the archive, all as published."""
    contents, wrong = {}, []
    try:
        with zipfile.ZipFile(archive) as opened:
            for file in files:
                entry = _entry(opened, file)
                if entry is None:
                    wrong.append(f"{file} (not in it)")
                    continue
                content = opened.read(entry)
                if git_blob(content) == dataset.files[file]:
                    contents[file] = content
                else:
                    wrong.append(f"{file} (git blob {git_blob(content)}, expected {dataset.files[file]})")
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise FormatError(
            f"what came from {dataset.urls[0]} is not a whole zip archive ({error}). Try again, or get by hand:"
            f" {dataset.source}."
        ) from None
    if wrong:
        raise FormatError(
            f"the archive of {dataset.name} does not hold the published files, so nothing was kept: {some_of(wrong)}."
            f" Try again, or get by hand: {dataset.source}."
        )
    return contents


def _entry(archive: zipfile.ZipFile, file: str) -> zipfile.ZipInfo | None:
    parts = PurePosixPath(file).parts
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename).parts
        if path[-len(parts) :] == parts and "__MACOSX" not in path and entry.file_size <= MOST_BYTES:
            return entry
    return None
