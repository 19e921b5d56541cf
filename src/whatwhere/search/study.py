"""A search's points and what came of them, in an Optuna study that searchers may share and a kill cannot lose."""

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from whatwhere.estimators.resume import check_same_fit
from whatwhere.search.folder_lock import runs_here
from whatwhere.search.point import Ending, Failed, Fitted, Pruned
from whatwhere.search.space import Axis, Choice, Point, Space, key_of, label, unlabelled
from whatwhere.search.storage import check_optuna, open_storage

SAMPLERS = ("grid", "random", "tpe")
DONE, PRUNED, RUNNING, WAITING, FAILED = "done", "pruned", "running", "waiting", "failed"
_STATES = {"COMPLETE": DONE, "PRUNED": PRUNED, "RUNNING": RUNNING, "WAITING": WAITING, "FAIL": FAILED}
_BEST_FIRST = list(_STATES.values())
COLUMNS = ("number", "key", "state", "validation_loss", "seconds", "steps", "reason")
_ALIVE, _ASKED, _DRAWN, _DUPLICATE = "alive ", "asked", "drawn", "duplicate"
_POINTS_BETWEEN_SIGNS = 50
_OTHERS = 1_000_003
"""Keeps seeds of searchers apart."""
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
    points. asked: plain values that decide what comes of a point; a study of that name that was begun with others is
    refused with `RunError`. A point may have several of Optuna's trials, where the searcher that had it was killed, or
    its fit failed: the best of them stands for it. Searchers note that they are alive, so that one that is gone is
    known.
    """

    def __init__(
        self,
        address: str,
        name: str,
        space: Space,
        *,
        sampler: str,
        asked: Mapping[str, Any],
        n_trials: int | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        check_optuna()
        import optuna

        self.optuna, self.address, self.name, self.space = optuna, address, name, space
        self.sampler, self.n_trials = sampler, n_trials
        self.me = f"{platform.node()}:{os.getpid()}:{time.time():.6f}"
        storage = open_storage(address)
        if overwrite and name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        self.study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
        self._check_asked(json.loads(json.dumps(dict(asked))))
        n_others = sum(key.startswith(_ALIVE) for key in self.study.user_attrs)
        # a search that goes on, and one that joins, draw other points than were drawn before
        seed += len(self.study.get_trials(deepcopy=False)) + _OTHERS * n_others
        samplers = optuna.samplers
        tpe = sampler == "tpe"
        self.study.sampler = samplers.TPESampler(seed=seed, constant_liar=True) if tpe else samplers.RandomSampler(seed)
        self.distributions = {name: self._distribution(axis) for name, axis in space.axes.items()}

    def _check_asked(self, asked: dict[str, Any]) -> None:
        begun = self.study.user_attrs.get(_ASKED)
        if begun is None:
            self.study.set_user_attr(_ASKED, asked)
        else:
            check_same_fit(Path(f"the study {self.name!r} in {self.address}"), begun, asked)

    def _distribution(self, axis: Axis) -> Any:
        kinds = self.optuna.distributions
        if isinstance(axis, Choice):
            return kinds.CategoricalDistribution([*dict.fromkeys(map(label, axis.values))])
        return (kinds.IntDistribution if axis.whole else kinds.FloatDistribution)(axis.low, axis.high, log=axis.log)

    def begin(self, grid: Sequence[Point] = ()) -> None:
        """Enqueues a grid, where nobody has, and once more what failed and what searchers that are gone had begun."""
        self.alive()
        known = self._by_key()
        for number, point in enumerate(grid):
            if number % _POINTS_BETWEEN_SIGNS == 0:
                self.alive()
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
            if _state(trial) != RUNNING or self._is_alive(trial):
                continue
            if self._tell(trial.number, Failed("the search that had begun it ended")):
                self._enqueue(self._point(trial))
                found = True
        return found

    def ask(self) -> Trial | None:
        """The next point that is to be fitted, if there is one; a point that has an end already is never given.

        None also where another searcher drew the same point at the same time: then ask again later.
        """
        while True:
            waiting = self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.WAITING,))
            if not waiting and (self.sampler == "grid" or self._n_drawn() >= (self.n_trials or 0)):
                return None
            asked = self.study.ask(self.distributions)
            point = self._unlabelled(asked.params)
            enqueued = "key" in asked.user_attrs
            if not enqueued and self.sampler == "grid":  # another searcher took the last point of it
                self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
                return None
            if not self._claim(asked, point, enqueued):
                continue
            others = [trial for trial in self._by_key().get(key_of(point), []) if trial.number != asked.number]
            best = others[0] if others else None
            if best is None or _state(best) in (FAILED, WAITING):
                return Trial(asked.number, asked._trial_id, point)
            if _state(best) == RUNNING and best.number > asked.number:  # of two that draw it the first has it
                return Trial(asked.number, asked._trial_id, point)
            asked.set_user_attr(_DUPLICATE, True)
            if _state(best) == DONE:
                self.study.tell(asked, best.value)
            else:
                self._tell(asked.number, Failed("another trial of this point stands for it"))
                if _state(best) == RUNNING:
                    return None

    def _claim(self, asked: Any, point: Point, enqueued: bool) -> bool:
        """Writes whose a trial is; whether it still is nobody else's."""
        marks: dict[str, Any] = {"searcher": self.me}
        if not enqueued:
            marks = {"key": key_of(point), _DRAWN: True, **marks}
        try:
            for name, value in marks.items():
                asked.set_user_attr(name, value)
        except self.optuna.exceptions.UpdateFinishedTrialError:
            return False
        return True

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
            attributes |= {"seconds": ending.seconds, "steps": ending.steps, "loss": ending.loss}
        trial = self.optuna.trial.Trial(self.study, identifier)
        try:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            if isinstance(ending, Fitted):
                self.study.tell(number, ending.loss)
            else:
                self.study.tell(number, state=states.PRUNED if isinstance(ending, Pruned) else states.FAIL)
        except (self.optuna.exceptions.UpdateFinishedTrialError, ValueError):  # another searcher was first
            return False
        return True

    def alive(self) -> None:
        """Notes that this searcher is at work."""
        self.study.set_user_attr(_ALIVE + self.me, time.time())

    def _is_alive(self, trial: Any) -> bool:
        """Whether the searcher that has a trial is at work; one that has not said yet who it is has a minute."""
        searcher = str(trial.user_attrs.get("searcher", ""))
        if not searcher:
            begun = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
            return time.time() - begun < _SECONDS_ALIVE
        if searcher == self.me:
            return True
        recent = time.time() - float(self.study.user_attrs.get(_ALIVE + searcher, 0.0)) < _SECONDS_ALIVE
        node, _, rest = searcher.rpartition(":")[0].rpartition(":")
        if recent and node == platform.node() and rest.isdigit():
            return int(rest) != os.getpid() and runs_here(int(rest))  # an earlier search of this process is over
        return recent

    def _enqueue(self, point: Point) -> None:
        axes = self.space.axes
        params = {name: label(value) if isinstance(axes[name], Choice) else value for name, value in point.items()}
        self.study.enqueue_trial(params, user_attrs={"key": key_of(point)})

    def _point(self, trial: Any) -> Point:
        """Its values; what was enqueued says them all at once, while a trial begun takes them up one by one."""
        return self._unlabelled(trial.system_attrs.get("fixed_params") or trial.params)

    def _unlabelled(self, params: dict[str, Any]) -> Point:
        axes = self.space.axes.items()
        return {name: unlabelled(params[name]) if isinstance(axis, Choice) else params[name] for name, axis in axes}

    def _by_key(self) -> dict[str, list[Any]]:
        """The trials of each point, the one that stands for it first: by its state, then the latest."""
        found: dict[str, list[Any]] = defaultdict(list)
        for trial in self.study.get_trials(deepcopy=False):
            if "key" in trial.user_attrs and _DUPLICATE not in trial.user_attrs:
                found[trial.user_attrs["key"]].append(trial)
        for trials in found.values():
            trials.sort(key=lambda trial: (_BEST_FIRST.index(_state(trial)), -trial.number))
        return found

    def _n_drawn(self) -> int:
        """Points drawn, also those that were known; not those that another searcher had drawn at the same time."""
        trials = self.study.get_trials(deepcopy=False)
        return sum(_DRAWN in trial.user_attrs and not _gave_way(trial) for trial in trials)

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


def _gave_way(trial: Any) -> bool:
    return _DUPLICATE in trial.user_attrs and _state(trial) == FAILED
