"""Where half precision must not reach."""

from contextlib import AbstractContextManager, nullcontext

import torch


def float32_region(device: torch.device) -> AbstractContextManager:
    """Autocast off, for what half precision spoils: tiny gradients, min-max of nearly flat maps, long sums.

    Devices other than cuda and cpu are left alone, as older PyTorch has no autocast to turn off there.
    """
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "cpu") else nullcontext()
