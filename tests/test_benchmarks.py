"""The benchmarks' own parts, without a clock: who takes turns, and what stands in for what libraries import."""

import collections
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Imports a module of benchmarks/ by its name, as its scripts do; all of them are forgotten after."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(BENCHMARKS)):
            del sys.modules[name]


class QuietWatch:
    """In place of `contention.Watch`: every round was quiet."""

    def __init__(self, load):
        self.load = load

    def run(self, work):
        work()
        return self.load


def test_all_take_turns_and_some_take_fewer(benchmark_module):
    timing, contention = benchmark_module("timing"), benchmark_module("contention")
    taken: list[str] = []
    steps = {name: lambda name=name: taken.append(name) for name in "abc"}
    result = timing.measure(steps, {"c": 2}, QuietWatch(contention.Load(0.0, 0, 1.0)), n_rounds=2, n_steps=3)
    assert "".join(taken) == "abc" + 2 * "abcababc"  # one of each before any clock runs
    assert len(result.rounds) == 2
    assert not result.contended


def test_every_library_has_its_workloads(benchmark_module):
    table, work = benchmark_module("peers.table"), benchmark_module("peers.work")
    assert table.DIFFERS.keys() == work.PEER_WORKLOADS.keys()
    assert {name for libraries in table.DIFFERS.values() for name in libraries} == table.PEERS.keys()
    assert table.implementations(work.PEER_WORKLOADS["4"]) == ["whatwhere", "plain", "neuralpredictors"]
    assert table.implementations(work.PEER_WORKLOADS["5g"]) == ["whatwhere", "neuralpredictors", "openretina"]


def test_plain_network_of_equal_layers_agrees(benchmark_module):
    agreement, work = benchmark_module("agreement"), benchmark_module("peers.work")
    workload = work.PEER_WORKLOADS["2e"]
    images, responses = benchmark_module("workloads").make_data(workload)
    double = images.double().dtype
    assert max(agreement.differences(workload, images, responses, double)) < 1e-5


def test_stand_ins_are_there_for_the_import_alone(benchmark_module, monkeypatch, tmp_path):
    classes = benchmark_module("peers.classes")
    (tmp_path / "needy_library.py").write_text(
        "from collections import AsyncGenerator\nimport no_such_library\nclass Core:\n    kind = AsyncGenerator\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(classes, "CLASSES", {"Core": "needy_library"})
    monkeypatch.setattr(classes, "MODULES", {"no_such_library": "an empty module", "json": "is there"})
    monkeypatch.setattr(classes, "NAMES", {"AsyncGenerator": "collections.abc.AsyncGenerator", "deque": "is there"})
    monkeypatch.setitem(sys.modules, "needy_library", ModuleType("needy_library"))
    del sys.modules["needy_library"]  # and so it is forgotten after the test
    assert classes.shims().keys() == {"no_such_library", "collections.AsyncGenerator"}
    assert classes.public("Core").kind is collections.abc.AsyncGenerator
    assert "no_such_library" not in sys.modules
    assert not hasattr(collections, "AsyncGenerator")


@pytest.mark.parametrize("module", ["no_such_library", "json"])
def test_a_library_that_is_not_there_says_what_to_do(benchmark_module, monkeypatch, module):
    classes = benchmark_module("peers.classes")
    monkeypatch.setattr(classes, "CLASSES", {"Core": module})
    with pytest.raises(classes.PeerError, match=rf"Core cannot be imported from {module}: .*make bench-peers"):
        classes.public("Core")
