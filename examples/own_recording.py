"""
Your own recording, from arrays
===============================

Images, responses, repeated test images: what goes where, what is checked, and what a model returns. The arrays are made
up here; take yours in their place.
"""

import numpy as np
import pandas as pd

import whatwhere as ww
from whatwhere import report
from whatwhere.errors import InputError

rng = np.random.default_rng(0)
N_IMAGES, N_TEST, N_NEURONS = 700, 40, 8
HEIGHT, WIDTH = 18, 26

# %%
# Arrays as an experiment gives them: images of 8 bits, spike counts, test images shown four to nine times.

images = rng.integers(0, 256, (N_IMAGES, HEIGHT, WIDTH), dtype=np.uint8)
test_images = rng.integers(0, 256, (N_TEST, HEIGHT, WIDTH), dtype=np.uint8)
image_index = np.repeat(np.arange(N_TEST), rng.integers(4, 10, N_TEST))
rows, columns = rng.integers(5, HEIGHT - 5, N_NEURONS), rng.integers(5, WIDTH - 5, N_NEURONS)


def rates(shown: np.ndarray) -> np.ndarray:
    """Neurons that like a bright pixel above a dark one, (n_images, n_neurons)."""
    contrast = (shown[:, rows, columns].astype(float) - shown[:, rows + 1, columns]) / 100
    return np.log1p(np.exp(contrast))


responses = rng.poisson(rates(images))
trials = rng.poisson(rates(test_images)[image_index])

# %%
# Together they are a ``Recording``. Neurons may have identifiers and any metadata.

neurons = pd.DataFrame({"depth": rng.uniform(100, 300, N_NEURONS)}, index=[f"cell-{i}" for i in range(N_NEURONS)])
recording = ww.Recording(
    images, responses, test=ww.HeldOut(test_images, trials, image_index), neurons=neurons, name="monday"
)
recording.summary()

# %%
# What does not fit together is refused at once, with what to do about it.

try:
    ww.Recording(images, responses[:-1])
except InputError as error:
    print(error)

# %%
# A small core suits small images. The defaults are softplus and the Poisson loss, as counts ask for.

model = ww.PosteriorCNN(
    core={"kernel_sizes": [5, 3], "n_maps": 6},
    penalties={"feature_l1": 0.005},
    training={"max_steps": 200, "validation_fraction": 0.15},
).fit(recording)
table = model.evaluate(recording)
table.neurons[["correlation", "noise_ceiling", "feve"]].round(2)

# %%
# Averages come with intervals, over neurons and over test images. What cannot be computed says why.

correlation = table.summary["correlation"]
print(f"correlation {correlation['mean']:.2f}, over neurons [{correlation['low']:.2f}, {correlation['high']:.2f}]")
print(table.absent)

# %%

report.predicted_against_observed(
    model.predict(test_images), trials, image_index, neurons=[0, 1, 2], names=recording.neurons.index
)
