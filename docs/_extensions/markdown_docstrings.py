"""Docstrings are Markdown, as the README is: their lists, tables and code are read by MyST."""

import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from docutils.utils import new_document
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.sphinx_ import SphinxRenderer
from myst_parser.parsers.mdit import create_md_parser

_PROMPT = re.compile(r"\s*>>>")


def fenced(lines: list[str]) -> list[str]:
    """The lines with each doctest, up to the next empty line, in a fence of its own."""
    result, inside = [], False
    for line in lines:
        if not inside and _PROMPT.match(line):
            result += ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            result.append("```")
            inside = False
        result.append(line.strip() if inside and _PROMPT.match(line) else line)
    return [*result, "```"] if inside else result


class MarkdownBlock(Directive):
    """`.. markdown-block::`: its content is Markdown."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        document = self.state.document
        inner = new_document(document["source"] or "docstring", document.settings)
        parser = create_md_parser(MdParserConfig(enable_extensions={"dollarmath"}), SphinxRenderer)
        parser.disable(["html_inline", "html_block"])
        parser.options["document"] = inner
        parser.render("\n".join(self.content), {"relative-docs": None})
        return [node for node in inner.children if not isinstance(node, nodes.system_message)]


def as_markdown(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Hands a docstring over to `MarkdownBlock`."""
    text = fenced(list(lines))
    if any(line.strip() for line in text):
        lines[:] = ["", ".. markdown-block::", "", *("   " + line for line in text), ""]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("markdown-block", MarkdownBlock)
    app.connect("autodoc-process-docstring", as_markdown)
    return {"parallel_read_safe": True}


__all__ = ["StringList", "fenced", "setup"]
