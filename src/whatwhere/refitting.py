"""The last fit: to training and validation images together, for as many steps as were best on the validation part."""

from collections.abc import Callable, Sequence

from whatwhere.parallel import ALONE, Parallel
from whatwhere.schedule import Check
from whatwhere.shared_model import Network
from whatwhere.training import Trainer
from whatwhere.training_data import SharedData, TrainingData


def steps_at_each_rate(history: Sequence[Check]) -> list[tuple[int, int]]:
    """For each learning rate the step that it began at, and how many steps at it led to the best parameters.

    >>> checks = [Check(0, 1.0, 0, 5, 0), Check(10, 1.0, 0, 3, 0), Check(20, 1.0, 0, 4, 0), Check(30, 0.1, 0, 2, 0)]
    >>> steps_at_each_rate(checks)
    [(0, 10), (20, 10)]
    """
    best, starts, steps, start = float("inf"), [0], [0], 0
    for before, check in zip([history[0], *history], history, strict=False):
        if check.learning_rate != before.learning_rate:
            steps.append(0)
            start = before.step
            starts.append(start)
        if check.validation_loss < best:
            best, steps[-1] = check.validation_loss, check.step - start
    return list(zip(starts, steps, strict=True))


def refit(
    model: Network,
    data: TrainingData | SharedData,
    history: Sequence[Check],
    *,
    seed: int,
    interrupted: Callable[[], bool] = lambda: False,
    parallel: Parallel = ALONE,
) -> bool:
    """Fits `model`, which is as at the start of the fit with this history, to all images of `data`, in place.

    Nothing is looked at on the way and nothing chosen. Returns whether it ended; it did not where `interrupted()`. With
    the same seed, data and number of threads the result is the same to the last bit on a CPU.
    """
    trainer = Trainer(model.train(), data.all_images(), seed=seed, parallel=parallel)
    try:
        for number, (first, n_steps) in enumerate(steps_at_each_rate(history)):
            trainer.set_rate(number)
            trainer.schedule.step = first  # what is held in some steps is held in as many here
            for _ in range(n_steps):
                if any(parallel.any(interrupted())):
                    return False
                trainer.step()
        trainer.check_finite()
        trainer.finish()
    finally:
        trainer.close()
    return True
