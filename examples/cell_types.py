"""
Cell types from barcodes
========================

Neurons of three types are fitted by a network that is not told how many there are, and put into types by what they
read. Fits with other seeds say whether these types are there again; since the truth is known, it stands beside.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import whatwhere as ww
from whatwhere import report
from whatwhere.celltypes import TypeOptions, agreement, find_types, model_barcodes, types_of_run
from whatwhere.simulation import gabor_population, simulate

# %%
# A recording and a fit
# ---------------------
# Sixty neurons, twenty of each type: stripes of three orientations, anywhere in the image. The core has six kernels,
# twice as many as are needed.

orientations = (0, np.pi / 3, 2 * np.pi / 3)
population = gabor_population(
    60, orientations=orientations, image_size=(18, 22), kernel_size=11, variation=0.02, mean_rate=0.3
)
recording = simulate(population, 1500, n_test_images=100, n_repeats=10)
model = ww.FactorizedCNN(
    "simulation",
    core={"kernel_sizes": [11], "n_maps": 6},
    readout={"start": "types"},
    penalties={"mask_l1": 0.1, "feature_l1": 0.02},
    training={"learning_rate": 0.003, "max_steps": 150},
).fit(recording)

# %%
# Types
# -----
# A barcode is a neuron's feature weights, freed of what a network may choose: the scales and signs of its maps. With
# the metric "signal" maps that are alike count as alike, so that kernels to spare do not split a type.

options = TypeOptions(metric="signal")
types = find_types(model_barcodes(model, recording, metric="signal"), options)
report.type_barcodes(types)

# %%
# The same neurons on two maps. Right, who is near whom means something, but not how far clusters are apart.

report.type_map(types)

# %%
# How sure each neuron's type is. This is how well the types are told apart, not whether they are the right ones.

report.type_confidence(types)

# %%
# How many, and are they there again?
# -----------------------------------
# ``types_of_run`` does the same for a run in a folder, as the command ``whatwhere types`` does, and fits the model
# again with other seeds. Left, what speaks for each number of types; right, how far fits agree on who belongs with
# whom. Two types can be had by joining any two of the three, and each fit joins others. With a few more than three the
# further Gaussians hold no neuron, so that nothing changes: fits that agree do not say that all these types are there.

with TemporaryDirectory() as folder:
    model.save(Path(folder) / "run")
    found = types_of_run(Path(folder) / "run", recording=recording, options=options, refits=2)
report.number_of_types(found.types.bic, found.types.n_types, found.stability)

# %%
# One row a refit: ``ari`` is 1 where the same neurons are together in both fits, and 0 by chance.

found.stability.refits.round(3)

# %%
# The truth
# ---------

ari = agreement(found.types.labels, recording.truth.types)
print(f"{found.types.n_types} types found, 3 are true; adjusted Rand index with the truth {ari:.2f}")
by_weights = find_types(model_barcodes(model, recording))
print(f"compared weight by weight: {by_weights.n_types} types")
