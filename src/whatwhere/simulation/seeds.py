"""Random streams that follow from one seed and a path of numbers, whatever else is drawn."""

from typing import TypeAlias

import numpy as np

from whatwhere.simulation.counts import check_count

Seed: TypeAlias = int | np.random.SeedSequence


def stream(seed: Seed, *path: int) -> np.random.SeedSequence:
    """The seed at `path` below `seed`: `SeedSequence.spawn` without its memory of earlier calls.

    Raises `OptionError` for a seed that is not a whole number of at least 0.

    >>> child = np.random.SeedSequence(7).spawn(3)[2]
    >>> bool((stream(7, 2).generate_state(4) == child.generate_state(4)).all())
    True
    """
    if isinstance(seed, np.random.SeedSequence):
        root = seed
    else:
        check_count("seed", seed, least=0)
        root = np.random.SeedSequence(seed)
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *path), pool_size=root.pool_size)
