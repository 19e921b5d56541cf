"""Folders of runs, before anything is read of them."""

from collections.abc import Sequence
from pathlib import Path

from whatwhere.errors import OptionError, RunError
from whatwhere.runs import is_run
from whatwhere.storage import MODEL_FILE, SHARED_FILE


def check_runs(folders: Sequence[str | Path]) -> list[Path]:
    """The folders; raises `OptionError` where there are none, `RunError` for one that does not hold a single run."""
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise OptionError("no run was named: expected at least one folder.")
    for path in paths:
        if not path.is_dir():
            raise RunError(f"{path} is no folder: expected that of a run, which `whatwhere fit` writes.")
        if (path / SHARED_FILE).exists():
            raise RunError(f"{path} holds runs of several recordings: name the folder of one, {path}/RECORDING.")
        if not (path / MODEL_FILE).exists():
            parts = sorted(part for part in path.iterdir() if part.is_dir() and is_run(part))
            hint = f"It has runs within it: name one, {parts[0]}." if parts else "Name one that `whatwhere fit` wrote."
            raise RunError(f"{path} holds no fitted model. {hint}")
    return paths
