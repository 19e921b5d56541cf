"""A search's points and what came of them, in an Optuna study that searchers may share and a kill cannot lose."""

import os
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from whatwhere.search.point import Ending, Failed, Fitted, Pruned
from whatwhere.search.pruning import make_pruner
from whatwhere.search.space import Axis, Choice, Point, Space, key_of, label, unlabelled
from whatwhere.search.storage import check_optuna, open_storage

SAMPLERS = ("grid", "random", "tpe")
DONE, PRUNED, RUNNING, WAITING, FAILED = "done", "pruned", "running", "waiting", "failed"
_STATES = {"COMPLETE": DONE, "PRUNED": PRUNED, "RUNNING": RUNNING, "WAITING": WAITING, "FAIL": FAILED}
_BEST_FIRST = list(_STATES.values())
COLUMNS = ("number", "key", "state", "validation_loss", "seconds", "steps", "reason")
_ALIVE = "alive "
_SECONDS_ALIVE = 60.0
"""Without a sign of life, after which a searcher on another machine counts as gone."""


@dataclass(frozen=True)
class Trial:
    """A point that this search is to fit: its number in the study, its identifier in the storage, its values."""

    number: int
    identifier: int
    point: Point

    @property
    def key(self) -> str:
        """The name of its files."""
        return key_of(self.point)


class Study:
    """The points of one search: each is asked for once, and what came of it told once.

    sampler: "grid", of which every point is enqueued when the study is made; "random" or "tpe", which draw `n_trials`
    points. A point may have several of Optuna's trials, where the searcher that had it was killed, or its fit failed:
    the best of them stands for it. Searchers note that they are alive, so that one that is gone is known.
    """

    def __init__(
        self,
        address: str,
        name: str,
        space: Space,
        *,
        sampler: str,
        pruner: str = "none",
        after: int = 1,
        n_trials: int | None = None,
        seed: int = 0,
    ) -> None:
        check_optuna()
        import optuna

        self.optuna, self.address, self.name, self.space = optuna, address, name, space
        self.sampler, self.n_trials = sampler, n_trials
        self.me = f"{platform.node()}:{os.getpid()}:{time.time():.3f}"
        self.study = optuna.create_study(
            study_name=name,
            storage=open_storage(address),
            direction="minimize",
            load_if_exists=True,
            pruner=make_pruner(pruner, after),
        )
        seed += len(self.study.get_trials(deepcopy=False))  # a search that goes on draws other points than at first
        samplers = optuna.samplers
        tpe = sampler == "tpe"
        self.study.sampler = samplers.TPESampler(seed=seed, constant_liar=True) if tpe else samplers.RandomSampler(seed)
        self.distributions = {name: self._distribution(axis) for name, axis in space.axes.items()}

    def _distribution(self, axis: Axis) -> Any:
        kinds = self.optuna.distributions
        if isinstance(axis, Choice):
            return kinds.CategoricalDistribution([*dict.fromkeys(map(label, axis.values))])
        return (kinds.IntDistribution if axis.whole else kinds.FloatDistribution)(axis.low, axis.high, log=axis.log)

    def begin(self, grid: Sequence[Point] = ()) -> None:
        """Enqueues a grid, where nobody has, and once more what failed and what searchers that are gone had begun."""
        self.alive()
        known = self._by_key()
        for point in grid:
            if key_of(point) not in known:
                self._enqueue(point)
        self.take_up()
        for trials in self._by_key().values():
            if _state(trials[0]) == FAILED:
                self._enqueue(self._point(trials[0]))

    def take_up(self) -> bool:
        """Enqueues once more the points that a searcher had begun and is gone; whether there were any."""
        found = False
        for trials in self._by_key().values():
            trial = trials[0]
            if _state(trial) != RUNNING or self._is_alive(str(trial.user_attrs.get("searcher"))):
                continue
            if self._tell(trial.number, Failed("the search that had begun it ended")):
                self._enqueue(self._point(trial))
                found = True
        return found

    def ask(self) -> Trial | None:
        """The next point that is to be fitted, if there is one; a point that has an end already is never given."""
        while True:
            waiting = self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.WAITING,))
            if not waiting and (self.sampler == "grid" or self._n_drawn() >= (self.n_trials or 0)):
                return None
            asked = self.study.ask(self.distributions)
            point = self._unlabelled(asked.params)
            others = [trial for trial in self._by_key().get(key_of(point), []) if trial.number != asked.number]
            enqueued = "key" in asked.user_attrs
            if not enqueued:
                asked.set_user_attr("key", key_of(point))
                asked.set_user_attr("drawn", True)
            asked.set_user_attr("searcher", self.me)
            best = _state(others[0]) if others else FAILED
            if best in (FAILED, WAITING) and (enqueued or self.sampler != "grid"):
                return Trial(asked.number, asked._trial_id, point)
            if best == DONE:
                self.study.tell(asked, others[0].value)
            else:  # another searcher is at it, or gave it up, or took the last of the grid
                self._tell(asked.number, Failed("another trial of this point stands for it"))

    def tell(self, trial: Trial, ending: Ending) -> None:
        """What came of a point."""
        self._tell(trial.number, ending, trial.identifier)

    def _tell(self, number: int, ending: Ending, identifier: int | None = None) -> bool:
        """Whether it was the first to tell."""
        if identifier is None:
            identifier = self.study.get_trials(deepcopy=False)[number]._trial_id
        states = self.optuna.trial.TrialState
        attributes: dict[str, Any] = {"reason": ending.reason} if isinstance(ending, Failed) else {}
        if not isinstance(ending, Failed):
            attributes |= {"seconds": ending.seconds, "steps": ending.steps}
        trial = self.optuna.trial.Trial(self.study, identifier)
        try:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            if isinstance(ending, Fitted):
                self.study.tell(number, ending.loss)
            else:
                if isinstance(ending, Pruned):
                    trial.set_user_attr("loss", ending.loss)
                self.study.tell(number, state=states.PRUNED if isinstance(ending, Pruned) else states.FAIL)
        except (self.optuna.exceptions.UpdateFinishedTrialError, ValueError):  # another searcher was first
            return False
        return True

    def alive(self) -> None:
        """Notes that this searcher is at work."""
        self.study.set_user_attr(_ALIVE + self.me, time.time())

    def _is_alive(self, searcher: str) -> bool:
        if searcher == self.me:
            return True
        seen = time.time() - float(self.study.user_attrs.get(_ALIVE + searcher, 0.0)) < _SECONDS_ALIVE
        node, process, _ = f"{searcher}::".split(":", 2)
        if os.name == "posix" and node == platform.node() and process.isdigit():
            return seen and _runs(int(process))
        return seen

    def _enqueue(self, point: Point) -> None:
        axes = self.space.axes
        params = {name: label(value) if isinstance(axes[name], Choice) else value for name, value in point.items()}
        self.study.enqueue_trial(params, user_attrs={"key": key_of(point)})

    def _point(self, trial: Any) -> Point:
        return self._unlabelled(trial.params or trial.system_attrs["fixed_params"])

    def _unlabelled(self, params: dict[str, Any]) -> Point:
        axes = self.space.axes.items()
        return {name: unlabelled(params[name]) if isinstance(axis, Choice) else params[name] for name, axis in axes}

    def _by_key(self) -> dict[str, list[Any]]:
        """The trials of each point, the one that stands for it first: by its state, then the latest."""
        found: dict[str, list[Any]] = defaultdict(list)
        for trial in self.study.get_trials(deepcopy=False):
            if "key" in trial.user_attrs:
                found[trial.user_attrs["key"]].append(trial)
        for trials in found.values():
            trials.sort(key=lambda trial: (_BEST_FIRST.index(_state(trial)), -trial.number))
        return found

    def _n_drawn(self) -> int:
        return sum("drawn" in trial.user_attrs for trial in self.study.get_trials(deepcopy=False))

    def n_points(self) -> int:
        """How many points there are to be in the end."""
        return len(self._by_key()) if self.sampler == "grid" else self.n_trials or 0

    def point_of(self, key: str) -> Point:
        """The values of a point."""
        return self._point(self._by_key()[key][0])

    def endings(self) -> dict[str, str]:
        """How each point stands, by its key."""
        return {key: _state(trials[0]) for key, trials in self._by_key().items()}

    def table(self) -> pd.DataFrame:
        """A row for each point, in the order of their numbers: `COLUMNS`, then a column for each axis.

        `validation_loss` of a point that was given up is its best until then; NaN where a point has none.
        """
        rows = []
        for key, trials in self._by_key().items():
            trial = trials[0]
            given = {"number": trial.number, "key": key, "state": _state(trial)}
            loss = trial.value if _state(trial) == DONE else trial.user_attrs.get("loss")
            told = {name: trial.user_attrs.get(name) for name in ("seconds", "steps")}
            reason = trial.user_attrs.get("reason", "") if _state(trial) == FAILED else ""
            axes = {
                name: value if not isinstance(value, list) else label(value)
                for name, value in self._point(trial).items()
            }
            rows.append({**given, "validation_loss": loss, **told, "reason": reason, **axes})
        table = pd.DataFrame(rows, columns=[*COLUMNS, *self.space.axes])
        return table.sort_values("number", ignore_index=True)

    def importance(self) -> dict[str, float]:
        """The share of the losses' variance that each axis explains (fANOVA), largest first; empty where none can tell.

        Source: Hutter, Hoos & Leyton-Brown 2014, through Optuna.
        """
        try:
            evaluator = self.optuna.importance.FanovaImportanceEvaluator(seed=0)
            found = self.optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # too few points, or all of one loss
            return {}
        return {name: float(value) for name, value in found.items()}


def _state(trial: Any) -> str:
    return _STATES[trial.state.name]


def _runs(process: int) -> bool:
    """Whether a process of this machine runs; signal 0 only asks."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
