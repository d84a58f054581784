"""Whole pieces of work on the CPU's threads, where operations are too small to be shared."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def each_on_a_thread(work: Callable[..., Any], *inputs: Iterable) -> list:
    """Apply a function to every item, as `map` does, an item per thread at a time.

    PyTorch's operations within `work` are not shared between threads: a shared one is as late as
    the last of its threads, which for an operation of microseconds on a busy machine is a hundred
    times its own time. Gradients are not followed into `work`, nor does autocast reach it.
    """

    @torch.no_grad()
    def done(item: tuple) -> Any:
        return work(*item)

    items = list(zip(*inputs, strict=True))
    threads = torch.get_num_threads()
    if threads == 1:  # here, where memory that was freed is at hand
        with torch.autocast("cpu", enabled=False):
            return [done(item) for item in items]

    try:
        with ThreadPoolExecutor(
            max(1, min(threads, len(items))), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(done, items))
    finally:
        torch.set_num_threads(threads)  # a thread that sets its own also sets that of later ones
