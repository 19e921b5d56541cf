"""Tables that the pages do not type in: options with their defaults, scores, models, formats, the paper's numbers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from whatwhere import config, metrics
from whatwhere.catalogue import MODELS
from whatwhere.experiments import paper_numbers
from whatwhere.formats import FORMATS
from whatwhere.metrics import SCORES

Rows = Iterable[Sequence[str]]


def options(name: str) -> tuple[Sequence[str], Rows]:
    """The fields of an options dataclass of `whatwhere.config`."""
    rows = [
        (f"`{field.name}`", f"`{_default(field)}`", field.metadata["doc"]) for field in fields(getattr(config, name))
    ]
    return ("option", "default", "meaning"), rows


def _default(field: "Field[Any]") -> str:
    value = field.default
    if value is MISSING:  # pydantic's own default
        value = field.default_factory() if field.default_factory is not MISSING else ""
    return str(getattr(value, "default", value))


def scores(_: str) -> tuple[Sequence[str], Rows]:
    """Every score of a table."""
    needs = {"rates": "the noise-free truth", "repeats": "repeated images", "trials": "responses"}
    own = {"correlation": "correlation_with_average", "log_likelihood_bits_per_spike": "poisson_log_likelihood"}
    rows = []
    for name, score in SCORES.items():
        counts = " of 0 or more" if score.counts else ""
        rows.append((f"`{name}`", _summary(getattr(metrics, own.get(name, name))), needs[score.needs] + counts))
    return ("score", "what it is", "needs"), rows


def models(_: str) -> tuple[Sequence[str], Rows]:
    """Every model by its name on the command line, with the first line of its docstring."""
    rows = [(f"`{name}`", f"`{kind.__name__}`", _summary(kind)) for name, kind in MODELS.items()]
    return ("name", "class", "what it is"), rows


def _summary(kind: Any) -> str:
    """The first paragraph of its docstring."""
    return (kind.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


def formats(_: str) -> tuple[Sequence[str], Rows]:
    """Every format that can be read, and whether it can be written."""
    return ("format", "what it looks like", "written"), [
        (f"`{known.name}`", known.looks_like, ", ".join(known.suffixes) or ("a folder" if known.write else "no"))
        for known in FORMATS.values()
    ]


def figure_3b(_: str) -> tuple[Sequence[str], Rows]:
    """FEV by model and number of images."""
    return _curves(paper_numbers.FIGURE_3B, paper_numbers.IMAGES)


def figure_5b(_: str) -> tuple[Sequence[str], Rows]:
    """FEV of VGG units by readout and number of images."""
    return _curves(paper_numbers.FIGURE_5B, paper_numbers.FIGURE_5B_IMAGES)


def _curves(curves: dict[Any, tuple[float, ...]], images: Sequence[int]) -> tuple[Sequence[str], Rows]:
    rows = [
        (name, "any" if neurons is None else f"{neurons:,}", *(f"{value:.2f}" for value in values))
        for (name, neurons), values in curves.items()
    ]
    return ("model", "neurons", *(f"{n:,}" for n in images)), rows


def figure_5e(_: str) -> tuple[Sequence[str], Rows]:
    """FEV by readout and number of types."""
    types = list(next(iter(paper_numbers.FIGURE_5E.values())))
    rows = [(name, *(f"{row[n]:.2f}" for n in types)) for name, row in paper_numbers.FIGURE_5E.items()]
    return ("readout", *(f"{n} types" for n in types)), rows


def table_1(_: str) -> tuple[Sequence[str], Rows]:
    """Correlation on the three scans."""
    rows = [(name, *(f"{value:.2f}" for value in values)) for name, values in paper_numbers.TABLE_1.items()]
    return ("model", *(f"scan {i + 1}" for i in range(len(paper_numbers.TABLE_1_SCANS))), "average"), rows


TABLES: dict[str, Callable[[str], tuple[Sequence[str], Rows]]] = {
    "options": options,
    "scores": scores,
    "models": models,
    "formats": formats,
    "figure-3b": figure_3b,
    "figure-5b": figure_5b,
    "figure-5e": figure_5e,
    "table-1": table_1,
}


class FromCode(Directive):
    """`{from-code} options CoreOptions`: the table of that name."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        head, rows = TABLES[self.arguments[0]](*(self.arguments[1:] or [""]))
        return [table(head, list(rows))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> nodes.table:
    """A table; what stands between backticks is code."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    group += nodes.thead("", _row(head))
    group += nodes.tbody("", *(_row(row) for row in rows))
    return nodes.table("", group, classes=["from-code"])


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *_inline(cell))) for cell in cells))


def _inline(text: str) -> list[nodes.Node]:
    parts = text.split("`")
    return [nodes.literal("", part) if i % 2 else nodes.Text(part) for i, part in enumerate(parts) if part]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("from-code", FromCode)
    return {"parallel_read_safe": True}
