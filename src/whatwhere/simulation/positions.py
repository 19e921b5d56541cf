"""Where the neurons of a population look: arrangements of receptive fields, by name."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.special import ndtri

from whatwhere.simulation.counts import check_number
from whatwhere.simulation.registry import make
from whatwhere.simulation.seeds import Seed, stream

SHEET = 1000.0  # micrometres, height and width of the piece of cortex that is recorded


class Places(NamedTuple):
    """Where each neuron looks, and where it lies if that was drawn too.

    - `corners` (n_neurons, 2), int: row and column of each kernel's first pixel
    - `cortex` None or (n_neurons, 2): each neuron's own position in the tissue, micrometres
    """

    corners: np.ndarray
    cortex: np.ndarray | None = None


class Positions(Protocol):
    """Arranges kernels in an image."""

    def place(self, n_neurons: int, room: tuple[int, int], seed: Seed) -> Places:
        """Places for the neurons; a kernel's first pixel can lie in `room` (rows, columns) from the image's first."""


@dataclass(frozen=True)
class RandomPositions:
    """Every place inside the image is as likely as any other, for each neuron by itself."""

    def place(self, n_neurons: int, room: tuple[int, int], seed: Seed) -> Places:
        """More neurons leave the first ones where they are."""
        return Places(np.random.default_rng(stream(seed)).integers(0, room, (n_neurons, 2)))


@dataclass(frozen=True)
class JitteredGrid:
    """An even grid over the image, one neuron a cell in random order, as a retinal mosaic covers the visual field.

    The cells are as square as they can be; where there are more than neurons, some stay empty. Within its cell a neuron
    is off the middle by up to half of `jitter` times the cell's height and width, and then on a whole pixel.
    Raises `OptionError` for a jitter not within 0 and 1.
    """

    jitter: float = 0.5

    def __post_init__(self) -> None:
        check_number("jitter", self.jitter, least=0, most=1)

    def place(self, n_neurons: int, room: tuple[int, int], seed: Seed) -> Places:
        """Another number of neurons is another grid."""
        rng = np.random.default_rng(stream(seed))
        n_columns = int(np.ceil(np.sqrt(n_neurons * room[1] / room[0])))
        n_rows = -(-n_neurons // n_columns)
        cells = np.divmod(rng.permutation(n_rows * n_columns)[:n_neurons], n_columns)
        offset = 0.5 + self.jitter * rng.uniform(-0.5, 0.5, (n_neurons, 2))
        share = (np.stack(cells, axis=1) + offset) / (n_rows, n_columns)  # of the room, in (0, 1)
        return Places(np.minimum((share * room).astype(int), np.subtract(room, 1)))


@dataclass(frozen=True)
class Retinotopic:
    """Neighbours in the cortex look at neighbouring places, up to a Gaussian `scatter` in pixels.

    A neuron's position in a square of 1000 micrometres is uniform; its receptive field lies at the same share of the
    image's height and width, plus N(0, scatter^2) along each, mirrored at the edges. Raises `OptionError` for a
    negative scatter.
    """

    scatter: float = 2.0

    def __post_init__(self) -> None:
        check_number("scatter", self.scatter, least=0)

    def place(self, n_neurons: int, room: tuple[int, int], seed: Seed) -> Places:
        """More neurons leave the first ones where they are."""
        draws = np.random.default_rng(stream(seed)).random((n_neurons, 4))
        cortex, scatter = SHEET * draws[:, :2], self.scatter * ndtri(draws[:, 2:])
        unfolded = np.mod(cortex / SHEET * room + scatter, np.multiply(room, 2))
        mirrored = np.minimum(unfolded, np.multiply(room, 2) - unfolded)
        return Places(np.minimum(mirrored.astype(int), np.subtract(room, 1)), cortex)


POSITIONS: dict[str, type[Positions]] = {
    "random": RandomPositions,
    "jittered-grid": JitteredGrid,
    "retinotopic": Retinotopic,
}


def make_positions(name: str, **options: Any) -> Positions:
    """The arrangement of that name; raises `OptionError` for a name or option that is not known, naming the nearest.

    >>> make_positions("retinotopic", scatter=3)
    Retinotopic(scatter=3)
    """
    return make("arrangement of positions", name, POSITIONS, options)
