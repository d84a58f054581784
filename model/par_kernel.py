"""Rounds of pixel-adaptive refinement on a GPU, each of them one Triton kernel.

As operations of PyTorch, a round moves 48 copies of the masks through the GPU's memory.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from utils.common.precision import to_device

_PIXELS = 512  # worked out by one program of the kernel
_TOGETHER = 2  # masks of an image that it reads weights for


def rounds(
    masks: Tensor,
    weights: Tensor,
    counts: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    iterations: int,
) -> Tensor:
    """Smooth masks (r, H, W) of some images in so many rounds.

    weights (B, n, H, W) of the n neighbours at `offsets`; counts: masks of each image, in order.
    """
    count, height, width = weights.shape[1:]
    steps = to_device(torch.tensor(offsets, dtype=torch.int32), masks.device)
    listed = _groups(counts)
    groups = to_device(torch.tensor(listed, dtype=torch.int32), masks.device)
    programs = len(listed) * triton.cdiv(height * width, _PIXELS)
    weights = weights.contiguous()
    read = masks.contiguous()

    with torch.cuda.device_of(masks):
        for _ in range(iterations):
            written = torch.empty_like(read)
            _smooth[(programs,)](
                read,
                weights,
                groups,
                steps,
                written,
                len(listed),
                height,
                width,
                count,
                _PIXELS,
                _TOGETHER,
            )
            read = written
    return read


def _groups(counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """List the masks that one program works out: their image, the first, and the end of its own."""
    groups = []
    first = 0
    for image, count in enumerate(counts):
        end = first + count
        groups += [(image, row, end) for row in range(first, end, _TOGETHER)]
        first = end
    return groups


@triton.jit
def _smooth(  # type: ignore[no-untyped-def]
    masks,
    weights,
    groups,
    steps,
    result,
    number,
    height,
    width,
    COUNT: tl.constexpr,
    PIXELS: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """Write some pixels of up to TOGETHER masks of one image, one of so many groups: sums of COUNT
    neighbours, each times its weight.
    """
    # Programs that follow each other work on all groups, as those of one image share its weights.
    group = groups + tl.program_id(0) % number * 3
    pixels = tl.program_id(0) // number * PIXELS + tl.arange(0, PIXELS)
    area = height * width
    inside = pixels < area
    y = pixels // width
    x = pixels % width

    rows = tl.load(group + 1) + tl.arange(0, TOGETHER)
    places = rows.to(tl.int64)[:, None] * area
    written = (rows < tl.load(group + 2))[:, None] & inside[None, :]
    shares = weights + tl.load(group).to(tl.int64) * COUNT * area
    total = tl.full([TOGETHER, PIXELS], 0.0, tl.float32)
    for neighbour in range(COUNT):
        below = tl.minimum(tl.maximum(y + tl.load(steps + 2 * neighbour), 0), height - 1)
        beside = tl.minimum(tl.maximum(x + tl.load(steps + 2 * neighbour + 1), 0), width - 1)
        near = below * width + beside
        share = tl.load(shares + pixels, mask=inside)
        total += share[None, :] * tl.load(masks + places + near[None, :], mask=written)
        shares += area

    tl.store(result + places + pixels[None, :], total, mask=written)
