"""A page that stands by itself: text, figures and tables in one HTML file, nothing fetched from anywhere."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from whatwhere.storage import write_text

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: 0.9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.15rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
"""


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, and below them a figure with its caption, a list, and a table; any may be missing."""

    title: str
    paragraphs: Sequence[str] = ()
    figure: Figure | None = None
    caption: str = ""
    items: Sequence[str] = ()
    table: pd.DataFrame | None = None


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML: every text escaped, every figure embedded as a PNG.

    Numbers in tables have three decimals, and are empty where they are NaN.
    """
    body = "\n".join(_section(section) for section in sections)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def write_page(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes the page, whole or not at all; returns its path."""
    write_text(path, page(title, sections))
    return path


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.figure is not None:
        parts.append(_embedded(section.figure, section.caption))
    if section.items:
        parts.append("<ul>" + "".join(f"<li>{escape(item)}</li>" for item in section.items) + "</ul>")
    if section.table is not None:
        parts.append(f'<div class="wide">{_table(section.table)}</div>')
    return "\n".join(parts)


def _embedded(figure: Figure, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _table(table: pd.DataFrame) -> str:
    html: str = table.to_html(index=False, border=0, na_rep="", float_format="{:.3f}".format, escape=True)
    return html
