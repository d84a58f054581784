"""How many cores there are to work on, and how many processes of a training share them."""

import os
from pathlib import Path

# What a container may use, in cgroups of version 2 and 1: a quota and the period it is of, in
# microseconds; "max" or -1 is no bound.
_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *_bounds()]))


def _bounds() -> list[int]:
    """Return the numbers of cores that the container's quotas come to, rounded up."""
    bounds = []
    for files in _QUOTAS:
        try:
            quota, period = " ".join(file.read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdecimal() and period.isdecimal() and int(period):
            bounds.append(-(-int(quota) // int(period)))
    return bounds


def processes_here() -> int:
    """Return how many processes of this training or test share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
