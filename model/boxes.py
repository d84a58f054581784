"""Where a CAM may spread: the bounding boxes of its strong regions (CLIP-ES), found in two ways."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

_BOX_ROUNDS = 8  # rounds of spreading between two checks whether anything still changes


@record_function("boxes")
def box_mask(maps: Tensor, threshold: float, clip_edges: bool = False) -> Tensor:
    """Find the bounding boxes of the connected strong regions of CAMs (n, h, w) in 0..1, as a mask
    (n, h, w) bool (CLIP-ES, section 3.3).

    Strong is above `threshold` times the map's peak, in grey levels 0..255 rounded down; regions
    are 8-connected. `clip_edges` keeps boxes off the last row and column, as published. An empty
    map has no box.
    """
    grey = (255 * maps).floor()
    cut = (threshold * grey.amax(dim=(-2, -1), keepdim=True).double()).floor()
    strong = grey > cut
    boxes_of = boxes_by_products if strong.is_cuda else boxes_by_spreading
    left, top, right, bottom = boxes_of(strong)

    height, width = maps.shape[-2:]
    kept_off = int(clip_edges)  # patches
    right = (right + 1).clamp(max=width - kept_off)
    bottom = (bottom + 1).clamp(max=height - kept_off)

    # Each strong pixel adds its box to a table of differences, whose double running sum counts the
    # boxes over a pixel.
    corners = torch.zeros(
        len(maps), (height + 1) * (width + 1), dtype=torch.int64, device=maps.device
    )

    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        position = (y * (width + 1) + x).masked_fill(~strong, 0)
        corners.scatter_add_(1, position.flatten(1), (sign * strong.long()).flatten(1))

    count = corners.unflatten(1, (height + 1, width + 1)).cumsum(dim=1).cumsum(dim=2)
    return count[:, :height, :width] > 0


def boxes_by_spreading(strong: Tensor) -> Tensor:
    """Find for each strong pixel of (n, h, w) bool the box of its region, (4, n, h, w) long: left,
    top, right, bottom (inclusive).

    Every strong pixel takes the farthest extent among its 3 x 3 neighbours until nothing changes;
    others hold no box.
    """
    rows, cols = _coordinates(strong)
    extent = torch.stack([-cols, -rows, cols, rows]).float().expand(len(strong), -1, -1, -1)
    extent = extent.masked_fill(~strong[:, None], float("-inf"))

    while True:
        before = extent
        for _ in range(_BOX_ROUNDS):
            extent = F.max_pool2d(extent, 3, stride=1, padding=1).masked_fill(
                ~strong[:, None], float("-inf")
            )
        if torch.equal(before, extent):
            break

    left, top, right, bottom = extent.masked_fill(~strong[:, None], 0).long().unbind(1)
    return torch.stack([-left, -top, right, bottom])


def boxes_by_products(strong: Tensor) -> Tensor:
    """Find the same as `boxes_by_spreading` in a number of steps that depends on the size alone: a
    GPU is not waited for.

    Squaring the matrix of who neighbours whom doubles the length of the paths it knows; that no sum
    of products is 0 by rounding makes half precision exact here. Takes eight times as long on a
    CPU.
    """
    rows, cols = (place.flatten() for place in _coordinates(strong))
    near = ((rows[:, None] - rows).abs() <= 1) & ((cols[:, None] - cols).abs() <= 1)
    pixels = strong.flatten(1)
    joined = near & pixels[:, :, None] & pixels[:, None, :]

    for _ in range((len(rows) - 1).bit_length()):  # no path is longer than the number of pixels
        steps = joined.to(torch.bfloat16)
        joined = steps @ steps > 0

    far = len(rows)
    least = [torch.where(joined, place, far).amin(2) for place in (cols, rows)]
    most = [torch.where(joined, place, -1).amax(2) for place in (cols, rows)]
    return torch.stack([*least, *most]).view(4, *strong.shape)


def _coordinates(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column of each pixel of maps (n, h, w), both (h, w) long."""
    height, width = maps.shape[-2:]
    rows, cols = (torch.arange(length, device=maps.device) for length in (height, width))
    return rows[:, None].expand(height, width), cols.expand(height, width)
