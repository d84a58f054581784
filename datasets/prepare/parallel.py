"""The same work on many files, in several processes, with progress."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from utils.common.cores import usable_cores
from utils.common.errors import UserError
from utils.common.progress import progress
from utils.common.signals import follow_parent

Each = Callable[..., Iterator[Any]]
_CHUNK = 16  # jobs that travel to a process together


def add_workers(add: Callable[..., Any], alone: str = "in this one") -> None:
    """Add the flag that says how many processes work, by a parser's `add_argument`; `alone` says
    where none means.
    """
    add(
        "--workers",
        type=int,
        default=usable_cores(),
        help=f"processes; 0: {alone} (default: %(default)s)",
    )


def require_workers(workers: int) -> None:
    """Raise UserError on a negative number of processes."""
    if workers < 0:
        raise UserError(f"--workers {workers} must not be negative; 0 works in this process")


@contextmanager
def crew(workers: int) -> Iterator[Each]:
    """Start `workers` processes (0: none, work is done here) and give `each(function, jobs,
    title)`.

    `each` yields function(job) of every job, in their order, under a progress bar; it passes on the
    first exception and drops what is left. The processes start at once: what the caller loads later
    is in none of them. Raises UserError on a negative number, and when one of them is ended from
    outside.
    """
    require_workers(workers)
    if workers == 0:
        yield _here
        return

    with ProcessPoolExecutor(workers, initializer=_begin) as pool:
        pool.submit(os.getpid).result()
        try:
            yield partial(_spread, pool)
        except BrokenProcessPool as error:
            raise UserError(
                "a working process was ended from outside, perhaps for want of memory; run the "
                "command again with fewer --workers"
            ) from error


def _begin() -> None:
    """Begin a process of a crew: it follows its parent, and computes in one thread, as its share of
    the cores and since it may have been forked from one of several.
    """
    follow_parent()
    torch.set_num_threads(1)


def _here(function: Callable, jobs: Sequence, title: str = "") -> Iterator[Any]:
    return map(function, progress(jobs, desc=title))


def _spread(
    pool: ProcessPoolExecutor, function: Callable, jobs: Sequence, title: str = ""
) -> Iterator[Any]:
    return iter(progress(pool.map(function, jobs, chunksize=_CHUNK), desc=title, total=len(jobs)))
