"""The examples run, small, and show what they say."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def optimisers() -> ModuleType:
    return load("optimisers")


def test_the_optimisers_are_compared_from_one_start(optimisers: ModuleType) -> None:
    results = optimisers.compare(n_neurons=3, n_images=60, max_seconds=2.0)
    assert set(results) == {"L-BFGS-B", "Newton-CG", "Nelder-Mead", "adam", "sgd"}
    starts = [result.values[0] for result in results.values()]
    np.testing.assert_allclose(starts, starts[0], rtol=1e-12)
    lowest = min(result.best_value for result in results.values())
    for name, result in results.items():
        assert result.seconds[-1] < 3.0
        assert result.best_value < starts[0]
        if name != "Nelder-Mead":
            assert result.best_value - lowest < 0.1 * (starts[0] - lowest), name
    assert results["Nelder-Mead"].best_value > results["L-BFGS-B"].best_value


def test_the_comparison_of_optimisers_is_drawn(optimisers: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "optimisers.png"
    optimisers.main(["--out", str(out), "--neurons", "2", "--images", "60", "--seconds", "0.2"])
    assert out.read_bytes().startswith(b"\x89PNG")
