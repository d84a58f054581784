"""Sums of weighted rows on a GPU, as two Triton kernels: what `sums` does by operations of PyTorch.

Of those, `embedding_bag` works out each sum in one thread per column, one row after the other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_RUN = 32  # rows summed by one program
_FEW = 8  # sums of such runs summed at a time
_LABELS = 16  # columns that a program works on at a time
_TILE = 1024  # values worked out by one program where each is a sum of few rows


class Bags:
    """Sums of varying numbers of weighted rows, as `sums.Bags`.

    Some are of few rows, some of thousands: they are cut into runs of at most `_RUN` rows, and the
    sums of runs are summed.
    """

    def __init__(self, rows: Tensor, shares: Tensor, starts: Tensor) -> None:
        self.rows = rows
        self.shares = shares
        self.starts = starts

        end = starts.new_full((1,), len(rows))
        cuts = torch.arange(0, len(rows), _RUN, dtype=starts.dtype, device=starts.device)
        # Where a cut falls on a start there is an empty run, which changes no sum.
        self._runs = torch.cat([starts, cuts, end]).sort().values
        self._sums = torch.searchsorted(self._runs, torch.cat([starts, end]), out_int32=True)

    def sums(self, table: Tensor) -> Tensor:
        """Sum rows of (N, C) float32: (M, C)."""
        table = table.contiguous()
        runs = _sums_between(table, self._runs, _RUN, self.rows, self.shares)
        return _sums_between(runs, self._sums, _FEW)


def _parts(count: int, each: int) -> int:
    """Return how many parts of `each` hold so many. Triton's own function takes 2 us."""
    return -(-count // each)


def _sums_between(
    table: Tensor,
    starts: Tensor,
    some: int,
    rows: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """Sum the rows of a table (N, C) from each of starts (R + 1,) to the next, `some` at a time,
    (R, C); with rows and shares those of these numbers, times these weights.
    """
    count = len(starts) - 1
    labels = table.shape[1]
    result = table.new_empty(count, labels)

    with torch.cuda.device_of(table):
        _sum_between[(count, _parts(labels, _LABELS))](
            table, rows, shares, starts, result, labels, some, _LABELS, num_warps=1
        )
    return result


def weighted_rows(table: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Sum rows of a table (M, C), (n, C): those numbered in rows (n, k) int32, times shares (n, k)
    float32.
    """
    count, each = rows.shape
    labels = table.shape[1]
    result = table.new_empty(count, labels)
    some = _TILE // _LABELS
    with torch.cuda.device_of(table):
        _sum_few[(_parts(count, some), _parts(labels, _LABELS))](
            table, rows, shares, None, result, None, 0.0, count, labels, each, some, _LABELS
        )
    return result


def update(
    table: Tensor,
    corners: Tensor,
    shares: Tensor,
    log_probs: Tensor,
    marginals: Tensor,
    plausible: float,
) -> Tensor:
    """Do what `sums.update` does."""
    count, labels = marginals.shape
    alive = torch.zeros(labels, dtype=torch.int32, device=table.device)
    width = max(_LABELS, 1 << (labels - 1).bit_length())
    some = max(1, _TILE // width)

    with torch.cuda.device_of(table):
        _sum_few[(_parts(count, some),)](
            table,
            corners,
            shares,
            log_probs,
            marginals,
            alive,
            plausible,
            count,
            labels,
            corners.shape[1],
            some,
            width,
        )
    return alive


@triton.jit(do_not_specialize=["labels"])
def _sum_between(  # type: ignore[no-untyped-def]
    table, rows, shares, starts, result, labels, ROWS: tl.constexpr, LABELS: tl.constexpr
):
    """Write LABELS columns of one sum, adding ROWS rows at a time."""
    number = tl.program_id(0)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)
    start = tl.load(starts + number)
    end = tl.load(starts + number + 1)
    total = tl.full([ROWS, LABELS], 0.0, tl.float32)

    while start < end:
        row = start + tl.arange(0, ROWS)
        inside = row < end
        if rows is not None:
            share = tl.load(shares + row, mask=inside, other=0.0)
            row = tl.load(rows + row, mask=inside, other=0)
        values = tl.load(
            table + (row.to(tl.int64) * labels)[:, None] + label[None, :],
            mask=inside[:, None] & (label < labels)[None, :],
            other=0.0,
        )
        if rows is not None:
            values *= share[:, None]
        total += values
        start += ROWS

    written = result + number.to(tl.int64) * labels + label
    tl.store(written, tl.sum(total, axis=0), mask=label < labels)


@triton.jit(do_not_specialize=["rows", "shares", "plausible", "count", "labels"])
def _sum_few(  # type: ignore[no-untyped-def]
    table,
    rows,
    shares,
    log_probs,
    result,
    alive,
    plausible,
    count,
    labels,
    EACH: tl.constexpr,
    ROWS: tl.constexpr,
    LABELS: tl.constexpr,
):
    """Write LABELS columns of ROWS sums, each of EACH rows.

    With log_probs, and all columns in LABELS: the softmax of these and the sums, and a 1 to `alive`
    for each label with a value of `plausible` or more.
    """
    number = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    label = tl.program_id(1) * LABELS + tl.arange(0, LABELS)
    inside = number < count
    mask = inside[:, None] & (label < labels)[None, :]
    place = (number * labels)[:, None] + label[None, :]

    total = tl.full([ROWS, LABELS], 0.0, tl.float32)
    for which in tl.static_range(EACH):
        row = tl.load(rows + number * EACH + which, mask=inside, other=0).to(tl.int64)
        share = tl.load(shares + number * EACH + which, mask=inside, other=0.0)
        values = table + (row * labels)[:, None] + label[None, :]
        total += share[:, None] * tl.load(values, mask=mask, other=0.0)

    if log_probs is not None:
        total += tl.load(log_probs + place, mask=mask, other=0.0)
        total = tl.where((label < labels)[None, :], total, float("-inf"))
        total = tl.exp(total - tl.max(total, axis=1)[:, None])
        total = total / tl.sum(total, axis=1)[:, None]
        reached = tl.max((mask & (total >= plausible)).to(tl.int32), axis=0)
        tl.store(alive + label, reached, mask=reached > 0)

    tl.store(result + place, total, mask=mask)
