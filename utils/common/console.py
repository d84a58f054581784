"""Printing that never ends a run, whatever the name, the pipe, the terminal or the disk; and notes
that are printed once.
"""

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from torch.utils.data import get_worker_info
from tqdm import tqdm

from utils.common.signals import stop_asked

_PIECE = 400  # characters, which are less than the bytes that a pipe with room takes at once
_LOOK_EVERY = 0.2  # seconds between two looks whether the process is asked to end


class Lasting:
    """A text stream that drops what cannot be written, and everything after that.

    What a stream's encoding lacks is written as an escape, such as \\u5199.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_file = _is_file(stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write as to any stream, without errors; a reader who is slow is waited for until a signal
        asks this process to end.
        """
        with self._dropping():
            for start in range(0, len(text), _PIECE):
                self._wait()
                self._stream.write(text[start : start + _PIECE])
                self._stream.flush()
        return len(text)

    def _wait(self) -> None:
        """Wait until there is room for a piece. Raises BlockingIOError where the process is to
        end.
        """
        while self._is_file and not select.select([], [self._stream], [], _LOOK_EVERY)[1]:
            if stop_asked():
                raise BlockingIOError

    def flush(self) -> None:
        """Flush as any stream, without errors."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let the stream lead nowhere where the other end is gone, for libraries too."""
        try:
            yield
        except BlockingIOError:  # a reader who is slow; what there is no room for is dropped
            pass
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


def _is_file(stream: TextIO) -> bool:
    """Return whether the system can tell when there is room to write."""
    try:
        return os.name == "posix" and stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Let nothing that is printed within to standard output or error end the process."""
    _open_closed_streams()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Lasting(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed_streams() -> None:
    """Let standard streams that were closed before the start lead nowhere, so that no file that is
    opened later takes their number and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="utf-8"))


_said: set[str] = set()


def say_once(kind: str, sentence: str) -> None:
    """Print a note to standard error unless this command has printed one of this kind.

    Of several loading processes, which do the same work, the first alone prints.
    """
    worker = get_worker_info()
    if kind in _said or (worker is not None and worker.id):
        return
    _said.add(kind)
    tqdm.write(f"note: {sentence}", file=sys.stderr)


def begin_notices() -> None:
    """Forget what has been said: a new command begins."""
    _said.clear()
