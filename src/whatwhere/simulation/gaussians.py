"""The difference-of-Gaussians kernel of the paper's linear populations."""

import numpy as np

from whatwhere.checks import check_positive
from whatwhere.errors import OptionError
from whatwhere.simulation.stimuli import check_count


def difference_of_gaussians(
    size: int = 17,
    *,
    centre_variance: float = 2.0,
    surround_variance: float = 8.0,
    surround_weight: float = 2.0,
    size_factor: float = 1.0,
    aspect_ratio: float = 1.0,
    correlation: float = 0.0,
) -> np.ndarray:
    """On-centre, off-surround: k = g(centre_variance) - surround_weight g(surround_variance).

    g(v) is the density of a Gaussian in the window's middle with covariance
    size_factor v [[a, c], [c, 1 / a]], rows first; a = `aspect_ratio`, c = `correlation`.

    - variances in squared pixels; `size_factor` multiplies them (not the widths), as in the authors' code
    - returns (size, size), float64, not normalised: its sum is about 1 - surround_weight

    Raises `OptionError` for a size, variance or ratio that is not above 0, or a correlation not within (-1,
    1). Source: Klindt et al. 2017, section 4.4; parameters from their published code.

    >>> kernel = difference_of_gaussians()
    >>> round(float(kernel[8, 8]), 4), round(float(kernel[8, 12]), 4)  # 1 / (8 pi), the ring
    (0.0398, -0.0132)
    """
    check_count("size", size)
    for name, value in (
        ("centre_variance", centre_variance),
        ("surround_variance", surround_variance),
        ("size_factor", size_factor),
        ("aspect_ratio", aspect_ratio),
    ):
        check_positive(name, value)
    if not -1 < correlation < 1:
        raise OptionError(f"correlation must lie between -1 and 1, got {correlation}.")
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    determinant = 1 - correlation**2  # of [[a, c], [c, 1 / a]]
    distance = (rows**2 / aspect_ratio - 2 * correlation * rows * columns + columns**2 * aspect_ratio) / determinant

    def gaussian(variance: float) -> np.ndarray:
        variance = variance * size_factor
        return np.exp(-distance / (2 * variance)) / (2 * np.pi * variance * np.sqrt(determinant))

    return gaussian(centre_variance) - surround_weight * gaussian(surround_variance)
