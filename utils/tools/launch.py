"""A command in several processes of this machine, one per GPU or sharing its cores.

It ends as the command would end in one process: with its exit status, and what went wrong told
once. `torchrun` does the same on several machines, with a traceback of its own.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.common.cores import usable_cores
from utils.common.errors import INTERRUPTED, LEFT_ALONE, MISTAKE, UserError
from utils.common.parser import Parser
from utils.common.signals import ending_signals
from utils.common.temporary import temporary_folder

_LOOK_EVERY = 0.1  # seconds
# seconds for the others to end by themselves once one has failed, and again once asked to
_PATIENCE = 30.0
_PR_SET_PDEATHSIG = 1  # number of Linux's prctl


@dataclass(frozen=True)
class Launched:
    """One of the processes. output: the file of what it prints; None where it prints for all."""

    rank: int
    process: subprocess.Popen
    output: Path | None

    @property
    def status(self) -> int | None:
        """Return its exit status, minus a signal's number where one ended it; None while it
        runs.
        """
        return self.process.poll()

    def why(self, count: int) -> str:
        """Say why it, one of `count`, failed, as far as it has not done so itself."""
        said = ""
        if self.output is not None:
            said = self.output.read_text(errors="replace")
        status = self.process.returncode
        if status < 0:
            which = "the process"
            if count > 1:
                which = f"process {self.rank + 1} of {count}"
            said += f"error: {which} was ended by signal {-status}"
            if -status == signal.SIGKILL:
                said += ", perhaps for want of memory"
            if -status == signal.SIGKILL and count > 1:
                said += ", of which fewer processes (NPROC) need less"
            said += "; what is written is kept\n"
        return said


class Processes:
    """All processes of a command, from their start to their end."""

    def __init__(self, count: int, words: Sequence[str], folder: Path) -> None:
        """count: of processes. words: a script and its flags, or `-m`, a module and its flags.
        folder: for what they print.
        """
        places = _places(count)
        self._all = [_launched(rank, words, own, folder) for rank, own in enumerate(places)]

    def tell(self, number: int) -> None:
        """Send a signal to all that still run."""
        for each in self._all:
            if each.status is None:
                each.process.send_signal(number)

    def wait(self) -> Launched | None:
        """Wait until all have ended; return the one that tells why they failed, if they did.

        A process whose fellow failed cannot go on. It sees that when it next adds up gradients, and
        ends; one that does not is ended.
        """
        while not any(each.status for each in self._all):
            if all(each.status == 0 for each in self._all):
                return None
            time.sleep(_LOOK_EVERY)

        self._give_time()
        failed = [each for each in self._all if each.status]
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.tell(number)
            self._give_time()
        return min(failed, key=_how_little_it_tells)

    def _give_time(self) -> None:
        """Wait until all have ended: after a fault not for long, but after an interrupt one of them
        may be writing a checkpoint.
        """
        deadline = time.monotonic() + _PATIENCE
        while any(each.status is None for each in self._all):
            faulty = any(each.status not in (None, 0, INTERRUPTED) for each in self._all)
            if faulty and time.monotonic() >= deadline:
                return
            time.sleep(_LOOK_EVERY)


def _how_little_it_tells(failed: Launched) -> tuple[bool, bool, int]:
    """Order processes that failed: one that was left alone does not know why, and a mistake or an
    interrupt of one explains what befell the others.
    """
    status = failed.process.returncode
    return status == LEFT_ALONE, status not in (MISTAKE, INTERRUPTED), failed.rank


def _places(count: int) -> list[dict[str, str]]:
    """Return what each process finds in its environment: its place among them, where they meet, and
    how many threads it has. One process finds what this one does.
    """
    if count == 1:
        return [dict(os.environ)]

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    usual = {"OMP_NUM_THREADS": str(max(1, usable_cores() // count))}
    if loopback:  # a machine's name may lead nowhere
        usual["GLOO_SOCKET_IFNAME"] = loopback[0]

    shared = {
        **usual,
        **os.environ,
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # left by a torchrun around this
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _launched(rank: int, words: Sequence[str], place: dict[str, str], folder: Path) -> Launched:
    """Start the process of a rank. The first one prints; what others print is kept.

    Each has a session of its own, so that Ctrl-C reaches it once, through this process.
    """
    start = partial(
        subprocess.Popen,
        [sys.executable, *words],
        env=place,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_with_parent(),
    )
    if rank == 0:
        return Launched(rank, start(), None)

    output = folder / f"{rank}.txt"
    with output.open("wb") as file:
        return Launched(rank, start(stdout=file, stderr=file), output)


def _with_parent() -> Callable[[], None] | None:
    """Return what has a new process asked to end when this one does, however that happens; None
    where the system is not Linux.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Passing:
    """Passes the signals that this process gets on to those that it started, while they run."""

    def __init__(self) -> None:
        self.asked = False  # to end
        self._processes: Processes | None = None
        for number in ending_signals():
            signal.signal(number, self._end)
        if hasattr(signal, "SIGTSTP"):
            signal.signal(signal.SIGTSTP, self._pause)

    def to(self, processes: Processes) -> None:
        """Pass on to these from here on."""
        self._processes = processes
        if self.asked:
            processes.tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        """Send a signal to those that there are."""
        if self._processes is not None:
            self._processes.tell(number)

    def _end(self, *_: object) -> None:
        """Ask all to end; SIGTERM has no traceback while a process still imports."""
        self.asked = True
        self._tell(signal.SIGTERM)

    def _pause(self, *_: object) -> None:
        """Have all wait with this one, as Ctrl-Z asks, and go on with it."""
        self._tell(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._tell(signal.SIGCONT)


def launch(count: int, words: Sequence[str], restarts: int = 0) -> int:
    """Run a command in `count` processes; returns its exit status.

    restarts: how many times to start all of them again after a fault of the machine.
    """
    passing = Passing()
    status = 0
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(restarts + 1):
            processes = Processes(count, words, Path(folder))
            passing.to(processes)
            failed = processes.wait()
            if failed is None:
                return 0

            status = failed.process.returncode
            if passing.asked and status != MISTAKE:
                return _interrupted(failed)
            sys.stderr.write(failed.why(count))
            if status in (MISTAKE, INTERRUPTED):
                return status
            if attempt < restarts:
                print(f"starting again, {attempt + 1} of {restarts} times", flush=True)
    return 1


def _interrupted(failed: Launched) -> int:
    """Say so, where the process that could have done it had not begun; returns the exit status."""
    if failed.process.returncode != INTERRUPTED:
        print("interrupted; what is written is kept", file=sys.stderr)
    elif failed.output is not None:
        sys.stderr.write(failed.output.read_text(errors="replace"))
    return INTERRUPTED


def flags() -> Parser:
    """Return the parser of this command's flags, which come before the other command."""
    parser = Parser(
        usage="%(prog)s --processes N [--restarts N] SCRIPT [flags]",
        description=__doc__,
    )

    add = parser.add_argument
    add("--processes", type=_positive, required=True, metavar="N", help="how many")
    add(
        "--restarts",
        type=_count,
        default=0,
        metavar="N",
        help="how many times to start all again after a fault of the machine (default: 0)",
    )
    add("words", nargs="+", metavar="SCRIPT", help="a script, or -m and a module, and its flags")
    return parser


def _count(text: str) -> int:
    """Read a number of something, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _positive(text: str) -> int:
    """Read a number of something of which there is one at least, for argparse."""
    if not (count := _count(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is too few")
    return count


def read(words: Sequence[str]) -> argparse.Namespace:
    """Read a command line: own flags, then another command, whose flags are its own."""
    own = 0
    while words[own : own + 1] and words[own].startswith("--"):
        own += 1 if "=" in words[own] else 2
    other = list(words[own:])
    if other:
        other = ["--", *other]  # so that its flags are not taken for own ones
    return flags().parse_args([*words[:own], *other])


def main() -> None:
    """Read the command line, and run what it names."""
    given = read(sys.argv[1:])
    try:
        temporary_folder()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(MISTAKE)
    if (missing := _missing(given.words)) is not None:
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(MISTAKE)
    sys.exit(launch(given.processes, given.words, given.restarts))


def _missing(words: Sequence[str]) -> str | None:
    """Say which script or module is not there; None where it is."""
    if words[0] != "-m":
        if Path(words[0]).is_file():
            return None
        return f"there is no script {words[0]}; name one, such as train_voc.py"

    name = " ".join(words[1:2])
    with contextlib.suppress(ImportError, ValueError):  # of a package that is not there
        if importlib.util.find_spec(name) is not None:
            return None
    return f"there is no module {name or 'after -m'}; name one, such as utils.tools.label"


if __name__ == "__main__":
    main()
