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

    One that is not installed, or that another package stands in for, is passed over.
    """
    from importlib.metadata import PackageNotFoundError, version  # not in Python 3.7

    for package, oldest in _bounds(file).items():
        try:
            found = version(package)
        except (PackageNotFoundError, KeyError):  # the latter of a damaged installation
            continue
        if found and _numbers(found) < _numbers(oldest):
            yield f"{package} {found} is installed, {oldest} or newer is needed"


def _bounds(file: Path | str) -> dict[str, str]:
    """Return the oldest version of each package for which a requirements file names one."""
    file = Path(file)
    if not file.is_file():  # the packages were copied without it
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for match in map(_BOUND.match, lines) if match}


def _numbers(version: str) -> list[int]:
    """Return the numbers that a version begins with, without what follows, as `+cpu` or `a0`."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
    while numbers and numbers[-1] == 0:  # 10.1.0 is 10.1
        numbers.pop()
    return numbers
