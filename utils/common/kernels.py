"""Which of two ways a device takes: Triton kernels of our own, or operations of PyTorch."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

Way = TypeVar("Way")


def kernel_or_operations(
    name: str, device: torch.device, kernel: Callable[[torch.device], Way], operations: Way
) -> Way:
    """Return what `kernel` gives for a GPU once it has tried it there. Without a GPU, or with a
    warning where the try fails (no Triton, no C compiler), return operations of PyTorch.
    """
    if device.type != "cuda":
        return operations

    try:
        return kernel(device)
    except Exception as error:  # whatever is missing: Triton, a compiler, a folder to write to
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"{name} runs without its Triton kernel, slower: {reason}", stacklevel=3)
        return operations
