"""A command in several processes: what each is told, and how all of them end.

The commands are small scripts without PyTorch; `tests/utils/test_distributed.py` trains by it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

LAUNCH = """
import sys
from utils.tools import launch
launch._PATIENCE = 1.0
launch.main()
"""
# the rank, and a note that this process is there, for the scripts below
BEGINNING = """
import os, pathlib, signal, sys, time
rank = int(os.environ["RANK"])
(pathlib.Path(sys.argv[1]) / f"{rank} {os.getpid()}").touch()
"""


def started(folder: Path, script: str, *flags: str, processes: int = 2) -> subprocess.Popen[str]:
    """Start a script in several processes, with a folder for their notes as its argument."""
    path = folder / "script.py"
    path.write_text(BEGINNING + script)
    (folder / "notes").mkdir()
    words = [sys.executable, "-c", LAUNCH, "--processes", str(processes), *flags]
    return subprocess.Popen(
        [*words, str(path), str(folder / "notes")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for the exit status, and what was printed and said."""
    said = process.communicate(timeout=60)
    return process.returncode, *said


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something has become true, a minute at most."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def notes(folder: Path) -> dict[int, int]:
    """The process ids that were noted, by rank."""
    names = [path.name.split() for path in (folder / "notes").iterdir()]
    return {int(rank): int(number) for rank, number in names}


def test_each_process_knows_its_place_and_its_share_of_the_cores(tmp_path: Path) -> None:
    script = """
names = "WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE OMP_NUM_THREADS MASTER_ADDR".split()
told = " ".join(os.environ[name] for name in names)
(pathlib.Path(sys.argv[1]).parent / f"told {rank}").write_text(told)
print("the first one prints, not the", rank)
"""
    status, printed, said = ended(started(tmp_path, script, processes=3))
    assert (status, said) == (0, "") and printed == "the first one prints, not the 0\n"
    share = max(1, len(os.sched_getaffinity(0)) // 3)
    for rank in range(3):
        told = (tmp_path / f"told {rank}").read_text()
        assert told == f"3 {rank} 3 {share} 127.0.0.1"


MISTAKE = "sys.exit(print('error: the same in all', file=sys.stderr) or 2)"
ONE_MISTAKE = """
if rank:
    print("error: only here", file=sys.stderr)
    sys.exit(2)
time.sleep(0.5)
print("error: another process ended", file=sys.stderr)
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("script", "sentences"),
    [
        (MISTAKE, ["error: the same in all"]),
        (ONE_MISTAKE, ["error: another process ended", "error: only here"]),
    ],
)
def test_a_mistake_is_told_once_and_its_status_kept(tmp_path, script, sentences):
    status, _, said = ended(started(tmp_path, script))
    assert status == 2
    assert said.splitlines() == sentences


def test_the_others_end_where_one_was_killed(tmp_path: Path) -> None:
    process = started(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)")
    wait_until(lambda: len(notes(tmp_path)) == 2)
    os.kill(notes(tmp_path)[1], signal.SIGKILL)
    status, _, said = ended(process)
    assert status == 1
    assert said.startswith("error: process 2 of 2 was ended by signal 9, perhaps for want of mem")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_process_once(tmp_path: Path, number: signal.Signals) -> None:
    script = f"""
def note(*_):
    (pathlib.Path(sys.argv[1]).parent / f"asked {{rank}} {{time.monotonic()}}").touch()
signal.signal({int(number)}, note)
(pathlib.Path(sys.argv[1]).parent / f"ready {{rank}}").touch()
while not list(pathlib.Path(sys.argv[1]).parent.glob("asked 0*")):
    time.sleep(0.01)
time.sleep(2 if rank == 0 else 0.5)  # longer than the patience with a fault
sys.exit(130)
"""
    process = started(tmp_path, script)
    wait_until(lambda: len(list(tmp_path.glob("ready *"))) == 2)
    process.send_signal(number)
    assert ended(process)[0] == 130
    for rank in range(2):
        assert len(list(tmp_path.glob(f"asked {rank} *"))) == 1


def test_a_lost_process_has_all_of_them_started_anew_so_often(tmp_path: Path) -> None:
    script = "sys.exit(1 if len(os.listdir(sys.argv[1])) < 5 else 0)"
    status, printed, _ = ended(started(tmp_path, script, "--restarts", "3"))
    assert status == 0
    again = [line for line in printed.splitlines() if line.startswith("starting all processes")]
    assert again[-1] == f"starting all processes anew, {len(again)} of 3 times"


def test_a_mistake_and_an_interrupt_start_nothing_anew(tmp_path: Path) -> None:
    for status in (2, 130):
        folder = tmp_path / str(status)
        folder.mkdir()
        process = started(folder, f"sys.exit({status})", "--restarts", "3")
        assert ended(process)[0] == status
        assert len(list((folder / "notes").iterdir())) == 2


def runs(number: int) -> bool:
    """Whether there is a process of that number that has not ended, be it noticed or not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    process = started(tmp_path, "time.sleep(600)")
    wait_until(lambda: len(notes(tmp_path)) == 2)
    time.sleep(0.2)
    process.kill()
    process.wait()
    for number in notes(tmp_path).values():
        wait_until(lambda number=number: not runs(number))
