"""Where and how a run executes: device, precision, seeds, and what a process does with errors."""

import contextlib
import functools
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError
from utils.faults import explain

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
    """Wrap an entry point: a user's mistake prints one sentence and exits with 2, a fault of the machine with 1.

    An interrupt, by Ctrl-C or SIGTERM, exits with 130.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            check_imports()
            with _terminating():
                main()
        except UserError as error:
            print(f"error: {sentence(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt as stop:
            kept = "`--resume` continues a training from its last checkpoint"
            print(f"interrupted; what is written is kept: {str(stop) or kept}", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if (said := explain(error)) is None:
                raise
            print(f"error: {said}", file=sys.stderr)
            sys.exit(1)

    return run


@contextlib.contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM, by which batch systems end a job, interrupts as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def heed_parent_only(_: int = 0) -> None:
    """For the start of a loading process: a signal to the whole job is the training process's to answer.

    Where the system tells who sent it, SIGTERM by the training process still ends the loading process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def sentence(error: UserError) -> str:
    """What the error says; one from a data loading process stands at the end of that process's traceback."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is this process's GPU where there is one, else the CPU. Raises UserError for one that is not there."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(found if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is no device known here; use auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    if device.index is None:
        device = torch.device("cuda", local_rank)
    if device.index >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: there is no GPU {device.index} ({torch.cuda.device_count()} seen); "
            "use --device cpu, or no more processes than GPUs"
        )
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
    if device.type == "cuda":  # `is_bf16_supported` also says yes where bf16 is emulated, at a loss
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _cpu_has_bf16()


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bf16 autocast or nothing; refinement of CAMs leaves it again by itself."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(device, precision))


def fetch(value: Tensor) -> Callable[[], Tensor]:
    """Start to bring a tensor to the CPU. The result, when called, waits for that alone and gives the tensor there; a
    GPU goes on with what it is given in between.
    """
    if not value.is_cuda:
        return lambda: value
    host = torch.empty_like(value, device="cpu", pin_memory=True)
    host.copy_(value, non_blocking=True)
    copied = torch.cuda.current_stream(value.device).record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


class StopRequest:
    """While active, the first SIGINT or SIGTERM sets `made` instead of interrupting; the next interrupts at once."""

    def __init__(self) -> None:
        self.made = False
        self._waits = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, the first signal interrupts at once too: for work that is done anew rather than finished."""
        self._waits = False
        try:
            if self.made:
                raise KeyboardInterrupt
            yield
        finally:
            self._waits = True

    def _request(self, *_: object) -> None:
        self.made = True
        self.__exit__()
        if not self._waits:
            raise KeyboardInterrupt


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
