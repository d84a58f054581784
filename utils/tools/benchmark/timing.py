"""Measuring: median times, two settings in turns, peak memory, where a step spends its time."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from utils.common.device import peak_gigabytes, synchronise

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Medians over repeats: `seconds` by the clock, `cpu` seconds of all threads.

    spread: (longest - shortest) / median of the seconds.
    """

    seconds: float
    cpu: float
    spread: float


def measure(works: Sequence[Work], repeats: int, device: torch.device) -> list[Timing]:
    """Time each work `repeats` times after one warm-up, in turns (A B A B ...), so that all meet
    the same machine.
    """
    for work in works:
        work()
    samples: list[list[tuple[float, float]]] = [[] for _ in works]
    for _ in range(repeats):
        for work, taken in zip(works, samples):
            taken.append(_once(work, device))
    return [_summary(taken) for taken in samples]


def _once(work: Work, device: torch.device) -> tuple[float, float]:
    synchronise(device)
    clock = time.perf_counter()
    cpu = time.process_time()
    work()
    synchronise(device)
    return time.perf_counter() - clock, time.process_time() - cpu


def _summary(taken: list[tuple[float, float]]) -> Timing:
    seconds, cpu = ([sample[column] for sample in taken] for column in (0, 1))
    middle = statistics.median(seconds)
    return Timing(middle, statistics.median(cpu), (max(seconds) - min(seconds)) / middle)


def peak_memory(work: Work, device: torch.device) -> int:
    """Measure peak memory in bytes: what PyTorch holds of a GPU, with the memory of CUDA graphs, or
    the resident size of the process.

    Where the system does not forget an earlier peak, that counts too; 0 where it tells none.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_reserved(device)

    reset = Path("/proc/self/clear_refs")  # Linux forgets the peak so far
    if reset.exists():
        with contextlib.suppress(OSError):  # where only the system's owner may
            reset.write_text("5")

    work()
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    most = peak_gigabytes(device)
    if math.isnan(most):
        return 0
    return round(1e9 * most)


def stages(work: Work, names: Sequence[str], device: torch.device) -> dict[str, dict[str, float]]:
    """Measure seconds and GFLOP (linear layers, other matrix products, convolutions) of the
    `record_function` ranges so named.

    "rest" is what lies outside them: backward, update, transfers. A range is timed on the device
    that does its work.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)

    work()
    with profile(activities=activities, with_flops=True) as record:
        clock = time.perf_counter()
        work()
        synchronise(device)
        whole = time.perf_counter() - clock

    found = {name: {"seconds": 0.0, "gflop": 0.0} for name in names}
    for event in record.events():
        if event.name in found and event.device_type == torch.autograd.DeviceType.CPU:
            found[event.name]["seconds"] += _microseconds(event, device) / 1e6
            found[event.name]["gflop"] += _flops(event) / 1e9

    rest = whole - sum(stage["seconds"] for stage in found.values())
    return {**found, "rest": {"seconds": rest, "gflop": 0.0}}


def _microseconds(event: FunctionEvent, device: torch.device) -> float:
    if device.type != "cuda":
        return event.cpu_time_total
    # the older name up to PyTorch 2.4
    return getattr(event, "device_time_total", None) or event.cuda_time_total


def _flops(event: FunctionEvent) -> float:
    return (event.flops or 0) + sum(_flops(child) for child in event.cpu_children)
