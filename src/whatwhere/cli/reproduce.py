"""`whatwhere reproduce`: a figure of the paper, measured again."""

from pathlib import Path
from typing import Annotated

import typer

from whatwhere.checks import check_choice
from whatwhere.cli import console
from whatwhere.cli.grids import finish, n_failed, part_of_grid, run
from whatwhere.cli.options import parse_assignments
from whatwhere.cli.table1 import NAME, table1
from whatwhere.errors import OptionError
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.grid import check_folder

KNOWN = (*EXPERIMENTS, NAME)


def reproduce(
    experiment: Annotated[str, typer.Argument(help=f"One of {', '.join(KNOWN)}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for table, figures and page; made if missing.")],
    preset: Annotated[
        str, typer.Option(help="quick: minutes on two cores (fig5b, fig5e: an hour or two); paper: the whole grid.")
    ] = "quick",
    models: Annotated[str | None, typer.Option(help="Names with commas between; all if not given.")] = None,
    neurons: Annotated[
        str | None, typer.Option(help="Numbers of neurons with commas between (fig4, types: of each type).")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Numbers of images, training and validation, with commas between.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds with commas between; 0-4 stands for 0,1,2,3,4.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One option of the experiment, e.g. image_size=[36,64]; repeatable."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="fig5, scale: of VGG-19: hub (550 MB, once), seeded (a stand-in) or a file.")
    ] = None,
    photographs: Annotated[
        str | None, typer.Option(help="fig5, scale: folder whose photographs are cropped; dead leaves if not given.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="table1: the folder of Antolik et al. 2016, or any recording.")
    ] = None,
    scans: Annotated[str | None, typer.Option(help="table1: of that folder, such as 1,3; all if not given.")] = None,
    device: Annotated[str | None, typer.Option(help="table1: auto (default), cpu, cuda, cuda:1, ...")] = None,
    threads: Annotated[int | None, typer.Option(help="table1: threads of the CPU.")] = None,
    nonfinite: Annotated[
        str | None, typer.Option(help="table1: NaN in the data: error (default), or leave out rows or neurons.")
    ] = None,
    format: Annotated[str | None, typer.Option("--format", help="table1: reader of --data; else recognised.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="All but table1: processes; one a core if not given, 1: none but this.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Do what the folder lacks, and what failed.")] = False,
) -> None:
    """Measure a figure of the paper again: a table, the figure, and a page that sets the paper's numbers beside.

    fig1: what sharing one model is worth. fig3: FEV by model, neurons and images. fig4: cell types found. fig5b: units
    of VGG-19, by readout, neurons and images; fig5c, fig5d: their types and places, of one fit that fig5b's folder may
    hold already; fig5e: more and more types; scale: time and memory for thousands of neurons and images on disk.
    types: types that barcodes fall into beside the true ones.
    table1: models of visual cortex compared on recordings. Every point is kept as it is done, so Ctrl-C loses only
    those under way; go on with --resume.
    """
    check_choice("experiment", experiment, KNOWN)
    if experiment == NAME:
        table1(
            out,
            data=data,
            format=format,
            scans=scans,
            preset=preset,
            models=models,
            neurons=neurons,
            seeds=seeds,
            values=parse_assignments(set_ or []),
            common={"device": device, "threads": threads, "nonfinite": nonfinite},
            resume=resume,
            overwrite=overwrite,
            unused={"images": images, "weights": weights, "photographs": photographs, "workers": workers},
        )
        return
    of_table1 = {"data": data, "scans": scans, "device": device, "threads": threads}
    of_table1 |= {"nonfinite": nonfinite, "format": format}
    for name, value in of_table1.items():
        if value is not None:
            raise OptionError(f"--{name} has nothing to act on in {experiment}: it is for {NAME}.")
    chosen = EXPERIMENTS[experiment]
    part = part_of_grid(models, neurons, images, seeds)
    chosen.grid(preset, **part)  # says what is wrong before anything is done
    flags = {"weights": weights, "photographs": photographs}
    given = {name: value for name, value in flags.items() if value is not None}
    options = chosen.options(preset, {**parse_assignments(set_ or []), **given})
    check_folder(out, resume=resume, overwrite=overwrite)
    table = run(chosen, out, preset, **part, options=options, workers=workers, resume=resume, overwrite=overwrite)
    if n_failed(table) < len(table):
        from whatwhere.report.reproduction import write_reproduction  # drawing is loaded only where something is drawn

        for file in write_reproduction(out):
            console.out.print(f"  {file}", markup=False)
    finish(table, out)
