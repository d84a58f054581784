"""What is said once per command, on stderr, however often it happens."""

import sys

from tqdm import tqdm

_said: set[str] = set()
_silent = False


def say_once(kind: str, sentence: str) -> None:
    """Print a note unless one of this kind has been printed by this command already."""
    if kind in _said or _silent:
        return
    _said.add(kind)
    tqdm.write(f"note: {sentence}", file=sys.stderr)


def begin_notices() -> None:
    """Forget what has been said: a new command begins."""
    _said.clear()


def leave_notices_to_others() -> None:
    """Say nothing in this process, one of several that do the same work."""
    global _silent
    _silent = True
