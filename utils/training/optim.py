"""Learning-rate schedules as pure functions of the step, and the optimiser's parameter groups."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def schedule(
    step: int,
    max_iters: int,
    warmup: int,
    published: bool = False,
    warmup_ratio: float = 1e-6,
    power: float = 1.0,
) -> float:
    """Return the factor of the base rate used by step 0, 1, ...: linear warm-up, then polynomial
    decay to 0.

    Ours rises to 1 and falls from there. The published one decays by the step count from the start,
    so it drops at the end of the warm-up (model/README.md, "Decisions"), and
    stays at its last factor after max_iters.
    """
    if step < warmup:
        return 1 - (1 - step / warmup) * (1 - warmup_ratio)

    step = min(step, max_iters - 1)
    if published:
        return (1 - step / max_iters) ** power
    return (1 - (step - warmup) / max(1, max_iters - warmup)) ** power


def cosine(step: int, max_iters: int, warmup: int, floor: float = 0.01) -> float:
    """Return the factor of the base rate: linear warm-up, then half a cosine down to `floor`.

    Source: the schedule of DeiT and MCTformer+, by iterations instead of epochs.
    """
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, max_iters - warmup)
    return floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * share))


def is_matrix(tensor: Tensor) -> bool:
    """Return True for weights of linear maps and convolutions and for tables, not for vectors."""
    return tensor.ndim > 1


def is_weight(tensor: Tensor) -> bool:
    """Return True for weights of linear maps and convolutions; False for vectors and (1, N, D)
    tables.
    """
    return tensor.ndim in (2, 4)


def is_any(_: Tensor) -> bool:
    """Return True for every tensor."""
    return True


def adamw(
    groups: Iterable[tuple[Iterable[nn.Parameter], float]],
    weight_decay: float,
    decays: Callable[[Tensor], bool] = is_matrix,
    beta2: float = 0.999,
) -> torch.optim.AdamW:
    """Make AdamW over (parameters, learning rate) groups; `decays` says which tensors decay, and
    beta2 how slowly the mean of squared gradients does (Loshchilov and Hutter, 2019, Algorithm 2).
    """
    split: list[dict[str, Any]] = []
    for parameters, rate in groups:
        parameters = [p for p in parameters if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in parameters if decays(p)]),
            (0.0, [p for p in parameters if not decays(p)]),
        ):
            if chosen:
                split.append({"params": chosen, "lr": rate, "base_lr": rate, "weight_decay": decay})

    # one pass over all tensors instead of ten each; PyTorch has it on CPUs since 2.4
    on_gpu = all(p.is_cuda for group in split for p in group["params"])
    fused = on_gpu or torch.__version__ >= "2.4"  # compared as versions, not as text
    return torch.optim.AdamW(split, betas=(0.9, beta2), fused=fused)


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's base rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor


def load_state(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimiser's state, which another device may have written; `fused`, which kernel
    updates the tensors, stays this device's.
    """
    groups = [
        {**theirs, "fused": own["fused"]}
        for theirs, own in zip(state["param_groups"], optimiser.param_groups)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})
