"""The page itself: template, style, script and data in one file."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from whatwhere.errors import RunError
from whatwhere.estimators import Estimator
from whatwhere.exploration import Explored, explore_models
from whatwhere.recording import Recording
from whatwhere.report.explorer.payload import payload
from whatwhere.report.style import COLOURS, DENSITY, DIVERGING
from whatwhere.storage import write_text

SCRIPTS = ("data", "draw", "state", "field", "table", "figures", "panel", "overview", "main")
"""The script's parts in the order in which they are run, all within one function."""


def report(
    model: Estimator | Mapping[str, Estimator], recording: Recording, path: str | Path, *, overwrite: bool = False
) -> Path:
    """Writes a report of a fitted model, or of several by name, that one can explore; returns its path.

    One HTML file with everything in it: where each neuron looks and what it computes there, its predicted against its
    observed responses, every score, how the fit went, and the models side by side. It works offline, from a mail.
    recording: the one that the models were fitted to; its test set gives the scores.

    Raises `InputError` where the recording lacks neurons, `RunError` where the file exists already (unless `overwrite`)
    or its folder does not, `WriteError` where it cannot be written.
    """
    path = Path(path)
    check_path(path, overwrite)
    models = {model.name: model} if isinstance(model, Estimator) else dict(model)
    return write_report(explore_models(models, recording), path)


def check_path(path: Path, overwrite: bool) -> None:
    """Raises `RunError` where nothing should or could be written there."""
    if path.is_dir():
        raise RunError(f"{path} is a folder: name a file in it, {path / 'report.html'}.")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists already: overwrite it (--overwrite), or choose another name.")
    if not path.parent.is_dir():
        raise RunError(f"the folder {path.parent} does not exist: make it first.")


def write_report(explored: Explored, path: Path) -> Path:
    """Writes the page, whole or not at all; returns its path."""
    write_text(path, document(explored))
    return path


def document(explored: Explored) -> str:
    """The page as HTML.

    Its content security policy names the script and the style by their SHA-256 and forbids everything else: no request
    leaves the page, and no text of the recording can become code.
    """
    style, script = _source("explorer.css"), _script()
    data = json.dumps({**payload(explored), **_looks()}, allow_nan=False, separators=(",", ":"))
    data = data.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    parts = {
        "POLICY": _policy(script, style),
        "TITLE": escape(explored.title),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": data,
    }
    # In one pass, so that nothing in a text is taken for the place of another.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: parts[found[1]], _source("explorer.html"))


def _looks() -> dict[str, Any]:
    """Colours of kinds, and the colour maps, 256 colours each, that the figures have too."""
    return {"colours": COLOURS, "maps": {"amount": _colour_map(DENSITY), "signed": _colour_map(DIVERGING)}}


def _colour_map(name: str) -> str:
    colours = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3]
    return base64.b64encode(np.ascontiguousarray(colours).tobytes()).decode("ascii")


def _script() -> str:
    parts = "\n".join(_source(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


def _policy(script: str, style: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _source(name: str) -> str:
    return files("whatwhere.report.explorer").joinpath(name).read_text(encoding="utf-8")
