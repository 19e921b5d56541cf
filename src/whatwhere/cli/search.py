"""`whatwhere search`: the best options and strengths for a recording, on one machine or many."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from whatwhere import runs
from whatwhere.checks import check_choice
from whatwhere.cli import console
from whatwhere.cli.arguments import (
    Config,
    Device,
    Neurons,
    Nonfinite,
    Preset,
    RecordingPath,
    Seed,
    Set,
    common_options,
)
from whatwhere.cli.data import Format
from whatwhere.cli.options import gather
from whatwhere.errors import OptionError
from whatwhere.plain_options import merge
from whatwhere.search import (
    Failed,
    Pruned,
    RecordingFile,
    SearchOptions,
    SearchPlan,
    SearchProgress,
    SearchResult,
    SearchTick,
    Space,
    dask_pool,
    local_pool,
    read_space,
)
from whatwhere.search import search as search_space
from whatwhere.search.pruning import PRUNERS
from whatwhere.search.searching import check_folder
from whatwhere.search.storage import check_optuna
from whatwhere.search.study import SAMPLERS

_MOST_ROWS = 10


def search(
    recording: RecordingPath,
    space: Annotated[Path, typer.Option("--space", help="YAML file: a model, options of all points, and axes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for table, models and figures; made if missing.")],
    sampler: Annotated[str, typer.Option(help=f"How points are chosen: {', '.join(SAMPLERS)}.")] = "grid",
    points: Annotated[int | None, typer.Option(help="How many points random and tpe try.")] = None,
    pruner: Annotated[str, typer.Option(help=f"Which points are given up early: {', '.join(PRUNERS)}.")] = "none",
    prune_after: Annotated[int | None, typer.Option(help="Steps before which none is given up (default 300).")] = None,
    warm_start: Annotated[
        bool,
        typer.Option(
            "--warm-start", help="Of a grid: points that differ in penalties alone start from each other, strong first."
        ),
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; one a GPU if not given, or else one a core.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of each process; if not given the cores are shared out.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Address of a Dask scheduler, whose workers fit the points."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Address of a database that Optuna takes, or journal:FILE; a file in --out if not given."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the study in the storage.")] = "search",
    preset: Preset = None,
    config: Config = None,
    set_: Set = None,
    neurons: Neurons = None,
    seed: Seed = None,
    device: Device = None,
    nonfinite: Nonfinite = None,
    format: Format = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the search that the folder holds.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Fit what has no end yet, and what failed.")] = False,
) -> None:
    """Search a space of options and strengths: each point fitted once, judged on validation images, kept as it ends.

    The space is a YAML file with model, options and space: `core.n_maps: [8, 16]`, or a range, `penalties.mask_l1:
    {low: 0.01, high: 0.1, log: true, n: 4}`, of which a grid takes n values. Options, --config and --set are of all
    points, and the seed is the sampler's, too. The best point alone is scored on the held-out part. Killed, or stopped
    by Ctrl-C, a search goes on with --resume; so may several machines on one storage.
    """
    for choice, value, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        check_choice(choice, value, known)
    flags = {"preset": preset, "neurons": neurons, "seed": seed, "device": device, "nonfinite": nonfinite}
    options, values = gather(config, set_ or [], flags)
    check_optuna()
    wanted = _with_options(read_space(space), values)
    how = SearchOptions(sampler, points, pruner, prune_after, warm_start, storage, name)
    check_folder(out, resume=resume, overwrite=overwrite)
    if scheduler is not None and workers is not None:
        raise OptionError(f"workers (={workers}) are processes of this machine: a scheduler has its own. Give one.")
    source = RecordingFile(str(recording.resolve()), format, options.nonfinite, options.neurons, options.seed)
    common = common_options(options, without=("threads",))
    threads = threads or options.threads
    pools: AbstractContextManager[Any] = local_pool(workers, threads)
    if scheduler is not None:
        common["threads"] = threads or 1
        pools = dask_pool(scheduler)
    try:
        with pools as pool:
            result = search_space(
                source,
                wanted,
                out,
                pool,
                how,
                preset=options.preset,
                resume=resume,
                overwrite=overwrite,
                observer=_observer(),
                **common,
            )
    except KeyboardInterrupt:
        console.out.print(f"interrupted: what is done is kept in {out}; go on with --resume.", markup=False)
        raise typer.Exit(130) from None
    _show(result, wanted, out)


def _with_options(space: Space, values: dict[str, Any]) -> Space:
    """The space with options of the command line over its own."""
    shared = {key: value for key, value in values.items() if key != space.model}
    given = merge(shared, values.get(space.model, {}))
    return Space(space.model, space.axes, merge(dict(space.options), given))


def _observer() -> Callable[[SearchPlan | SearchProgress | SearchTick], None]:
    """Prints the plan, a line for each point that ended, and on a terminal one below that tells how long it goes on."""
    last: list[SearchProgress] = []
    in_place = [False]

    def observe(event: SearchPlan | SearchProgress | SearchTick) -> None:
        if isinstance(event, SearchTick) and not console.out.is_terminal:
            return
        if in_place[0]:
            console.out.control(console.LINE_BEFORE)
        in_place[0] = isinstance(event, SearchTick)
        if isinstance(event, SearchPlan):
            done = f", {event.n_done:,} of them done already" if event.n_done else ""
            console.out.print(f"[bold]search[/]: {event.n_points:,} points{done}, {event.n_workers} at a time.")
        elif isinstance(event, SearchTick):
            left = f", about {console.duration(last[-1].seconds_left)} left when the last ended" if last else ""
            console.out.print(f"  {event.n_running} under way, {console.duration(event.seconds)} so far{left}")
        else:
            last[:] = [event]
            console.out.print(_progress_line(event), markup=False)

    return observe


def _progress_line(event: SearchProgress) -> str:
    ending = event.ending
    what = ", ".join(f"{name.split('.')[-1]} {_value(value)}" for name, value in event.point.items())
    if isinstance(ending, Failed):
        how = f"failed: {ending.reason}"
    else:
        how = f"loss {ending.loss:.4f}" + (f", given up after {ending.steps:,} steps" * isinstance(ending, Pruned))
    ended = event.n_done + event.n_failed
    left = f", about {console.duration(event.seconds_left)} left" if ended < event.n_points else ""
    best = "" if event.best is None else f" (best {event.best:.4f})"
    return f"  {ended:,} of {event.n_points:,}{left}{best}: {what}: {how}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(result: SearchResult, space: Space, out: Path) -> None:
    """The best points, what matters, the best one's scores on the test part, and the files; 5 where some failed."""
    from whatwhere.report.search import draw_search  # drawing is loaded only where something is drawn

    table = result.table
    done = table[table["state"] == "done"].sort_values("validation_loss")
    shown = Table(Column("validation loss", no_wrap=True), *space.axes, box=None)
    for row in done.head(_MOST_ROWS).to_dict("records"):
        shown.add_row(f"{row['validation_loss']:.4f}", *(_value(row[name]) for name in space.axes))
    console.out.print(shown, markup=False)
    if len(result.importance) > 1:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result.importance.items())
        console.out.print(f"of the loss's variance: {shares}", markup=False)
    if result.best is not None:
        console.out.print(f"the best one, on the held-out part ({out / 'best'}):", markup=False)
        console.show_scores(result.best.scores)
    for file in draw_search(result, space, out):
        console.out.print(f"  {file}", markup=False)
    counts = table["state"].value_counts()
    console.out.print(
        f"{', '.join(f'{count:,} {state}' for state, count in counts.items())}: {out / runs.RESULTS_FILE}", markup=False
    )
    if (table["state"] == "failed").any():
        why = f"some points failed; {runs.RESULTS_FILE} says why, and --resume tries them again."
        console.out.print(why, markup=False)
        raise typer.Exit(5)
