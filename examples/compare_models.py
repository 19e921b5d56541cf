"""
Models compared on one recording
================================

Networks with three readouts and a linear model, under one split, judged on the same held-out images once all are
fitted. On the command line this is ``whatwhere compare session.h5 --out comparison``.
"""

from tempfile import TemporaryDirectory

from whatwhere import report
from whatwhere.comparison import compare
from whatwhere.simulation import gabor_population, simulate

population = gabor_population(24, image_size=(20, 28), kernel_size=11, nonlinearity="relu", mean_rate=0.5, seed=0)
recording = simulate(population, 800, n_test_images=100, n_repeats=10, noise="poisson", mean_rate=0.5, seed=0)

# %%
# Options are given by concern for every network, or under a model's own name for that one alone.

values = {
    "core": {"kernel_sizes": [11], "n_maps": 4},
    "training": {"max_steps": 250},
    "factorized": {"penalties": {"mask_l1": 0.03}, "readout": {"hold_masks": 150}},
    "fixed-mask": {"penalties": {"feature_l1": 0.01}},
    "posterior": {"penalties": {"feature_l1": 0.005}},
    "ridge": {"strengths": [0.1, 1.0, 10.0]},
}
with TemporaryDirectory() as folder:
    found = compare(recording, ["posterior", "factorized", "fixed-mask", "ridge"], folder, values=values)

found.results[["model", "score", "low", "high", "feve", "seconds"]].round(3)

# %%
# Neuron by neuron. Above the diagonal the first model is better.

scores = {name: found.neurons[name] for name in found.runs}
report.score_scatter(scores, label="correlation")

# %%

report.score_distribution(scores, label="correlation")

# %%
# Differences are paired over neurons, with Wilcoxon's p corrected for the number of pairs.

found.differences[["model", "minus", "mean", "low", "high", "p_holm"]].round(4)
