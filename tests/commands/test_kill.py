"""`kill -9` at chosen and at random moments of a training: the resumed run is the uninterrupted
one, to the byte.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, metrics, run, same_weights

import train_voc

KILLS = int(os.environ.get("CVF_KILLS", "20"))  # of the heavy test
PATIENCE = 600  # seconds until a moment must have come

# Trainings that kill themselves, one after the other, each at the first of its moments. Their flags
# are argv; the moment at which one did not die is told.
SUICIDES = """
import io, os, signal, sys
import torch._dynamo  # seconds, once: the first optimiser of each would do it
import train_voc
from utils.run_folder import checkpoint
from utils.training import loop, stages
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def half(content, file, save=checkpoint.torch.save):
    whole = io.BytesIO()
    save(content, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()
moments = {
    "half a checkpoint": (checkpoint.torch, "save"),
    "before the new name": (checkpoint.disk.os, "fsync"),
    "after the new name": (loop, "keep_numbered"),
    "validation": (stages, "report"),
    "final checkpoint": (stages, "save_checkpoint"),
}
for moment, (owner, name) in moments.items():
    child = os.fork()  # before any thread is there
    if not child:
        setattr(owner, name, half if name == "save" else die)
        train_voc.main()
        sys.exit("lived on")
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != -signal.SIGKILL:
        sys.exit(f"{moment}: {ended}")
"""


def test_killed_at_every_delicate_moment_of_one_run(
    trained: Path, start: list[str], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", SUICIDES, *start, "--resume"]
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert run(train_voc.main, *start, "--resume") == 0
    assert same_weights(tmp_path / "run", trained)


@pytest.fixture(scope="module")
def longer(toy_voc: Path, quick: list[str]) -> list[str]:
    """Flags of a training of about half a minute: both stages, validations, many checkpoints, a
    loading process.
    """
    settings = {
        "mct_epochs": 60,
        "max_iters": 150,
        "warmup_iters": 10,
        "switch_iters": 75,
        "eval_every": 15,
        "workers": 1,
        "checkpoint_every": 3,
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    return ["--data_root", str(toy_voc), *quick, *flags, "--eval_seeds"]


@pytest.fixture(scope="module")
def uninterrupted(longer: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(train_voc.main, "--work_dir", folder, *longer) == 0
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_moment(
    number: int, longer: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    folder, dice = tmp_path / "run", random.Random(number)
    flags = ["--work_dir", folder, *longer]
    row = dice.randrange(len((uninterrupted / "metrics.csv").read_bytes().splitlines()))
    killed(flags, folder, row, dice.uniform(0, 0.3))
    reached = (folder / "metrics.csv").read_text().splitlines()[-1]
    halves = [file.name for file in folder.rglob("*.partial")]
    assert run(train_voc.main, *flags, "--resume") == 0
    final = Path("checkpoints", "final.pt")
    assert (folder / final).read_bytes() == (uninterrupted / final).read_bytes()
    assert metrics(folder) == metrics(uninterrupted)
    print(f"kill {number}: after {reached}, half-written {halves}: resumed to the same bytes")


def killed(flags: list[object], folder: Path, row: int, later: float) -> None:
    """Start a training and kill it `later` seconds after it has written `row` lines of
    metrics.csv.
    """
    words = [sys.executable, ROOT / "train_voc.py", *map(str, flags)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + PATIENCE
        file = folder / "metrics.csv"
        while not file.is_file() or len(file.read_bytes().splitlines()) < row:
            assert process.poll() in (None, 0) and time.monotonic() < end
            time.sleep(0.02)
        time.sleep(later)
        process.kill()


@pytest.mark.heavy
def test_a_batch_system_may_end_the_whole_job(
    longer: list[str], uninterrupted: Path, tmp_path: Path
) -> None:
    """SIGTERM to the training and its loading process, then the same command again."""
    folder = tmp_path / "run"
    words = [sys.executable, ROOT / "train_voc.py", "--work_dir", folder, *longer, "--resume"]
    with subprocess.Popen(
        list(map(str, words)), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (folder / "checkpoints" / "segmenter.pt").is_file():
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE)[1]
    assert (
        process.returncode == 130
        and "interrupted" in said.splitlines()[-1]
        and "Traceback" not in said
    )
    assert run(train_voc.main, *map(str, words[2:])) == 0
    assert same_weights(folder, uninterrupted)
