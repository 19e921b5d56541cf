"""
Choose a readout
================

The same neurons and images, four readouts. Since the truth is known, each can be asked not only how well it predicts
but how far from the truth it looks.
"""

import numpy as np
import pandas as pd

import whatwhere as ww
from whatwhere import report
from whatwhere.core import map_offset
from whatwhere.simulation import hit_rate, location_errors, simulate, simulate_population

SIZE = (20, 28)
population = simulate_population(24, image_size=SIZE, kernel_size=11, size_factors=(0.6,), seed=1)
recording = simulate(population, 800, n_test_images=100, n_repeats=10, seed=1)

# %%
# All have one kernel, and the same core options. Strengths are those that the preset would choose among.

common = {"core": {"kernel_sizes": [11]}, "training": {"max_steps": 300}}
models = {
    "posterior": ww.PosteriorCNN("simulation", **common),
    "factorized": ww.FactorizedCNN("simulation", penalties={"mask_l1": 0.03}, **common),
    "gaussian": ww.GaussianCNN("simulation", **common),
    "fixed-mask": ww.FixedMaskCNN("simulation", **common),
}
rows, scores = [], {}
for name, model in models.items():
    model.fit(recording)
    fev = model.evaluate(recording).neurons["fev"]
    errors = location_errors(model.locations_, recording.truth.locations)
    scores[name] = fev.to_numpy()
    rows.append((name, fev.mean(), np.median(errors), hit_rate(errors)))
pd.DataFrame(rows, columns=["readout", "FEV", "median error (pixels)", "within 1 pixel"]).round(2)

# %%
# The score of every neuron. What the averages got wrong, a fixed mask cannot mend.

report.score_distribution(scores, label="FEV")

# %%
# Masks of the factorised readout are what L1 leaves of them; those of the posterior are expectations of the place.

offset = map_offset(models["factorized"].options_.core)
report.mask_coverage(models["factorized"].masks_, offset, SIZE)

# %%

report.mask_coverage(models["posterior"].masks_, offset, SIZE)
