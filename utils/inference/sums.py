"""Sums of weighted rows, of which the filters of the dense CRF consist: by operations of PyTorch,
and on a GPU by the Triton kernels of `sums_kernel`, which has the same three names.
"""

import functools
import sys
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from utils.common.kernels import kernel_or_operations

_CHUNK = 16384  # rows worked out at a time on a CPU, whose caches hold them


@functools.cache
def sums_on(device: torch.device) -> ModuleType:
    """Return the module whose `Bags`, `weighted_rows` and `update` a device runs fastest: that of
    Triton's kernels where they can be compiled, otherwise this one, with a warning on a GPU.
    """
    return kernel_or_operations("The dense CRF", device, _kernels, sys.modules[__name__])


def _kernels(device: torch.device) -> ModuleType:
    """Return the module of Triton's kernels after a try of each on the device."""
    import utils.inference.sums_kernel as sums_kernel

    rows = torch.zeros(1, 9, dtype=torch.int32, device=device)
    ones = torch.ones(1, 9, dtype=torch.float32, device=device)
    table = sums_kernel.Bags(rows[0], ones[0], rows[0, :1]).sums(ones[:, :1])
    table = sums_kernel.weighted_rows(table, rows[:, :3], ones[:, :3])
    sums_kernel.update(table, rows, ones, ones[:, :1], ones[:, :1], 0.0)
    return sums_kernel


@dataclass(frozen=True)
class Bags:
    """Sums of varying numbers of weighted rows: rows (P,) int32, the numbers of all summands' rows;
    shares (P,) float32, their weights; starts (M,) int32, where in these each sum begins.
    """

    rows: Tensor
    shares: Tensor
    starts: Tensor

    def sums(self, table: Tensor) -> Tensor:
        """Sum rows of (N, C) float32: (M, C)."""
        return embedding_bag(
            self.rows, table, self.starts, mode="sum", per_sample_weights=self.shares
        )


def weighted_rows(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Sum rows of a table (M, C), (n, C): those numbered in rows (n, k) int32, times shares (n, k)
    float32.
    """
    starts = _starts(*rows.shape, rows.device)
    return Bags(rows.flatten(), shares.flatten(), starts).sums(table)


def update(
    table: Tensor,
    corners: Tensor,
    shares: Tensor,
    log_probs: Tensor,
    marginals: Tensor,
    plausible: float,
) -> Tensor:
    """Write marginals (N, C): the softmax of log_probs (N, C) and of what the N points' corners
    (N, k) hold in the table (M, C), times shares (N, k). Returns for each label (C,) whether any
    of its marginals comes to `plausible`.
    """
    step = len(marginals)
    if table.device.type == "cpu":
        step = _CHUNK
    alive = torch.zeros(marginals.shape[1], dtype=torch.bool, device=table.device)

    parts = (rows.split(step) for rows in (marginals, corners, shares, log_probs))
    for part, near, weights, own in zip(*parts):
        part.copy_(softmax_rows(weighted_rows(table, near, weights).add_(own)))
        alive |= (part >= plausible).any(0)  # a third of the time of amax(0)
    return alive


def softmax_rows(energy: Tensor) -> Tensor:
    """Take the softmax of each row of (N, C). On a CPU PyTorch's own takes four times as long for
    rows that fill no vector.
    """
    if energy.device.type != "cpu" or energy.shape[1] >= 16:
        return energy.softmax(1)
    powers = (energy - energy.amax(1, keepdim=True)).exp_()
    return powers.div_(powers.sum(1, keepdim=True))


@functools.lru_cache(maxsize=4)  # what the CRF of one picture needs in turns
def _starts(count: int, each: int, device: torch.device) -> Tensor:
    """Return where each of `count` sums of so many rows begins: made at every call, they would take
    a quarter of the CRF's time on a GPU.
    """
    return torch.arange(0, count * each, each, dtype=torch.int32, device=device)
