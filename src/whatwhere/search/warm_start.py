"""Points of a grid that start from each other: of one architecture, from the strongest penalties to the weakest."""

from collections import defaultdict
from itertools import pairwise
from numbers import Real

from whatwhere.errors import OptionError
from whatwhere.search.space import PENALTIES, Point, Space, key_of


def path_order(space: Space) -> list[Point]:
    """Every point of a grid, those that start from none first, then those that start from these, and so on."""
    paths = _paths(space)
    longest = max(map(len, paths))
    return [path[depth] for depth in range(longest) for path in paths if depth < len(path)]


def predecessors(space: Space) -> dict[str, str]:
    """For the key of each point that starts from another one, that other one's key."""
    return {key_of(later): key_of(earlier) for path in _paths(space) for earlier, later in pairwise(path)}


def _paths(space: Space) -> list[list[Point]]:
    """The points of each architecture, by falling penalties, the first axis's first.

    Raises `OptionError` where no penalty is an axis, or one has values that are no numbers.
    """
    names = [name for name in space.axes if name.startswith(PENALTIES)]
    if not names:
        raise OptionError(
            f"warm_start has nothing to act on: no axis of the space is a penalty, {PENALTIES}NAME, and points of"
            " different architectures cannot start from each other."
        )
    paths: dict[str, list[Point]] = defaultdict(list)
    for point in space.grid():
        for name in names:
            if not isinstance(point[name], Real):
                raise OptionError(f"warm_start needs single strengths, but {name} holds {point[name]!r}.")
        paths[space.architecture(point)].append(point)
    for path in paths.values():
        path.sort(key=lambda point: tuple(-float(point[name]) for name in names))
    return list(paths.values())
