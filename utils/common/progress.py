"""Progress: bars, one line on a terminal, a plain line now and then in a log file, nothing if
quiet; and how long work will take.
"""

import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

from utils.common import distributed

SECONDS = {True: 1, False: 30}  # between two redraws on a terminal, between two lines elsewhere
MEASURED = 3  # steps after which the time for the others is told
PLAIN = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Lines:
    """A text stream to which a bar is redrawn as lines of their own, without carriage returns."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        """Pass a drawn bar on as a line, unless it is the last one again or blank, which wipes a
        bar off a terminal.
        """
        line = text.strip()
        if line not in ("", self._last):
            self.stream.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def progress(iterable: Iterable | None = None, quiet: bool = False, **options: Any) -> tqdm:
    """Return a tqdm bar on stderr, silent if `quiet` and in all but the main process; `options` as
    tqdm's.
    """
    terminal = sys.stderr.isatty()
    if not terminal:
        options |= {
            "file": Lines(sys.stderr),
            "bar_format": PLAIN,
            "position": 0,
            "delay": SECONDS[terminal],
        }

    shown = distributed.is_main() and not quiet
    return tqdm(
        iterable,
        disable=not shown,
        mininterval=SECONDS[terminal],
        dynamic_ncols=terminal,
        **options,
    )


class Pace:
    """How long a number of steps will take, told after a few of them and then ten times on the way.

    The first step is not counted, as much is made ready in it.
    """

    def __init__(self, total: int, step: str) -> None:
        """Begin to count `total` steps; `step` is what one is called."""
        self.total = total
        self.step = step
        self.done = 0
        self._start = 0.0
        self._told = {1 + MEASURED, *(total * tenth // 10 for tenth in range(1, 10))}

    def leave_out(self, seconds: float) -> None:
        """Let time that was spent on something else than steps not count."""
        self._start += seconds

    def count(self, beyond: float = 0.0) -> str | None:
        """Count a step as done; return a sentence on the time left where one is due.

        beyond: seconds of what is left beside these steps, which are said where there are any.
        """
        self.done += 1
        if self.done == 1:
            self._start = time.perf_counter()
        if not MEASURED < self.done < self.total or self.done not in self._told:
            return None

        seconds = (time.perf_counter() - self._start) / (self.done - 1)
        steps = self.total - self.done
        left = _shown(seconds * steps)
        told = f"{seconds:.2f} s per {self.step}, about {left} (h:mm:ss) left for the other {steps}"
        if beyond:
            told += f", {_shown(seconds * steps + beyond)} for the whole run"
        return told


def _shown(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
