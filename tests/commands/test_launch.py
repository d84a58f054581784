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
from helpers import ROOT, run

from utils.common.cores import usable_cores
from utils.tools import launch

LAUNCH = """
import sys
from utils import processes
from utils.tools import launch
processes._PATIENCE = float(sys.argv.pop(1))
processes._LAST_WORK = float(sys.argv.pop(1))
launch.main()
"""
# the rank, and a note that this process is there, for the scripts below
BEGINNING = """
import os, pathlib, signal, sys, time
rank = int(os.environ.get("RANK", 0))
(pathlib.Path(sys.argv[1]) / f"{rank} {os.getpid()}").touch()
"""


def started(
    folder: Path,
    script: str,
    *flags: str,
    processes: int = 2,
    patience: float = 30,
    last_work: float = 600,
) -> subprocess.Popen[str]:
    """Start a script in several processes, with a folder for their notes as its argument.

    patience: seconds for the others once one has failed. last_work: for all once asked to end.
    """
    path = folder / "script.py"
    path.write_text(BEGINNING + script)
    (folder / "notes").mkdir()
    times = [str(patience), str(last_work)]
    words = [sys.executable, "-c", LAUNCH, *times, "--processes", str(processes), *flags]
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["2", "absent.py"], "error: there is no script absent.py; name one"),
        (["2", "-m", "utils.tools.absent"], "error: there is no module utils.tools.absent; name"),
        (["0", "train_voc.py"], "error: argument --processes: '0' is too few; see --help"),
    ],
)
def test_what_cannot_be_launched_is_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(launch.main, "--processes", *words) == 2
    assert capsys.readouterr().err.startswith(said)


def test_each_process_knows_its_place_and_its_share_of_the_cores(tmp_path: Path) -> None:
    script = """
names = "WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE OMP_NUM_THREADS MASTER_ADDR".split()
told = " ".join(os.environ[name] for name in names)
(pathlib.Path(sys.argv[1]).parent / f"told {rank}").write_text(told)
print("the first one prints, not the", rank)
"""
    status, printed, said = ended(started(tmp_path, script, processes=3))
    assert (status, said) == (0, "") and printed == "the first one prints, not the 0\n"
    share = max(1, usable_cores() // 3)
    for rank in range(3):
        told = (tmp_path / f"told {rank}").read_text()
        assert told == f"3 {rank} 3 {share} 127.0.0.1"


ALL = """
print("error: the same in all", file=sys.stderr)
sys.exit({status})
"""
ONE = """
if rank:
    print("error: only here", file=sys.stderr)
    sys.exit({status})
time.sleep(0.5)
print("error: another process has ended", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("status", [1, 2])
@pytest.mark.parametrize(
    ("script", "sentences"),
    [
        (ALL, ["error: the same in all"]),
        (ONE, ["error: another process has ended", "error: only here"]),
    ],
)
def test_what_went_wrong_is_told_once_and_its_status_kept(tmp_path, script, sentences, status):
    ended_with, _, said = ended(started(tmp_path, script.format(status=status)))
    assert ended_with == status
    assert said.splitlines() == sentences


def test_a_failure_is_told_where_there_is_no_sigkill(tmp_path, monkeypatch):
    """As on Windows."""
    without = "import signal\ndel signal.SIGKILL\n" + LAUNCH
    monkeypatch.setattr(sys.modules[__name__], "LAUNCH", without)
    ended_with, _, said = ended(started(tmp_path, ALL.format(status=2)))
    assert (ended_with, said.splitlines()) == (2, ["error: the same in all"])


def test_the_others_end_where_one_was_killed(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    process = started(tmp_path, script, patience=0.5)
    wait_until(lambda: len(notes(tmp_path)) == 2)
    os.kill(notes(tmp_path)[1], signal.SIGKILL)
    status, _, said = ended(process)
    assert status == 1
    killed, cause = said.splitlines()
    assert killed.startswith("note: process 1 of 2 does not end and is killed; what it wrote")
    assert cause.startswith("error: process 2 of 2 was ended by signal 9, perhaps for want of mem")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_process_is_asked_once_to_end_and_given_the_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = """
folder = pathlib.Path(sys.argv[1]).parent
def note(*_):
    (folder / f"asked {rank} {time.monotonic()}").touch()
signal.signal(signal.SIGTERM, note)
(folder / f"ready {rank}").touch()
while not list(folder.glob(f"asked {rank}*")):
    time.sleep(0.01)
time.sleep(0 if rank else 1)  # the first one writes a checkpoint
sys.exit(130)
"""
    process = started(tmp_path, script, patience=0.1)
    wait_until(lambda: len(list(tmp_path.glob("ready *"))) == 2)
    process.send_signal(number)
    assert ended(process)[0] == 130
    for rank in range(2):
        assert len(list(tmp_path.glob(f"asked {rank} *"))) == 1


# Counts how often it is asked to end, and does not, as one that is stuck.
STUCK = """
folder = pathlib.Path(sys.argv[1]).parent
signal.signal(signal.SIGTERM, lambda *_: (folder / f"asked {rank} {time.monotonic()}").touch())
(folder / f"ready {rank}").touch()
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("status", [None, 130], ids=["all are stuck", "one ends"])
def test_a_process_that_does_not_end_when_asked_is_killed(
    tmp_path: Path, processes: int, status: int | None
) -> None:
    script = STUCK
    if status is not None:
        script = script.replace("while True", "while rank or not list(folder.glob('asked 0 *'))")
        script += f"sys.exit({status})\n"
    process = started(tmp_path, script, processes=processes, patience=0.2, last_work=1)
    wait_until(lambda: len(list(tmp_path.glob("ready *"))) == processes)
    process.send_signal(signal.SIGTERM)
    ended_with, _, said = ended(process)

    stuck = [rank for rank in range(processes) if rank or status is None]
    assert ended_with == 130
    assert said.count("does not end and is killed; what it wrote before is kept\n") == len(stuck)
    assert said.count("s more, or 0 s from a second Ctrl-C on") == bool(stuck)
    for rank in stuck:
        first, second = sorted(
            float(path.name.split()[2]) for path in tmp_path.glob(f"asked {rank} *")
        )
        assert second - first > 0.8  # not before the time for the last work is over


def test_a_second_request_cuts_the_time_for_the_last_work_short(tmp_path: Path) -> None:
    process = started(tmp_path, STUCK, patience=0.2, last_work=600)
    wait_until(lambda: len(list(tmp_path.glob("ready *"))) == 2)
    for times in (1, 2):
        process.send_signal(signal.SIGINT)
        wait_until(lambda times=times: len(list(tmp_path.glob("asked *"))) >= 2 * times)
    status, _, said = ended(process)
    assert status == 130 and said.count("does not end and is killed") == 2
    assert said.endswith("interrupted; what is written is kept\n")


def test_an_interrupt_before_anything_has_begun_is_told_as_one(tmp_path: Path) -> None:
    process = started(tmp_path, "time.sleep(600)", "--restarts", "3")
    wait_until(lambda: len(notes(tmp_path)) == 2)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "interrupted; what is written is kept\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of states there")
def test_all_processes_wait_while_the_one_that_started_them_does(tmp_path: Path) -> None:
    process = started(tmp_path, "time.sleep(600)")
    wait_until(lambda: len(notes(tmp_path)) == 2)
    numbers = [process.pid, *notes(tmp_path).values()]
    process.send_signal(signal.SIGTSTP)
    wait_until(lambda: [state(number) for number in numbers] == ["T"] * 3)
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: "T" not in [state(number) for number in numbers])
    process.terminate()
    assert ended(process)[0] == 130


def test_after_a_fault_all_processes_start_again_so_often(tmp_path: Path) -> None:
    script = "sys.exit(1 if len(os.listdir(sys.argv[1])) < 5 else 0)"
    status, printed, _ = ended(started(tmp_path, script, "--restarts", "3"))
    assert status == 0
    again = [line for line in printed.splitlines() if line.startswith("starting again")]
    assert again[-1] == f"starting again, {len(again)} of 3 times"


def test_one_process_starts_again_too_in_the_surroundings_that_it_had(tmp_path: Path) -> None:
    script = """
told = {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS"}
print(sorted(told & set(os.environ)))
if len(os.listdir(sys.argv[1])) < 2:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    status, printed, said = ended(started(tmp_path, script, "--restarts", "3", processes=1))
    assert status == 0 and "[]" in printed and "starting again, 1 of 3 times" in printed
    cause = "error: the process was ended by signal 9, perhaps for want of memory"
    assert said == f"{cause}; what is written is kept\n"


def test_a_mistake_and_an_interrupt_start_nothing_again(tmp_path: Path) -> None:
    for status in (2, 130):
        folder = tmp_path / str(status)
        folder.mkdir()
        process = started(folder, f"sys.exit({status})", "--restarts", "3")
        assert ended(process)[0] == status
        assert len(list((folder / "notes").iterdir())) == 2


def state(number: int) -> str:
    """The letter of a process's state, Z for one that has ended, noticed or not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path) -> None:
    process = started(tmp_path, "time.sleep(600)")
    wait_until(lambda: len(notes(tmp_path)) == 2)
    time.sleep(0.2)
    process.kill()
    process.wait()
    numbers = notes(tmp_path).values()
    wait_until(lambda: {state(number) for number in numbers} == {"Z"})
