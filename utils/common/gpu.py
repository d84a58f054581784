"""An NVIDIA GPU that PyTorch cannot use: found by its driver, and told with what would help.

The set-up script asks here too, before PyTorch is there; so it is imported only where it is needed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from utils.common.errors import UserError

# Oldest driver that runs builds of a CUDA version, newest version first, by NVIDIA's page
DRIVERS_PAGE = "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
OLDEST_DRIVER = {13: 580, 12: 525, 11: 450}
INSTALL_PAGE = "https://pytorch.org/get-started/locally/"
TURING = (7, 5)  # compute capability
# The last CUDA whose builds of PyTorch have code for cards before Turing
LAST_FOR_OLD_CARDS = "12.6"  # https://github.com/pytorch/pytorch/issues/172352

DRIVER_FILE = Path("/proc/driver/nvidia/version")
SECONDS = 20  # that nvidia-smi may take
# What a build has code for, such as sm_86 and sm_90a, or compute_120, compiled when it is used
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?")


class Driver(NamedTuple):
    """The NVIDIA driver of this machine: its version, or "" and what is wrong with it."""

    version: str
    trouble: str = ""

    @property
    def major(self) -> int:
        """Return the number that decides what it runs."""
        return int(self.version.split(".")[0])


def find_driver() -> Driver | None:
    """Return the driver of a machine with an NVIDIA GPU; None where there is no sign of one."""
    if DRIVER_FILE.is_file():
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", DRIVER_FILE.read_text(errors="replace"))
        if found:
            return Driver(found[0])

    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        first = _asked(tool, "driver_version").partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        return Driver("", f"nvidia-smi does not answer ({type(error).__name__})")

    if re.fullmatch(r"\d{3,}(\.\d+)+", first):
        return Driver(first)
    if not first or "No devices" in first:
        return None
    return Driver("", f"nvidia-smi says: {first}")


def _asked(tool: str, what: str) -> str:
    """Return what nvidia-smi says of each GPU, line by line. Raises OSError and TimeoutExpired."""
    ask = [tool, f"--query-gpu={what}", "--format=csv,noheader"]
    done = subprocess.run(ask, capture_output=True, text=True, timeout=SECONDS, check=False)
    return (done.stdout + done.stderr).strip()


def oldest_card() -> tuple[int, int] | None:
    """Return the compute capability of this machine's oldest NVIDIA GPU; None where it is not told,
    as by old drivers.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        said = _asked(tool, "compute_cap")
    except (OSError, subprocess.TimeoutExpired):
        return None
    cards = [re.fullmatch(r"(\d+)\.(\d)", line.strip()) for line in said.splitlines()]
    return min(((int(card[1]), int(card[2])) for card in cards if card), default=None)


def fitting_build(driver: Driver) -> str:
    """Return which build of PyTorch a driver runs, as a sentence; PyTorch need not be there."""
    newest, needed = next(iter(OLDEST_DRIVER.items()))
    if driver.trouble:
        return f"this machine has an NVIDIA driver that does not work ({driver.trouble}); mend it"
    if driver.major >= needed:
        return f"NVIDIA driver {driver.version} runs PyTorch's default build"

    return (
        f"NVIDIA driver {driver.version} is too old for builds for CUDA {newest}, as PyTorch's "
        f"default build is (they need driver {needed}): update the driver, or put "
        f"{_build_for(driver)} into the environment first, as {INSTALL_PAGE} shows"
    )


def _build_for(driver: Driver) -> str:
    """Return the newest build of PyTorch that an old driver runs, in words."""
    for cuda, oldest in OLDEST_DRIVER.items():
        if driver.major >= oldest:
            return f"a build for CUDA {cuda}"
    return "an older PyTorch"


def setup_note() -> str:
    """Return what the set-up script says before it installs PyTorch; "" without a GPU."""
    driver = find_driver()
    if not driver:
        return ""

    card = oldest_card()
    if card is not None and card < TURING:
        return (
            f"an NVIDIA GPU of this machine has compute capability {card[0]}.{card[1]}, for which "
            f"PyTorch's default build has no code: put a build for CUDA {LAST_FOR_OLD_CARDS} into "
            f"the environment first, as {INSTALL_PAGE} shows\n"
        )
    return f"{fitting_build(driver)}\n"


def missing_code(index: int) -> str:
    """Return why PyTorch has no code for the card of GPU `index`, and the fix; "" where it has, and
    where there is no such GPU or the build does not tell what it has code for.

    Such a card is seen by PyTorch, and the first operation on it fails.
    """
    import torch

    if index >= torch.cuda.device_count():
        return ""
    found = [_ARCHITECTURE.fullmatch(name) for name in torch.cuda.get_arch_list()]
    built = [(each[1], (int(each[2]), int(each[3]))) for each in found if each]
    if not built:
        return ""

    # code for a card runs on later ones of the same major version, what is compiled on all later
    card = torch.cuda.get_device_capability(index)
    runs = [code <= card and (kind == "compute" or code[0] == card[0]) for kind, code in built]
    if any(runs):
        return ""

    oldest, newest = (".".join(map(str, end([code for _, code in built]))) for end in (min, max))
    remedy = "install a newer PyTorch"
    if card < min(code for _, code in built):
        remedy = (
            f"install a build for CUDA {LAST_FOR_OLD_CARDS}, the last with code for older cards"
        )
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {card[0]}.{card[1]}, and "
        f"torch {torch.__version__} has code for {oldest} to {newest}; {remedy} ({INSTALL_PAGE})"
    )


def has_gpu(index: int) -> bool:
    """Return whether PyTorch sees GPUs and has code for the card of GPU `index`."""
    import torch

    return torch.cuda.is_available() and not missing_code(index)


def unusable_gpu() -> str:
    """Return why PyTorch cannot use the GPU of this machine, and the fix; "" where it can, where
    there is none or it is hidden on purpose, and where PyTorch was built without CUDA.
    """
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if torch.version.cuda is None or hidden:
        return ""
    head = "this machine has an NVIDIA GPU that PyTorch cannot use: "
    if torch.cuda.is_available():
        said = missing_code(0)
        return f"{head}{said}" if said else ""
    driver = find_driver()
    if driver is None:
        return ""

    if driver.trouble:
        return f"{head}{driver.trouble}; mend the driver"
    needed = OLDEST_DRIVER.get(int(torch.version.cuda.split(".")[0]))
    if needed is None or driver.major >= needed:
        return (
            f"{head}torch {torch.__version__} says: {_reason()}; its driver {driver.version} is "
            f"not too old, so look there first, then at {INSTALL_PAGE}"
        )

    return (
        f"{head}its driver is {driver.version}, but torch {torch.__version__} is built for CUDA "
        f"{torch.version.cuda}, which needs driver {needed} or newer; update the driver, or "
        f"install {_build_for(driver)} ({INSTALL_PAGE})"
    )


def check_gpu(device: str, full_size: bool) -> str:
    """Return a warning where `--device auto` will be the CPU although there is a GPU; "" if not.

    Raises UserError instead for networks of full size, which would take days.
    """
    if device != "auto":
        return ""

    said = unusable_gpu()
    if not said:
        return ""
    if full_size:
        raise UserError(f"{said}; or go on without it by --device cpu")
    return f"warning: {said}; going on on the CPU"


def _reason() -> str:
    """Return PyTorch's own words on why it cannot use CUDA."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0].rstrip(".")
    return "no GPU is visible"
