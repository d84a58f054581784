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


def follow_parent(_: int = 0) -> None:
    """Make a helper process ignore signals to the whole job, and end with its parent.

    Ctrl-C and a batch system's SIGTERM reach every process of a job; the parent answers them. Where
    the system tells who sent a SIGTERM, one from the parent still ends this process. It also ends
    when the parent does, however that happens.

    Called at the start of a process of `multiprocessing`; the argument is the number that a
    `DataLoader` gives to `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `made` instead of interrupting; the next
    interrupts at once.
    """

    def __init__(self) -> None:
        self.made = False
        self._waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._request)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, the first signal interrupts at once too: for work that is done anew rather than
        finished.
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
        self.__exit__()
        if not self._waits:
            raise KeyboardInterrupt
