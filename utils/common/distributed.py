"""Several processes as torchrun starts them; one process needs no group at all."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.common.errors import UserError


def start(device: str = "auto") -> tuple[int, int, int]:
    """(rank, world size, local rank) from the environment; joins the process group when there are
    several processes.

    device: as `--device` names it. Tensors on GPUs are exchanged by NCCL, those in main memory by
    Gloo.
    """
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _ENVIRONMENT)
    if world > 1 and ":" in device:
        raise UserError(
            f"--device {device} is one device for {world} processes; use auto, which gives each "
            "its own"
        )
    if world > 1 and not dist.is_initialized():
        on_gpu = device != "cpu" and torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(local % torch.cuda.device_count())
        dist.init_process_group("nccl" if on_gpu else "gloo")
    return rank, world, local


_ENVIRONMENT = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    """Wait for every process."""
    if dist.is_initialized():
        dist.barrier()


def total(tensor: Tensor) -> Tensor:
    """Sum over processes, without gradient; the tensor itself where there is one process."""
    if not dist.is_initialized():
        return tensor
    tensor = tensor.detach().clone()
    dist.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up gradients over processes in one message. Losses divide by global counts, so the sum is
    the gradient.
    """
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def agreed(asked: bool, device: torch.device) -> bool:
    """Whether any process asks; the same answer in all of them."""
    return (
        asked
        if not dist.is_initialized()
        else bool(total(torch.tensor(float(asked), device=device)))
    )
