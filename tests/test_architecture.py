"""The house's rules, held by reading every module of src.

Each checker takes parsed modules and returns complaints; each is fed sources that offend it, so it can fail.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = "whatwhere"
CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = CHECKOUT / "src" / PACKAGE

# A room imports from its own level and below only; CONTRIBUTING.md shows the same table.
ROOT = "__init__"
LEVELS = {
    **dict.fromkeys(["errors", "checks"], 0),
    **dict.fromkeys(
        [
            "config",
            "plain_options",
            "metrics",
            "losses",
            "penalties",
            "rows",
            "files",
            "interrupts",
            "parallel",
            "schedule",
            "process_memory",
            "matrix_products",
            "workers",
        ],
        1,
    ),
    **dict.fromkeys(["noise_models", "normal_hierarchy", "location_posterior"], 1),
    **dict.fromkeys(["stored_images", "stored_responses", "batches", "training_data", "option_checks"], 2),
    **dict.fromkeys(["recording", "recording_parts", "standardisation", "heldout", "formats", "datasets"], 2),
    **dict.fromkeys(
        ["core", "readouts", "initialisation", "alignment", "local_features", "neuron_types", "presets"], 2
    ),
    **dict.fromkeys(["model", "storage", "training", "proximal", "active_set", "refitting", "optimisers", "cost"], 3),
    **dict.fromkeys(["location_inference", "place_evidence", "recentring", "shared_model", "gradients"], 3),
    **dict.fromkeys(["estimators", "baselines", "simulation"], 4),
    **dict.fromkeys(
        ["catalogue", "runs", "run_data", "predicting", "shared_runs", "comparison", "export", "tracking"], 5
    ),
    **dict.fromkeys(["celltypes", "insilico"], 5),
    **dict.fromkeys(["experiments", "search", "exploration"], 6),
    "report": 7,
    "cli": 8,
    ROOT: 9,
}
HEAVY = {
    "dask",
    "distributed",
    "h5py",
    "lightning_fabric",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "optuna",
    "pandas",
    "plotly",
    "pooch",
    "pynwb",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch",
}
DRAWING = {"matplotlib", "plotly", "seaborn"}
TALKING = {"rich", "tqdm", "typer"}
PICKLING = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
MOST_LINES_IN_FILE = 400
MOST_LINES_IN_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    target: str
    line: int
    eager: bool  # runs when the module is imported: not in a function, not for type checkers only


@dataclass(frozen=True)
class Module:
    name: str  # dotted
    source: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def room(self) -> str:
        return room_of(self.name)

    @cached_property
    def imports(self) -> list[Import]:
        return list(self._imports(self.tree, eager=True))

    def _imports(self, node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            line = getattr(child, "lineno", 0)
            yield from (Import(target, line, eager) for target in self._targets(child))
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            is_for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from self._imports(child, eager and not is_function and not is_for_types)

    def _targets(self, node: ast.AST) -> Iterator[str]:
        """What a node imports, absolute; `from a import b` gives a.b, be b a module or a name in a."""
        package = self.name if self.is_package else self.name.rpartition(".")[0]
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if "import_module" in _called(node):
                yield resolve_name(name, package)

    def outer_imports(self) -> set[str]:
        return {item.target.split(".")[0] for item in self.imports} - {PACKAGE}

    def inner_imports(self, modules: dict[str, "Module"]) -> dict[str, Import]:
        """The modules of the package that this one imports, each with one import, an eager one if any."""
        inner: dict[str, Import] = {}
        for item in sorted(self.imports, key=lambda item: not item.eager):
            if item.target.split(".")[0] == PACKAGE:
                inner.setdefault(module_of(item.target, modules), item)
        return inner


def module_of(target: str, modules: dict[str, Module]) -> str:
    """The module that holds an imported name: the longest part that is one, or a room still to be built."""
    name = target
    while name not in modules and name.count(".") > 1:
        name = name.rpartition(".")[0]
    return name if name in modules or room_of(name) in LEVELS else PACKAGE


def room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ROOT


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)


def read_package() -> dict[str, Module]:
    modules = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path.read_text(encoding="utf-8"), is_package)
    return modules


def unknown_rooms(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name}: the room {module.room!r} has no level: add it to LEVELS here, and to the tables of rooms in"
        " CONTRIBUTING.md and DESIGN.md."
        for name, module in modules.items()
        if module.room not in LEVELS
    ]


def upward_imports(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name}:{item.line} (level {own}) imports {target} (level {level}): imports point down."
        for name, module in modules.items()
        for target, item in module.inner_imports(modules).items()
        if (level := LEVELS.get(room_of(target), 0)) > (own := LEVELS.get(module.room, 9))
    ]


def eager_root_imports(modules: dict[str, Module]) -> list[str]:
    """The root may name the report and the command line, but `import whatwhere` must not load them."""
    return [
        f"{PACKAGE}:{item.line} imports {target} eagerly: import it in a function or in __getattr__."
        for target, item in modules[PACKAGE].inner_imports(modules).items()
        if room_of(target) in ("report", "cli") and item.eager
    ]


def cycles(modules: dict[str, Module]) -> list[str]:
    """A cycle of modules, or of rooms: within one level, too, imports go one way."""
    by_module: dict[str, set[str]] = {name: set() for name in modules}
    by_room: dict[str, set[str]] = {module.room: set() for module in modules.values()}
    for name, module in modules.items():
        for target in module.inner_imports(modules):
            by_module[name] |= {target} - {name}
            by_room[module.room] |= {room_of(target)} - {module.room}
    complaints = []
    for what, graph in (("modules", by_module), ("rooms", by_room)):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            complaints.append(f"a cycle of {what}: {' is imported by '.join(error.args[1])}.")
    return complaints


def heavy_config(modules: dict[str, Module]) -> list[str]:
    """config, and whatever of ours it imports, must load fast: the command line's help needs it."""
    complaints, waiting, seen = [], [f"{PACKAGE}.config"], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        complaints += [
            f"{name} imports {heavy}, and config needs {name}." for heavy in modules[name].outer_imports() & HEAVY
        ]
        waiting += modules[name].inner_imports(modules)
    return complaints


def drawing(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name} imports {library}: only report draws."
        for name, module in modules.items()
        if module.room != "report"
        for library in sorted(module.outer_imports() & DRAWING)
    ]


def printing(modules: dict[str, Module]) -> list[str]:
    complaints = []
    for name, module in modules.items():
        if module.room == "cli":
            continue
        complaints += [
            f"{name} imports {library}: only cli prints." for library in sorted(module.outer_imports() & TALKING)
        ]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _called(node) == "print":
                complaints.append(f"{name}:{node.lineno} calls print: only cli prints.")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
                complaints.append(f"{name}:{node.lineno} uses {ast.unparse(node)}: only cli prints.")
    return complaints


def running_strangers_code(modules: dict[str, Module]) -> list[str]:
    """Reading a stranger's file must run nothing that is in it."""
    complaints = []
    for name, module in modules.items():
        complaints += [f"{name} imports {library}." for library in sorted(module.outer_imports() & PICKLING)]
        complaints += [
            f"{name}:{item.line} imports {item.target}." for item in module.imports if item.target == "torch.load"
        ]
        complaints += [
            f"{name}:{node.lineno} calls {_called(node)} in a way that can run code."
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and _can_run_code(node)
        ]
    return complaints


def _can_run_code(call: ast.Call) -> bool:
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    name = _called(call)
    if name == "torch.load" or name.endswith("load_state_dict_from_url"):  # pickles, unless told to take tensors alone
        return options.get("weights_only") != "True"
    return (
        options.get("allow_pickle", "False") != "False"
        or name in ("yaml.load", "yaml.full_load", "yaml.unsafe_load", "eval", "exec")
        or name.split(".")[-1] in ("read_pickle", "to_pickle")
    )


def long_files(modules: dict[str, Module]) -> list[str]:
    return [
        f"{name}: {n_lines} lines, at most {MOST_LINES_IN_FILE}: one idea, one file."
        for name, module in modules.items()
        if (n_lines := len(module.source.splitlines())) > MOST_LINES_IN_FILE
    ]


def long_functions(modules: dict[str, Module]) -> list[str]:
    """The lines from the first statement, the docstring, to the last."""
    return [
        f"{name}:{node.lineno} {node.name}: {n_lines} lines, at most {MOST_LINES_IN_FUNCTION}."
        for name, module in modules.items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (n_lines := (node.end_lineno or 0) - node.body[0].lineno + 1) > MOST_LINES_IN_FUNCTION
    ]


UP = "imports whatwhere.model (level 3)"
LONG = "def f():\n" + "    x = 1\n" * 61
LONG_METHOD = "class A:\n    def f(self):\n" + "        x = 1\n" * 61

# Every checker, with sources that it must complain of, and a part of the complaint. In the sources' names
# `a__b` stands for the module a.b, and `a____init__` for the package a.
OFFENDERS: dict[Callable[[dict[str, Module]], list[str]], list[tuple[dict[str, str], str]]] = {
    unknown_rooms: [
        ({"attic": ""}, "whatwhere.attic: the room 'attic' has no level: add it to LEVELS"),
        ({"attic__trunk": ""}, "whatwhere.attic.trunk: the room 'attic' has no level"),
    ],
    upward_imports: [
        ({"config": "import whatwhere.model"}, f"config:1 (level 1) {UP}"),
        ({"config": "from whatwhere.model import Model"}, UP),
        ({"config": "from whatwhere import model"}, UP),
        ({"config": "from . import model"}, UP),
        ({"config": "from .model import Model"}, UP),
        ({"formats__npz": "from ..model import Model"}, UP),
        ({"formats____init__": "from .. import model"}, UP),
        ({"config": "def f():\n    from whatwhere.model import Model"}, f"config:2 (level 1) {UP}"),
        ({"config": "if TYPE_CHECKING:\n    import whatwhere.model"}, f"config:2 (level 1) {UP}"),
        ({"config": "import_module('whatwhere.model')"}, UP),
        ({"config": "importlib.import_module('.model', __package__)"}, UP),
        ({"cli": "from whatwhere import __version__"}, "imports whatwhere (level 9)"),
        ({"cli": "import whatwhere as ww"}, "imports whatwhere (level 9)"),
    ],
    eager_root_imports: [
        ({"__init__": "from whatwhere.report import report"}, "imports whatwhere.report eagerly"),
        ({"__init__": "try:\n    from whatwhere import cli\nfinally: ..."}, "imports whatwhere.cli eagerly"),
        ({"__init__": "def f():\n    from . import cli\nfrom . import cli"}, "imports whatwhere.cli eagerly"),
    ],
    cycles: [
        ({"core": "from . import formats", "formats": "from . import core"}, "a cycle of modules"),
        ({"readouts____init__": "from .a import A", "readouts__a": "from . import B"}, "a cycle of modules"),
        (
            {"core__a": "from ..formats import a", "formats__b": "from ..core import b"}
            | {"core__b": "", "formats__a": ""},
            "a cycle of rooms",
        ),
    ],
    heavy_config: [
        ({"config": "import torch.nn"}, "whatwhere.config imports torch"),
        ({"config": "def f():\n    from pandas import DataFrame"}, "whatwhere.config imports pandas"),
        ({"config": "from . import checks", "checks": "import scipy"}, "whatwhere.checks imports scipy"),
    ],
    drawing: [
        (
            {"metrics": "def f():\n    import matplotlib.pyplot as plt"},
            "whatwhere.metrics imports matplotlib",
        ),
    ],
    printing: [
        ({"training": "print('hello')"}, "training:1 calls print"),
        ({"training": "from rich.progress import track"}, "training imports rich"),
        ({"training": "import sys\nsys.stdout.write('hello')"}, "training:2 uses sys.stdout"),
    ],
    running_strangers_code: [
        ({"storage": "import pickle"}, "storage imports pickle"),
        ({"storage": "from joblib import dump"}, "storage imports joblib"),
        ({"storage": "torch.load(path)"}, "storage:1 calls torch.load"),
        ({"storage": "torch.load(path, weights_only=False)"}, "storage:1 calls torch.load"),
        ({"storage": "from torch import load"}, "storage:1 imports torch.load"),
        ({"storage": "np.load(path, allow_pickle=True)"}, "storage:1 calls np.load"),
        ({"storage": "yaml.load(text, Loader)"}, "storage:1 calls yaml.load"),
        ({"storage": "pd.read_pickle(path)"}, "storage:1 calls pd.read_pickle"),
        ({"storage": "torch.hub.load_state_dict_from_url(url)"}, "calls torch.hub.load_state_dict_from_url"),
    ],
    long_files: [({"core": "x = 1\n" * 401}, "whatwhere.core: 401 lines, at most 400")],
    long_functions: [
        ({"core": LONG}, "whatwhere.core:1 f: 61 lines, at most 60"),
        ({"core": LONG_METHOD}, "whatwhere.core:2 f: 61 lines, at most 60"),
    ],
}


def house(sources: dict[str, str]) -> dict[str, Module]:
    modules = {PACKAGE: Module(PACKAGE, "", is_package=True)}
    for key, source in sources.items():
        parts = [part for part in key.removesuffix("__init__").split("__") if part]
        name = ".".join([PACKAGE, *parts])
        modules[name] = Module(name, source, is_package=key.endswith("__init__"))
    return modules


@pytest.mark.parametrize("checker", OFFENDERS, ids=lambda checker: checker.__name__)
def test_the_package_keeps_the_rule(checker: Callable[[dict[str, Module]], list[str]]) -> None:
    complaints = checker(read_package())
    assert not complaints, "\n".join(["", *complaints])


@pytest.mark.parametrize("checker", OFFENDERS, ids=lambda checker: checker.__name__)
def test_the_checker_catches_offenders(checker: Callable[[dict[str, Module]], list[str]]) -> None:
    for sources, complaint in OFFENDERS[checker]:
        found = checker(house(sources))
        assert any(complaint in one for one in found), f"{sources} gave {found}"


def test_every_module_is_read() -> None:
    assert {PACKAGE, "whatwhere.errors", "whatwhere.checks", "whatwhere.readouts.base"} <= set(read_package())


def test_contributing_shows_the_same_levels() -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page, flags=re.MULTILINE)
    shown = {room: int(level) for level, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}
    assert shown == LEVELS


def test_what_is_allowed_passes_every_checker() -> None:
    allowed = house(
        {
            "__init__": "from whatwhere.errors import A\ndef f():\n    from whatwhere.report import A",
            "errors": "class A(Exception): ...",
            "config": "from pydantic import Field\nfrom whatwhere.errors import A",
            "core": "from whatwhere.config import A\nimport torch\nnp.load(path, allow_pickle=False)",
            "readouts____init__": "from whatwhere.readouts.base import A",
            "readouts__base": "from whatwhere.core import A\nyaml.safe_load(text)",
            "report____init__": "import matplotlib.pyplot as plt",
            "cli": "import rich\nprint('hello')\nfrom whatwhere import report",
            "model": "x = 1\n" * 400,
            "training": "def f():\n" + "    x = 1\n" * 60,
        }
    )
    assert [found for checker in OFFENDERS for found in checker(allowed)] == []
