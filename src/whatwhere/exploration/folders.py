"""Folders of runs, before anything is read of them."""

from collections.abc import Sequence
from pathlib import Path

from whatwhere.errors import OptionError, RunError
from whatwhere.run_data import DATA_FILE
from whatwhere.runs import NEURONS_FILE, is_run
from whatwhere.storage import MODEL_FILE, SHARED_FILE


def check_runs(folders: Sequence[str | Path], with_recording: bool = False) -> list[Path]:
    """The folders; raises `OptionError` where there are none, `RunError` for one that does not hold a single run.

    with_recording: whether a recording is given, too; raises `OptionError` where none of the runs needs it.
    """
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
    if with_recording and not any(map(needs_recording, paths)):
        raise OptionError(
            "the recording has nothing to act on: every run keeps what its report shows of it. Leave --recording out."
        )
    return paths


def needs_recording(folder: Path) -> bool:
    """Whether a run lacks what is known of its recording, or its scores."""
    return not all((folder / name).exists() for name in (DATA_FILE, NEURONS_FILE))
