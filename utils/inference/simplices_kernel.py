"""Where points lie in the permutohedral lattice and which of its vertices are neighbours, on a GPU:
what `simplices` does by some hundred operations of PyTorch, as three Triton kernels.

They round as those operations do on a CPU, so that no point comes to another simplex.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_POINTS = 64  # worked out by one program, of one warp


def simplices(features: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `simplices.simplices` does."""
    d, count = features.shape
    steps = features.new_empty(d, count, dtype=torch.int32)
    order = features.new_empty(d + 1, count, dtype=torch.int32)
    shares = features.new_empty(count, d + 1)

    with torch.cuda.device_of(features):
        _find[(triton.cdiv(count, _POINTS),)](
            features.contiguous(),
            scales,
            steps,
            order,
            shares,
            count,
            d,
            1 << d.bit_length(),
            _POINTS,
            num_warps=1,
            enable_fp_fusion=False,
        )
    return steps, order, shares


def codes(steps: Tensor, order: Tensor, numbers: Tensor) -> Tensor:
    """Do what `simplices.codes` does."""
    d, count = steps.shape
    result = numbers.new_empty(count, d + 1)
    with torch.cuda.device_of(steps):
        _number[(triton.cdiv(count, _POINTS),)](
            steps, order, numbers, result, count, d, _POINTS, num_warps=1
        )
    return result


def neighbours(vertices: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Do what `simplices.neighbours` does."""
    count = len(vertices)
    near = vertices.new_empty(len(strides), count, 3, dtype=torch.int32)
    weights = torch.empty_like(near, dtype=torch.float32)
    with torch.cuda.device_of(vertices):
        _search[(triton.cdiv(count, _POINTS), len(strides))](
            vertices, strides, near, weights, count, count.bit_length(), _POINTS, num_warps=1
        )
    return near, weights


@triton.jit(do_not_specialize=["count"])
def _find(  # type: ignore[no-untyped-def]
    features,
    scales,
    steps,
    order,
    shares,
    count,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write steps, order and shares of POINTS points. Tiles hold D + 1 coordinates in ROWS rows, a
    power of two.
    """
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    row = tl.arange(0, ROWS)[:, None]
    real = row <= D

    # into the hyperplane of coordinate sum 0
    total = tl.zeros([POINTS], tl.float32)
    place = tl.zeros([ROWS, POINTS], tl.float32)
    for i in tl.static_range(D, 0, -1):
        scaled = tl.load(features + (i - 1) * count + point, mask=inside, other=0.0)
        scaled *= tl.load(scales + i - 1)
        place = tl.where(row == i, (total - i * scaled)[None, :], place)
        total += scaled
    place = tl.where(row == 0, total[None, :], place)

    # round to even, as PyTorch does
    side = tl.full([ROWS, POINTS], D + 1, tl.float32)
    ratio = tl.div_rn(place, side)
    cell = tl.floor(ratio)
    rest = ratio - cell
    odd = tl.floor(cell * 0.5) != cell * 0.5
    cell += ((rest > 0.5) | ((rest == 0.5) & odd)).to(tl.float32)

    # how many coordinates come before each, the largest first, equal ones by row
    offset = place - cell * side
    cell = cell.to(tl.int32)
    rank = tl.sum(cell, axis=0)[None, :] + tl.zeros([ROWS, POINTS], tl.int32)
    for i in tl.static_range(D + 1):
        other = tl.sum(tl.where(row == i, offset, 0.0), axis=0)[None, :]
        rank += ((other > offset) | ((other == offset) & (row > i))).to(tl.int32)

    # back to the hyperplane, from which rounding may have led
    turn = (rank < 0).to(tl.int32) - (rank > D).to(tl.int32)
    cell += turn
    rank += (D + 1) * turn
    last = tl.sum(tl.where(row == D, cell, 0), axis=0)[None, :]
    tl.store(steps + row * count + point[None, :], cell - last, mask=(row < D) & inside[None, :])

    share = tl.div_rn(place - cell.to(tl.float32) * side, side)
    lowest = tl.sum(tl.where(real & (rank == D), share, 0.0), axis=0)
    before = lowest
    for i in tl.static_range(D + 1):
        chosen = real & (rank == D - i)
        here = tl.sum(tl.where(chosen, share, 0.0), axis=0)
        which = tl.sum(tl.where(chosen, row, 0), axis=0)
        tl.store(order + i * count + point, which, mask=inside)
        if i > 0:
            tl.store(shares + point * (D + 1) + i, here - before, mask=inside)
        before = here
    tl.store(shares + point * (D + 1), 1.0 - (before - lowest), mask=inside)


@triton.jit(do_not_specialize=["count"])
def _number(  # type: ignore[no-untyped-def]
    steps, order, numbers, result, count, D: tl.constexpr, POINTS: tl.constexpr
):
    """Write the codes of the D + 1 corners around POINTS points."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    result += point * (D + 1)

    code = tl.zeros([POINTS], numbers.dtype.element_ty)
    for i in tl.static_range(D):
        step = tl.load(steps + i * count + point, mask=inside, other=0)
        code += (step - tl.load(numbers + D + 1 + i)) * tl.load(numbers + i)
    tl.store(result, code, mask=inside)

    for i in tl.static_range(D):
        direction = tl.load(order + i * count + point, mask=inside, other=0)
        code -= tl.load(numbers + direction)
        tl.store(result + i + 1, code, mask=inside)


@triton.jit(do_not_specialize=["count", "turns"])
def _search(  # type: ignore[no-untyped-def]
    vertices, strides, near, weights, count, turns, POINTS: tl.constexpr
):
    """Write the three rows of a blur along one direction, and their weights, for POINTS of the
    vertices, each found in so many turns of a binary search.
    """
    number = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside = number < count
    direction = tl.program_id(1)
    own = tl.load(vertices + number, mask=inside, other=0)
    stride = tl.load(strides + direction)

    place = (direction.to(tl.int64) * count + number) * 3
    tl.store(near + place, number, mask=inside)
    tl.store(weights + place, 1.0, mask=inside)

    for side in tl.static_range(2):
        code = own + (2 * side - 1) * stride
        low = tl.zeros([POINTS], tl.int32)
        high = low + count
        for _ in range(turns):
            middle = (low + high) // 2
            left = low < high
            less = left & (tl.load(vertices + middle, mask=left, other=0) < code)
            low = tl.where(less, middle + 1, low)
            high = tl.where(less, high, middle)

        found = tl.minimum(low, count - 1)
        exists = tl.load(vertices + found) == code
        tl.store(near + place + side + 1, tl.where(exists, found, number), mask=inside)
        tl.store(weights + place + side + 1, tl.where(exists, 0.5, 0.0), mask=inside)
