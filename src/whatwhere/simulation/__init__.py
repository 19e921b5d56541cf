"""Simulated recordings with a known truth, and how well a fit finds it."""

from whatwhere.simulation.gaussians import difference_of_gaussians
from whatwhere.simulation.noise import NOISES, add_noise
from whatwhere.simulation.populations import LinearPopulation, Population, simulate_population
from whatwhere.simulation.recordings import simulate
from whatwhere.simulation.recovery import kernel_correlation, location_errors, type_accuracy
from whatwhere.simulation.stimuli import STIMULI, make_stimuli, white_noise

__all__ = [
    "NOISES",
    "STIMULI",
    "LinearPopulation",
    "Population",
    "add_noise",
    "difference_of_gaussians",
    "kernel_correlation",
    "location_errors",
    "make_stimuli",
    "simulate",
    "simulate_population",
    "type_accuracy",
    "white_noise",
]
