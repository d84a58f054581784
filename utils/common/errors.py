"""The one exception that stands for a user's mistake, and the hint at what was meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, in one sentence that names the file or flag, the value and the fix.

    Entry points print it and exit with status 2.
    """


def nearest(name: str, among: Iterable[str], cutoff: float = 0.6) -> str:
    """Return `, did you mean 'x'?` for a name that is like one of `among`, or nothing."""
    close = difflib.get_close_matches(name, list(among), n=1, cutoff=cutoff)
    if not close:
        return ""
    return f", did you mean {close[0]!r}?"
