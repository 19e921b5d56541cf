"""Formulas as MathML, which browsers draw themselves: the pages need no address of others."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

_TAG = re.compile(r"\\tag\{([^}]*)\}")
_HAT = re.compile(
    r"<munderover>\s*(<mi>\w</mi>)\s*(<mi>\w</mi>|<mrow>.*?</mrow>)\s*(<mo[^>]*>\u02c6</mo>)\s*</munderover>", re.DOTALL
)
"""docutils puts the index of a letter with a hat below it."""


def formula(text: str, *, block: bool) -> str:
    """LaTeX as MathML, without its tag."""
    drawn: str = tex2mathml(_TAG.sub("", text).strip(), as_block=block)
    return _HAT.sub(r"<msub><mover>\1\3</mover>\2</msub>", drawn)


def visit_math(self: Any, node: nodes.math) -> None:
    """One within a line."""
    self.body.append(formula(node.astext(), block=False))
    raise nodes.SkipNode


def visit_math_block(self: Any, node: nodes.math_block) -> None:
    """One by itself, its number on the right."""
    text = node.astext()
    tag = _TAG.search(text)
    number = f'<span class="eqno">({tag[1]})</span>' if tag else ""
    self.body.append(f'<div class="formula">{formula(text, block=True)}{number}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True}
