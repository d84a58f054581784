"""Progress bars: one line on a terminal, a plain line now and then in a log file, nothing if
quiet.
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from utils.common import distributed

SECONDS = {True: 1, False: 30}  # between two redraws on a terminal, between two lines elsewhere
PLAIN = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Lines:
    """A text stream to which a bar is redrawn as lines of their own, without carriage returns."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self._last = stream, ""

    def write(self, text: str) -> None:
        """Pass a drawn bar on as a line, unless it is the last one again or blank, which wipes a
        bar off a terminal.
        """
        line = text.strip()
        if line not in ("", self._last):
            self.stream.write(f"{line}\n")
            self._last = line

    def flush(self) -> None:
        """As of any stream."""
        self.stream.flush()


def progress(iterable: Iterable | None = None, quiet: bool = False, **options: Any) -> tqdm:
    """tqdm on stderr, silent if `quiet` and in all but the main process; `options` as tqdm's."""
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
