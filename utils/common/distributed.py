"""Several processes as `utils.tools.launch` and torchrun start them; one process needs no group at
all.
"""

import importlib
import os
import threading
import time
from collections.abc import Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.gpu import has_gpu

# What these set, and its value for one process; the last two lead to the others.
_ENVIRONMENT = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
_ALONE = (
    "`unset RANK WORLD_SIZE LOCAL_RANK` for one process, or start several by utils.tools.launch"
)
_PATIENCE = timedelta(minutes=5)  # for all processes to come
# for one that is behind in a test; one that has ended is noticed by what started it
_LONGEST = timedelta(days=7)
_SILENCE = 10  # seconds of waiting until that is said
_LOOK_EVERY = 0.2  # seconds between two looks whether all are there
_LETTING_GO = 0.5  # seconds for threads to let go of tensors

# Its functions have the group as default argument, which is read when the module is imported: by
# the first step of an optimiser at the latest. They would hold that group until Python ends.
_MODULE_WITH_DEFAULT_GROUP = "torch.distributed.nn"


def start(device: str = "auto") -> tuple[int, int, int]:
    """Return (rank, world size, local rank) from the environment; joins the process group when
    there are several processes.

    device: as `--device` names it. Tensors on GPUs are exchanged by NCCL, those in main memory by
    Gloo. Raises UserError where the environment tells of several processes that are not there.
    """
    rank, world, local = _places()
    if world > 1 and ":" in device:
        raise UserError(
            f"--device {device} is one device for {world} processes; use auto, which gives each "
            "its own"
        )
    if world > 1 and not dist.is_initialized():
        backend = "gloo"
        if device != "cpu" and has_gpu(local):
            backend = "nccl"
            torch.cuda.set_device(local % torch.cuda.device_count())
        _join(backend, world)

    return rank, world, local


def refuse_several() -> None:
    """Raise UserError in one of several processes, for a command that does not share its work.

    What another job left in the environment does not make it one: all that leads to the others has
    to be there.
    """
    if any(not os.environ.get(name, "").strip() for name in (*_ENVIRONMENT, *_MEETING)):
        return
    _, world, _ = _places()
    if world > 1:
        raise UserError(
            f"WORLD_SIZE={world}: this command does not share its work among processes, each would "
            "do all of it; start it once, without utils.tools.launch or torchrun"
        )


def _places() -> list[int]:
    """Return rank, world size and local rank of the environment. Raises UserError where they are
    left over from something else.
    """
    given = {name: os.environ.get(name, "").strip() for name in _ENVIRONMENT}
    for name, value in given.items():
        if value and not value.isdecimal():
            raise UserError(f"{name}={value!r} of the environment is no number; {_ALONE}")

    rank, world, local = (int(given[name] or usual) for name, usual in _ENVIRONMENT.items())
    if world < 2:
        return [0, 1, local]

    needed = (*_ENVIRONMENT, *_MEETING)
    if missing := [name for name in needed if not os.environ.get(name, "").strip()]:
        raise UserError(
            f"WORLD_SIZE={world} of the environment tells of {world} processes, but "
            f"{', '.join(missing)} is not set; {_ALONE}"
        )
    if rank >= world:
        raise UserError(f"RANK={rank} of the environment is not below WORLD_SIZE={world}; {_ALONE}")

    return [rank, world, local]


def _join(backend: str, world: int) -> None:
    """Wait for the other processes, in a thread of its own so that a signal ends the wait."""
    importlib.import_module(_MODULE_WITH_DEFAULT_GROUP)  # while there is none
    failed: list[Exception] = []

    def meet() -> None:
        """Join the group; what fails is kept."""
        try:
            store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
            store.set_timeout(_LONGEST)
            dist.init_process_group(
                backend, timeout=_LONGEST, world_size=size, rank=rank, store=store
            )
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    where = ":".join(os.environ[name] for name in _MEETING)
    start = time.monotonic()
    while thread.is_alive():
        thread.join(_LOOK_EVERY)
        if time.monotonic() - start > _SILENCE:
            say_once("meeting", f"waiting for {world} processes to meet at {where}; {_ALONE}")
    if failed:
        reason = str(failed[0]).splitlines()[0][:200]
        raise UserError(
            f"the {world} processes that WORLD_SIZE tells of did not meet at {where} ({reason}); "
            f"{_ALONE}"
        )


def stop() -> None:
    """Leave the process group, if there is one, and end Gloo's threads.

    A thread of Gloo that lets go of the last tensor while Python ends aborts the process (PyTorch's
    issue 190489), so nothing may hold the group when this returns. It needs Python's lock for that,
    which older versions of PyTorch (2.2) hold while they wait for the thread to end: it gets the
    time before.
    """
    if dist.is_initialized():
        time.sleep(_LETTING_GO)
        dist.destroy_process_group()


def is_main() -> bool:
    """Return whether this process writes files and prints."""
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
    """Return whether any process asks; the same answer in all of them."""
    if not dist.is_initialized():
        return asked
    return bool(total(torch.tensor(float(asked), device=device)))
