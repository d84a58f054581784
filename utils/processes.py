"""The processes of a command on this machine, from their start to their end."""

import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from utils.common.cores import usable_cores
from utils.common.errors import INTERRUPTED, LEFT_ALONE, MISTAKE

_LOOK_EVERY = 0.1  # seconds
# seconds for the others to end by themselves once one has failed, and again once asked to; and for
# all once they are asked a second time, which interrupts them at once
_PATIENCE = 30.0
# seconds for all once they are asked to end: without a GPU the iterations until they agree on it
# may take minutes, and a checkpoint follows
_LAST_WORK = 600.0
# what ends a process at once; on Windows, which has no SIGKILL, SIGTERM does
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
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

    @property
    def ending(self) -> int:
        """Return the status of one that has ended, or that was killed and is not gone yet."""
        status = self.status
        if status is None:
            return -_KILL
        return status

    def called(self, count: int) -> str:
        """Say which of `count` processes it is."""
        if count == 1:
            return "the process"
        return f"process {self.rank + 1} of {count}"

    def why(self, count: int) -> str:
        """Say why it, one of `count`, failed, as far as it has not done so itself."""
        said = ""
        if self.output is not None:
            said = self.output.read_text(errors="replace")
        status = self.ending
        if status < 0:
            said += f"error: {self.called(count)} was ended by signal {-status}"
            if -status == _KILL:
                said += ", perhaps for want of memory"
            if -status == _KILL and count > 1:
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
        # times of `time.monotonic`: until when all must have ended, and when to say that they must
        self._deadline = math.inf
        self._say_at = math.inf

    def ask(self) -> None:
        """Ask all that still run to end. They have the time for a checkpoint; where they have been
        asked before, they are to leave that.
        """
        now = time.monotonic()
        if self._deadline == math.inf:
            self._deadline = now + _LAST_WORK
            self._say_at = now + _PATIENCE
        else:
            self._deadline = now + _PATIENCE
        self.tell(signal.SIGTERM)

    def tell(self, number: int) -> None:
        """Send a signal to all that still run."""
        for each in self._all:
            if each.status is None:
                each.process.send_signal(number)

    def wait(self) -> Launched | None:
        """Wait until all have ended; return the one that tells why they failed, if they did.

        A process whose fellow failed cannot go on. It sees that when it next adds up gradients, and
        ends; one that does not is ended. So is one that was asked to end and does not.
        """
        while not any(each.status for each in self._all) and time.monotonic() < self._deadline:
            if all(each.status == 0 for each in self._all):
                return None
            self._look_later()

        self._deadline = min(self._deadline, time.monotonic() + _LAST_WORK)
        self._give_time()
        failed = [each for each in self._all if each.status] or self._all

        for number in (signal.SIGTERM, _KILL):
            if number == _KILL:
                self._say_killed()
            self._deadline = time.monotonic() + _PATIENCE
            self.tell(number)
            self._give_time()
        return min(failed, key=_how_little_it_tells)

    def _give_time(self) -> None:
        """Wait until all have ended: after a fault not for long, but after an interrupt, until the
        deadline, one of them may be writing a checkpoint.
        """
        enough = time.monotonic() + _PATIENCE
        while self._running():
            faulty = any(each.status not in (None, 0, INTERRUPTED) for each in self._all)
            if time.monotonic() >= self._deadline or (faulty and time.monotonic() >= enough):
                return
            self._look_later()

    def _running(self) -> list[Launched]:
        """Return those that have not ended."""
        return [each for each in self._all if each.status is None]

    def _look_later(self) -> None:
        """Let some time pass; say once how long processes that were asked to end may take."""
        time.sleep(_LOOK_EVERY)
        now = time.monotonic()
        if now >= self._say_at:
            self._say_at = math.inf
            print(
                f"note: {len(self._running())} of {len(self._all)} processes still work, perhaps "
                f"on a checkpoint; they have {self._deadline - now:.0f} s more, or "
                f"{_PATIENCE:.0f} s from a second Ctrl-C on",
                file=sys.stderr,
            )

    def _say_killed(self) -> None:
        """Name those that do not end and have to be killed."""
        for each in self._running():
            print(
                f"note: {each.called(len(self._all))} does not end and is killed; what it wrote "
                "before is kept",
                file=sys.stderr,
            )


def _how_little_it_tells(failed: Launched) -> tuple[bool, bool, int]:
    """Order processes that failed: one that was left alone does not know why, and a mistake or an
    interrupt of one explains what befell the others.
    """
    status = failed.ending
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
