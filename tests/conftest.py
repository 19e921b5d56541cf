"""What every test may count on: few sleeping threads, no display, a seeded generator, and skips by need."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch, numpy and matplotlib are imported, here or by the programs that tests start.
os.environ["OMP_NUM_THREADS"] = "1" if "PYTEST_XDIST_WORKER" in os.environ else str(min(2, os.cpu_count() or 1))
os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import torch

CHECKOUT = Path(__file__).resolve().parents[1]
FIRST = ("parallel", "search", "cli_search", "experiments", "shared", "workers", "examples", "cli_reproduce")
"""Files of tests that take longest, since they start processes: begun first, so that all workers end at once."""


def pytest_configure() -> None:
    """One number of threads for the whole run: sums of floats depend on it in their last digits."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, and skip what needs a CUDA device where there is none."""
    names = [f"test_{name}" for name in FIRST]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts alike in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `whatwhere` in this process, in a folder, with arguments; returns exit code, output and errors."""
    from whatwhere import cli  # only where it is asked for: it loads everything

    def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["whatwhere", *arguments])
        monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)  # it would be for all tests that follow
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return call


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of recordings: WHATWHERE_DATA, or shared/data beside the checkout. Mark its tests `data`."""
    named = os.environ.get("WHATWHERE_DATA")
    folder = Path(named) if named else CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}: name their folder in WHATWHERE_DATA")
    return folder
