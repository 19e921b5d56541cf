"""
Ask the model what neurons prefer
=================================

Simple and complex cells are simulated and fitted. Then the fitted network is shown gratings, and images that it makes
up itself, in place of the animal. The simulated cells can be asked the same, so every answer has its truth beside it.
"""

import numpy as np

import whatwhere as ww
from whatwhere import report
from whatwhere.insilico import (
    ImageStatistics,
    MostExcitingOptions,
    grating_tuning,
    linear_fields,
    most_exciting_images,
    size_tuning,
)
from whatwhere.simulation import MixedPopulation, complex_population, gabor_population, simulate

# %%
# A recording and a fit
# ---------------------
# Sixteen simple cells, each a rectified filter, and sixteen complex cells, which add the squares of two filters a
# quarter of a period apart.

N = 16
common = {"image_size": (13, 15), "kernel_size": 9, "frequencies": (0.2,), "mean_rate": 0.4}
population = MixedPopulation(
    (gabor_population(N, nonlinearity="relu", seed=1, **common), complex_population(N, seed=2, **common))
)
recording = simulate(population, 4000, n_test_images=100, seed=0)
model = ww.FactorizedCNN(
    "nonlinear",
    core={"kernel_sizes": [9], "n_maps": 16},
    readout={"start": "average"},
    penalties={"mask_l1": 0.01, "feature_l1": 0.01},
    training={"max_steps": 600, "learning_rate": 1e-2, "patience_from": 500, "check_every": 50},
).fit(recording)
statistics = ImageStatistics.of(recording.images)  # what grey and contrast are

# %%
# Linearised fields
# -----------------
# How the predicted response changes with each pixel, averaged over eight images. Two simple cells, then two complex
# ones, each on a scale of its own.

some = [0, 1, N, N + 1]
fields = linear_fields(model, recording.images[:8], statistics=statistics, neurons=some)
report.field_grid(fields)

# %%
# All look like filters, and two are none. A simple cell's field hardly depends on the images that it is averaged over;
# a complex cell has no such field, and what is left of it changes with them. Of all neurons:

halves = [linear_fields(model, recording.images[i : i + 8], statistics=statistics).values for i in (0, 8)]
same = np.array([np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(*halves, strict=True)])
print(f"fields over two times eight images: median correlation {np.median(same[:N]):.2f} of simple cells, ", end="")
print(f"{np.median(same[N:]):.2f} of complex cells")

# %%
# Gratings
# --------
# Every orientation, frequency and phase. Petals lie as the stripes do. A rectified simple cell has a phase invariance
# of 0.39, a simulated complex cell of 1, and what a network learns of one a little less.

tuning = grating_tuning(model, statistics=statistics)
report.orientation_tuning(tuning)

# %%
# The simulated cells, asked the same:

truth = grating_tuning(population, statistics=statistics)
error = np.abs((np.degrees(tuning.orientation - truth.orientation) + 90) % 180 - 90)
is_complex = np.arange(2 * N) >= N
right = (tuning.phase_invariance > 0.5) == is_complex
print(f"orientation: median error {np.median(error):.1f} degrees; kind of cell: {right.mean():.0%} right")
tuning.table().iloc[some].round(2)

# %%
# Size
# ----
# Each neuron's own grating in a growing window. Nothing surrounds these cells, so larger is never worse.

report.size_curves(size_tuning(model, tuning, statistics=statistics))

# %%
# Most exciting images
# --------------------
# Of all smooth images of the recording's contrast the one with the largest response. A complex cell has many that are
# as good, of other phases: the search ends at one of them.

best = most_exciting_images(model, MostExcitingOptions(smoothness=0.7), statistics=statistics, neurons=some)
report.most_exciting_grid(best)
