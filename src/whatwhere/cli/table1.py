"""`whatwhere reproduce table1`: models of visual cortex compared on the paper's data, or on any recording."""

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from whatwhere import runs
from whatwhere.cli import console
from whatwhere.cli.grids import numbers
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.estimators import Observer
from whatwhere.experiments.table1 import check_folders, load_scans, paper_form, run_table1

NAME = "table1"


def table1(
    out: Path,
    *,
    data: Path | None,
    format: str | None,
    scans: str | None,
    preset: str,
    models: str | None,
    neurons: str | None,
    seeds: str | None,
    values: dict[str, Any],
    common: dict[str, Any],
    resume: bool,
    overwrite: bool,
    unused: dict[str, Any],
) -> None:
    """Runs it and shows the table; see `reproduce`.

    common: what all models take, None where not given. unused: flags of other experiments, which must not be given.
    """
    for name, value in unused.items():
        if value is not None:
            raise OptionError(f"--{name} has nothing to act on in {NAME}: leave it out.")
    if data is None:
        raise OptionError(
            f"{NAME} needs --data: the folder of Antolik et al. 2016 (`whatwhere data fetch antolik2016` downloads what"
            " is published of it), or any recording with a held-out part."
        )
    size, drawn = _one_size(neurons), _drawn(seeds)
    given = {name: value for name, value in common.items() if value is not None}
    recordings = load_scans(
        *(data, numbers("--scans", scans)),
        format=format,
        neurons=size,
        seed=drawn[0],
        nonfinite=given.get("nonfinite", RunOptions().nonfinite),
    )
    check_folders(out, list(recordings), resume=resume, overwrite=overwrite)
    told: set[str] = set()
    for scan, recording in recordings.items():
        console.show_new_notes([f"{scan}: {note}" for note in recording.notes], told)

    def observe(scan: str) -> Any:
        def of(label: str) -> Observer:
            return console.observer(f"{scan}, {label}", told)

        return of

    names = None if models is None else [name.strip() for name in models.split(",")]
    result = run_table1(
        *(recordings, out, preset),
        models=names,
        values=values,
        seeds=len(drawn),
        seed=drawn[0],
        resume=resume,
        overwrite=overwrite,
        observe=observe,
        **given,
    )
    if result.results.empty:
        console.out.print(f"interrupted: what is done is kept in {out}; go on with --resume.", markup=False)
        raise typer.Exit(130)
    from whatwhere.report.table1 import write_table1  # drawing is loaded only where something is drawn

    form = paper_form(result.results)
    table = Table(*form.columns, box=None)
    for row in form.itertuples(index=False):
        table.add_row(*row)
    console.out.print(table, markup=False)
    for file in (*write_table1(result, out), out / runs.RESULTS_FILE, out / runs.DIFFERENCES_FILE):
        console.out.print(f"  {file}", markup=False)


def _one_size(neurons: str | None) -> int | None:
    """How many neurons of each scan are fitted, None for all."""
    sizes = numbers("--neurons", neurons)
    if sizes is not None and len(sizes) != 1:
        raise OptionError(f"--neurons is {neurons!r}: {NAME} takes one number, of neurons drawn from each scan.")
    return None if sizes is None else sizes[0]


def _drawn(seeds: str | None) -> list[int]:
    """Seeds that follow each other."""
    drawn = numbers("--seeds", seeds) or [0]
    if drawn != list(range(drawn[0], drawn[0] + len(drawn))):
        raise OptionError(f"--seeds is {seeds!r}: {NAME} takes seeds that follow each other, such as 0-2.")
    return drawn
