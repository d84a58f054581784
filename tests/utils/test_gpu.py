"""A GPU that PyTorch cannot use, simulated by a driver's file or tool: an error where a run would
take days, a warning on the toy, nothing where PyTorch was built without CUDA.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from utils.common import gpu
from utils.common.device import choose_device
from utils.common.errors import UserError

CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 19 01:15:15 UTC 2023\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (a@b)\n"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a driver, whose PyTorch is for CUDA 13.0; the folder of its tools."""
    monkeypatch.setattr(gpu, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


def install(machine: Path, version: str, text: str = CLOSED) -> None:
    """Leave the file of a loaded driver."""
    (machine / "version").write_text(text.format(version) + "GCC version:  gcc version 12.3.0\n")


def answer(machine: Path, text: str, status: int = 0) -> None:
    """Leave an nvidia-smi that says this."""
    tool = machine / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{text}'\nexit {status}\n")
    tool.chmod(0o755)


@pytest.mark.parametrize("text", [CLOSED, OPEN])
def test_an_old_driver_is_an_error_where_a_run_would_take_days(machine: Path, text: str) -> None:
    install(machine, "535.104.05", text)
    with pytest.raises(UserError) as raised:
        gpu.check_gpu("auto", full_size=True)
    said = str(raised.value)
    assert "its driver is 535.104.05, but torch" in said
    assert "built for CUDA 13.0, which needs driver 580 or newer; update the driver" in said
    assert f"install a build for CUDA 12 ({gpu.INSTALL_PAGE}); or go on" in said
    assert said.endswith("by --device cpu")
    assert gpu.check_gpu("cpu", full_size=True) == ""


def test_on_the_toy_it_is_a_warning(machine: Path) -> None:
    answer(machine, "470.57.02")
    said = gpu.check_gpu("auto", full_size=False)
    assert said.startswith("warning: this machine has an NVIDIA GPU that PyTorch cannot use")
    assert "install a build for CUDA 11" in said and said.endswith("; going on on the CPU")


def test_without_cuda_a_gpu_or_a_wish_for_one_nothing_is_said(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.check_gpu("auto", full_size=True) == ""  # no driver at all
    answer(machine, "No devices were found", status=6)
    assert gpu.check_gpu("auto", full_size=True) == ""

    install(machine, "535.104.05")
    with monkeypatch.context() as hidden:
        hidden.setenv("CUDA_VISIBLE_DEVICES", "")
        assert gpu.check_gpu("auto", full_size=True) == ""
    with monkeypatch.context() as built:
        built.setattr(torch.version, "cuda", None)
        assert gpu.check_gpu("auto", full_size=True) == ""
    with monkeypatch.context() as works:
        works.setattr(torch.cuda, "is_available", lambda: True)
        assert gpu.check_gpu("auto", full_size=True) == ""


def test_a_driver_that_does_not_answer_is_told(machine: Path) -> None:
    answer(machine, "Failed to initialize NVML: Driver/library version mismatch", status=18)
    assert "version mismatch; mend the driver" in gpu.unusable_gpu()
    assert "mend it" in gpu.setup_note()


def test_where_the_driver_is_new_enough_pytorch_says_the_reason(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError("CUDA unknown error.\nmore")

    install(machine, "590.1")
    monkeypatch.setattr(torch.cuda, "init", init)
    assert "says: CUDA unknown error; its driver 590.1 is not too old" in gpu.unusable_gpu()


@pytest.mark.parametrize(
    ("cards", "old"),
    [("6.1", "6.1"), ("8.6\n7.0", "7.0"), ("7.5", ""), ("10.3\n12.0", ""), ("N/A", "")],
)
def test_the_set_up_says_which_build_has_code_for_an_old_card(
    cards: str, old: str, machine: Path
) -> None:
    install(machine, "580.65.06")
    answer(machine, cards)
    said = gpu.setup_note()
    if old:
        assert f"capability {old}, for which PyTorch's default build has no code" in said
        assert "put a build for CUDA 12.6 into the environment first" in said
    else:
        assert said == "NVIDIA driver 580.65.06 runs PyTorch's default build\n"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put one GPU into the machine, of a compute capability, for a build with code for others."""

    def put(capability: tuple[int, int], *built: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(built))

    return put


# of PyTorch's default build for Linux, and of the one for CUDA 12.6
DEFAULT = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
FOR_OLD = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


@pytest.mark.parametrize(
    ("capability", "built", "remedy"),
    [
        ((6, 1), DEFAULT, "has code for 7.5 to 12.0; install a build for CUDA 12.6"),
        ((7, 0), DEFAULT, "install a build for CUDA 12.6"),
        ((12, 0), FOR_OLD, "has code for 5.0 to 9.0; install a newer PyTorch"),
        ((8, 0), ("sm_75", "sm_86"), "install a newer PyTorch"),
    ],
)
def test_a_card_without_code_is_no_gpu(
    capability: tuple[int, int],
    built: tuple[str, ...],
    remedy: str,
    card: Callable[..., None],
) -> None:
    card(capability, *built)
    with pytest.raises(UserError, match="a card has compute capability") as raised:
        gpu.check_gpu("auto", full_size=True)
    assert remedy in str(raised.value)

    assert remedy in gpu.check_gpu("auto", full_size=False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="--device cuda cannot be used: a card has") as raised:
        choose_device("cuda")
    assert remedy in str(raised.value)


@pytest.mark.parametrize(
    ("capability", "built"),
    [
        ((6, 1), FOR_OLD),
        ((7, 5), DEFAULT),
        ((8, 9), DEFAULT),
        ((9, 0), ("sm_80", "sm_90a")),
        ((12, 1), DEFAULT),
        ((13, 0), DEFAULT),
        ((8, 6), ()),
        ((8, 6), ("gfx90a",)),
    ],
)
def test_a_card_with_code_is_used(
    capability: tuple[int, int], built: tuple[str, ...], card: Callable[..., None]
) -> None:
    card(capability, *built)
    assert gpu.check_gpu("auto", full_size=True) == ""
    assert choose_device("auto") == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("580.65.06", "NVIDIA driver 580.65.06 runs PyTorch's default build\n"),
        ("550.54.14", "(they need driver 580): update the driver, or put a build for CUDA 12 into"),
        ("390.157", "or put an older PyTorch into the environment first, as https://pytorch.org/"),
    ],
)
def test_the_set_up_says_which_build_fits(machine: Path, version: str, said: str) -> None:
    assert gpu.setup_note() == ""
    install(machine, version)
    assert said in gpu.setup_note()
