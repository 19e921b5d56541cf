"""`whatwhere types`: the cell types of a fitted model's neurons."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from whatwhere import formats
from whatwhere.celltypes import RunTypes, TypeOptions, types_of_run
from whatwhere.celltypes.folder import mean_confidence
from whatwhere.cli import console
from whatwhere.cli.arguments import Device, Nonfinite, Threads, check_recording_options
from whatwhere.cli.data import Format
from whatwhere.config import RunOptions
from whatwhere.errors import OptionError
from whatwhere.plain_options import make_options


def types(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model.safetensors.")],
    recording: Annotated[
        Path | None, typer.Option(help="The recording fitted: for the metric signal, and for --refits.")
    ] = None,
    method: Annotated[str, typer.Option(help="gmm, a mixture of Gaussians, or hdbscan.")] = "gmm",
    metric: Annotated[
        str | None,
        typer.Option(
            help="signal: barcodes are compared by what neurons would answer, the default where a recording is given;"
            " weights: weight by weight."
        ),
    ] = None,
    n_types: Annotated[
        int | None, typer.Option("--n-types", help="gmm: so many types; by the BIC if not given.")
    ] = None,
    max_types: Annotated[int | None, typer.Option("--max-types", help="gmm: the most that are tried (12).")] = None,
    covariance: Annotated[
        str | None, typer.Option(help="gmm: of its Gaussians: full (default), tied, diag or spherical.")
    ] = None,
    min_size: Annotated[
        int | None, typer.Option("--min-size", help="hdbscan: neurons in the smallest type (5).")
    ] = None,
    refits: Annotated[
        int, typer.Option(help="Fit the model so often again, with further seeds, to see whether types return.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of mixtures and the t-SNE map.")] = 0,
    device: Device = None,
    threads: Threads = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to; the run's own if not given.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the types that the folder holds; refits stay.")
    ] = False,
    nonfinite: Nonfinite = None,
    format: Format = None,
) -> None:
    """Put a fitted model's neurons into types by their barcodes, the weights of the core's features.

    Writes types.csv (a row for each neuron), types.json and figures. In the run's folder `whatwhere report` finds them.
    Refits are kept in seed-<s>: after Ctrl-C or a kill the same command goes on.
    """
    given = {"n_types": n_types, "max_types": max_types, "covariance": covariance, "min_size": min_size}
    chosen = {name: value for name, value in given.items() if value is not None}
    usual_metric = "weights" if recording is None else "signal"
    options = make_options(TypeOptions, {"method": method, "metric": metric or usual_metric, "seed": seed, **chosen})
    check_recording_options(recording, format, nonfinite)
    if not refits:
        for name, number in {"device": device, "threads": threads}.items():
            if number is not None:
                raise OptionError(f"--{name} has nothing to act on without --refits: leave it out.")
    usual = RunOptions()
    loaded = None
    if recording is not None:
        loaded = formats.load(recording, format, nonfinite=nonfinite or usual.nonfinite)
    notes = () if loaded is None else loaded.notes
    console.show_notes(notes)
    told = set(notes)
    found = types_of_run(
        *(run, out, loaded),
        options=options,
        refits=refits,
        device=device or usual.device,
        threads=threads,
        overwrite=overwrite,
        observe=lambda label: console.observer(label, told),
    )
    console.show_new_notes(found.notes, told)
    if found.interrupted:
        console.out.print("interrupted: refits that are done are kept; the same command goes on.")
        raise typer.Exit(130)
    _show(found)
    from whatwhere.report.found_types import draw_types  # drawing is loaded only where something is drawn

    for file in draw_types(found):
        console.out.print(f"  {file}", markup=False)


def _show(found: RunTypes) -> None:
    """The types, how their number came about, and how they agree with refits."""
    types = found.types
    table = Table(Column("type", no_wrap=True), "neurons", "mean confidence", box=None)
    for number, (count, confidence) in enumerate(zip(types.counts, mean_confidence(types), strict=True)):
        table.add_row(str(number), f"{count:,}", f"{confidence:.3f}")
    console.out.print(table)
    if len(types.bic):
        numbers = types.bic["n_types"].to_numpy()
        console.out.print(f"BIC: lowest at {numbers[types.bic['bic'].argmin()]} of 1 to {numbers.max()} types")
    if found.stability is None:
        return
    for row in found.stability.refits.to_dict("records"):
        if row["seed"] in found.stability.left_out:
            continue  # the notes say so
        console.out.print(
            f"refit with seed {row['seed']}: adjusted Rand index {row['ari']:.3f} over {row['n_neurons']:,} neurons;"
            f" {row['n_types']} types by itself; feature maps match with correlation {row['map_correlation']:.3f},"
            f" types with similarity {row['centre_similarity']:.3f}"
        )
    if found.stability.n_types is not None:
        best = f"fits agree best in {found.stability.n_types} types"
        console.out.print(f"{best}: adjusted Rand index {found.stability.best_ari:.3f}")
