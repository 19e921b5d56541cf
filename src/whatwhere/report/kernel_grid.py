"""What the neurons compute first: the kernels of the core's first layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from whatwhere.checks import check_ndim, check_same_rows
from whatwhere.report.style import (
    DIVERGING,
    DPI,
    SMALL,
    WIDTH,
    bare,
    dress_colour_bar,
    percent,
    symmetric_limit,
)

GAP = 1  # pixels between the channels of a kernel
MOST_WIDE = 8  # kernels beside each other
# Inches: a kernel, the room beside it and above it, the colour bar.
HEIGHT, EDGE, TITLE, BAR = 0.72, 0.08, 0.22, 0.7


def kernels(
    kernels: Any, *, names: Sequence[str] | None = None, share: Sequence[float] | np.ndarray | None = None
) -> Figure:
    """Every first-layer kernel, each on a symmetric colour scale of its own: white is zero.

    The scale goes from minus to plus the kernel's largest magnitude, shared by its channels, which stand side
    by side from the first on the left. So shapes can be compared, but not strengths: under batch
    normalisation a kernel's scale means nothing.

    - `kernels` (n_features, n_channels, kernel height, kernel width)
    - `names` (n_features,): titles; by default the features' numbers, from 0
    - `share` (n_features,): the share of the population that uses each, shown in the title

    Raises `InputError` where shapes do not fit.
    """
    weights = np.asarray(kernels, float)
    check_ndim("kernels", weights, ("n_features", "n_channels", "kernel height", "kernel width"))
    titles = [str(i) for i in range(len(weights))] if names is None else [str(name) for name in names]
    check_same_rows("names", len(titles), "kernels", len(weights), each="kernel")
    if share is not None:
        check_same_rows("share", len(share), "kernels", len(weights), each="kernel")
        titles = [f"{title} ({part})" for title, part in zip(titles, percent(share), strict=True)]
    grid = _grid(weights.shape, max(map(len, titles)))
    figure = Figure(figsize=grid.size, dpi=DPI)  # every place is known: a layout engine would take seconds
    for number, (kernel, title) in enumerate(zip(weights, titles, strict=True)):
        axes = figure.add_axes(grid.place(number))
        limit = symmetric_limit(kernel)
        axes.imshow(_side_by_side(kernel), cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_title(title, fontsize=SMALL, pad=2)
        axes.spines[:].set_linewidth(0.4)
        bare(axes)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), DIVERGING), cax=figure.add_axes(grid.bar()), ticks=[-1, 0, 1]
    )
    dress_colour_bar(bar, "weight / largest")
    if weights.shape[1] > 1:
        note = f"channels 0 to {weights.shape[1] - 1} of each kernel, left to right"
        figure.text(EDGE / grid.size[0], EDGE / grid.size[1], note, fontsize=SMALL, va="bottom")
    return figure


@dataclass(frozen=True)
class _Grid:
    """Where each kernel stands; inches, from the lower left corner."""

    n_columns: int
    n_rows: int
    cell: tuple[float, float]  # width, height of the place for a kernel; its title stands above
    bottom: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        height = self.bottom + self.n_rows * (self.cell[1] + TITLE) + EDGE
        return self.n_columns * (self.cell[0] + EDGE) + EDGE + BAR, height

    def place(self, number: int) -> tuple[float, float, float, float]:
        """The axes of the kernel with this number, row by row from the top, as shares of the figure."""
        row, column = divmod(number, self.n_columns)
        left = EDGE + column * (self.cell[0] + EDGE)
        low = self.bottom + (self.n_rows - 1 - row) * (self.cell[1] + TITLE)
        return self._share(left, low, *self.cell)

    def bar(self) -> tuple[float, float, float, float]:
        """The axes of the colour bar, right of the kernels, in the middle."""
        room = self.size[1] - self.bottom - TITLE
        height = min(room, 1.6)
        return self._share(self.size[0] - BAR + 0.05, self.bottom + (room - height) / 2, 0.1, height)

    def _share(self, left: float, low: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / self.size[0], low / self.size[1], width / self.size[0], height / self.size[1]


def _grid(shape: tuple[int, ...], longest: int) -> _Grid:
    """A grid for kernels of this shape, with titles of at most `longest` letters."""
    n_features, n_channels, kernel_height, kernel_width = shape
    pixels = n_channels * (kernel_width + GAP) - GAP
    width = float(np.clip(HEIGHT * pixels / kernel_height, 0.6, 2.0))
    height = width * kernel_height / pixels
    width = max(width, 0.068 * longest)  # the title's letters
    most_wide = int(np.clip((WIDTH - BAR - EDGE) / (width + EDGE), 1, MOST_WIDE))
    n_rows = -(-n_features // most_wide)
    bottom = 0.3 if n_channels > 1 else EDGE
    return _Grid(-(-n_features // n_rows), n_rows, (width, max(height, 0.3)), bottom)


def _side_by_side(kernel: np.ndarray) -> np.ndarray:
    """Channels (n_channels, kh, kw) as one image, a gap without a value between them."""
    gap = np.full((kernel.shape[1], GAP), np.nan)
    parts = [part for channel in kernel for part in (channel, gap)]
    return np.concatenate(parts[:-1], axis=1)
