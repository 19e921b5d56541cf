"""Processes of their own: what they are asked, what becomes of one that dies, and of all of them in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whatwhere.workers import visible_gpus

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import torch
from whatwhere.workers import LocalExecutor, WorkerDiedError

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def refuse():
    raise ValueError("no such kernel")

def unsendable():
    return lambda: 0

def sleep_and_touch(path, started):
    Path(started).write_text(str(os.getpid()))
    time.sleep(30)
    Path(path).touch()

class Told:
    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        print("sent", self.name)
        return Told, (self.name,)

def name_of(told):
    return told.name

def both(one, other):
    return f"{one.name} {other.name}"

def number_of_threads(seconds=0):
    time.sleep(seconds)
    return torch.get_num_threads(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
"""


def run(folder: Path, body: str) -> str:
    file = folder / "program.py"
    file.write_text(PROGRAM + '\nif __name__ == "__main__":\n' + "".join(f"    {line}\n" for line in body.splitlines()))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_dies_fails_its_own_call_alone(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """with LocalExecutor(2) as executor:
    calls = [executor.submit(*call) for call in [(pow, 2, 3), (die,), (pow, 3, 2), (refuse,), (pow, 5, 2), (pow, 2, 5)]]
    for call in calls:
        try:
            print(call.result())
        except (WorkerDiedError, ValueError) as error:
            print(type(error).__name__, str(error)[:28])""",
    )
    assert out.splitlines() == [
        *("8", "WorkerDiedError its process was killed, or d", "9", "ValueError no such kernel", "25", "32")
    ]


def test_each_process_has_its_threads_and_its_gpu(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """with LocalExecutor(2, threads=3, gpus=["4", "5"]) as executor:
    held = [executor.submit(number_of_threads, 1) for _ in range(2)]  # both at once, so each in one of them
    found = [call.result()[:2] for call in held]
print(sorted(found))
with LocalExecutor(1) as executor:
    print(executor.submit(number_of_threads).result()[:2])
    same = {executor.submit(number_of_threads).result()[2] for _ in range(3)}
    print(len(same))""",
    )
    first, second, third = out.splitlines()
    assert first == "[(3, '4'), (3, '5')]"
    assert (second, third) == ("(1, None)", "1")


def test_what_is_shared_is_sent_to_each_process_once(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """with LocalExecutor(1) as executor:
    first, second = executor.share(Told("first")), executor.share(Told("second"))
    for call in [(name_of, first), (name_of, first), (both, second, first), (die,), (name_of, second)]:
        try:
            print(executor.submit(*call).result())
        except WorkerDiedError:
            print("died")""",
    )
    assert out.splitlines() == [
        *("sent first", "first", "first", "sent second", "second first", "died", "sent second", "second")
    ]


def test_what_cannot_be_sent_back_is_said(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """with LocalExecutor(1) as executor:
    try:
        executor.submit(unsendable).result()
    except RuntimeError as error:
        print(error)
    print(executor.submit(pow, 2, 2).result())""",
    )
    assert "pickle" in out
    assert out.splitlines()[-1] == "4"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_made_them(tmp_path: Path, how: signal.Signals) -> None:
    file, done, started = tmp_path / "program.py", tmp_path / "done", tmp_path / "started"
    body = f"""
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
    with LocalExecutor(1) as executor:
        executor.submit(sleep_and_touch, {str(done)!r}, {str(started)!r}).result()
"""
    file.write_text(PROGRAM + body)
    program = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while not (started.exists() and started.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    worker = int(started.read_text())
    program.send_signal(how)
    try:
        program.wait(30)
    finally:
        program.kill()
        program.wait()
    until = time.monotonic() + 15
    while Path(f"/proc/{worker}").exists() and _runs(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _runs(worker)
    assert not done.exists()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_gpus_are_named_as_the_environment_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6, GPU-1f2e")
    assert visible_gpus() == ["6", "GPU-1f2e"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpus() == []
