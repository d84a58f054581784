"""Where and how a run executes: device, precision, seeds, and what a process does with errors."""

import contextlib
import functools
import importlib.util
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from utils.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None

ROOT = Path(__file__).resolve().parent.parent


def check_imports() -> None:
    """Refuse to run with another installed package in place of one of this repository's."""
    for name in ("clip", "datasets", "model", "utils"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or ROOT not in Path(spec.origin).resolve().parents:
            where = spec.origin if spec else "nowhere"
            raise UserError(
                f"the package {name} is imported from {where}, not from {ROOT}; run the command inside that folder"
            )


def command(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap an entry point: a user's mistake prints one sentence and exits with 2, an interrupt exits with 130."""

    @functools.wraps(main)
    def run() -> None:
        try:
            check_imports()
            main()
        except UserError as error:
            print(f"error: {sentence(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; `--resume` continues from the last checkpoint", file=sys.stderr)
            sys.exit(130)

    return run


def sentence(error: UserError) -> str:
    """What the error says; one from a data loading process stands at the end of that process's traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is this process's GPU where there is one, else the CPU. Raises UserError for one that is not there."""
    if name == "auto":
        return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is no device known here; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name} is not there ({torch.cuda.device_count()} GPUs seen); use --device cpu or auto"
        )
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", local_rank)
    return device


@functools.cache
def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself; emulated bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def uses_bf16(device: torch.device, precision: str) -> bool:
    """Whether networks run under bf16 autocast: on request, or with `auto` where the device has it."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 autocast or nothing; refinement of CAMs leaves it again by itself."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(device, precision))


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `made` instead of interrupting; the next interrupts at once."""

    def __init__(self) -> None:
        self.made = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _request(self, *_: object) -> None:
        self.made = True
        self.__exit__()


def prepare_torch(threads: int) -> None:
    """Limit PyTorch's CPU threads (0: its own choice) and keep float32 exact.

    Denormals count as zero: slow, they mean nothing here. TF32 is off: the min-max of ViT CAMs magnifies rounding.
    """
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    if threads:
        torch.set_num_threads(threads)


def peak_memory(device: torch.device) -> float:
    """Most memory in use so far, in units of 10^9 bytes: of the GPU by PyTorch, else of the process; nan on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe_environment(device: torch.device) -> str:
    """Versions, device and commit, one `name: value` a line."""
    git = ["git", "rev-parse", "HEAD"]
    found = shutil.which("git") and subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    lines = {
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda or "none",
        "numpy": np.__version__, "platform": platform.platform(), "device": str(device), "gpu": gpu,
        "threads": str(torch.get_num_threads()), "commit": (found or "unknown").strip(),
    }  # fmt: skip
    return "".join(f"{name}: {value}\n" for name, value in lines.items())
