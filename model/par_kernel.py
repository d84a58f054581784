"""Rounds of pixel-adaptive refinement on a GPU, each of them one Triton kernel.

As operations of PyTorch, a round moves 48 copies of the masks through the GPU's memory.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from utils.common.precision import to_device

_PIXELS = 256  # worked out by one program of the kernel


def rounds(
    masks: Tensor,
    weights: Tensor,
    owners: Tensor,
    offsets: Sequence[tuple[int, int]],
    iterations: int,
) -> Tensor:
    """Smooth masks (r, H, W) of some images in so many rounds.

    weights (B, n, H, W) of the n neighbours at `offsets`; owners (r,): the image of each mask.
    """
    count, height, width = weights.shape[1:]
    steps = to_device(torch.tensor(offsets, dtype=torch.int32), masks.device)
    programs = len(masks) * triton.cdiv(height * width, _PIXELS)
    weights = weights.contiguous()
    read = masks.contiguous()

    with torch.cuda.device_of(masks):
        for _ in range(iterations):
            written = torch.empty_like(read)
            _smooth[(programs,)](
                read, weights, owners, steps, written, len(masks), height, width, count, _PIXELS
            )
            read = written
    return read


@triton.jit
def _smooth(  # type: ignore[no-untyped-def]
    masks,
    weights,
    owners,
    steps,
    result,
    rows,
    height,
    width,
    COUNT: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Write some pixels of one mask: the sum of COUNT neighbours, each times its weight."""
    # Programs that follow each other work on all masks, as those of one image share its weights.
    row = tl.program_id(0) % rows
    pixels = tl.program_id(0) // rows * PIXELS + tl.arange(0, PIXELS)
    area = height * width
    inside = pixels < area
    y = pixels // width
    x = pixels % width

    mask = masks + row.to(tl.int64) * area
    shares = weights + tl.load(owners + row) * COUNT * area
    total = tl.full([PIXELS], 0.0, tl.float32)
    for neighbour in range(COUNT):
        below = tl.minimum(tl.maximum(y + tl.load(steps + 2 * neighbour), 0), height - 1)
        beside = tl.minimum(tl.maximum(x + tl.load(steps + 2 * neighbour + 1), 0), width - 1)
        share = tl.load(shares + pixels, mask=inside)
        total += share * tl.load(mask + below * width + beside, mask=inside)
        shares += area

    tl.store(result + row.to(tl.int64) * area + pixels, total, mask=inside)
