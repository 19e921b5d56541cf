"""What a search varies: axes from YAML, the points of a grid, paths of points that start from each other."""

from pathlib import Path

import numpy as np
import pytest

from whatwhere.errors import FormatError, OptionError
from whatwhere.search import Choice, Range, make_space, read_space
from whatwhere.search.space import key_of
from whatwhere.search.warm_start import path_order, predecessors

YAML = """
model: posterior
options:
  core: {batch_norm: false}
space:
  core.n_maps: [4, 8]
  core.separable: [true, false]
  core.nonlinearity: [relu, elu]
  core.kernel_sizes: [[7], [7, 3], 5]
  training.learning_rate: {low: 1e-4, high: 1e-2, log: true, n: 3}
  training.patience: {low: 4, high: 8}
"""


def test_yaml_gives_axes_and_options(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(YAML)
    space = read_space(file)
    assert space.model == "posterior"
    assert space.options == {"core": {"batch_norm": False}}
    assert space.axes["core.kernel_sizes"] == Choice(([7], [7, 3], 5))
    assert space.axes["training.learning_rate"] == Range(1e-4, 1e-2, True, 3)
    patience = space.axes["training.patience"]
    assert isinstance(patience, Range)
    assert patience.whole
    point = {"core.n_maps": 8, "core.kernel_sizes": [5]}
    assert space.values(point) == {"core": {"batch_norm": False, "kernel_sizes": [5], "n_maps": 8}}
    assert space.options == {"core": {"batch_norm": False}}  # as it was


def test_a_grid_has_every_combination_once() -> None:
    axes = {"a.x": [1, 2, 1], "b": {"low": 1.0, "high": 100.0, "log": True, "n": 3}, "c": {"low": 2, "high": 9, "n": 3}}
    grid = make_space("factorized", axes).grid()
    assert len(grid) == 2 * 3 * 3
    assert grid[0] == {"a.x": 1, "b": pytest.approx(1.0), "c": 2}
    assert grid[-1] == {"a.x": 2, "b": pytest.approx(100.0), "c": 9}
    np.testing.assert_allclose(sorted({point["b"] for point in grid}), [1, 10, 100])
    assert sorted({point["c"] for point in grid}) == [2, 6, 9]
    assert all(1.0 <= point["b"] <= 100.0 for point in grid)
    assert len({key_of(point) for point in grid}) == len(grid)
    assert len(make_space("ridge", {"n": {"low": 1, "high": 2, "n": 9}}).grid()) == 2


@pytest.mark.parametrize(
    ("model", "axes", "message"),
    [
        ("factorised", {"a": [1]}, r"unknown model 'factorised'.*Did you mean 'factorized'"),
        ("ridge", {}, "the space is empty: give at least one axis"),
        ("ridge", {"strengths": []}, "strengths is an empty list"),
        ("ridge", {"strengths": 3}, r"strengths is 3: expected a list of values, or a range"),
        ("ridge", {"strengths": {"low": 1, "hight": 3}}, r"unknown key of the range strengths 'hight'.*'high'"),
        ("ridge", {"strengths": {"low": 1}}, "strengths: high is None, expected a number"),
        ("ridge", {"strengths": {"low": 3, "high": 3}}, "strengths goes from 3 to 3: expected low below high"),
        ("ridge", {"strengths": {"low": 0, "high": 3, "log": True}}, "low below high, above 0 with log"),
        ("ridge", {"strengths": {"low": 0, "high": 3, "n": 1}}, "n is 1, expected a whole number of at least 2"),
        ("ridge", {"strengths": {"low": 0, "high": 3, "log": "yes"}}, "log is 'yes', expected true or false"),
        ("factorized", {"training.loss": ["squared"]}, "training.loss cannot be searched: losses of different kinds"),
        (
            "glm",
            {"loss": ["poisson", "squared"]},
            "loss cannot be searched: losses of different kinds cannot be compared",
        ),
        ("factorized", {"seed": [0, 1]}, "seed cannot be searched: a seed is nothing to choose"),
    ],
)
def test_what_cannot_be_searched_is_said(model: str, axes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make_space(model, axes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "holds list: expected a mapping with model and space"),
        ("model: ridge", "has no space"),
        ("space: {a: [1]}\noptions: 3", "options is 3, expected a mapping"),
        ("space: {a: [1", "cannot be read as YAML"),
        ("spaces: {a: [1]}", "unknown key of a space 'spaces'.*Did you mean 'space'"),
    ],
)
def test_a_file_that_is_no_space_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises((FormatError, OptionError), match=message):
        read_space(file)
    with pytest.raises(FormatError, match=r"nothing.yaml cannot be read"):
        read_space(tmp_path / "nothing.yaml")


def test_a_grid_needs_to_know_how_many_values_a_range_has() -> None:
    with pytest.raises(OptionError, match=r"strengths is a range without n: a grid needs to know"):
        make_space("ridge", {"strengths": {"low": 1, "high": 3}}).grid()


def test_points_start_from_the_next_stronger_of_their_architecture() -> None:
    axes = {"penalties.product_l1": [0.1, 1.0], "core.n_maps": [4, 8], "penalties.smoothness": [0.0, 2.0]}
    space = make_space("factorized", axes)
    before = predecessors(space)
    assert len(before) == 8 - 2  # the strongest of each architecture starts from none
    by_key = {key_of(point): point for point in space.grid()}
    path, point = [], {"penalties.product_l1": 0.1, "core.n_maps": 8, "penalties.smoothness": 0.0}
    while True:
        path.append((point["penalties.product_l1"], point["penalties.smoothness"]))
        assert point["core.n_maps"] == 8
        if key_of(point) not in before:
            break
        point = by_key[before[key_of(point)]]
    assert path == [(0.1, 0.0), (0.1, 2.0), (1.0, 0.0), (1.0, 2.0)]
    order = [key_of(point) for point in path_order(space)]
    assert sorted(order) == sorted(by_key)
    assert all(order.index(before[key]) < order.index(key) for key in before)
    assert not any(key in before for key in order[:2])
    with pytest.raises(OptionError, match="no axis of the space is a penalty"):
        predecessors(make_space("factorized", {"core.n_maps": [4, 8]}))
    with pytest.raises(OptionError, match=r"warm_start needs single strengths, but penalties.product_l1 holds \[0.1\]"):
        path_order(make_space("factorized", {"penalties.product_l1": [[0.1], 0.2]}))
