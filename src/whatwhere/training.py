"""Fitting: one loop and one schedule of early stopping, with checkpoints from which a run resumes exactly."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whatwhere.active_set import ActiveSet
from whatwhere.batches import Batches, draw_seed
from whatwhere.checks import some_of
from whatwhere.config import TrainingOptions
from whatwhere.errors import RunError, TrainingError
from whatwhere.gradients import backpropagate
from whatwhere.location_inference import is_due, locate, settle, training_loss
from whatwhere.parallel import ALONE, Parallel
from whatwhere.proximal import shrink
from whatwhere.readouts import FactorizedReadout, PosteriorReadout
from whatwhere.schedule import Check, Progress, Schedule
from whatwhere.shared_model import Network, mean_over_neurons
from whatwhere.storage import read_tensors, write_tensors
from whatwhere.training_data import SharedData, TrainingData

CHECKPOINT = "whatwhere-checkpoint"
CHECKPOINT_VERSION = 1

OPTIMIZERS: dict[str, Callable[[Sequence[Tensor], TrainingOptions], torch.optim.Optimizer]] = {
    "adam": lambda parameters, options: torch.optim.Adam(parameters, lr=options.learning_rate, fused=True),
    "sgd": lambda parameters, options: torch.optim.SGD(
        parameters, lr=options.learning_rate, momentum=options.momentum, fused=True
    ),
}


@dataclass(frozen=True)
class Result:
    """How a fit ended: why it stopped, the checks, and the best of them (whose parameters the model now has)."""

    stopped: str
    history: list[Check]
    best_loss: float
    best_step: int


def train(
    model: Network,
    data: TrainingData | SharedData,
    *,
    seed: int,
    checkpoint: Path | None = None,
    resume: bool = False,
    observer: Callable[[Progress], None] | None = None,
    candidate: int = 0,
    interrupted: Callable[[], bool] = lambda: False,
    parallel: Parallel = ALONE,
) -> Result:
    """Fits `model` in place with early stopping and leaves it with its best parameters, in evaluation mode.

    Of several recordings (`SharedModel`, `SharedData`) every step takes as many images of each; those of a shorter one
    begin again sooner.

    The validation loss is looked at every `check_every` steps; after `patience` checks without a better one the best
    parameters (and the optimiser's moments that belong to them) come back and the learning rate falls, `n_rates`
    rates in all. With the same seed, data and number of threads the result is the same to the last bit on a CPU,
    resumed from `checkpoint` or not. Where `interrupted()` is true (see `interrupts`) the fit ends at the next step.
    Processes that share the fit (`parallel`) each call this with the same model and data, and take a part of every
    batch each; the first one alone reads and writes the checkpoint.

    Raises `TrainingError` where the loss is no longer finite, `RunError` where the checkpoint belongs to another fit.
    """
    trainer = Trainer(
        model, data, seed=seed, checkpoint=checkpoint, observer=observer, candidate=candidate, parallel=parallel
    )
    try:
        return trainer.train(resume, interrupted)
    finally:
        trainer.close()


class Trainer:
    """One fit under way: the model, its optimiser, the schedule, and the best state so far."""

    def __init__(
        self,
        model: Network,
        data: TrainingData | SharedData,
        *,
        seed: int,
        checkpoint: Path | None = None,
        observer: Callable[[Progress], None] | None = None,
        candidate: int = 0,
        parallel: Parallel = ALONE,
    ) -> None:
        self.model, self.data, self.seed, self.parallel = model, data, seed, parallel
        model.share(parallel.uncompiled() if model.options.training.compile and parallel.size > 1 else parallel)
        self._as_first()
        self.checkpoint, self.observer, self.candidate = checkpoint, observer, candidate
        self.options: TrainingOptions = model.options.training
        if self.options.compile:
            model.compiled_core = torch.compile(model.core.forward)
        stepped = [parameter for parameter in model.parameters() if parameter.requires_grad]
        nothing = [torch.zeros(0, requires_grad=True)]  # where all but the places is frozen or solved for
        self.optimizer = OPTIMIZERS[self.options.optimizer](stepped or nothing, self.options)
        self.active = self._active_sets()
        self.schedule = Schedule()
        self.best: dict[str, Tensor] = {}
        self.training_loss = torch.zeros((), device=data.device)
        size = min([self.options.batch_size, *(len(part.images) for part in data.parts)])
        self.of_recordings = [Batches(part.images, size, seed, parallel) for part in data.parts]
        self.batches = self.of_recordings[0]
        self.earlier_seconds = 0.0
        self.started = self.saved = time.monotonic()
        self.saved_step: int | None = None

    def train(self, resume: bool, interrupted: Callable[[], bool]) -> Result:
        """Steps and looks until the schedule stops; the model then has its best parameters."""
        found = self.parallel.from_first(self._read_checkpoint) if resume else None
        if found is not None:
            self._restore(*found)
        else:
            self._look()
        schedule, options = self.schedule, self.options
        while not schedule.stopped:
            late = time.monotonic() - self.saved >= options.checkpoint_seconds
            stop, save = self.parallel.any(interrupted(), late and self.parallel.first)
            if save:
                self._save_checkpoint()
            if stop:
                break
            self.step()
            if schedule.step % options.check_every == 0 or schedule.step == options.max_steps:
                self._look()
        self._save_checkpoint()
        self._load(self.best)
        self.finish()
        return Result(schedule.stopped or "interrupted", list(schedule.history), schedule.best_loss, schedule.best_step)

    def step(self) -> None:
        """One batch: gradient of loss and penalties, the optimiser's update, proximal step, projection."""
        step, members = self.schedule.step, self.model.members
        if is_due(members[0], step):
            self.check_finite()
            for active in self.active:
                active.end()  # whole masks are moved
            for number, (member, data) in enumerate(zip(members, self.data.parts, strict=True)):
                seed = draw_seed(self.seed, -1 - step, number) ^ 1  # another stream than the step's own draws
                locate(member, data.images, data.responses[:], step, seed, members)
            self._as_first()
        for active in self.active:
            whole = step % self.options.whole_every == 0
            if self.parallel.size > 1 and not whole and active.support is None:
                self._as_first()  # for a pixel that is 0 in one process alone would make other messages
            active.choose(whole)
        drawn = [batches.of_step(step) for batches in self.of_recordings]
        for number, member in enumerate(members):
            member.readout.step_seed = draw_seed(self.seed, -1 - step, number)  # below 0, where no epoch is
            member.readout.step_part = self.batches.part
        optimizers = [self.optimizer, *(inner for active in self.active for inner in active.optimizers())]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        wanted = [data.responses[rows] for data, (rows, _) in zip(self.data.parts, drawn, strict=True)]
        loss = backpropagate(self.model, [images for _, images in drawn], wanted, self.batches.part.share)
        stepped = (value for optimizer in optimizers for group in optimizer.param_groups for value in group["params"])
        self.parallel.sum_([loss, *(value.grad for value in stepped if value.grad is not None)])
        self.training_loss += loss
        for optimizer in optimizers:
            optimizer.step()
        if self.options.proximal:
            shrink(self.model, *optimizers)
        for member in members:
            if member.readout.holds_features(step):
                member.readout.hold()
            if member.readout.holds_masks(step):
                member.readout.keep_one_pixel()
            member.readout.project()
        self.schedule.step += 1

    def close(self) -> None:
        """Stops reading ahead and brings masks up to date."""
        for batches in self.of_recordings:
            batches.close()
        self.model.share(ALONE)
        self.model.compiled_core = None
        for member in self.model.members:
            member.readout.step_part = None
        for active in self.active:
            active.end()

    def _as_first(self) -> None:
        """Makes the model what it is in the first process, where processes share the fit."""
        self.parallel.copy_first_(self.model.state_dict().values())

    def _active_sets(self) -> list[ActiveSet]:
        """Where masks may become sparse, and steps of the pixels that they hold are wanted: of each recording."""
        options = self.options
        if not (options.proximal and options.whole_every > 1):
            return []
        readouts = [member.readout for member in self.model.members]
        return [
            ActiveSet(readout, self.optimizer, lambda values: OPTIMIZERS[options.optimizer](values, options))
            for readout in readouts
            if isinstance(readout, FactorizedReadout)
        ]

    def finish(self) -> None:
        """Leaves the model whole, in evaluation mode, its places, where inferred, those of the final parameters."""
        self.close()
        self.model.eval()
        members = self.model.members
        if not isinstance(members[0].readout, PosteriorReadout):
            return
        for number, (member, data) in enumerate(zip(members, self.data.parts, strict=True)):
            settle(member, data.images, data.responses[:], draw_seed(self.seed, -1, number), members)
        self._as_first()

    def _look(self) -> None:
        """Checks the validation loss and decides: keep going, go back and slow down, or stop."""
        schedule, options = self.schedule, self.options
        validation_loss = self._validation_loss()
        n_steps = schedule.step - schedule.history[-1].step if schedule.history else 0
        training_loss = self.training_loss.item() / n_steps if n_steps else math.nan
        self.training_loss.zero_()
        if not math.isfinite(validation_loss) or (n_steps and not math.isfinite(training_loss)):
            raise TrainingError(self._diagnosis(f"training {training_loss}, validation {validation_loss}"))
        check = Check(schedule.step, self._rate(), training_loss, validation_loss, self._seconds())
        schedule.history.append(check)
        if validation_loss < schedule.best_loss:
            schedule.best_loss, schedule.best_step, schedule.checks_without_better = validation_loss, schedule.step, 0
            self.best = {name: tensor.clone() for name, tensor in self._state().items()}
        elif schedule.step > max(options.patience_from, self.model.members[0].readout.n_held_steps):
            schedule.checks_without_better += 1
        if schedule.checks_without_better >= options.patience:
            self._slow_down()
        if schedule.step >= options.max_steps and not schedule.stopped:
            schedule.stopped = "max_steps"
        if self.observer is not None:
            left = self._seconds_left()
            self.observer(
                Progress(check, schedule.best_loss, schedule.best_step, options.max_steps, left, self.candidate)
            )
        self.model.train()

    def _slow_down(self) -> None:
        self.schedule.checks_without_better = 0
        self.schedule.rate_number += 1
        if self.schedule.rate_number >= self.options.n_rates:
            self.schedule.stopped = "converged"
            return
        self._load(self.best)
        self.set_rate(self.schedule.rate_number)

    def set_rate(self, number: int) -> None:
        """The learning rate of that number from here on, 0 the first and largest."""
        self.schedule.rate_number = number
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()

    def _rate(self) -> float:
        return self.options.learning_rate * self.options.rate_factor ** min(
            self.schedule.rate_number, self.options.n_rates - 1
        )

    @torch.no_grad()
    def _validation_loss(self) -> float:
        self.model.eval()
        size = self.options.batch_size  # so that a look takes no more memory than a step
        losses = []
        for member, data in zip(self.model.members, self.data.parts, strict=True):
            total = torch.zeros((), dtype=torch.float64, device=self.data.device)
            images, responses = data.validation_images, data.validation_responses
            for start in range(size * self.parallel.rank, len(images), size * self.parallel.size):
                some, wanted = images[start : start + size], responses[start : start + size]
                total += training_loss(member, member(some), wanted).double() * len(some)
            self.parallel.sum_([total])
            losses.append(total / len(images))
        return mean_over_neurons(self.model, losses).item()

    def _state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by name; the tensors themselves, not copies."""
        for active in self.active:
            active.write()
        state = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            state.update({f"optimizer/{number}/{name}": tensor for name, tensor in moments.items()})
        for name, active in zip(self._pattern_names(), self.active, strict=True):
            if active.support is not None:
                state[name] = active.support.pattern()
        return state

    def _pattern_names(self) -> list[str]:
        """What the supports of masks are called in a state."""
        return ["active/pattern" + f"/{number}" * (number > 0) for number in range(len(self.active))]

    def _load(self, state: dict[str, Tensor]) -> None:
        for active in self.active:
            active.end()
        model = {name.removeprefix("model/"): tensor for name, tensor in state.items() if name.startswith("model/")}
        self.model.load_state_dict(model)
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimizer/"):
                _, number, key = name.split("/")
                moments.setdefault(int(number), {})[key] = tensor.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for name, active in zip(self._pattern_names(), self.active, strict=True):
            if name in state:
                active.begin(state[name])

    def _save_checkpoint(self) -> None:
        """Writes where training stands, unless it was written already; never a state that is not finite."""
        self.saved = time.monotonic()
        if self.checkpoint is None or self.saved_step == self.schedule.step:
            return
        self.check_finite()
        self.parallel.from_first(self._write_checkpoint)
        self.saved_step = self.schedule.step

    def _write_checkpoint(self) -> None:
        assert self.checkpoint is not None
        tensors = {f"now/{name}": tensor for name, tensor in self._state().items()}
        tensors.update({f"best/{name}": tensor for name, tensor in self.best.items()})
        tensors["training_loss"] = self.training_loss
        schedule = asdict(self.schedule)
        schedule["history"][0]["training_loss"] = None  # there is none at step 0, and JSON has no NaN
        description = {"format": CHECKPOINT, "version": CHECKPOINT_VERSION, "identity": self._identity()}
        write_tensors(self.checkpoint, tensors, {**description, "seconds": self._seconds(), "schedule": schedule})

    def _read_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and the description of the checkpoint, if there is one."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        tensors, description = read_tensors(self.checkpoint, CHECKPOINT, CHECKPOINT_VERSION)
        if description["identity"] != self._identity():
            raise RunError(
                f"{self.checkpoint} belongs to a fit of other data, options or seed: it cannot be resumed with these."
                " Use those it was begun with, or another folder."
            )
        return tensors, description

    def _restore(self, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        schedule = description["schedule"]
        schedule["history"][0]["training_loss"] = math.nan
        history = [Check(**check) for check in schedule.pop("history")]
        self.schedule = Schedule(**schedule, history=history)
        device = self.data.device
        self.best = {name[5:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("best/")}
        self._load({name[4:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("now/")})
        self.training_loss = tensors["training_loss"].to(device)
        self.set_rate(self.schedule.rate_number)
        self.earlier_seconds, self.saved_step = description["seconds"], self.schedule.step
        self.model.train()

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to end like an undisturbed one."""
        return {
            "readout": type(self.model.members[0].readout).__name__,
            "options": repr(self.model.options),
            "shapes": repr(self.model.shapes),
            "seed": self.seed,
            "data": self.data.fingerprint,
        }

    def _seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.started

    def _seconds_left(self) -> float:
        if not self.schedule.step or self.schedule.stopped:
            return 0.0
        rates = self.options.n_rates - self.schedule.rate_number
        checks = self.options.patience * rates - self.schedule.checks_without_better
        steps = min(checks * self.options.check_every, self.options.max_steps - self.schedule.step)
        return self._seconds() / self.schedule.step * steps

    def check_finite(self) -> None:
        """Raises `TrainingError` where the loss since the last look, or a parameter, is not finite."""
        loss = self.training_loss.item()
        if not math.isfinite(loss) or self._broken():
            raise TrainingError(self._diagnosis(f"training {loss}"))

    def _broken(self) -> list[str]:
        """The parameters and statistics that hold NaN or infinite values."""
        for active in self.active:
            active.write()
        return [name for name, tensor in self.model.state_dict().items() if not torch.isfinite(tensor).all()]

    def _diagnosis(self, losses: str) -> str:
        schedule, broken = self.schedule, self._broken()
        where = f"{some_of(broken, 4)} hold values that are not finite" if broken else "all parameters are finite"
        best = f"The best validation loss so far was {schedule.best_loss:.6g} at step {schedule.best_step}. "
        return (
            f"the loss is not finite at step {schedule.step} ({losses}); {where}. {best if self.best else ''}Try a"
            f" learning_rate below {self._rate():g}, precision='float32', or look for extreme values in images and"
            " responses."
        )
