"""Random streams that follow from one seed and a path of numbers, whatever else is drawn."""

from typing import TypeAlias

import numpy as np

Seed: TypeAlias = int | np.random.SeedSequence


def stream(seed: Seed, *path: int) -> np.random.SeedSequence:
    """The seed at `path` below `seed`: `SeedSequence.spawn` without its memory of earlier calls.

    >>> child = np.random.SeedSequence(7).spawn(3)[2]
    >>> bool((stream(7, 2).generate_state(4) == child.generate_state(4)).all())
    True
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, *path), pool_size=root.pool_size)
