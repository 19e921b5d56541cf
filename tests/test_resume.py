"""Exact resume: fits that are really killed, and end with the very same numbers as one left alone.

Each fit is a process of its own, forked from a server that has imported the package once.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import whatwhere as ww
from whatwhere.errors import FormatError, RunError, WriteError
from whatwhere.estimators.resume import FIT_FILE, cpu_threads
from whatwhere.runs import CANDIDATES_FILE, CHECKPOINTS, METRICS_FILE, fit_run
from whatwhere.storage import HISTORY_FILE, MODEL_FILE

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["whatwhere", "whatwhere.cli", "torch._dynamo"])  # the last is imported by Adam
STEPS = 40
OPTIONS = f"""
core: {{kernel_sizes: [5, 3], n_maps: 3, padding: [valid, same]}}
penalties: {{product_l1: [0.1, 30.0]}}
training: {{batch_size: 16, max_steps: {STEPS}, check_every: 5, patience: 2, n_rates: 3, checkpoint_seconds: 0}}
"""


def simulated(seed: int = 0, n_images: int = 240) -> ww.Recording:
    """Poisson responses of 6 neurons that each see one patch of 12 x 17 pixels; 8 held-out images shown thrice."""
    rng = np.random.default_rng(seed)
    images, shown = rng.normal(size=(n_images, 1, 12, 17)).astype(np.float32), np.repeat(np.arange(8), 3)
    test = rng.normal(size=(8, 1, 12, 17)).astype(np.float32)
    filters = np.zeros((12, 17, 6))
    for neuron in range(6):
        filters[2 + neuron : 5 + neuron, 2 * neuron + 2 : 2 * neuron + 5, neuron] = 0.5
    filters = filters.reshape(-1, 6)

    def responses(some: np.ndarray) -> np.ndarray:
        return rng.poisson(np.logaddexp(0, some.reshape(len(some), -1) @ filters)).astype(np.float32)

    return ww.Recording(images, responses(images), test=ww.HeldOut(test, responses(test[shown]), shown))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording and a file of options."""
    folder = tmp_path_factory.mktemp("resume")
    ww.save(simulated(), folder / "recording.npz")
    (folder / "options.yaml").write_text(OPTIONS)
    return folder


class Program:
    """`whatwhere fit` in a process of its own, with its output in a file; `before` is Python run first."""

    def __init__(self, folder: Path, out: str, *arguments: str, before: str = "") -> None:
        self.out, self.log = folder / out, folder / f"{out}-{time.monotonic_ns()}.log"
        argv = ["whatwhere", "fit", "recording.npz", "--out", str(self.out), "--config", "options.yaml", *arguments]
        code = (
            "import os, sys\n"
            f"os.chdir({str(folder)!r}); sys.argv = {argv!r}\n"
            f"sys.stdout = sys.stderr = open({str(self.log)!r}, 'w', buffering=1)\n"
            f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{before}\n"
            "from whatwhere.cli import main\nmain()\n"
        )
        self.process = PROCESSES.Process(target=exec, args=(code, {"__name__": "program"}))
        self.process.start()

    def end(self, seconds: float = 60) -> int:
        """Waits; returns the exit code (minus the number of the signal that ended it)."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.text()
        return self.process.exitcode

    def text(self) -> str:
        return self.log.read_text()

    def signal_when(self, ready: Callable[[Path], bool], number: int) -> None:
        """Sends the signal as soon as the run's folder is ready for it."""
        deadline = time.monotonic() + 60
        while not ready(self.out):
            assert self.process.is_alive(), f"it ended before it could be stopped: {self.text()}"
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.001)
        os.kill(self.process.pid, number)  # type: ignore[arg-type]  # started, so it has one


def checkpoint(candidate: int = 0) -> Callable[[Path], bool]:
    return lambda out: (out / CHECKPOINTS / f"candidate-{candidate:03d}.safetensors").exists()


def step_of(path: Path) -> int:
    """The step at which a checkpoint was written."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(json.loads(header["__metadata__"]["whatwhere"].partition(" ")[2])["schedule"]["step"])


def reached(step: int, candidate: int = 0) -> Callable[[Path], bool]:
    def ready(out: Path) -> bool:
        return (
            checkpoint(candidate)(out) and step_of(out / CHECKPOINTS / f"candidate-{candidate:03d}.safetensors") >= step
        )

    return ready


def assert_same_run(out: Path, undisturbed: Path) -> int:
    """The model byte for byte, and the history but for the clock; returns the number of tensors."""
    got, expected = load_file(out / MODEL_FILE), load_file(undisturbed / MODEL_FILE)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert (out / MODEL_FILE).read_bytes() == (undisturbed / MODEL_FILE).read_bytes()
    history = [pd.read_csv(path / HISTORY_FILE).drop(columns="seconds") for path in (out, undisturbed)]
    pd.testing.assert_frame_equal(*history, check_exact=True)
    for name in (METRICS_FILE, CANDIDATES_FILE):
        assert (out / name).read_text() == (undisturbed / name).read_text()
    assert not (out / CHECKPOINTS).exists()
    assert not list(out.glob(".*")), "left over"
    return len(expected)


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    note = "import json, torch; json.dump(torch.get_num_threads(), open('threads.json', 'w'))"
    program = Program(folder, "undisturbed", before=note)
    assert program.end() == 0, program.text()
    history, candidates = (pd.read_csv(program.out / name) for name in (HISTORY_FILE, CANDIDATES_FILE))
    assert set(history["candidate"]) == {0, 1}
    assert candidates["best_step"][0] > 3, "the best parameters must not be the first ones"
    assert candidates["validation_loss"].argmin() == 0, "the model kept must be one that was killed at times"
    assert history["learning_rate"].nunique() > 1, "the schedule must have gone back to the best at least once"
    return program.out


KILLS = {
    "after the first checkpoint": [checkpoint()],
    "in the midst of an epoch, twice": [reached(7), reached(23)],
    "in the second candidate": [reached(9, candidate=1)],
    "three times": [reached(3), reached(STEPS - 4), reached(14, candidate=1)],
    "while the run is being written": [lambda out: (out / MODEL_FILE).exists()],
}


@pytest.mark.parametrize("moments", KILLS.values(), ids=KILLS)
def test_a_killed_run_resumes_to_the_very_same_bytes(
    folder: Path, undisturbed: Path, moments: list, request: pytest.FixtureRequest
) -> None:
    out, steps = request.node.callspec.id.replace(" ", "-"), []
    for moment in moments:
        program = Program(folder, out, *["--resume"] * bool(steps))
        program.signal_when(moment, signal.SIGKILL)
        assert program.end() == -signal.SIGKILL
        files = sorted((program.out / CHECKPOINTS).glob("candidate-*.safetensors"))
        steps.append(f"step {step_of(files[-1])} of candidate {len(files)}")
    program = Program(folder, out, "--resume")
    assert program.end() == 0, program.text()
    n = assert_same_run(program.out, undisturbed)
    how = f"killed (SIGKILL) {request.node.callspec.id}: at {', '.join(steps)}"
    sys.stdout.write(f"\n{how}; resumed, {n} tensors and the history identical\n")


def test_resuming_takes_the_threads_that_the_fit_was_begun_with(folder: Path, undisturbed: Path) -> None:
    present = json.loads((undisturbed.parent / "threads.json").read_text())
    program = Program(folder, "threads", "--threads", str(present))
    program.signal_when(reached(6), signal.SIGKILL)
    program.end()
    program = Program(folder, "threads", "--resume", "--threads", str(present + 2))
    assert program.end() == 0, program.text()
    assert f"note: threads={present}, as the fit was begun with, not {present + 2}" in program.text()
    assert_same_run(program.out, undisturbed)


def test_a_kill_between_last_checkpoint_and_the_written_run(folder: Path, undisturbed: Path) -> None:
    kill = "import whatwhere.runs as runs\nruns.write_run = lambda *a: os.kill(os.getpid(), 9)"
    program = Program(folder, "unwritten", before=kill)
    assert program.end() == -signal.SIGKILL
    assert not (program.out / METRICS_FILE).exists()
    program = Program(folder, "unwritten", "--resume")
    assert program.end() == 0, program.text()
    assert_same_run(program.out, undisturbed)


def test_a_kill_while_the_checkpoints_are_removed(folder: Path, undisturbed: Path) -> None:
    kill = "import shutil\nshutil.rmtree = lambda *a, **k: os.path.exists(a[0]) and os.kill(os.getpid(), 9)"
    program = Program(folder, "unremoved", before=kill)
    assert program.end() == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in program.out.iterdir() if path.is_file()}
    assert METRICS_FILE in before
    assert not (program.out / CHECKPOINTS).exists()
    program = Program(folder, "unremoved", "--resume")
    assert program.end() == 0, program.text()
    after = {path.name: path.stat().st_mtime_ns for path in program.out.iterdir() if path.is_file()}
    assert after.pop("report.html")  # the last of all, which the kill prevented
    assert after == before


def test_ctrl_c_keeps_the_best_model_and_resumes(folder: Path, undisturbed: Path) -> None:
    program = Program(folder, "interrupted")
    program.signal_when(reached(12), signal.SIGINT)
    assert program.end() == 130
    assert "interrupted: the best model so far is kept; go on with --resume." in program.text()
    assert "Traceback" not in program.text()
    kept = ww.load_model(program.out)
    assert kept.stopped_ == "interrupted"
    assert 10 <= kept.history_["step"].max() < STEPS
    assert np.isfinite(kept.predict(np.zeros((2, 1, 12, 17)))).all()
    program = Program(folder, "interrupted", "--resume")
    assert program.end() == 0, program.text()
    assert_same_run(program.out, undisturbed)


def test_a_second_ctrl_c_ends_at_once_and_resumes(folder: Path, undisturbed: Path) -> None:
    slow = (
        "import time, whatwhere.training as training\n"
        "step = training.Trainer.step\n"
        "training.Trainer.step = lambda run: (time.sleep(0.2), step(run))"
    )
    program = Program(folder, "twice", before=slow)
    program.signal_when(reached(1), signal.SIGINT)
    time.sleep(0.02)
    os.kill(program.process.pid, signal.SIGINT)  # type: ignore[arg-type]
    assert program.end() == 130
    assert "Traceback" not in program.text()
    assert not (program.out / MODEL_FILE).exists()
    program = Program(folder, "twice", "--resume")
    assert program.end() == 0, program.text()
    assert_same_run(program.out, undisturbed)


def test_a_full_disk_keeps_the_last_checkpoint(folder: Path, undisturbed: Path) -> None:
    """The kernel refuses to write files above a size that the growing history passes after some checkpoints."""
    begun = Program(folder, "probe")
    begun.signal_when(reached(2), signal.SIGKILL)
    begun.end()
    limit = (begun.out / CHECKPOINTS / "candidate-000.safetensors").stat().st_size + 300
    before = f"import resource, time; time.sleep(0); resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    program = Program(folder, "full", before=before)
    assert program.end() == 4, program.text()
    assert "error: WriteError:" in program.text()
    assert "could not be written" in program.text()
    assert "What stood there before is unharmed" in program.text()
    kept = program.out / CHECKPOINTS / "candidate-000.safetensors"
    assert 0 < step_of(kept) < STEPS
    assert not list(kept.parent.glob(".*")), "a part of a file was left over"
    program = Program(folder, "full", "--resume")
    assert program.end() == 0, program.text()
    assert_same_run(program.out, undisturbed)


# ------------------------------------------------------------------------------------------ within one process


def small(seed: int = 0, **training: object) -> ww.FactorizedCNN:
    return ww.FactorizedCNN(
        core=ww.CoreOptions(kernel_sizes=(5, 3), n_maps=3, padding=("valid", "same")),
        penalties=ww.PenaltyOptions(product_l1=0.01),
        training=ww.TrainingOptions(
            **{"batch_size": 16, "max_steps": 10, "check_every": 5, "checkpoint_seconds": 0} | training  # type: ignore[arg-type]
        ),
        seed=seed,
    )


class StoppedError(Exception):
    """Raised in a fit as if the machine had failed."""


def stop_at(step: int) -> Callable[[object], None]:
    def observe(event: object) -> None:
        if getattr(getattr(event, "check", None), "step", -1) == step:
            raise StoppedError

    return observe


@pytest.mark.parametrize("stop", [5, 15])
@pytest.mark.parametrize(
    ("kind", "training"),
    [
        (ww.GaussianCNN, {}),
        (ww.GaussianCNN, {"optimizer": "sgd", "momentum": 0.8}),
        (ww.FactorizedCNN, {"optimizer": "sgd"}),
        (ww.FactorizedCNN, {"optimizer": "sgd", "momentum": 0.0}),
    ],
)
def test_draws_and_momentum_go_on_where_a_fit_was_stopped(
    kind: type, training: dict, stop: int, tmp_path: Path
) -> None:
    penalties = ww.PenaltyOptions(smoothness=0.01)
    options = {"batch_size": 16, "max_steps": 20, "check_every": 5, "patience": 1, "checkpoint_seconds": 0} | training

    def made() -> ww.FactorizedCNN:
        core = small().core
        return kind(core=core, penalties=penalties, training=ww.TrainingOptions(**options))  # type: ignore[arg-type]

    undisturbed = made().fit(simulated())
    with pytest.raises(StoppedError):
        made().fit(simulated(), folder=tmp_path, observer=stop_at(stop))
    assert step_of(tmp_path / CHECKPOINTS / "candidate-000.safetensors") == stop - 1
    resumed = made().fit(simulated(), folder=tmp_path, resume=True)
    for name, tensor in undisturbed.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
    columns = ["step", "learning_rate", "training_loss", "validation_loss"]
    pd.testing.assert_frame_equal(resumed.history_[columns], undisturbed.history_[columns], check_exact=True)


@pytest.mark.parametrize("what", ["seed", "options", "strengths", "data", "model"])
def test_resuming_something_else_is_refused_before_any_work(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = simulated()
    with pytest.raises(StoppedError):
        small().fit(recording, folder=tmp_path, observer=stop_at(5))
    other, data = small(), recording
    if what == "seed":
        other, expected = small(seed=1), r"seed \(0, now 1\)"
    elif what == "options":
        other, expected = small(learning_rate=0.1), r"options\.training\.learning_rate \(0\.003, now 0\.1\)"
    elif what == "strengths":
        other = small().set_params(penalties=ww.PenaltyOptions(product_l1=(0.01, 0.2)))
        expected = r"options\.penalties\.product_l1 \(0\.01, now \[0\.01, 0\.2\]\)"
    elif what == "data":
        data, expected = simulated(1), r"data \(\w{8}\.\.\., now \w{8}\.\.\.\)"
    else:
        other = ww.FullyConnectedCNN(core=small().core, penalties=ww.PenaltyOptions(), training=small().training)
        expected = r"model \(factorized, now fully-connected\)"
    monkeypatch.setattr("whatwhere.estimators.cnn.prepare", lambda *a: pytest.fail("it went to work"))
    with pytest.raises(RunError, match=f"holds a fit that was begun with something else: .*{expected}"):
        other.fit(data, folder=tmp_path, resume=True)


def test_checkpoints_of_an_earlier_fit_are_not_overwritten_unasked(tmp_path: Path) -> None:
    small().fit(simulated(), folder=tmp_path)
    with pytest.raises(RunError, match="holds the checkpoints of an earlier fit: go on from them with resume=True"):
        small().fit(simulated(), folder=tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"threads": "many", "asked": {}}', '{"threads": 1}'])
def test_a_damaged_note_of_the_fit_is_said_to_be_so(text: str, tmp_path: Path) -> None:
    small().fit(simulated(), folder=tmp_path)
    (tmp_path / CHECKPOINTS / FIT_FILE).write_text(text)
    with pytest.raises((FormatError, RunError), match=r"fit\.json cannot be read|begun with something else"):
        small().fit(simulated(), folder=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_said_to_be_so(tmp_path: Path) -> None:
    small().fit(simulated(), folder=tmp_path)
    file = tmp_path / CHECKPOINTS / "candidate-000.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"candidate-000\.safetensors cannot be read .*truncated"):
        small().fit(simulated(), folder=tmp_path, resume=True)


def test_resuming_a_finished_run_reads_it_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit_run(small(), simulated(), tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    monkeypatch.setattr(ww.FactorizedCNN, "fit", lambda *a, **k: pytest.fail("it was fitted again"))
    again = fit_run(small(), simulated(), tmp_path, resume=True)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    assert first.scores is not None
    assert again.scores is not None
    assert again.scores.summary == first.scores.summary
    with pytest.raises(RunError, match=r"seed \(0, now 3\)"):
        fit_run(small(seed=3), simulated(), tmp_path, resume=True)
    with pytest.raises(RunError, match=r"data \("):
        fit_run(small(), simulated(2), tmp_path, resume=True)


def test_the_number_of_threads_is_given_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    seen = []
    model = small(max_steps=2).set_params(threads=before + 2)
    model.fit(simulated(), observer=lambda event: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 2}
    assert torch.get_num_threads() == before
    with pytest.raises(StoppedError):
        small().set_params(threads=before + 2).fit(simulated(), observer=stop_at(5))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("fails", ["os.fsync", "os.replace", "whatwhere.storage.save_file"])
def test_a_failing_write_keeps_the_last_checkpoint(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = small().fit(simulated())

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    def fill_the_disk(event: object) -> None:
        if getattr(getattr(event, "check", None), "step", -1) == 5:
            monkeypatch.setattr(fails, full)

    with pytest.raises(
        WriteError, match=r"candidate-000\.safetensors could not be written \(No space left on device\)"
    ):
        small().fit(simulated(), folder=tmp_path, observer=fill_the_disk)
    monkeypatch.undo()
    assert step_of(tmp_path / CHECKPOINTS / "candidate-000.safetensors") == 4
    assert not list((tmp_path / CHECKPOINTS).glob(".*"))
    resumed = small().fit(simulated(), folder=tmp_path, resume=True)
    for name, tensor in undisturbed.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[name]), name
