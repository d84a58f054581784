"""How much main memory further processes may take."""

import math
from pathlib import Path

_MACHINE = Path("/proc/meminfo")  # in kB
# What a container may use and uses, in cgroups of version 2 and 1: the folder, a file of each, and
# what `memory.stat` calls pages of files that give way; "max" or a huge number is no bound.
_CONTAINERS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def usable_memory() -> float:
    """Return the bytes that are left to further processes on this machine and in this container;
    infinite where the system does not tell.
    """
    return min(_left_on_machine(), *(_left_in(*names) for names in _CONTAINERS))


def _left_on_machine() -> float:
    told = _numbers(_MACHINE).get("MemAvailable:")
    if told is None:
        return math.inf
    return 1024 * told


def _left_in(folder: Path, bound: str, used: str, giving_way: str) -> float:
    try:
        most, taken = (int((folder / name).read_text()) for name in (bound, used))
    except (OSError, ValueError):  # ValueError: "max"
        return math.inf
    return most - taken + _numbers(folder / "memory.stat").get(giving_way, 0)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines such as `name 12`, by name; none without the file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if words[1:] and words[1].isdecimal()}
