"""Processes that share one fit: the numbers of one process, one voice, one set of files, and exact resume."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import whatwhere as ww
from whatwhere.catalogue import make_model
from whatwhere.errors import OptionError
from whatwhere.parallel import ALONE, Parallel, join_processes

STEPS = 40
OPTIONS = f"""
core: {{kernel_sizes: [5, 3], n_maps: 3, padding: [valid, same]}}
penalties: {{product_l1: [0.1, 30.0]}}
training: {{batch_size: 16, max_steps: {STEPS}, check_every: 5, patience: 2, n_rates: 3, checkpoint_seconds: 0}}
"""
PROGRAM = Path(__file__).with_name("shared_fit.py")
WHATWHERE = Path(sys.executable).with_name("whatwhere")


def environment() -> dict[str, str]:
    """One thread, and nothing that says that this process is one of several."""
    ours = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {**{name: value for name, value in os.environ.items() if name not in ours}, "OMP_NUM_THREADS": "1"}


def ended(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, its options, and three runs: alone, in two processes, and several models."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    images, test = (rng.normal(size=(n, 1, 12, 17)).astype(np.float32) for n in (120, 8))
    filters = rng.normal(size=(12 * 17, 6)) / 8

    def responses(some: np.ndarray) -> np.ndarray:
        return rng.poisson(np.logaddexp(0, some.reshape(len(some), -1) @ filters)).astype(np.float32)

    held_out = ww.HeldOut(test, responses(np.repeat(test, 3, 0)), np.repeat(np.arange(8), 3))
    ww.save(ww.Recording(images, responses(images), test=held_out), folder / "recording.npz")
    (folder / "options.yaml").write_text(OPTIONS)
    return folder


def whatwhere(folder: Path, out: str, *arguments: str, verb: str = "fit") -> list[str | Path]:
    options = ["--config", folder / "options.yaml", "--device", "cpu", "--threads", "1"]
    return [WHATWHERE, verb, folder / "recording.npz", "--out", folder / out, *options, *arguments]


@pytest.fixture(scope="module")
def shared(folder: Path) -> subprocess.CompletedProcess[str]:
    """The run `two`, of two processes."""
    return ended(*whatwhere(folder, "two", "--devices", "2"))


def test_the_parts_of_a_batch_are_all_of_it_and_each_of_at_least_one_image() -> None:
    for size in (1, 2, 3, 7):
        for n_images in (7, 8, 64):
            parts = [Parallel(rank, size).part(n_images) for rank in range(size)]
            assert [image for part in parts for image in range(part.start, part.stop)] == list(range(n_images))
            assert sum(part.share for part in parts) == pytest.approx(1)
            assert max(part.share for part in parts) - min(part.share for part in parts) <= 1 / n_images + 1e-12
    with pytest.raises(OptionError, match="a batch of 2 images cannot be shared by 3 processes"):
        Parallel(0, 3).part(2)


def test_two_processes_make_the_steps_of_one(tmp_path: Path) -> None:
    """Every readout; steps of sparse masks; a compiled core; images on disk: to 1e-5 after ten steps."""
    found = []
    for n_processes in (1, 2):
        file = tmp_path / f"{n_processes}.npz"
        done = ended(sys.executable, PROGRAM, str(n_processes), file)
        assert done.returncode == 0, done.stderr
        found.append(np.load(file))
    alone, shared = found
    assert set(alone) == set(shared)
    assert {name.split("/")[0] for name in alone} >= {"factorized", "gaussian", "posterior", "sparse", "streamed"}
    for name in alone:
        np.testing.assert_allclose(shared[name], alone[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert all(np.isfinite(shared[name]).all() for name in shared if name.startswith("normalised"))
    assert 0 < np.mean(alone["sparse/readout.mask"] != 0) < 1 / 16, "steps are of sparse masks"
    moved = alone["factorized/losses"]
    assert (moved[-1] < moved[0]).all(), "the steps lead somewhere"


def test_a_shared_fit_ends_like_one_alone_and_speaks_once(
    folder: Path, shared: subprocess.CompletedProcess[str]
) -> None:
    assert shared.returncode == 0, shared.stderr
    assert ended(*whatwhere(folder, "one")).returncode == 0
    one, two = (load_file(folder / run / "model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    for name, expected in one.items():
        np.testing.assert_allclose(two[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
    scores = [pd.read_csv(folder / run / "scores.csv")["correlation"] for run in ("one", "two")]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    assert shared.stdout.count("written to") == 1
    assert "factorized in 2 processes: 96 images to fit" in shared.stdout
    assert shared.stderr == ""


def test_a_killed_shared_fit_resumes_to_the_very_same_numbers(
    folder: Path, shared: subprocess.CompletedProcess[str]
) -> None:
    assert shared.returncode == 0, shared.stderr
    checkpoints = folder / "killed" / "checkpoints"
    process = subprocess.Popen(
        whatwhere(folder, "killed", "--devices", "2"),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait(lambda: (checkpoints / "candidate-001.safetensors").exists(), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # the other one ends, too: it would hold the pipe open
    alone = ended(*whatwhere(folder, "killed", "--resume"))
    assert alone.returncode == 4
    assert "processes (2, now None)" in alone.stderr
    resumed = ended(*whatwhere(folder, "killed", "--devices", "2", "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    undisturbed, after = (load_file(folder / run / "model.safetensors") for run in ("two", "killed"))
    assert all(np.array_equal(after[name], undisturbed[name]) for name in undisturbed)
    again = ended(*whatwhere(folder, "killed", "--devices", "2", "--resume"))
    assert again.returncode == 0, "a run that had ended is only read again"
    assert again.stdout.count("written to") == 1


FAILING = """
import sys
from whatwhere.errors import RunError
from whatwhere.parallel import helps, join_processes

parallel = join_processes(2, 1, "cpu")
def fail():
    raise PermissionError("no")
try:
    parallel.from_first(fail)
except RunError as error:
    with open(f"{sys.argv[1]}-{parallel.rank}", "w") as file:
        file.write(f"{helps()} {parallel.any(parallel.rank == 1, False)} {error}")
"""


def test_what_the_first_process_meets_all_are_told(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    done = ended(sys.executable, tmp_path / "failing.py", tmp_path / "told")
    assert done.returncode == 0, done.stderr
    told = [(tmp_path / f"told-{rank}").read_text() for rank in (0, 1)]
    assert [text.startswith(f"{rank == 1} (True, False)") for rank, text in enumerate(told)] == [True, True]
    assert all("the first process failed: PermissionError('no')" in text for text in told)


def wait(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_comparison_on_two_nodes_shares_the_networks_and_leaves_the_others_to_the_first(folder: Path) -> None:
    """Each node as torchrun starts it, both here; the nodes share the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    penalties = ("--set", "fixed-mask.penalties.product_l1=0", "--set", "fixed-mask.penalties.feature_l1=0.1")
    asked = ("--models", "ridge,factorized,ols,fixed-mask", "--devices", "1", "--nodes", "2", *penalties)
    nodes = []
    for number in (0, 1):
        launcher = ("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number))
        launcher = (*launcher, "--master-addr", "127.0.0.1", "--master-port", str(port))
        called = [sys.executable, *launcher, *whatwhere(folder, "several", *asked, verb="compare")]
        nodes.append(
            subprocess.Popen(called, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = [node.communicate(timeout=240) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert [out.count("written to") for out, _ in said] == [1, 0]
    assert all((folder / "several" / model / "scores.csv").exists() for model in ("ridge", "factorized", "ols"))


REFUSED = """
import sys
from whatwhere.errors import WhatwhereError
from whatwhere.parallel import join_processes

def tell(*asked):
    try:
        join_processes(*asked, "cpu")
    except WhatwhereError as error:
        print(error)

tell(2, 1)
sys.ps1 = ">>> "
tell(2, 1)
del sys.ps1
tell(1, 2)
"""


def test_what_several_processes_cannot_share_is_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared: subprocess.CompletedProcess[str],
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = command(folder, "fit", "recording.npz", "--out", "none", "--model", "ridge", "--devices", "2")
    assert code == 2
    assert "devices=2 on nodes=1 are for networks, and ridge is none" in " ".join(err.split())
    held = ended(*whatwhere(folder, "two", "--devices", "2"))
    assert held.returncode == 4
    assert held.stderr.count("holds a run already") == 1
    assert make_model("ridge", devices=2).join() == join_processes(1, 1, "cuda:7") == ALONE
    with pytest.raises(OptionError, match="device 'cuda:1' is one, and 2 are asked for"):
        join_processes(2, 1, "cuda:1")
    no_script, interactive, nodes = ended(sys.executable, "-c", REFUSED).stdout.splitlines()
    assert "several devices are several processes" in no_script
    assert "several devices are several processes, which an interactive" in interactive
    assert "nothing says which of them this is" in nodes
    launched = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    forgotten = ended(*launched, *whatwhere(folder, "forgotten"))
    assert "torchrun started 2 processes, each of which would fit by itself" in " ".join(forgotten.stderr.split())
    assert not (folder / "forgotten").exists()
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(OptionError, match=r"whatwhere\[devices\]"):
        join_processes(2, 1, "cpu")
