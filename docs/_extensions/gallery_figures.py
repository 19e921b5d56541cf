"""Figures of the examples: those of whatwhere.report are plain figures, of which pyplot knows nothing."""

import os
from pathlib import Path
from typing import Any
from weakref import WeakSet

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

from whatwhere.catalogue import MODELS
from whatwhere.formats import FORMATS
from whatwhere.presets import PRESETS
from whatwhere.readouts import READOUTS

ORDER = (
    "fit_and_see.py",
    "own_recording.py",
    "compare_models.py",
    "choose_a_readout.py",
    "learning_curve.py",
    "where_neurons_look.py",
    "cell_types.py",
    "ask_the_model.py",
    "own_extension.py",
    "optimisers.py",
)
"""As they are to be read."""

_NAMES: list[dict[str, Any]] = [FORMATS, READOUTS, MODELS, *PRESETS.values()]
_KNOWN = [dict(names) for names in _NAMES]
_SHOWN: "WeakSet[Figure]" = WeakSet()


def scrape_figures(block: tuple[Any, ...], block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Saves the figures that a block made, named or as its last line; returns what shows them."""
    values = block_vars["example_globals"].values()
    figures = [value for value in values if isinstance(value, Figure) and value not in _SHOWN]
    paths = []
    for figure in dict.fromkeys(figures):
        path = next(block_vars["image_path_iterator"])
        figure.savefig(path)
        _SHOWN.add(figure)
        paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])


def reset_names(gallery_conf: dict[str, Any], filename: str) -> None:
    """The dicts of names as they were: what an example adds to them is not the package's."""
    for names, known in zip(_NAMES, _KNOWN, strict=True):
        names.clear()
        names.update(known)


class ReadingOrder:
    """Sorts examples as `ORDER` has them; one that it lacks is an error."""

    def __init__(self, src_dir: str) -> None:
        self.src_dir = src_dir

    def __call__(self, filename: str) -> int:
        return ORDER.index(os.path.basename(Path(filename)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"  # without an address: sphinx-gallery keeps it
