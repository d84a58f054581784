"""Gaussian filters over scattered points on the permutohedral lattice, in tensor operations on any
device.

Source: Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice"
(Eurographics 2010).
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import pad

from utils.inference.simplices import simplices_on
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
        near, weights = simplices_on(features.device).neighbours(vertices, strides)
        plain = cls(corners.view(-1, side), shares, splat, near, weights)

        norm = plain(torch.ones_like(features[0])[:, None]).flatten().clamp_min(1e-20).rsqrt()
        splat.shares.mul_(norm[points])
        shares.mul_((weight * norm)[:, None])
        return plain

    def with_blurs(self, count: int) -> "Lattice":
        """Return the same filter in `count` blurs, of which those added leave all rows as they
        are.
        """
        added = count - len(self.near)
        own = self.near[:1, :, :1].expand(added, -1, 3)
        weights = pad(self.weights, (0, 0, 0, 0, 0, added))
        weights[..., 0] = 1.0
        return replace(self, near=torch.cat([self.near, own]), weights=weights)

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
    """Return the sum of two filters over the same N points, of equally many blurs: both kernels'
    vertices lie in one table, so that a step of both is one operation.
    """
    size = short.near.shape[1]
    pairs = len(short.splat.rows)

    splat = type(short.splat)(
        torch.cat([short.splat.rows, long.splat.rows]),
        torch.cat([short.splat.shares, long.splat.shares]),
        torch.cat([short.splat.starts, long.splat.starts + pairs]),
    )

    return Lattice(
        torch.cat([short.corners, long.corners + size], 1),
        torch.cat([short.shares, long.shares], 1),
        splat,
        torch.cat([short.near, long.near + size], 1),
        torch.cat([short.weights, long.weights], 1),
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
    found = simplices_on(features.device)
    steps, order, shares = found.simplices(features, _scales(len(features), features.device))

    # Corners and their neighbours lie up to 2 steps from there.
    lowest, highest = torch.stack([steps.amin(1) - 2, steps.amax(1) + 2]).tolist()
    sizes = [high - low + 1 for low, high in zip(lowest, highest)]
    if math.prod(sizes) >= 2**62:
        raise ValueError(
            f"the lattice has {math.prod(sizes):.0e} cells, too many to number; use larger "
            "deviations"
        )

    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    strides.append(-sum(strides))
    kind = torch.int64
    if math.prod(sizes) < 2**31:
        kind = torch.int32
    numbers = torch.tensor([strides, [*lowest, 0]], dtype=kind, device=features.device)

    return found.codes(steps, order, numbers), shares, numbers[0]


@lru_cache(maxsize=4)
def _scales(d: int, device: torch.device) -> torch.Tensor:
    """Return the factors (d,) of features that make the blur's deviation 1."""
    factors = [math.sqrt(2 / 3) * (d + 1) / math.sqrt(i * (i + 1)) for i in range(1, d + 1)]
    return torch.tensor(factors, dtype=torch.float32, device=device)
