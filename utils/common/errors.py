"""The one exception that stands for a user's mistake, the hint at what was meant, and exit
statuses.
"""

from __future__ import annotations  # a Python that is too old shall get this far

import difflib
from collections.abc import Iterable

# Exit statuses, beside 0 and 1, which is a fault of the machine or a bug.
MISTAKE = 2  # of the user
INTERRUPTED = 130
LEFT_ALONE = 3  # another of several processes has failed, and knows why


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
