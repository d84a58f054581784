"""Where and how a run executes: device, precision, threads and memory."""

import contextlib
import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils.common.cores import processes_here, usable_cores
from utils.common.errors import UserError
from utils.common.gpu import has_gpu, missing_code
from utils.common.memory import usable_memory
from utils.common.startup import ROOT

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None


# numbers of glibc's mallopt
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MOST_WORKERS = 8  # processes that load data, unless more are asked for
# Bytes that a training process and the one that loads for it take at least: as measured with the
# toy, 1.3 to 1.6 GB and 0.6 GB.
LEAST_MEMORY = 2e9


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of a name; `auto` is this process's GPU where there is one, else the CPU.

    Raises UserError for one that is not there.
    """
    asked = name
    if name == "auto":
        asked = "cuda" if has_gpu(local_rank) else "cpu"

    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None

    if device is not None and device.type == "mps":
        raise UserError(
            f"--device {name} is refused: nothing here was ever tried on Apple's GPUs; use cpu"
        )
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is no device known here; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    if device.index is None:
        device = torch.device("cuda", local_rank)
    seen = torch.cuda.device_count()
    if not seen and not torch.backends.cuda.is_built() and torch.version.hip is None:
        raise UserError(
            f"--device {name}: PyTorch {torch.__version__} is a build for the CPU alone; install "
            "one for GPUs in its place, or use --device cpu"
        )
    if device.index >= seen:
        raise UserError(
            f"--device {name}: there is no GPU {device.index} ({seen} seen); "
            "use --device cpu, or no more processes than GPUs"
        )
    if said := missing_code(device.index):
        raise UserError(f"--device {name} cannot be used: {said}; or use --device cpu")

    return device


@functools.cache
def _cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bf16 itself; emulated bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def uses_bf16(device: torch.device, precision: str) -> bool:
    """Return whether networks run under bf16 autocast: on request, or with `auto` where the device
    has it.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":  # `is_bf16_supported` also says yes where bf16 is emulated, at a loss
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _cpu_has_bf16()


def used_precision(device: torch.device, precision: str) -> str:
    """Return the name of the precision in which networks run, "bf16" or "fp32"."""
    if uses_bf16(device, precision):
        return "bf16"
    return "fp32"


def loading_processes(workers: int) -> int:
    """Return how many processes load data: as many as asked for, for -1 one per core that this
    process may use, at most 8; several training processes on a machine share its cores.
    """
    if workers >= 0:
        return workers
    return max(1, min(MOST_WORKERS, usable_cores() // processes_here()))


def usual_processes(device: str, threads: int, *batch_sizes: int) -> int:
    """Return the number of processes of a training for which none is given: one on a GPU; on a CPU
    the largest of 1, 2 and 4 that divides every batch size and leaves each its `threads` (0: those
    of OMP_NUM_THREADS, or one) and the memory that the smallest training takes.

    Most operations are too small to be shared between threads, while processes meet once per step.
    A device that has a number is for one process, and so is what a batch system started.
    """
    on_gpu = device.startswith("cuda") or (device == "auto" and has_gpu(0))
    if on_gpu or ":" in device or os.environ.get("WORLD_SIZE", "1") != "1":
        return 1

    each = threads or 1
    if not threads and os.environ.get("OMP_NUM_THREADS"):
        each = torch.get_num_threads()

    possible = [1]
    for count in (2, 4):
        shared = not any(size % count for size in batch_sizes)
        room = count * each <= usable_cores() and count * LEAST_MEMORY <= usable_memory()
        if shared and room:
            possible.append(count)
    return possible[-1]


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """Return bf16 autocast or nothing; refinement of CAMs leaves it again by itself."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(device, precision))


def fetch(value: Tensor) -> Callable[[], Tensor]:
    """Start to bring a tensor to the CPU. The result, when called, by any thread, waits for that
    alone and gives the tensor there; a GPU goes on with what it is given in between.
    """
    if not value.is_cuda:
        return lambda: value
    device = value.device
    host = torch.empty_like(value, device="cpu", pin_memory=True)
    host.copy_(value, non_blocking=True)
    copied = torch.cuda.current_stream(device).record_event()

    def wait() -> Tensor:
        """Wait for the copy, and return it."""
        with torch.cuda.device(device):  # a thread begins with GPU 0, and would take memory there
            copied.synchronize()
        return host

    return wait


def synchronise(device: torch.device) -> None:
    """Wait for a GPU; nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def keep_freed_memory() -> None:
    """Let glibc keep up to 512 MB that is freed, in blocks of up to 64 MB, for the next use.

    By default it gives them back, and the system fills them with zeros at the next use: a tenth of
    a test image's time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 512 << 20)
        mallopt(M_MMAP_THRESHOLD, 64 << 20) or mallopt(M_MMAP_THRESHOLD, 32 << 20)  # older: 32


def prepare_torch(threads: int, keeps_memory: bool = True) -> None:
    """Limit PyTorch's CPU threads (0: its own choice) and keep float32 exact; `keeps_memory`: by
    `keep_freed_memory`.

    Denormals count as zero: slow, they mean nothing here. TF32 is off: the min-max of ViT CAMs
    magnifies rounding.
    """
    if keeps_memory:
        keep_freed_memory()
    for kind in (np.float32, np.float64):
        np.finfo(kind)  # NumPy 1 measures numbers at the first call, and warns of denormals lost
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    if threads:
        torch.set_num_threads(threads)


def peak_gigabytes(device: torch.device) -> float:
    """Return the most memory in use so far, in units of 10^9 bytes: of the GPU by PyTorch, else of
    the process; nan on Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe_environment(device: torch.device) -> str:
    """Return versions, device and commit, one `name: value` per line."""
    git = ["git", "rev-parse", "HEAD"]
    found = (
        shutil.which("git")
        and (ROOT / ".git").exists()  # else git tells of a repository around this folder
        and subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    )
    gpu = "none"
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)

    lines = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "gpu": gpu,
        "threads": str(torch.get_num_threads()),
        "commit": (found or "unknown").strip(),
    }

    return "".join(f"{name}: {value}\n" for name, value in lines.items())


class _Unfilled(TorchFunctionMode):
    """Leaves out the drawing of values; on "meta" it does nothing but import PyTorch's compiler."""

    def __torch_function__(
        self, function: Any, _: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in ("normal_", "uniform_"):
            if "tensor" in kwargs:
                return kwargs["tensor"]
            return args[0]
        return function(*args, **kwargs)


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """Build modules whose tensors have a shape and a type and take no memory, to be given their
    values from a file by `load_state_dict(..., assign=True)`.
    """
    with torch.device("meta"), _Unfilled():
        yield
