"""Bilinear resizing of maps, the one way in which images, scores and logits change size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (B, C, h, w) to (B, C, *size) bilinearly, with half-pixel centres, unfiltered."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def resize_tokens(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring patch tokens (B, h*w, D) of one grid to (B, N, D) of another, as `resize` does maps."""
    if grid == size:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    return resize(maps, size).flatten(2).transpose(1, 2)
