"""Where points lie in the permutohedral lattice and which of its vertices are neighbours: by
operations of PyTorch, and on a GPU by the Triton kernels of `simplices_kernel`, which has the same
three names.
"""

import functools
import sys
from types import ModuleType

import torch
from torch import Tensor

from utils.common.kernels import kernel_or_operations


@functools.cache
def simplices_on(device: torch.device) -> ModuleType:
    """Return the module whose `simplices`, `codes` and `neighbours` a device runs fastest: that of
    Triton's kernels where they can be compiled, otherwise this one, with a warning on a GPU.
    """
    return kernel_or_operations("The dense CRF's lattice", device, _kernels, sys.modules[__name__])


def _kernels(device: torch.device) -> ModuleType:
    """Return the module of Triton's kernels after a try of each on the device."""
    import utils.inference.simplices_kernel as simplices_kernel

    features = torch.zeros(2, 9, dtype=torch.float32, device=device)
    scales = torch.ones_like(features[:, 0])
    steps, order, _ = simplices_kernel.simplices(features, scales)
    numbers = torch.zeros(2, 3, dtype=torch.int32, device=device)
    found = simplices_kernel.codes(steps, order, numbers)
    simplices_kernel.neighbours(found.flatten(), numbers[0])
    return simplices_kernel


def simplices(features: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each point.

    Args:
        features: (d, N) float32.
        scales: (d,) float32, the factor of each that makes the blur's deviation 1.

    Returns:
        steps (d, N) int32 along the first d directions of the lattice, whose sum is a vertex of
        the simplex: the nearest whose coordinates are multiples of d + 1; order (d + 1, N), the
        directions along which a step back leads from each vertex of the simplex to the next;
        shares (N, d + 1) float32, the point's barycentric coordinates.
    """
    d = len(features)
    cells, offset, order = _simplex(_elevate(features, scales))
    ascending = offset.gather(0, order) / (d + 1)
    shares = torch.cat([1 - (ascending[-1:] - ascending[:1]), ascending.diff(dim=0)])

    # A step adds d to one coordinate and takes 1 off all others.
    return cells[:d] - cells[d], order, shares.T.contiguous()


def codes(steps: Tensor, order: Tensor, numbers: Tensor) -> Tensor:
    """Number the vertices of simplices, (N, d + 1) int32 or int64 as `numbers`.

    Args:
        steps, order: those of `simplices`.
        numbers: (2, d + 1), what a step along each direction adds to a code, and along each of the
            first d the step that counts as 0.
    """
    d = len(steps)
    kind = numbers.dtype
    stride, lowest = numbers
    result = torch.empty(steps.shape[1], d + 1, device=steps.device, dtype=kind)
    result[:, 0] = ((steps - lowest[:d, None]) * stride[:d, None]).sum(0, dtype=kind)

    # corner k + 1 is a step back from corner k along the coordinate of the k-th smallest offset
    back = stride[order[:d]].cumsum(0, dtype=kind)
    result[:, 1:] = result[:, :1] - back.T
    return result


def neighbours(vertices: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (s, M, 3) int32 and weights (s, M, 3) of s blurs: each of M vertices and its
    neighbours at code -stride and +stride.

    A neighbour that no point touches has value 0: it gets weight 0.
    """
    count = len(vertices)
    own = torch.arange(count, device=vertices.device, dtype=torch.int32)
    near = own[None, :, None].repeat(len(strides), 1, 3)
    weights = torch.ones_like(near, dtype=torch.float32)

    sought = vertices[:, None] + torch.stack([-strides, strides], 1)[:, None]
    found = torch.searchsorted(vertices, sought, out_int32=True).clamp_max_(count - 1)
    exists = vertices[found] == sought
    near[..., 1:] = torch.where(exists, found, own[:, None])
    weights[..., 1:] = 0.5 * exists
    return near, weights


def _elevate(features: Tensor, scales: Tensor) -> Tensor:
    """Bring (d, N) to (d + 1, N): into the hyperplane of coordinate sum 0 that holds the lattice,
    scaled so that the blur's deviation is 1. No matrix product: reduced precision of those (TF32,
    autocast) would move points to other cells.
    """
    rows = []
    total = torch.zeros_like(features[0])
    for i in range(len(features), 0, -1):
        scaled = features[i - 1] * scales[i - 1]
        rows.append(total - i * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(rows)])


def _simplex(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the simplex each point lies in.

    Args:
        points: (d + 1, N), columns of sum 0.

    Returns:
        cells (d + 1, N) int32, the nearest lattice vertex whose coordinates are multiples of d + 1,
        divided by that; offset (d + 1, N) of the point from it; order (d + 1, N) int64, the
        coordinates by ascending offset, which tells the simplex. Equal offsets come in descending
        order of coordinate, as in the reference implementations: which corners of share 0 exist
        makes a difference, because the blur passes through them.
    """
    side = len(points)
    cells = (points / side).round()
    rank = _rank(points - cells * side)

    # Rounding each coordinate may leave the hyperplane of sum 0: the coordinates that were rounded
    # most go back.
    rank += cells.sum(0).to(torch.int8)
    turn = (rank < 0).to(torch.int8) - (rank >= side).to(torch.int8)
    cells += turn

    rows = torch.arange(side, device=points.device)[:, None].expand(points.shape)
    place = (side - 1 - rank - side * turn).long()
    return cells.int(), points - cells * side, torch.empty_like(rows).scatter_(0, place, rows)


def _rank(columns: Tensor) -> Tensor:
    """Return (s, N) int8 of (s, N): how many entries of its column come before each, the largest
    first, equal ones by row.

    For the few rows here, comparing all pairs takes a sixth of a sort's time.
    """
    rank = torch.zeros(columns.shape, dtype=torch.int8, device=columns.device)
    for row in range(1, len(columns)):
        passes = columns[row] > columns[:row]
        rank[:row] += passes
        rank[row] += row - passes.sum(0, dtype=torch.int8)
    return rank
