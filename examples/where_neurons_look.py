"""
Where neurons look, and how surely
==================================

The posterior readout infers a probability for every place. Some neurons here are recorded badly: the regions say which,
and since the truth is known, whether they say so rightly.
"""

from dataclasses import replace

import numpy as np

import whatwhere as ww
from whatwhere import report
from whatwhere.core import map_offset
from whatwhere.simulation import credible_coverage, simulate, simulate_population, true_positions

SIZE = (28, 36)
population = simulate_population(50, image_size=SIZE, kernel_size=11, size_factors=(0.6,), seed=3)
recording = simulate(population, 300, n_test_images=100, n_repeats=10, seed=3)

# %%
# Noise is added to the responses, from none for the first neuron to four times its standard deviation for the last.

spread = recording.responses.std(0) * np.linspace(0, 4, recording.n_neurons)
noise = spread * np.random.default_rng(0).standard_normal(recording.responses.shape)
recording = replace(recording, responses=recording.responses + noise)
model = ww.PosteriorCNN("simulation", core={"kernel_sizes": [11]}, training={"max_steps": 500}).fit(recording)

# %%
# Of three neurons, the surest, the middle one and the least sure: the place with its 50 and 90 % regions.

offset = map_offset(model.options_.core)
posterior = model.location_posterior_
report.location_regions(posterior, offset, SIZE, true_locations=recording.truth.locations)

# %%
# Of all neurons. Who is hard to predict is hard to place, too.

scores = model.evaluate(recording).neurons["fev"]
report.region_size_against_score(posterior, scores, label="FEV")

# %%
# Is a 90 % region right nine times in ten? Kernel and places may be shifted against each other without changing the
# model, so the truth is aligned first.

found = true_positions(posterior, recording.truth.locations - offset)
coverages = [credible_coverage(posterior, found, level) for level in (0.5, 0.8, 0.9)]
for coverage in coverages:
    print(f"{coverage.level:.0%} regions hold {coverage.share:.0%} [{coverage.low:.0%}, {coverage.high:.0%}]")
