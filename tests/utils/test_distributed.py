"""Several processes on the CPU, as `utils.tools.launch` starts them: what they compute is what one
process computes.
"""

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
import vit_files
from helpers import ROOT, run
from vit_files import saved

import train_voc
from utils.common import distributed, entry
from utils.common.console import begin_notices
from utils.common.errors import UserError
from utils.common.signals import interrupted_by_signals
from utils.config import RECIPES
from utils.run_folder.results import read_results

STEPS, FEW = 20, 4
LOSSES = ("loss", "seg", "affinity", "patch", "cls", "contrast", "dice", "cross")
OWN = ["--self_train_iters", "3", "--predicted_classes", "all"]
# Recipes, and methods that no recipe has, with what makes them fit a CLIP of three blocks and four
# iterations.
METHODS = {
    "excel": ["--dense_blocks", "2", "--self_train", "affinity", "--self_train_at", "0", *OWN],
    # patches of a random CLIP are nearly alike: maps would be flat, and labels hang on rounding
    "cdclip": ["--distribution_tau", "0.001"],
    "weclip": [],
    "weclip_plus": ["--self_train_iters", "3", "--self_train_at", "0.1"],
    "soft": ["--targets", "soft", "--w_dice", "1", "--w_cross", "0.1", "--self_train", "labels"],
    "pair": ["--targets", "pair", "--affinity_head", "cosine", "--self_train", "labels", *OWN],
}


TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' of the environment is no number"),
        ({"RANK": "-1"}, "RANK='-1' of the environment is no number"),
        ({"LOCAL_RANK": "gpu0"}, "LOCAL_RANK='gpu0'"),
        ({"WORLD_SIZE": "1.0"}, "is no number"),
        (
            dict(zip(TORCHRUN, ["2", "2", "0", "localhost", "29500"])),
            "RANK=2 of the environment is not",
        ),
        (dict(zip(TORCHRUN, ["0", "2", "0", "localhost"])), "MASTER_PORT is not set"),
        (dict(zip(TORCHRUN, ["0", "2", "0", "localhost", " "])), "MASTER_PORT is not set"),
        (dict(zip(TORCHRUN, ["1", "2", "1", "localhost", "1"])), "did not meet at localhost:1"),
        (
            dict(zip(TORCHRUN, ["1", "2", "1", "nowhere.invalid", "1"])),
            "did not meet at nowhere.inv",
        ),
        (
            dict(zip(TORCHRUN, ["0", "2", "0", "localhost", "port"])),
            "did not meet at localhost:port",
        ),
    ],
)
def test_what_another_job_left_in_the_environment_is_one_sentence(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "_PATIENCE", timedelta(seconds=1))
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        distributed.start("cpu")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert "unset RANK WORLD_SIZE LOCAL_RANK" in str(caught.value)


@pytest.mark.parametrize(
    "environment", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1", "RANK": "5"}]
)
def test_one_process_needs_nothing_of_the_environment(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed.start("cpu") == (0, 1, 0)


def test_a_command_that_does_not_share_its_work_refuses_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[int] = []
    alone = entry.command(lambda: done.append(1))
    shared = entry.command(lambda: done.append(2), shared=True)
    for name, value in zip(TORCHRUN[:2], ["1", "2"]):
        monkeypatch.setenv(name, value)
    assert run(alone) == 0  # what another job left in the environment

    for name, value in zip(TORCHRUN[2:], ["1", "localhost", "1"]):
        monkeypatch.setenv(name, value)
    assert run(shared) == 0 and run(alone) == 2
    said = capsys.readouterr().err
    assert "WORLD_SIZE=2: this command does not share its work" in said and said.count("\n") == 1
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert run(alone) == 0 and done == [1, 2, 1]


def test_the_wait_for_other_processes_ends_at_the_first_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in zip(TORCHRUN, ["1", "2", "1", "localhost", "1"]):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_SILENCE", 0)
    begin_notices()
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    with interrupted_by_signals(), pytest.raises(KeyboardInterrupt):
        distributed.start("cpu")
    assert time.monotonic() - start < 10
    assert "waiting for 2 processes to meet at localhost:1" in capsys.readouterr().err


def arguments(data: Path, folder: Path, flags: list[str], steps: int = STEPS) -> list[str]:
    """What `train_voc.py` is given for a training of so many iterations."""
    settings = {
        "max_iters": steps,
        "eval_every": steps,
        "batch_size": 4,
        "data_root": data,
        "work_dir": folder,
    }
    given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return [*flags, *given, "--resume", "--eval_seeds"]


def command(processes: int, *training: object, restarts: int = 0) -> list[str]:
    """A training by `arguments` in several processes, which fails where one of them leaves threads
    of Gloo behind.
    """
    launch = ["-m", "utils.tools.launch", "--processes", str(processes)]
    script = ["--restarts", str(restarts), "-m", "tests.watched_training"]
    return [sys.executable, *launch, *script, *arguments(*training)]


def train(processes: int, *training: object) -> None:
    """Train by `arguments`, in this process where one is asked for."""
    if processes == 1:
        assert run(train_voc.main, *arguments(*training)) == 0
        return

    done = subprocess.run(
        command(processes, *training),
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def losses(folder: Path) -> dict[tuple[str, str, str], float]:
    """Every logged loss, by stage, iteration and name."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] in LOSSES]
    return {(row["stage"], row["iteration"], row["name"]): float(row["value"]) for row in rows}


def assert_same_training(one: Path, several: Path) -> None:
    """Both runs logged the same losses at every iteration of both stages: the sums within 3e-4 of
    themselves.

    A batch of other size rounds otherwise. Where a label of these tiny pictures hangs on that, a
    few pixels of it change, which moves the sum by up to 2e-4, and a term by more where it is one
    patch pair.
    """
    expected, actual = losses(one), losses(several)
    assert expected.keys() == actual.keys() and ("segmenter", str(FEW), "loss") in expected
    assert actual == pytest.approx(expected, abs=1e-3)
    for key in (key for key in expected if key[2] == "loss"):
        assert actual[key] == pytest.approx(expected[key], rel=3e-4), key


@pytest.fixture(scope="module")
def alone(toy_voc: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(1, toy_voc, folder, quick)
    return folder


def test_two_processes_train_as_one_does(toy_voc, quick, tmp_path):
    flags = [*quick, "--eval_images", "1"]
    for processes in (1, 2):
        train(processes, toy_voc, tmp_path / str(processes), flags, FEW)
    assert_same_training(tmp_path / "1", tmp_path / "2")


def method_flags(name: str, quick: list[str], folder: Path) -> list[str]:
    """Flags of a short training by a recipe, or by the usual method with other settings."""
    recipe = [name] if (RECIPES / f"{name}.yaml").is_file() else []
    dino = []
    if name == "weclip_plus":
        dino = ["--dino_path", str(saved(folder / "dino.pth", vit_files.dino()))]
    return ["--config", "toy_voc", *recipe, *quick, *METHODS[name], *dino, "--eval_images", "1"]


def test_two_processes_train_by_a_method_as_one_does(toy_voc, quick, tmp_path):
    flags = method_flags("weclip_plus", quick, tmp_path)
    for processes in (1, 2):
        train(processes, toy_voc, tmp_path / str(processes), flags, FEW)
    assert_same_training(tmp_path / "1", tmp_path / "2")


@pytest.mark.heavy
@pytest.mark.parametrize("name", METHODS)
def test_four_processes_train_by_a_method_as_one_does(name, toy_voc, quick, tmp_path):
    flags = method_flags(name, quick, tmp_path)
    for processes in (1, 4):
        train(processes, toy_voc, tmp_path / str(processes), flags, FEW)
    assert_same_training(tmp_path / "1", tmp_path / "4")


@pytest.mark.heavy
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_as_one_does(processes, alone, toy_voc, quick, tmp_path):
    train(processes, toy_voc, tmp_path / "run", quick)
    assert_same_training(alone, tmp_path / "run")


@pytest.mark.heavy
def test_several_processes_count_every_image_once(alone, toy_voc, quick, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "run")
    (folder / "results.json").unlink()
    # nothing is left to train, so the same weights are evaluated again
    train(2, toy_voc, folder, quick)
    expected, actual = read_results(alone), read_results(folder)
    assert "pseudo label" in expected and expected == actual


@pytest.mark.heavy
def test_a_lost_process_is_replaced_and_training_resumes(alone, toy_voc, quick, tmp_path):
    folder = tmp_path / "run"
    started = subprocess.Popen(command(2, toy_voc, folder, quick, restarts=1), cwd=ROOT)
    while not (folder / "checkpoints" / "segmenter.pt").exists():
        assert started.poll() is None
        time.sleep(0.05)
    os.kill(children(started.pid)[0], signal.SIGKILL)
    assert started.wait(timeout=600) == 0
    assert_same_training(alone, folder)


def children(parent: int) -> list[int]:
    """Process ids of a process's children."""
    listed = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True
    ).stdout
    return [int(line) for line in listed.split()]


def test_threads_let_go_of_tensors_before_the_group_is_destroyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let_go = threading.Event()
    threading.Timer(0.05, let_go.set).start()
    found: list[bool] = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: found.append(let_go.is_set()))
    distributed.stop()
    assert found == [True]
