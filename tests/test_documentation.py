"""What README and docs show can be done: every command line parses, every block of Python runs."""

import ast
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

import whatwhere as ww
from whatwhere import presets
from whatwhere.cli.options import parse_assignments
from whatwhere.cli.verbs import app
from whatwhere.config import ModelOptions
from whatwhere.experiments.catalogue import EXPERIMENTS
from whatwhere.experiments.paper_numbers import TABLE_1
from whatwhere.plain_options import make_options

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
ELSEWHERE = {"cluster.md": "dask_jobqueue"}
"""Pages whose Python needs what tests have not: it is only parsed."""
FEWER = ("population, 4096", "population, 64")
"""Images that a page simulates, and as many as are enough here."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^#.*\n|^\n)((?: {4}.*\n?)+)", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; "" is also that of indented ones."""
    text = page.read_text(encoding="utf-8")
    found = [body for named, body in FENCE.findall(text) if named == language]
    return found + INDENTED.findall(FENCE.sub("", text)) if not language else found


def commands(text: str) -> list[list[str]]:
    """The arguments of each `whatwhere ...` in shell lines, comments and what starts it (torchrun, srun) left out."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = []
    for line in lines:
        start = re.search(r"(?:^|[\s;])whatwhere (?=[\w-])", line)
        if start and "#" not in line[: start.start()]:
            words = shlex.split(line[start.end() :].rstrip("'"), comments=True)
            found.append(words)
    return found


SHOWN = [(page.name, words) for page in PAGES for text in blocks(page, "") for words in commands(text)]


def parsed(words: list[str]) -> dict[str, Any]:
    """The arguments as the verb would get them, nothing done."""
    command: Any = typer.main.get_command(app)
    context, rest = command.make_context("whatwhere", list(words)), list(words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    arguments: dict[str, Any] = context.params
    return arguments


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page}: {' '.join(words)}" for page, words in SHOWN])
def test_every_command_shown_parses(page: str, words: list[str]) -> None:
    given = parsed(words)
    if words[0] in ("fit", "compare"):
        make_options(ModelOptions, parse_assignments(given["set_"]))
    if words[0] in ("fit", "fit-shared", "compare", "plan"):
        names = given.get("model") or given.get("models")
        assert names is None or set(names.split(",")) <= set(ww.catalogue.MODELS)
    if words[0] == "reproduce":
        assert given["experiment"] in (*EXPERIMENTS, "table1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fit session.h5 --out run --modell ridge", "No such option"),
        ("fitt session.h5 --out run", "No such command"),
        ("fit session.h5", "Missing parameter: out"),
    ],
)
def test_a_command_that_is_none_would_be_found(line: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        parsed(line.split())


def test_commands_are_found_in_every_form() -> None:
    assert len(SHOWN) > 40
    assert {page for page, _ in SHOWN} >= {"README.md", "start.md", "own-data.md", "experiment.md", "cluster.md"}
    text = "torchrun --nnodes 2 \\\n    --no-python whatwhere fit a.h5 --out run  # more\npip install whatwhere\n"
    assert commands(text) == [["fit", "a.h5", "--out", "run"]]


def small_recording(n_images: int, seed: int) -> ww.Recording:
    rng = np.random.default_rng(seed)
    test = ww.HeldOut(rng.normal(size=(6, 1, 24, 28)), rng.poisson(2, (18, 3)), np.repeat(np.arange(6), 3))
    images = rng.normal(size=(n_images, 1, 24, 28)).astype(np.float32)
    return ww.Recording(images, rng.poisson(2, (n_images, 3)), test=test)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the pages take for granted: files in the folder, and names for the reader's own data. Fits are cut short."""
    short = {
        preset: {
            name: replace(options, training=replace(options.training, max_steps=2, check_every=1))
            for name, options in of_model.items()
        }
        for preset, of_model in presets.PRESETS.items()
    }
    for library in ("pynwb", "onnx", "onnxruntime"):
        pytest.importorskip(library)
    monkeypatch.setattr(presets, "PRESETS", short)
    monkeypatch.chdir(tmp_path)
    recording = small_recording(1100, 0)
    assert recording.test is not None
    ww.save(recording, "session.h5")
    ww.save(small_recording(30, 1), "session.nwb")
    model = ww.Ridge(strengths=[1.0]).fit(recording)
    model.save("run")
    ww.export_onnx(model, "model.onnx")
    return {
        "images": recording.images,
        "responses": recording.responses,
        "test_images": recording.test.images,
        "trials": recording.test.responses,
        "image_index": recording.test.image_index,
        "predictions": recording.test.mean_responses(),
        "table": pd.DataFrame(index=["a", "b", "c"]),
        "recording": recording,
        **{f"recording{i}": small_recording(40, i) for i in (1, 2, 3)},
        "model": model,
    }


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=[page.name for page in WITH_PYTHON])
def test_every_block_of_python_runs(page: Path, names: dict[str, Any]) -> None:
    for text in blocks(page, "python"):
        ast.parse(text)
        if ELSEWHERE.get(page.name, "nothing") in text:
            continue
        exec(compile(ast.parse(text.replace(*FEWER)), page.name, "exec"), names)


def test_the_pages_tables_are_the_codes() -> None:
    """No published number is typed into a page."""
    page = (CHECKOUT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for values in TABLE_1.values():
        assert not any(f"{value:.2f}" in page for value in values)
    assert page.count("{from-code}") == 4
