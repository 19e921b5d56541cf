"""Klindt et al. 2017, what their figures show: for the pages that set it beside what was measured, and nothing else.

Curves were read off the published figures, with an error of about 0.01. Number of images: training and validation
together. FEV is averaged over 20 repetitions, clipped at 0, of fits to 80 % of the images.
"""

IMAGES = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

FIGURE_3B: dict[tuple[str, int | None], tuple[float, ...]] = {
    ("ols", None): (0, 0, 0, 0, 0, 0.02, 0.38, 0.71, 0.84),
    ("lasso", None): (0, 0, 0, 0.04, 0.11, 0.35, 0.60, 0.79, 0.89),
    ("ridge", None): (0.04, 0.04, 0.08, 0.16, 0.30, 0.45, 0.63, 0.79, 0.88),
    ("cnn", 1): (0, 0, 0, 0.01, 0.13, 0.36, 0.57, 0.75, 0.86),
    ("cnn", 10): (0, 0, 0.02, 0.35, 0.70, 0.86, 0.92, 0.96, 0.97),
    ("cnn", 100): (0, 0.03, 0.40, 0.75, 0.84, 0.95, 0.96, 0.98, 0.98),
    ("cnn", 1000): (0.02, 0.25, 0.56, 0.80, 0.89, 0.96, 0.98, 0.99, 0.99),
    ("true-kernel", None): (0.17, 0.46, 0.70, 0.83, 0.91, 0.95, 0.96, 0.98, 0.98),
}
"""FEV at each of `IMAGES`, by model and number of neurons; None: whatever the number (Figure 3B, section 4.4)."""

FIGURE_5B_IMAGES = (*IMAGES[3:], 32_768, 65_536)
FIGURE_5B: dict[tuple[str, int], tuple[float, ...]] = {
    ("factorized", 12): (0, 0.15, 0.35, 0.48, 0.65, 0.78, 0.82, 0.79),
    ("factorized", 100): (0.13, 0.32, 0.57, 0.66, 0.80, 0.84, 0.86, 0.88),
    ("factorized", 1000): (0.18, 0.40, 0.70, 0.76, 0.86, 0.86, 0.86, 0.85),
    ("fixed-mask", 1000): (0.13, 0.29, 0.41, 0.56, 0.63, 0.66, 0.69, 0.71),
    ("fully-connected", 1000): (0.09, 0.19, 0.37, 0.53, 0.67, 0.80, 0.85, 0.87),
}
"""FEV at each of `FIGURE_5B_IMAGES` of units of VGG-19's conv2_2, by model and number of neurons (Figure 5B)."""

FIGURE_5B_GLM = 0.2
"""Where the GLM's curve saturates."""

FIGURE_5E_IMAGES = 4096
FIGURE_5E: dict[str, dict[int, float]] = {
    "factorized": {4: 0.85, 8: 0.86, 16: 0.84},
    "fixed-mask": {4: 0.57, 8: 0.62, 16: 0.53},
    "fully-connected": {4: 0.62, 8: 0.43, 16: 0.26},
}
"""FEV by number of types, 64 neurons of each, 4,096 images (Figure 5E)."""

FIGURE_4 = "every neuron selects one of the two kernels, and the kernels are the means of the two types"
"""500 neurons of each type, 8192 images, two kernels (Figure 4, section 4.5)."""

FIGURE_1 = (
    "a model shared by ten neurons needs a tenth of the images, ten models of one neuron each need as many as one"
)
"""A thought experiment, without numbers (Figure 1, section 3)."""


def figure_3b(model: str, n_neurons: int, n_images: int) -> float | None:
    """The paper's FEV; None where its figure has no such point.

    >>> figure_3b("cnn", 100, 256), figure_3b("ridge", 7, 1024), figure_3b("cnn", 7, 256)
    (0.4, 0.3, None)
    """
    curve = FIGURE_3B.get((model, n_neurons), FIGURE_3B.get((model, None)))
    return None if curve is None or n_images not in IMAGES else curve[IMAGES.index(n_images)]


def figure_5b(model: str, n_neurons: int, n_images: int) -> float | None:
    """The paper's FEV; None where its figure has no such point.

    >>> figure_5b("factorized", 1000, 1024), figure_5b("posterior", 1000, 1024)
    (0.4, None)
    """
    curve = FIGURE_5B.get((model, n_neurons))
    return None if curve is None or n_images not in FIGURE_5B_IMAGES else curve[FIGURE_5B_IMAGES.index(n_images)]


TABLE_1: dict[str, tuple[float, float, float, float]] = {
    "Antolik et al. 2016": (0.51, 0.43, 0.46, 0.47),
    "lnp": (0.37, 0.30, 0.38, 0.36),
    "factorized@1-layer": (0.38, 0.32, 0.35, 0.35),
    "factorized@2-layers": (0.53, 0.43, 0.47, 0.49),
    "fully-connected": (0.47, 0.34, 0.43, 0.43),
    "fixed-mask": (0.45, 0.38, 0.41, 0.42),
    "factorized": (0.55, 0.45, 0.49, 0.50),
}
"""Correlation with the repeat-averaged response, scans 1 to 3 and the average over neurons (Table 1, section 5.2).

The networks of one and two layers are of the authors' published code, not in the printed table.
"""
TABLE_1_SCANS = ("region1", "region2", "region3")


def table_1(model: str, scan: str) -> float | None:
    """The paper's correlation on a region of Antolik et al. 2016, or the average of all; None for anything else.

    >>> table_1("factorized", "region2"), table_1("factorized", "average"), table_1("posterior", "region1")
    (0.45, 0.5, None)
    """
    numbers = dict(zip((*TABLE_1_SCANS, "average"), TABLE_1.get(model, ()), strict=False))
    return numbers.get(scan)
