"""Simulated recordings with a known truth, and how well a fit finds it."""

from whatwhere.simulation.complex_cells import EnergyPopulation, complex_population
from whatwhere.simulation.dead_leaves import DeadLeaves
from whatwhere.simulation.gabors import gabor, gabor_population
from whatwhere.simulation.gaussians import difference_of_gaussians, simulate_population, size_factors
from whatwhere.simulation.kinds import POPULATIONS, has_mean_rate, make_population, nonlinearity_for
from whatwhere.simulation.mixtures import MixedPopulation, mixed_population
from whatwhere.simulation.noise import (
    NOISES,
    CalciumNoise,
    GainNoise,
    PaperNoise,
    PoissonNoise,
    add_noise,
    make_noise,
)
from whatwhere.simulation.photographs import Photographs
from whatwhere.simulation.populations import LinearPopulation, Population
from whatwhere.simulation.positions import POSITIONS, JitteredGrid, RandomPositions, Retinotopic, make_positions
from whatwhere.simulation.recording_files import SimulationPlan, SimulationProgress, simulate_to_file
from whatwhere.simulation.recordings import simulate
from whatwhere.simulation.recovery import (
    Coverage,
    credible_coverage,
    hit_rate,
    kernel_correlation,
    location_errors,
    reliability_curve,
    true_positions,
    type_accuracy,
)
from whatwhere.simulation.stimuli import STIMULI, make_stimuli, make_stimulus, white_noise
from whatwhere.simulation.synthetic import Checkerboard, PinkNoise, WhiteNoise
from whatwhere.simulation.vgg import VGG, load_vgg
from whatwhere.simulation.vgg_population import VGGPopulation, vgg_population

__all__ = [
    "NOISES",
    "POPULATIONS",
    "POSITIONS",
    "STIMULI",
    "VGG",
    "CalciumNoise",
    "Checkerboard",
    "Coverage",
    "DeadLeaves",
    "EnergyPopulation",
    "GainNoise",
    "JitteredGrid",
    "LinearPopulation",
    "MixedPopulation",
    "PaperNoise",
    "Photographs",
    "PinkNoise",
    "PoissonNoise",
    "Population",
    "RandomPositions",
    "Retinotopic",
    "SimulationPlan",
    "SimulationProgress",
    "VGGPopulation",
    "WhiteNoise",
    "add_noise",
    "complex_population",
    "credible_coverage",
    "difference_of_gaussians",
    "gabor",
    "gabor_population",
    "has_mean_rate",
    "hit_rate",
    "kernel_correlation",
    "load_vgg",
    "location_errors",
    "make_noise",
    "make_population",
    "make_positions",
    "make_stimuli",
    "make_stimulus",
    "mixed_population",
    "nonlinearity_for",
    "reliability_curve",
    "simulate",
    "simulate_population",
    "simulate_to_file",
    "size_factors",
    "true_positions",
    "type_accuracy",
    "vgg_population",
    "white_noise",
]
