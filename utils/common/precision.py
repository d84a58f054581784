"""Where half precision must not reach."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def float32_region(device: torch.device) -> AbstractContextManager:
    """Turn autocast off for what half precision spoils.

    Those are tiny gradients, the min-max of nearly flat maps, and long sums.

    Devices other than cuda and cpu are left alone, as older PyTorch has no autocast to turn off
    there.
    """
    if device.type in ("cuda", "cpu"):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor of the CPU to the device; pinned memory is copied without waiting for what a
    GPU is doing.
    """
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def casts_to_bfloat16(device: torch.device) -> bool:
    """Tell whether operations on a device are under autocast to bfloat16."""
    if torch.__version__ >= "2.4":  # compared as versions, not as text
        kind = torch.get_autocast_dtype(device.type)
        return torch.is_autocast_enabled(device.type) and kind == torch.bfloat16
    if device.type == "cuda":
        return torch.is_autocast_enabled() and torch.get_autocast_gpu_dtype() == torch.bfloat16
    return torch.is_autocast_cpu_enabled() and torch.get_autocast_cpu_dtype() == torch.bfloat16
