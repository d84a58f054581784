"""What a process does when it is asked to end, by Ctrl-C, by a batch system, or by the end of its
parent.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


def heed_parent_only(_: int = 0) -> None:
    """For the start of a loading process: a signal to the whole job is the training process's to
    answer.

    Where the system tells who sent it, SIGTERM by the training process still ends the loading
    process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


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
