"""Bilinear resizing of maps, the one way in which images, scores and logits change size."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (B, C, h, w) to (B, C, *size) bilinearly, with half-pixel centres, unfiltered."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
