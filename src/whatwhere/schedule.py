"""Where a fit stands: its looks at the validation loss, and what early stopping has decided on them."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Check:
    """One look at the validation loss; losses are unpenalised, averaged over images and neurons."""

    step: int
    learning_rate: float
    training_loss: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told at every check."""

    check: Check
    best_loss: float
    best_step: int
    max_steps: int
    seconds_left: float
    """If the validation loss never gets better again: what training takes at the least."""
    candidate: int = 0
    """Number of the candidate strengths being fitted."""


@dataclass
class Schedule:
    """Where training stands: everything the loop needs beyond parameters and optimiser."""

    step: int = 0
    rate_number: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    checks_without_better: int = 0
    stopped: str = ""
    history: list[Check] = field(default_factory=list)
