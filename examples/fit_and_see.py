"""
Fit a model and look at it
==========================

A recording of two simulated cell types is fitted with the paper's model, and what was found is drawn beside the truth:
where each neuron looks, what it computes, and how well it is predicted.
"""

import whatwhere as ww
from whatwhere import report
from whatwhere.core import map_offset
from whatwhere.simulation import location_errors, simulate, simulate_population, type_accuracy

# %%
# The recording
# -------------
# Thirty on-centre, off-surround neurons of two sizes, images of white noise, and noise as in the paper: its variance
# is the size of the rate. Height comes before width, always.

SIZE = (24, 32)
population = simulate_population(30, image_size=SIZE, kernel_size=11, size_factors=(0.4, 0.8), mean_rate=0.3, seed=0)
recording = simulate(population, 1200, n_test_images=100, n_repeats=10, seed=0)
print(recording)

# %%
# The fit
# -------
# A core of two 11 x 11 kernels, and for each neuron a mask and two feature weights, which start from types. Strengths
# of penalties may be tuples: then each is fitted, and the one with the best validation loss kept.

model = ww.FactorizedCNN(
    "simulation",
    core={"kernel_sizes": [11], "n_maps": 2},
    readout={"start": "types"},
    penalties={"mask_l1": 0.1},
    training={"learning_rate": 0.003, "max_steps": 600},
).fit(recording)
report.history(model.history_)

# %%
# Where
# -----
# Grey is how many neurons look at each pixel. Dots are the locations found, rings the true ones.

offset = map_offset(model.options_.core)
types = recording.truth.types
report.masks_on_visual_field(
    model.masks_, offset, SIZE, model.locations_, true_locations=recording.truth.locations, types=types
)

# %%
# Single masks, and how many neurons read each pixel:

report.mask_coverage(model.masks_, offset, SIZE)

# %%
# What
# ----
# Each row is a neuron's feature weights. Below, the kernels with the share of all reading that goes to each.

report.barcodes(model.feature_weights_, types=types)

# %%

report.kernels_by_use(model)

# %%
# How well
# --------
# Correlation beside what the noise allows, and three neurons image by image.

test = recording.test
report.predicted_against_observed(model.predict(test.read_images()), test.responses, test.image_index)

# %%
# In numbers: the fraction of explainable variance explained, the distance to the true locations, the share of neurons
# whose type the largest feature weight names.

fev = model.evaluate(recording).summary["fev"]
errors = location_errors(model.locations_, recording.truth.locations, model.feature_weights_.argmax(1))
accuracy = type_accuracy(model.feature_weights_, types)
print(f"FEV {fev['mean']:.2f} [{fev['low']:.2f}, {fev['high']:.2f}]")
print(f"location error: median {sorted(errors)[len(errors) // 2]:.2f} pixels; types told apart: {accuracy:.0%}")
