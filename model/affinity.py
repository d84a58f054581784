"""From attention maps to the transition matrix, which spreads CAMs along what belongs together.

An affinity (B, N, N) >= 0 says how strongly two patches belong together; attention maps are
affinities too.
"""

import torch
from torch import Tensor
from torch.profiler import record_function

from clip.resize import resize_tokens
from model.class_rows import ClassRows
from model.method import Method


def unit_rows(maps: Tensor) -> Tensor:
    """Divide every row of maps (..., N, N) >= 0 by its sum."""
    return maps / maps.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


@record_function("affinity")
def transition_matrix(affinity: Tensor, power: int = 2, rounds: int = 3) -> Tensor:
    """Make an affinity (B, N, N) > 0 a transition matrix (B, N, N) (CLIP-ES, section 3.3).

    Rounds of dividing columns, then rows, by their sums come near a doubly stochastic matrix, which
    is made symmetric and raised to a power, as published squared.
    """
    for _ in range(rounds):
        affinity = unit_rows(unit_rows(affinity.transpose(-2, -1)).transpose(-2, -1))
    symmetric = (affinity + affinity.transpose(-2, -1)) / 2
    return torch.linalg.matrix_power(symmetric, power)


def select_by_mass(predicted: Tensor, maps: Tensor) -> Tensor:
    """Multiply the predicted affinity (B, N, N) by the mean of those maps (J, B, N, N) that hold at
    least the average total mass.

    The published choice, which compares nothing but totals. Its divisor, the number of maps +
    0.00001, is kept (model/README.md, "Affinity").
    """
    distance = (predicted - maps).sum(dim=(-2, -1))
    return _mean_of_kept(maps, distance, eps=1e-5) * predicted


def select_by_fit(predicted: Tensor, maps: Tensor) -> Tensor:
    """Multiply the predicted affinity (B, N, N) by the mean of those maps (J, B, N, N) that are no
    farther from it than the mean of their distances.

    Distance is mean |predicted - map|, with all rows brought to sum 1 (ours; model/README.md,
    "Affinity").
    """
    maps = unit_rows(maps)
    distance = (unit_rows(predicted) - maps).abs().mean(dim=(-2, -1))
    return _mean_of_kept(maps, distance) * predicted


def _mean_of_kept(maps: Tensor, distance: Tensor, eps: float = 0.0) -> Tensor:
    """Return the mean over the maps (J, B, N, N) whose distance (J, B) is at most the mean over J;
    at least one is kept.
    """
    # rounding may put the mean below them all
    limit = torch.maximum(distance.mean(dim=0), distance.amin(dim=0))
    kept = (distance <= limit).to(maps.dtype)
    return torch.einsum("jb,jbnm->bnm", kept, maps) / (kept.sum(dim=0)[:, None, None] + eps)


@record_function("affinity")
def build_affinity(
    clip_maps: list[Tensor],
    vit_map: Tensor | None,
    predicted: Tensor,
    method: Method,
    after_switch: bool,
    dino_map: Tensor | None = None,
) -> Tensor:
    """Build the affinity (B, N, N) of attention maps (B, N, N), CLIP's in block order, the ViT's
    and DINO's, and the predicted affinity.

    Before the switch-over the mean of the maps; after it the mean of the selected maps, times the
    predicted affinity, element by element (model/README.md, "Affinity"). If the ViT or DINO gives
    a map, the rows of all maps, CLIP's too, are first brought to sum 1, except with `vit_map`
    "summed".
    """
    count = method.late_maps if after_switch else method.early_maps
    end = max(0, len(clip_maps) - method.skipped_maps)
    maps = clip_maps[max(0, end - count) : end]

    others = [own for own in (vit_map, dino_map) if own is not None]
    stack = torch.stack([*maps, *others]).float()
    if others and method.vit_map != "summed":
        stack = unit_rows(stack)

    if not after_switch:
        return stack.mean(dim=0)
    if method.map_selection == "fit":
        return select_by_fit(predicted, stack)
    return select_by_mass(predicted, stack)


def map_on_grid(attention: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring attention (B, N', N') between patches of a grid to (B, N, N) of another, rows summing
    to 1.
    """
    columns = resize_tokens(attention.float().transpose(1, 2), grid, size)
    return unit_rows(resize_tokens(columns.transpose(1, 2), grid, size))


@record_function("propagation")
def propagate(
    transition: Tensor, rows: ClassRows, cams: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Multiply transition matrices (B, N, N) by the CAMs (n, h, w) of their images, which are 0
    outside of `mask` (n, h, w) bool if given. Returns (n, h, w), not brought to 0..1.
    """
    inside = cams
    if mask is not None:
        inside = cams * mask
    by_image = rows.by_image(inside.flatten(1))
    spread = [own @ matrix.T for own, matrix in zip(by_image, transition)]
    return torch.cat(spread).view(cams.shape)
