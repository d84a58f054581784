"""A command in several processes of this machine, one per GPU or sharing its cores.

It ends as the command would end in one process: with its exit status, and what went wrong told
once. `torchrun` does the same on several machines, with a traceback of its own.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.common.errors import INTERRUPTED, MISTAKE, UserError
from utils.common.parser import Parser
from utils.common.signals import ending_signals
from utils.common.temporary import temporary_folder
from utils.processes import Launched, Processes


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
        """Pass signals on to these processes from here on."""
        self._processes = processes
        if self.asked:
            processes.ask()

    def _tell(self, number: int) -> None:
        """Send a signal to those that there are."""
        if self._processes is not None:
            self._processes.tell(number)

    def _end(self, *_: object) -> None:
        """Ask all to end; SIGTERM has no traceback while a process still imports."""
        self.asked = True
        if self._processes is not None:
            self._processes.ask()

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

            status = failed.ending
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
    if failed.ending != INTERRUPTED:
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
