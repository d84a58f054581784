"""From attention maps to the transition matrix that spreads CAMs along what belongs together."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from model.method import Method
from model.rows import ClassRows

_BOX_ROUNDS = 8  # rounds of spreading between two looks at whether anything still changes


def unit_rows(maps: Tensor) -> Tensor:
    """Maps (..., N, N) >= 0 with every row divided by its sum."""
    return maps / maps.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


@record_function("affinity")
def transition_matrix(affinity: Tensor, rounds: int = 3) -> Tensor:
    """Affinity (B, N, N) > 0 -> transition matrix (B, N, N) (CLIP-ES, section 3.3; golden C).

    Rounds of dividing columns, then rows, by their sums come near a doubly stochastic matrix, which is made symmetric
    and squared.
    """
    for _ in range(rounds):
        affinity = unit_rows(unit_rows(affinity.transpose(-2, -1)).transpose(-2, -1))
    symmetric = (affinity + affinity.transpose(-2, -1)) / 2
    return symmetric @ symmetric


def select_by_mass(predicted: Tensor, maps: Tensor) -> Tensor:
    """Predicted affinity (B, N, N) times the mean of those maps (J, B, N, N) that hold at least the average total mass.

    The published choice, which looks at totals only, and its divisor (golden C).
    """
    distance = (predicted - maps).sum(dim=(-2, -1))
    return _mean_of_kept(maps, distance, eps=1e-5) * predicted


def select_by_fit(predicted: Tensor, maps: Tensor) -> Tensor:
    """Predicted affinity (B, N, N) times the mean of those maps (J, B, N, N) that lie at least averagely near to it.

    Distance is mean |predicted - map|, all of them with rows summing to 1 (design: "Affinity", ours).
    """
    maps = unit_rows(maps)
    distance = (unit_rows(predicted) - maps).abs().mean(dim=(-2, -1))
    return _mean_of_kept(maps, distance) * predicted


def _mean_of_kept(maps: Tensor, distance: Tensor, eps: float = 0.0) -> Tensor:
    """Mean over the maps (J, B, N, N) whose distance (J, B) is at most the mean over J; at least one is kept."""
    limit = torch.maximum(distance.mean(dim=0), distance.amin(dim=0))  # rounding may put the mean below them all
    kept = (distance <= limit).to(maps.dtype)
    return torch.einsum("jb,jbnm->bnm", kept, maps) / (kept.sum(dim=0)[:, None, None] + eps)


@record_function("affinity")
def build_affinity(
    clip_maps: list[Tensor], vit_map: Tensor | None, predicted: Tensor, method: Method, select: bool
) -> Tensor:
    """Attention maps (B, N, N), CLIP's in block order and the ViT's, and predicted affinity -> affinity (B, N, N).

    Before the switch-over the mean of the maps; after it (`select`) the selected maps times the predicted affinity
    (design: "Affinity").
    """
    count = method.late_maps if select else method.early_maps
    end = max(0, len(clip_maps) - method.skipped_maps)
    maps = clip_maps[max(0, end - count) : end]
    if vit_map is not None:
        maps = [*maps, vit_map]
    stack = torch.stack(maps).float()
    if method.vit_map != "summed":
        stack = unit_rows(stack)
    if not select:
        return stack.mean(dim=0)
    return (select_by_fit if method.map_selection == "fit" else select_by_mass)(predicted, stack)


@record_function("boxes")
def box_mask(maps: Tensor, threshold: float, clip_edges: bool = False) -> Tensor:
    """CAMs (n, h, w) in 0..1 -> (n, h, w) bool: inside a bounding box of a connected strong region (CLIP-ES; golden C).

    Strong is above `threshold` times the map's peak, in grey levels 0..255 rounded down; regions are 8-connected.
    `clip_edges` keeps boxes off the last row and column, as published. An empty map has no box.
    """
    grey = (255 * maps).floor()
    cut = (threshold * grey.amax(dim=(-2, -1), keepdim=True).double()).floor()
    strong = grey > cut
    left, top, right, bottom = (boxes_by_products if strong.is_cuda else boxes_by_spreading)(strong)
    height, width = maps.shape[-2:]
    last_x, last_y = (width - 1, height - 1) if clip_edges else (width, height)
    right, bottom = (right + 1).clamp(max=last_x), (bottom + 1).clamp(max=last_y)
    # Each strong pixel adds its box to a table of differences, whose double running sum counts the boxes over a pixel.
    corners = torch.zeros(len(maps), (height + 1) * (width + 1), dtype=torch.int64, device=maps.device)
    for y, x, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        position = (y * (width + 1) + x).masked_fill(~strong, 0)
        corners.scatter_add_(1, position.flatten(1), (sign * strong.long()).flatten(1))
    count = corners.unflatten(1, (height + 1, width + 1)).cumsum(dim=1).cumsum(dim=2)
    return count[:, :height, :width] > 0


def boxes_by_spreading(strong: Tensor) -> Tensor:
    """(n, h, w) bool -> (4, n, h, w) long: at strong pixels left, top, right, bottom (inclusive) of their region.

    Every strong pixel takes the farthest extent among its 3 x 3 neighbours until nothing changes; others hold no box.
    """
    rows, cols = _coordinates(strong)
    extent = torch.stack([-cols, -rows, cols, rows]).float().expand(len(strong), -1, -1, -1)
    extent = extent.masked_fill(~strong[:, None], float("-inf"))
    while True:
        before = extent
        for _ in range(_BOX_ROUNDS):
            extent = F.max_pool2d(extent, 3, stride=1, padding=1).masked_fill(~strong[:, None], float("-inf"))
        if torch.equal(before, extent):
            break
    left, top, right, bottom = extent.masked_fill(~strong[:, None], 0).long().unbind(1)
    return torch.stack([-left, -top, right, bottom])


def boxes_by_products(strong: Tensor) -> Tensor:
    """As `boxes_by_spreading`, in a number of steps that depends on the size alone: a GPU is not waited for.

    Squaring the matrix of who neighbours whom doubles the length of the paths it knows; that no sum of products is 0
    by rounding makes half precision exact here. Takes eight times as long on a CPU.
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
    """Row and column of each pixel of maps (n, h, w), both (h, w) long."""
    height, width = maps.shape[-2:]
    rows, cols = (torch.arange(length, device=maps.device) for length in (height, width))
    return rows[:, None].expand(height, width), cols.expand(height, width)


def propagate(transition: Tensor, rows: ClassRows, cams: Tensor, mask: Tensor | None = None) -> Tensor:
    """Transition matrices (B, N, N) times the CAMs (n, h, w) of their images, cut to `mask` (n, h, w) bool if given."""
    packed = rows.pack(cams if mask is None else cams * mask)
    return rows.unpack((packed.flatten(2) @ transition.transpose(1, 2)).view(packed.shape))
