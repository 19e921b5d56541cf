"""
Are more images worth recording?
================================

Models fitted to parts of a recording, each part within the next, judged on the same held-out images: the curve, and
what twice the images would give. On the command line: ``whatwhere compare ... --images 250,500,all``.
"""

from tempfile import TemporaryDirectory

from whatwhere import report
from whatwhere.comparison import compare
from whatwhere.simulation import simulate, simulate_population

population = simulate_population(20, image_size=(20, 28), kernel_size=9, size_factors=(0.5,), mean_rate=0.3, seed=2)
recording = simulate(population, 1000, n_test_images=100, n_repeats=10, seed=2)

# %%
# One seed draws the split, the subsets and the neurons for all models.

values = {
    "core": {"kernel_sizes": [9]},
    "training": {"max_steps": 250},
    "factorized": {"penalties": {"mask_l1": 0.03}, "readout": {"hold_masks": 150}},
    "ridge": {"strengths": [0.1, 1.0, 10.0, 100.0]},
}
with TemporaryDirectory() as folder:
    found = compare(
        recording,
        ["factorized", "ridge"],
        folder,
        values=values,
        preset="simulation",
        images=(250, 500, "all"),
    )
report.learning_curve(found.curve, found.outlooks, label="correlation")

# %%
# In words. The interval is over neurons and seeds, under the power law; it knows nothing of other laws.

for outlook in found.outlooks:
    print(outlook.words())

# %%

found.curve[["model", "n_images", "score", "low", "high"]].round(3)
