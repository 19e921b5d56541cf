"""A fit watched while it goes on: the growing history and TensorBoard's files, read back, killed and resumed."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import runs
from whatwhere.comparison import compare
from whatwhere.errors import OptionError, WriteError
from whatwhere.files import append_text
from whatwhere.schedule import Check, Progress
from whatwhere.tracking import HistoryFile, TensorBoard, candidate_names, plan_text, remove_events, together

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 12
VALUES = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "penalties": {"product_l1": [0.01, 0.2]},
    "training": {"batch_size": 20, "max_steps": STEPS, "check_every": 3, "checkpoint_seconds": 0},
}
CANDIDATES = ["candidate-0,product_l1=0.01", "candidate-1,product_l1=0.2"]
TAGS = {"loss/training": "training_loss", "loss/validation": "validation_loss", "learning_rate": "learning_rate"}
COLUMNS = ["candidate", "step", "learning_rate", "training_loss", "validation_loss"]


def recording() -> ww.Recording:
    rng = np.random.default_rng(0)
    images, shown = rng.normal(size=(80, 1, 12, 17)).astype(np.float32), np.repeat(np.arange(9), 3)
    held_out = ww.HeldOut(rng.normal(size=(9, 1, 12, 17)), rng.poisson(2, (27, 4)), shown)
    return ww.Recording(images, rng.poisson(2, (80, 4)), test=held_out)


def made(checkpoint_seconds: float = 0) -> ww.FactorizedCNN:
    training = {**VALUES["training"], "checkpoint_seconds": checkpoint_seconds}
    model = ww.make_model("factorized", {**VALUES, "training": training}, seed=1)
    assert isinstance(model, ww.FactorizedCNN)
    return model


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking") / "run"
    runs.fit_run(made(), recording(), folder, tensorboard=True)
    return folder


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def assert_board_shows(folder: Path) -> None:
    """Each point of the history once, in its candidate's folder, and the scores' means."""
    history = pd.read_csv(folder / "history.csv")
    board = folder / "tensorboard"
    assert sorted(path.name for path in board.iterdir() if path.is_dir()) == [*CANDIDATES, "scores"]
    for number, name in enumerate(CANDIDATES):
        events, rows = read(board / name), history[history["candidate"] == number]
        for tag, column in TAGS.items():
            points, expected = events.Scalars(tag), rows.dropna(subset=column)
            assert [point.step for point in points] == list(expected["step"]), (name, tag)
            np.testing.assert_allclose([point.value for point in points], expected[column], rtol=1e-6)
    whole, scored = read(board), read(board / "scores")
    for score, entry in json.loads((folder / "metrics.json").read_text()).items():
        if entry["mean"] is not None:
            (point,) = scored.Scalars(f"score/{score}")
            assert point.value == pytest.approx(entry["mean"], rel=1e-6)
    (text,) = whole.Tensors("plan/text_summary")
    (words,) = text.tensor_proto.string_val
    assert "| images to fit | 64 |" in words.decode()


def test_the_board_shows_the_history_and_the_scores(undisturbed: Path) -> None:
    history = pd.read_csv(undisturbed / "history.csv")
    assert [list(part["step"]) for _, part in history.groupby("candidate")] == [list(range(0, STEPS + 1, 3))] * 2
    assert_board_shows(undisturbed)


def test_the_history_grows_with_every_look(undisturbed: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def observe(event: object) -> None:
        if isinstance(event, Progress):
            seen.append((tmp_path / "history.csv").read_text())
            last = pd.read_csv(tmp_path / "history.csv").iloc[-1]
            assert last["candidate"] == event.candidate
            for name, value in vars(event.check).items():
                assert last[name] == pytest.approx(value, nan_ok=True)

    runs.fit_run(made(), recording(), tmp_path, observer=observe)
    assert [text.count("\n") for text in seen] == list(range(2, 12))
    assert all(after.startswith(before) for before, after in itertools.pairwise(seen))
    assert seen[-1] == (tmp_path / "history.csv").read_text(), "the end of the fit writes the same"
    tables = [pd.read_csv(folder / "history.csv")[COLUMNS] for folder in (tmp_path, undisturbed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert not (tmp_path / "tensorboard").exists(), "it was not asked for"


PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_tracking import made, recording
from whatwhere import runs
from whatwhere.schedule import Progress

candidate, step, seconds, folder = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])

def kill(event):
    if isinstance(event, Progress) and (event.candidate, event.check.step) == (candidate, step):
        os.kill(os.getpid(), signal.SIGKILL)

runs.fit_run(made(seconds), recording(), folder, resume=True, tensorboard=True, observer=kill)
"""


def killed_at(folder: Path, candidate: int, step: int, seconds: float) -> None:
    arguments = [str(Path(__file__).parent), str(candidate), str(step), str(seconds), str(folder)]
    code = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], env=os.environ, timeout=120, check=False)
    assert code.returncode == -signal.SIGKILL
    last = pd.read_csv(folder / "history.csv").iloc[-1]
    assert (last["candidate"], last["step"]) == (candidate, step), "a killed run has its history"
    assert not (folder / "model.safetensors").exists()


def test_a_killed_and_resumed_run_has_every_point_once(undisturbed: Path, tmp_path: Path) -> None:
    killed_at(tmp_path, candidate=1, step=6, seconds=0.0)
    assert_resumes_to_the_same(tmp_path, undisturbed, 0.0)


class StoppedError(Exception):
    """Raised in a fit as if the machine had failed."""


@pytest.mark.parametrize(
    ("stops", "seconds"),
    [([(0, 6), (1, 9)], 0.0), ([(0, 9), (0, 6), (1, 6)], 1e6)],
    ids=["beside a checkpoint", "far from the last checkpoint"],
)
def test_a_stopped_run_has_every_point_once(stops: list, seconds: float, undisturbed: Path, tmp_path: Path) -> None:
    for stop in stops:

        def observe(event: object, stop: tuple[int, int] = stop) -> None:
            if isinstance(event, Progress) and (event.candidate, event.check.step) == stop:
                raise StoppedError

        with pytest.raises(StoppedError):
            runs.fit_run(made(seconds), recording(), tmp_path, resume=True, tensorboard=True, observer=observe)
    assert_resumes_to_the_same(tmp_path, undisturbed, seconds)


def assert_resumes_to_the_same(folder: Path, undisturbed: Path, seconds: float) -> None:
    seen: list[pd.DataFrame] = []
    runs.fit_run(
        made(seconds),
        recording(),
        folder,
        resume=True,
        tensorboard=True,
        observer=lambda event: seen.append(pd.read_csv(folder / "history.csv")),
    )
    tables = [pd.read_csv(path / "history.csv")[COLUMNS] for path in (folder, undisturbed)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    pd.testing.assert_frame_equal(seen[-1][COLUMNS], tables[0], check_exact=True)
    assert all(not table.duplicated(["candidate", "step"]).any() for table in seen)
    assert_board_shows(folder)


def test_a_run_resumed_after_its_scores_shows_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it had been killed just before `metrics.json` was there."""
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_run", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runs.fit_run(made(), recording(), tmp_path, tensorboard=True)
    runs.fit_run(made(), recording(), tmp_path, resume=True, tensorboard=True)
    assert_board_shows(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("events*"))
    runs.fit_run(made(), recording(), tmp_path, resume=True, tensorboard=True)
    assert sorted(path.name for path in tmp_path.rglob("events*")) == before, "a finished run is only read"


def progress(step: int, candidate: int = 0, loss: float = 1.0) -> Progress:
    return Progress(Check(step, 0.1, float("nan") if step == 0 else loss, loss, 2.5), loss, step, 10, 0.0, candidate)


def test_rows_of_an_earlier_fit_are_kept_up_to_the_first_one_told(tmp_path: Path) -> None:
    path, header = tmp_path / "history.csv", "candidate,step,learning_rate,training_loss,validation_loss,seconds"
    kept = ["0,0,0.1,,0.30000000000000004,0.1", "0,5,0.1,1.0,1.0,0.2", "1,0,0.1,,1.0,0.1"]
    later = ["1,5,0.1,9.0,9.0,9.0", "1,10,0.1,9.0,9.0,9.0", "10,0,0.1,,9.0,9.0", "rubbish", "0,5,0.1,9."]
    path.write_text("\n".join([header, *kept, *later]))
    history = HistoryFile(path)
    history(progress(5, candidate=1, loss=0.1))
    history(progress(10, candidate=1, loss=0.2))
    new = ["1,5,0.1,0.1,0.1,2.5", "1,10,0.1,0.2,0.2,2.5"]
    assert path.read_text() == "\n".join([header, *kept, *new, ""])
    for other in (b"strength,validation_loss\n1.0,2.0\n", b"\xff\xfe", b""):
        path.write_bytes(other)
        HistoryFile(path)(progress(0))
        assert path.read_text() == f"{header}\n0,0,0.1,,1.0,2.5\n"
    with pytest.raises(WriteError, match=r"none/history\.csv could not be written \(No such file or directory\)"):
        HistoryFile(tmp_path / "none" / "history.csv")(progress(0))


def test_a_row_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    """The kernel writes a part of a text that passes the largest size that a file may have."""
    path = tmp_path / "history.csv"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        append_text(path, "a" * 60)
        append_text(path, "b" * 30)
        with pytest.raises(WriteError, match=r"history\.csv could not be written"):
            append_text(path, "c" * 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "a" * 60 + "b" * 30
    with pytest.raises(WriteError, match=r"could not be written .*What stood there before is unharmed"):
        append_text(tmp_path, "a folder")


def test_observers_are_told_in_order_and_none_is_left_out() -> None:
    told: list[tuple[str, object]] = []
    observe = together(lambda event: told.append(("a", event)), None, lambda event: told.append(("b", event)))
    event = progress(3)
    observe(event)
    assert told == [("a", event), ("b", event)]


def test_an_observer_of_the_library_names_candidates_by_number(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    made().fit(recording(), observer=board)
    board.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["candidate-0", "candidate-1"]
    assert [point.step for point in read(tmp_path / "candidate-1").Scalars("loss/validation")] == [0, 3, 6, 9, 12]


def test_points_of_earlier_processes_stay_with_their_times_even_of_a_damaged_file(tmp_path: Path) -> None:
    """The last record is cut off, as by a machine that fails."""
    board = TensorBoard(tmp_path)
    for step in (0, 5, 10):
        board(progress(step, loss=step / 3))
    board.close()
    place = tmp_path / "candidate-0"
    before = read(place).Scalars("loss/validation")
    (file,) = place.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    for step in (5, 20):  # two processes, one after the other
        again = TensorBoard(tmp_path)
        again(progress(step, loss=7.0))
        again.close()
        assert len(list(place.iterdir())) == 1
    points = read(place).Scalars("loss/validation")
    assert [(point.step, point.value) for point in points] == [(0, 0.0), (5, 7.0), (20, 7.0)]
    assert points[0].wall_time == before[0].wall_time


def test_names_of_candidates_are_those_of_the_strengths() -> None:
    assert candidate_names(made()) == CANDIDATES
    assert candidate_names(ww.FactorizedCNN(penalties={"product_l1": 0.1})) == ["candidate-0"]
    assert candidate_names(ww.Ridge()) == []


def test_the_plan_is_shown_with_its_notes() -> None:
    plan = ww.Ridge()._plan(recording(), 64, 16)
    text = plan_text(plan.__class__(**{**vars(plan), "memory": 3 * 2**20, "notes": ("one", "two")}))
    assert "| images to validate | 16 |" in text
    assert "| memory | 3.0 MiB |" in text
    assert text.endswith("\n\n- one\n- two")


def test_without_tensorboard_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = r'need tensorboard, which is not installed .*pip install "whatwhere\[tensorboard\]", or fit without'
    with pytest.raises(OptionError, match=message):
        runs.fit_run(made(), recording(), tmp_path / "run", tensorboard=True)
    with pytest.raises(OptionError, match=message):
        compare(recording(), ["ridge"], tmp_path / "both", tensorboard=True)
    with pytest.raises(OptionError, match=message):
        TensorBoard(tmp_path / "board")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "board").write_text("a file")
    board = TensorBoard(tmp_path / "board")
    with pytest.raises(WriteError, match=r"board/candidate-0 could not be written .*go on without tensorboard"):
        board(progress(0))


def test_only_our_events_are_removed(tmp_path: Path) -> None:
    remove_events(tmp_path / "absent")
    for name in (
        "a/b/events.out.tfevents.1.host",
        "events.out.tfevents.2.host",
        "a/notes.txt",
        "c/events.out.tfevents.3",
    ):
        (tmp_path / "board" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "board" / name).write_text("")
    remove_events(tmp_path / "board")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "board",
        "board/a",
        "board/a/notes.txt",
    ]
    (tmp_path / "board" / "a" / "notes.txt").unlink()
    remove_events(tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_the_flags_of_fit_and_compare(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ww.save(recording(), tmp_path / "session.npz")
    small = [
        *("--set", "core.kernel_sizes=[5]", "--set", "core.n_maps=2", "--set", "training.max_steps=12"),
        *(
            "--set",
            "training.check_every=3",
            "--set",
            "training.batch_size=20",
            "--set",
            "training.checkpoint_seconds=0",
        ),
    ]
    strengths = ["--set", "factorized.penalties.product_l1=[0.01, 0.2]", "--seed", "1"]
    code, _, err = command(tmp_path, "fit", "session.npz", "--out", "run", "--tensorboard", *small, *strengths)
    assert (code, err) == (0, "")
    assert_board_shows(tmp_path / "run")
    code, _, err = command(
        *(tmp_path, "fit", "session.npz", "--out", "run", "--model", "ridge", "--overwrite", "--tensorboard")
    )
    assert (code, err) == (0, "")
    assert [path.name for path in (tmp_path / "run" / "tensorboard").iterdir() if path.is_dir()] == ["scores"]
    assert "score/correlation" in read(tmp_path / "run" / "tensorboard" / "scores").Tags()["scalars"]
    models = ["--models", "ridge,factorized"]
    arguments = ["compare", "session.npz", "--out", "both", "--tensorboard", *models, *small, *strengths]
    assert command(tmp_path, *arguments)[0] == 0
    assert_board_shows(tmp_path / "both" / "factorized")
    assert list((tmp_path / "both" / "ridge" / "tensorboard").glob("events*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = command(tmp_path, "fit", "absent.npz", "--out", "new", "--tensorboard")
    assert code == 2, "before the recording is read"
    assert "pip install" in err
