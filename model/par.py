"""Pixel-adaptive refinement: masks are smoothed along what looks alike in the image (PAR of AFA, Ru
et al., 2022).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from model.precision import to_device

DILATIONS = (1, 2, 4, 8, 12, 24)  # how far neighbours are, px
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_SHARPNESS = 0.3  # deviations are measured in units of 0.3 of the neighbours' own
_POSITION_WEIGHT = 0.01  # share of the purely positional weights, on top of the colour weights
_EPS = 1e-8


@record_function("PAR")
def refine(
    images: Tensor,
    masks: Tensor,
    iterations: int = 20,
    dilations: tuple[int, ...] = DILATIONS,
) -> Tensor:
    """Normalised images (B, 3, H, W) and masks (B, C, h, w) -> refined masks (B, C, h, w) (AFA,
    section 3.4).

    The images are first brought to the masks' size. In every round a pixel becomes the weighted sum
    of its neighbours, 8 directions at each dilation; the weights sum to 1.01 (as published), so
    values may rise above 1.
    """
    if images.shape[-2:] != masks.shape[-2:]:
        images = F.interpolate(images, size=masks.shape[-2:], mode="bilinear", align_corners=True)
    offsets = [(dy * d, dx * d) for d in dilations for dy, dx in _DIRECTIONS]
    at_once = 1 if images.device.type == "cpu" else len(images)  # a CPU's caches hold one image
    return torch.cat(
        [
            _refine(i, m, iterations, offsets)
            for i, m in zip(images.split(at_once), masks.split(at_once))
        ]
    )


def _refine(
    images: Tensor, masks: Tensor, iterations: int, offsets: list[tuple[int, int]]
) -> Tensor:
    """As `refine`, for images of the masks' size."""
    weights = neighbour_weights(images, offsets)
    for _ in range(iterations):
        padded, refined = _pad(masks, offsets), torch.zeros_like(masks)
        for n, offset in enumerate(offsets):
            refined.addcmul_(weights[:, n, None], _shifted(padded, offset, offsets))
        masks = refined
    return masks


def neighbour_weights(images: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    """(B, 3, H, W) and n offsets (rows, columns) -> (B, n, H, W): softmax of likeness + 0.01
    softmax of closeness.
    """
    padded, count = _pad(images, offsets), len(offsets)
    neighbours = [_shifted(padded, offset, offsets) for offset in offsets]
    # Differences to the pixel itself have the neighbours' deviation and keep its digits in flat
    # regions.
    total, squares, difference = (
        torch.zeros_like(images),
        torch.zeros_like(images),
        torch.empty_like(images),
    )
    for neighbour in neighbours:
        total.add_(torch.sub(neighbour, images, out=difference))
    centre = images + total / count
    for neighbour in neighbours:
        torch.sub(neighbour, centre, out=difference)
        squares.addcmul_(difference, difference)
    scale = (
        ((squares / (count - 1)).sqrt() + _EPS) * _SHARPNESS * math.sqrt(images.shape[1])
    ).reciprocal()
    likeness = images.new_zeros(len(images), count, *images.shape[-2:])
    for n, neighbour in enumerate(neighbours):
        torch.sub(neighbour, images, out=difference).mul_(scale)
        for channel in difference.unbind(1):
            likeness[:, n].addcmul_(channel, channel, value=-1)
    closeness = to_device(_closeness(offsets, images.dtype), images.device)
    return torch.softmax(likeness, dim=1) + _POSITION_WEIGHT * closeness[:, None, None]


def _closeness(offsets: list[tuple[int, int]], dtype: torch.dtype) -> Tensor:
    """n offsets -> (n,), the weights of the neighbours by their distance alone, on the CPU; their
    sum is 1.
    """
    distances = torch.tensor(offsets, dtype=dtype).norm(dim=1)
    return torch.softmax(-(distances / (distances.std() + _EPS) / _SHARPNESS).square(), dim=0)


def _reach(offsets: list[tuple[int, int]]) -> int:
    """The longest step of any offset along one axis."""
    return max(abs(step) for offset in offsets for step in offset)


def _pad(maps: Tensor, offsets: list[tuple[int, int]]) -> Tensor:
    """(B, C, H, W) with its border repeated as far out as the offsets reach."""
    return F.pad(maps, [_reach(offsets)] * 4, mode="replicate")


def _shifted(padded: Tensor, offset: tuple[int, int], offsets: list[tuple[int, int]]) -> Tensor:
    """View (B, C, H, W) of a padded map: at each pixel the value of its neighbour at `offset`."""
    reach = _reach(offsets)
    height, width = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    top, left = reach + offset[0], reach + offset[1]
    return padded[..., top : top + height, left : left + width]
