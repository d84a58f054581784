"""Installed packages that are older than a requirements file asks for.

This imports the standard library alone, as the set-up script asks here before anything is there.
"""

from __future__ import annotations  # a Python that is too old shall get this far

import re
from collections.abc import Iterator
from pathlib import Path

_BOUND = re.compile(r"([\w.-]+)>=([\d.]+)")


def too_old(file: Path | str) -> Iterator[str]:
    """Yield what to say of each package that is older than a requirements file asks for.

    One that is not installed, that another package stands in for, or whose installation tells no
    version is passed over.
    """
    for package, oldest in _bounds(file).items():
        found = _installed(package)
        if found and _numbers(found) < _numbers(oldest):
            yield f"{package} {found} is installed, {oldest} or newer is needed"


def _installed(package: str) -> str:
    """Return the version of the package that is imported; "" where nothing tells it.

    An update may leave the records of an older version in the same folder, and a build without a
    version calls itself 0.
    """
    from importlib.metadata import distributions  # not in Python 3.7

    records = list(distributions(name=package))
    found = [
        record.version
        for record in records
        if record.locate_file("") == records[0].locate_file("") and record.version
    ]
    newest = max(found, key=_numbers, default="")
    return "" if _numbers(newest)[:1] in ([], [0]) else newest


def _bounds(file: Path | str) -> dict[str, str]:
    """Return the oldest version of each package for which a requirements file names one."""
    file = Path(file)
    if not file.is_file():  # the packages were copied without it
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return {match[1]: match[2] for match in map(_BOUND.match, lines) if match}


def _numbers(version: str) -> list[int]:
    """Return the numbers that a version begins with, without what follows, as `+cpu` or `a0`."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
    while numbers and numbers[-1] == 0:  # 10.1.0 is 10.1
        numbers.pop()
    return numbers
