"""What a process does when it is asked to end, by Ctrl-C, by a batch system, or by the end of its
parent.
"""

import contextlib
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

# Signals that ask a process to end, beside SIGINT and SIGTERM: a terminal that closed, the warning
# that batch systems send some time before they kill, and the end of the processor time.
_WARNINGS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def ending_signals() -> list[signal.Signals]:
    """Return signals of this system that ask a process to end; SIGHUP not where `nohup` has it
    ignored.
    """
    there = [getattr(signal, name) for name in _WARNINGS if hasattr(signal, name)]
    heeded = [number for number in there if signal.getsignal(number) != signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *heeded]


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let every signal that asks to end interrupt within as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.default_int_handler) for number in ending_signals()
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent(_: int = 0) -> None:
    """Make a helper process ignore signals to the whole job, and end with its parent.

    Ctrl-C and a batch system's SIGTERM reach every process of a job; the parent answers them. Where
    the system tells who sent a SIGTERM, one from the parent still ends this process. It also ends
    when the parent does, however that happens.

    Called at the start of a process of `multiprocessing`; the argument is the number that a
    `DataLoader` gives to `worker_init_fn`.
    """
    for name in ("SIGINT", *_WARNINGS):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    if hasattr(signal, "sigwaitinfo"):
        # before any thread starts, as each must have it blocked
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        sender = os.getppid() if parent is None else parent.pid
        threading.Thread(target=_end_when_told_by, args=(sender,), daemon=True).start()

    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_when_told_by(sender: int) -> None:
    """Wait for a SIGTERM of that process, then end this one."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)


def _end_after(sentinel: int) -> None:
    """Wait for the end of the process with that sentinel, then end this one."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


_active: "list[StopRequest]" = []


def stop_asked() -> bool:
    """Return whether a request to stop has been made that is not answered yet."""
    return any(request.made for request in _active)


class StopRequest:
    """While active, the first signal that asks to end sets `made` instead of interrupting; the next
    interrupts at once.
    """

    def __init__(self) -> None:
        self.made = False
        self._waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._request) for number in ending_signals()
            }
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        _active.remove(self)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let the first signal interrupt at once too, within: for work that is done anew rather
        than finished.
        """
        self._waits = False
        try:
            if self.made:
                raise KeyboardInterrupt
            yield
        finally:
            self._waits = True

    def _request(self, *_: object) -> None:
        self.made = True
        self._restore()
        if not self._waits:
            raise KeyboardInterrupt
