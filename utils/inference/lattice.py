"""Gaussian filters over scattered points on the permutohedral lattice, in tensor operations on any
device.

Source: Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from utils.inference.sums import sums_on


@dataclass(frozen=True)
class Lattice:
    """Gaussian filter, symmetrically normalised, over points scattered in a d-dimensional space.

    Each point gives its value to the d + 1 corners of the lattice simplex around it ("splat"), the
    corners are blurred with [1 2 1] along the d + 1 lattice directions, and each point reads its
    corners back ("slice"). All three are sums of weighted rows (`sums`).

    corners (N, d + 1) int32 and shares (N, d + 1) float32: the rows of `spread`'s result, (M, C),
    that a point reads, and their weights. splat: the `Bags` of `sums` that make M sums of points.
    near (d + 1, M, 3) int32 and weights (d + 1, M, 3) float32: the rows that are summed in each of
    the blurs, and their weights; the first of the three is the row itself, at weight 1.
    """

    corners: torch.Tensor
    shares: torch.Tensor
    splat: Any
    near: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of_points(cls, features: torch.Tensor, weight: float = 1.0) -> "Lattice":
        """Make the filter over some points.

        Args:
            features: (d, N) float32 coordinates in units of the kernel's deviation.
            weight: factor of the result.

        Raises:
            ValueError: the features span so many lattice cells that 64 bits cannot number them.
        """
        side = len(features) + 1
        codes, shares, strides = _corners(features)

        # One sort groups the (point, corner) pairs by lattice vertex: vertices, splat order and
        # slice index follow.
        codes, order = codes.flatten().sort()
        first = torch.ones_like(codes, dtype=torch.bool)
        first[1:] = codes[1:] != codes[:-1]
        starts = first.nonzero().flatten()
        vertices = codes[starts]
        corners = torch.empty_like(order, dtype=torch.int32)
        corners.scatter_(0, order, first.cumsum(0, dtype=torch.int32) - 1)
        points = order.int().div_(side, rounding_mode="floor")

        splat = sums_on(features.device).Bags(points, shares.flatten()[order], starts.int())
        near, weights = _neighbours(vertices, strides)
        plain = cls(corners.view(-1, side), shares, splat, near, weights)

        norm = plain(torch.ones_like(features[0])[:, None]).flatten().clamp_min(1e-20).rsqrt()
        splat.shares.mul_(norm[points])
        shares.mul_((weight * norm)[:, None])
        return plain

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Splat and blur (N, C) float32 onto the vertices: (M, C)."""
        values = self.splat.sums(values)
        weighted_rows = sums_on(values.device).weighted_rows
        for near, weights in zip(self.near, self.weights):
            values = weighted_rows(values, near, weights)
        return values

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return (N, C) of (N, C) float32: weight * D^-1/2 K D^-1/2 values, where K is the Gaussian
        and D its row sums.
        """
        weighted_rows = sums_on(values.device).weighted_rows
        return weighted_rows(self.spread(values), self.corners, self.shares)


def joined(short: Lattice, long: Lattice) -> Lattice:
    """Return the sum of two filters over the same N points, the second of at least as many
    dimensions: both kernels' vertices lie in one table, so that a step of both is one operation.
    """
    size = short.near.shape[1]
    pairs = len(short.splat.rows)
    idle = len(long.near) - len(short.near)  # blurs in which the first filter's rows stay

    near = torch.cat([short.near, short.near[:1, :, :1].expand(idle, size, 3)])
    weights = pad(short.weights, (0, 0, 0, 0, 0, idle))
    weights[..., 0] = 1.0
    splat = type(short.splat)(
        torch.cat([short.splat.rows, long.splat.rows]),
        torch.cat([short.splat.shares, long.splat.shares]),
        torch.cat([short.splat.starts, long.splat.starts + pairs]),
    )
    return Lattice(
        torch.cat([short.corners, long.corners + size], 1),
        torch.cat([short.shares, long.shares], 1),
        splat,
        torch.cat([near, long.near + size], 1),
        torch.cat([weights, long.weights], 1),
    )


def _corners(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the d + 1 lattice vertices around each point.

    Args:
        features: (d, N).

    Returns:
        codes (N, d + 1), a number for each vertex, int32 where that holds them, else int64; shares
        (N, d + 1) float32, the point's barycentric coordinates; strides (d + 1,): what a step along
        each of the lattice directions adds to a code.
    """
    d = len(features)
    cells, offset, order = _simplex(_elevate(features))
    ascending = offset.gather(0, order) / (d + 1)
    shares = torch.cat([1 - (ascending[-1:] - ascending[:1]), ascending.diff(dim=0)])
    # A vertex is a sum of steps along the first d directions, cells[i] - cells[d] of them along
    # direction i: a step adds d to one coordinate and takes 1 off all others. Corners and their
    # neighbours lie up to 2 steps from there.
    steps = cells[:d] - cells[d]
    lowest = steps.amin(1) - 2
    sizes = (steps.amax(1) + 3 - lowest).tolist()
    if math.prod(sizes) >= 2**62:
        raise ValueError(
            f"the lattice has {math.prod(sizes):.0e} cells, too many to number; use larger "
            "deviations"
        )

    strides = [math.prod(sizes[i + 1 :]) for i in range(d)]
    strides.append(-sum(strides))
    kind = torch.int64
    if math.prod(sizes) < 2**31:
        kind = torch.int32
    stride = torch.tensor(strides, device=features.device, dtype=kind)
    codes = torch.empty(features.shape[1], d + 1, device=features.device, dtype=kind)
    codes[:, 0] = ((steps - lowest[:, None]).to(kind) * stride[:d, None]).sum(0, dtype=kind)

    # corner k + 1 is a step back from corner k along the coordinate of the k-th smallest offset
    back = stride[order[:d]].cumsum(0, dtype=kind)
    codes[:, 1:] = codes[:, :1] - back.T

    return codes, shares.T.contiguous(), stride


def _elevate(features: torch.Tensor) -> torch.Tensor:
    """Bring (d, N) to (d + 1, N): into the hyperplane of coordinate sum 0 that holds the lattice,
    scaled so that the blur's deviation is 1. No matrix product: reduced precision of those (TF32,
    autocast) would move points to other cells.
    """
    d = len(features)
    rows = []
    total = torch.zeros_like(features[0])
    for i in range(d, 0, -1):
        scaled = features[i - 1] * (math.sqrt(2 / 3) * (d + 1) / math.sqrt(i * (i + 1)))
        rows.append(total - i * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(rows)])


def _simplex(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


def _rank(columns: torch.Tensor) -> torch.Tensor:
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


def _neighbours(vertices: torch.Tensor, strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (s, M, 3) int32 and weights (s, M, 3) of s blurs: each of M vertices and its
    neighbours at code -stride and +stride.

    A neighbour that no point touches has value 0: it gets weight 0.
    """
    count = len(vertices)
    own = torch.arange(count, device=vertices.device, dtype=torch.int32)
    near = own[None, :, None].repeat(len(strides), 1, 3)
    weights = torch.ones_like(near, dtype=torch.float32)

    codes = vertices[:, None] + torch.stack([-strides, strides], 1)[:, None]
    found = torch.searchsorted(vertices, codes, out_int32=True).clamp_max_(count - 1)
    exists = vertices[found] == codes
    near[..., 1:] = torch.where(exists, found, own[:, None])
    weights[..., 1:] = 0.5 * exists
    return near, weights
