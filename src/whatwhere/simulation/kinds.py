"""Populations by name, as the command line makes them."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from whatwhere.checks import check_choice, check_keys
from whatwhere.errors import OptionError
from whatwhere.simulation.complex_cells import complex_population
from whatwhere.simulation.gabors import even_orientations, gabor_population
from whatwhere.simulation.gaussians import simulate_population, size_factors
from whatwhere.simulation.mixtures import mixed_population
from whatwhere.simulation.noise import Noise
from whatwhere.simulation.populations import Population
from whatwhere.simulation.vgg_population import vgg_population

POPULATIONS: dict[str, Callable[..., Population]] = {
    "dog": simulate_population,
    "gabor": gabor_population,
    "complex": complex_population,
    "mixture": mixed_population,
    "vgg": vgg_population,
}
"""Difference-of-Gaussians neurons, Gabor neurons, complex cells, a third of each, and units of VGG-19."""

_OF_TYPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "dog": lambda n_types: {"size_factors": size_factors(n_types)},
    "gabor": lambda n_types: {"orientations": even_orientations(n_types)},
    "complex": lambda n_types: {"orientations": even_orientations(n_types)},
    "mixture": lambda n_types: {"n_types": n_types},
    "vgg": lambda n_types: {"n_types": n_types},
}


def make_population(kind: str, n_neurons: int = 1000, *, n_types: int | None = None, **options: Any) -> Population:
    """A population of that kind: `POPULATIONS[kind]` with its options.

    - `n_types`: that many sizes ("dog"), orientations ("gabor", "complex"), types in all ("mixture") or feature maps
      ("vgg"); None: as many as the kind has by default

    Raises `OptionError` for a kind or option that is not known, naming the nearest, and where `n_types` and an option
    both say which types there are.

    >>> int(make_population("dog", 10, n_types=5, image_size=(20, 24)).types.max())
    4
    """
    maker = POPULATIONS[check_choice("kind of population", kind, POPULATIONS)]
    known = signature(maker).parameters.keys() - {"n_neurons"}
    check_keys(f"option of the population {kind!r}", options, sorted(known))
    of_types = {} if n_types is None else _OF_TYPES[kind](n_types)
    twice = sorted(of_types.keys() & options.keys())
    if twice:
        named = f"{twice[0]} (={options[twice[0]]})"
        raise OptionError(f"n_types (={n_types}) and {named} both name the types: leave one of them out.")
    return maker(n_neurons, **{**of_types, **options})


def has_mean_rate(kind: str) -> bool:
    """Whether neurons of that kind are made with a mean rate under white noise; others are scaled by what they see.

    >>> has_mean_rate("dog"), has_mean_rate("vgg")
    (True, False)
    """
    maker = POPULATIONS[check_choice("kind of population", kind, POPULATIONS)]
    return "mean_rate" in signature(maker).parameters


def nonlinearity_for(kind: str, noise: Noise) -> dict[str, str]:
    """The option that neurons of a kind need under a noise: "relu" for noises that count, if they can be negative.

    >>> from whatwhere.simulation import PoissonNoise
    >>> nonlinearity_for("gabor", PoissonNoise()), nonlinearity_for("complex", PoissonNoise())
    ({'nonlinearity': 'relu'}, {})
    """
    maker = POPULATIONS[check_choice("kind of population", kind, POPULATIONS)]
    return {"nonlinearity": "relu"} if noise.needs_counts and "nonlinearity" in signature(maker).parameters else {}
