"""`whatwhere data`: what a file holds, one format into another, published recordings."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from whatwhere import datasets, formats
from whatwhere.cli import console
from whatwhere.cli.options import parse_assignments

data = typer.Typer(help="Look at recordings, convert them, fetch published ones.", no_args_is_help=True)

Format = Annotated[str | None, typer.Option("--format", help=f"Reader: {', '.join(formats.FORMATS)}; else recognised.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One option of the reader, e.g. delay=0.1 of nwb; repeatable."),
]
Path_ = Annotated[Path, typer.Argument(help="A recording: file or folder.")]


def _options_help(*, writing: bool) -> str:
    """Every option of a reader, and of a writer where there is one, with its default and meaning."""
    lines = []
    for name, known in formats.FORMATS.items():
        kinds = {"--set": known.read_options, **({"--set-target": known.write_options} if writing else {})}
        for flag, kind in kinds.items():
            options = fields(kind) if kind is not None else ()
            lines += [f"  {flag} {o.name}={o.default}  of {name}: {o.metadata['doc']}" for o in options]
    return "\n\n".join(["Options, for example --set delay=0.1:", *lines])


@data.command(epilog=_options_help(writing=False))
def info(
    paths: Annotated[list[Path], typer.Argument(help="Recordings: files or folders.")],
    format: Format = None,
    set_: Set = None,
) -> None:
    """Say what is there, what is missing, and what a recording holds.

    Exit code 3 where something is damaged or of no known format; a folder that only lacks a file is no failure.
    """
    problems, options = 0, parse_assignments(set_ or [])
    for path in paths:
        inspection = formats.inspect(path, format, **options)
        console.out.print(f"{path}: {inspection.format or 'no known format'}", markup=False, style="bold")
        for item in inspection.items:
            console.out.print(f"  {item.status:8} {item.name}  {item.detail}", markup=False)
        if inspection.summary is not None:
            console.show_plain(inspection.summary)
        if inspection.problem is not None:
            problems += not any(item.status == "missing" for item in inspection.items)
            console.out.print(f"  cannot be loaded: {inspection.problem}", markup=False)
    if problems:
        raise typer.Exit(3)


@data.command(epilog=_options_help(writing=True))
def convert(
    source: Path_,
    target: Annotated[Path, typer.Argument(help="File to write, .h5, .npz or .nwb, or with --to filetree a folder.")],
    format: Format = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Format to write, where the target's suffix says none.")
    ] = None,
    set_: Set = None,
    set_target: Annotated[
        list[str] | None,
        typer.Option(
            "--set-target", metavar="KEY=VALUE", help="One option of what is written, e.g. seconds=0.5 of nwb."
        ),
    ] = None,
    nonfinite: Annotated[str, typer.Option(help="NaN: error, or leave out rows or neurons.")] = "error",
    compress: Annotated[bool, typer.Option("--compress", help="Smaller and slower.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the target.")] = False,
) -> None:
    """Write a recording in the project's own format (.h5, read lazily), as .npz, as .nwb or as a file tree."""
    reading, writing = (parse_assignments(texts or []) for texts in (set_, set_target))
    formats.check_target(target, to, overwrite=overwrite, compress=compress, **writing)  # before anything is read
    recording = formats.load(source, format, nonfinite=nonfinite, **reading)
    console.show_notes(recording.notes)
    formats.save(recording, target, to, overwrite=overwrite, compress=compress, **writing)
    console.out.print(f"{recording.n_images:,} images, {recording.n_neurons:,} neurons: {target}", markup=False)


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(datasets.DATASETS)}.")],
    folder: Annotated[Path | None, typer.Option(help="Where to put it; a cache of the user's if not given.")] = None,
) -> None:
    """Download a published recording, checked file by file."""
    console.out.print(str(datasets.fetch(name, folder)), markup=False)
