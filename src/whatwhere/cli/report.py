"""The verb that writes the report of runs, and how others end with it."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere import formats
from whatwhere.cli import console
from whatwhere.cli.arguments import Nonfinite, check_recording_options
from whatwhere.cli.data import Format
from whatwhere.config import RunOptions
from whatwhere.runs import METRICS_FILE, REPORT_FILE

NoReport = Annotated[bool, typer.Option("--no-report", help="Leave out report.html, the page to explore.")]


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; several are set against each other.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .html to write; report.html in the first run's folder.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option("--recording", help="The recording fitted, for runs that keep nothing of it.")
    ] = None,
    format: Format = None,
    nonfinite: Nonfinite = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write one page to explore: where each neuron looks, what it computes, how well it is predicted, how the fit went.

    A single HTML file that works offline. A run that `whatwhere fit` wrote needs no recording. What `whatwhere types`
    and `whatwhere insilico` wrote into a run's folder is shown, too. The report within a run's folder is replaced;
    another file only with --overwrite.
    """
    from whatwhere.exploration import check_runs, explore_runs
    from whatwhere.report.explorer import check_path, write_report  # drawing is loaded only where something is drawn

    check_recording_options(recording, format, nonfinite)
    check_runs(runs, recording is not None)
    path = runs[0] / REPORT_FILE if out is None else out
    check_path(path, overwrite or out is None)
    loaded = formats.load(recording, format, nonfinite=nonfinite or RunOptions().nonfinite) if recording else None
    show_written(write_report(explore_runs(runs, loaded), path))


def end_with_report(run: Path) -> None:
    """Writes the report of a run into its folder, and says so; one that is newer than the run's scores stays."""
    from whatwhere.exploration import explore_runs
    from whatwhere.report.explorer import write_report  # drawing is loaded only where something is drawn

    path = run / REPORT_FILE
    is_current = path.exists() and path.stat().st_mtime_ns >= (run / METRICS_FILE).stat().st_mtime_ns
    show_written(path if is_current else write_report(explore_runs([run]), path))


def show_written(path: Path) -> None:
    """Where the report is."""
    console.out.print(f"report: {path} ({console.size(path.stat().st_size)}), open it in a browser", markup=False)
