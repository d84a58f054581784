"""Bilinear resizing of maps, the one way in which images, scores and logits change size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.precision import float32_region


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (B, C, h, w) to (B, C, *size) bilinearly, with half-pixel centres, unfiltered."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (B, C, h, w) of few pixels to (B, C, *size) as `resize` does, in float32, by two
    products of matrices.

    With its gradient it takes a quarter of the time on a CPU. The work grows with h and w, so large
    maps are left to `resize`.
    """
    with float32_region(maps.device):
        down, across = (
            F.interpolate(torch.eye(old, device=maps.device)[None], new, mode="linear")[0]
            for old, new in zip(maps.shape[-2:], size)
        )
        return down.T @ (maps.float() @ across)


def resize_tokens(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring patch tokens (B, h*w, D) of one grid to (B, N, D) of another, as `resize` does maps."""
    if grid == size:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    return resize(maps, size).flatten(2).transpose(1, 2)
