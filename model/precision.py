"""Where half precision must not reach."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def float32_region(device: torch.device) -> AbstractContextManager:
    """Autocast off, for what half precision spoils: tiny gradients, min-max of nearly flat maps,
    long sums.

    Devices other than cuda and cpu are left alone, as older PyTorch has no autocast to turn off
    there.
    """
    return (
        torch.autocast(device.type, enabled=False)
        if device.type in ("cuda", "cpu")
        else nullcontext()
    )


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; pinned memory is copied without waiting for what a GPU is
    doing.
    """
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)
