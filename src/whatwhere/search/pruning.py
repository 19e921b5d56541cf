"""Giving up points that do no better than others did at the same step, by Optuna's rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from whatwhere.errors import OptionError

PRUNERS = ("none", "median", "hyperband")


@dataclass(frozen=True)
class Judge:
    """What a worker needs to ask whether its point is worth going on with: the study, and the point's trial in it.

    The worker tells the study the loss at each look, so it must reach the storage. after: steps before which nothing
    is given up.
    """

    storage: str
    study: str
    trial: int
    pruner: str
    after: int

    def begin(self, n_candidates: int, most_steps: int) -> Callable[[int, float], bool]:
        """Whether to give up, from the step and the best loss so far; raises where a point holds several strengths.

        most_steps: of any point, between which and `after` hyperband sets its rungs.
        """
        import optuna

        from whatwhere.search.storage import open_storage

        if n_candidates > 1:
            raise OptionError(
                f"a point fits {n_candidates} strengths, and only one can be given up at a time: put the strengths of"
                " the penalties into the space, or search without pruning."
            )
        pruner = make_pruner(self.pruner, self.after, most_steps)
        study = optuna.load_study(study_name=self.study, storage=open_storage(self.storage), pruner=pruner)
        trial = optuna.trial.Trial(study, self.trial)
        known = set(trial.study.trials[trial.number].intermediate_values)

        def decide(step: int, loss: float) -> bool:
            if step not in known:  # resumed fits come by again
                trial.report(loss, step)
            return trial.should_prune()

        return decide


def make_pruner(name: str, after: int, most_steps: int) -> Any:
    """Optuna's pruner of that name; for "none" one that never gives up."""
    import optuna

    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=after)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=after, max_resource=max(after, most_steps))
    return optuna.pruners.NopPruner()
