"""The lock that keeps a folder to one run."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from utils.common import distributed
from utils.common.disk import Held, locked
from utils.common.errors import UserError

LOCK = ".lock"
# seconds; loading processes of a killed run hold its lock until they notice, 5 s at most
PATIENCE = 12.0


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` for this run: of several processes the first does, and the claim dies with it.
    Raises UserError where another run holds it.
    """
    if not distributed.is_main():
        yield
        return

    try:
        with locked(folder / LOCK, PATIENCE):
            yield
    except Held:
        raise UserError(
            f"the folder {folder} is in use by another process; wait for its end or name another"
        ) from None


@contextlib.contextmanager
def claimed_to_write(folder: Path) -> Iterator[None]:
    """Hold a folder as `claimed` does, unless this user can write nothing in it: then what is there
    already may be looked at by any number of processes.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        yield
        return
    with claimed(folder):
        yield
