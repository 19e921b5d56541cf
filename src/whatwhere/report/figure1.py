"""Figure 1: what sharing one model between neurons is worth."""

from typing import Any

from matplotlib.figure import Figure

from whatwhere.experiments.fig1 import INDEPENDENT, ONE, SHARED
from whatwhere.experiments.grid import GridResults
from whatwhere.report.curves import draw_curve
from whatwhere.report.style import COLOURS, SMALL, WIDTH, counted, dress, new_figure

LOOKS: dict[str, dict[str, Any]] = {
    ONE: {"color": COLOURS[1], "linestyle": "-", "marker": "o"},
    SHARED: {"color": COLOURS[0], "linestyle": "-", "marker": "s"},
    INDEPENDENT: {"color": COLOURS[0], "linestyle": "--", "marker": "^"},
}
NAMES = {ONE: "one neuron", SHARED: "one model for {}", INDEPENDENT: "{}, a model each"}


def thought_experiment(results: GridResults) -> Figure:
    """FEV against the number of images, and against the number of responses that each model is fitted to.

    Left the paper's arrangement: the shared model's curve is the one neuron's, shifted. Right the shift is undone:
    a model of n neurons sees n responses an image, a model of one neuron one. Medians over seeds, bars the range.
    """
    figure = new_figure(WIDTH, 3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    for model, n_neurons in curves(results):
        curve = results.curve(model, n_neurons)
        seen = n_neurons if model == SHARED else 1
        name = NAMES[model].format(counted(n_neurons, "neuron"))
        for axes, times, label in ((left, 1, name), (right, seen, "")):
            draw_curve(axes, curve, {**LOOKS[model], "label": label or None}, times=times)
    for axes, x in ((left, "number of images"), (right, "responses that a model is fitted to")):
        axes.set_xscale("log")
        axes.set_ylim(-0.03, 1.03)
        dress(axes, x=x, y="FEV" if axes is left else "")
    figure.legend(loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False, handlelength=3)
    return figure


def curves(results: GridResults) -> list[tuple[str, int]]:
    """The curves as (model, n_neurons)."""
    done = results.done
    return [(model, size) for model in NAMES for size in sorted(done.loc[done["model"] == model, "n_neurons"].unique())]
