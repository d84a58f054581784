"""Dense CRF post-processing with Gaussian filtering on the permutohedral lattice, in tensor
operations on any device.

Sources: Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NIPS 2011); Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice" (Eurographics 2010).
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from utils.common.errors import UserError
from utils.settings.crf import CRFSettings

MIN_PROB = 1e-5  # probabilities are clipped here before the logarithm
# on sixteen photographs at least 99.91% of pixels kept the label that they have with all labels
PLAUSIBLE = 1e-2
CHUNK = 16384  # points updated at a time on a CPU, whose caches hold them


@torch.no_grad()
def crf(
    image: torch.Tensor,
    probs: torch.Tensor,
    backend: str = "torch",
    plausible: float = PLAUSIBLE,
    settings: CRFSettings = CRFSettings(),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the dense CRF over the plausible labels alone: their number decides the time.

    Args:
        image, probs, settings: those of `dense_crf`.
        backend: "torch" (ours, any device) or "pydensecrf" (C++, one core).
        plausible: labels whose probability stays below this everywhere are left out. Ours leaves
            out also those whose marginal comes to that between two rounds.

    Returns:
        labels (K,) long, ascending, those that took part, and their marginals (K, H, W) float32,
        summing to 1 over K, on the device of probs.

    Raises:
        UserError: the backend is unknown, or pydensecrf is not installed.
        ValueError: as `dense_crf`.
    """
    limit = min(plausible, 1 / len(probs))
    backends: dict[str, Callable[..., torch.Tensor]] = {
        "torch": partial(dense_crf, plausible=limit),
        "pydensecrf": pydensecrf,
    }
    if backend not in backends:
        raise UserError(f"crf_backend {backend!r} is unknown; use one of {', '.join(backends)}")
    labels = (probs.flatten(1).amax(1) >= limit).nonzero().flatten()
    return labels, backends[backend](image, probs[labels], settings)


@torch.no_grad()
def dense_crf(
    image: torch.Tensor,
    probs: torch.Tensor,
    settings: CRFSettings = CRFSettings(),
    plausible: float = 0.0,
) -> torch.Tensor:
    """Return marginals of a fully connected CRF with Potts compatibility after some rounds of mean
    field.

    Args:
        image: (H, W, 3) uint8 RGB.
        probs: (C, H, W) float, class probabilities of each pixel.
        settings: rounds and kernels.
        plausible: a label whose marginals all fall below this, at most 1 / C, leaves before the
            next round.

    Returns:
        (C, H, W) float32, summing to 1 over C, on the device of probs.

    Raises:
        ValueError: image and probs do not fit, or the deviations are so small that the lattice
            cannot be numbered.
    """
    check_sizes(image, probs)
    count, height, width = probs.shape
    log_probs = probs.flatten(1).float().clamp(MIN_PROB, 1).log_().T.contiguous()
    rows = torch.arange(height, device=probs.device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=probs.device, dtype=torch.float32).repeat(height)
    place = torch.stack([columns, rows])
    colour = image.to(probs.device).reshape(-1, 3).T.float()

    spatial = Lattice(place / settings.pos_xy_std, settings.pos_w)
    both = torch.cat([place / settings.bi_xy_std, colour / settings.bi_rgb_std])
    bilateral = Lattice(both, settings.bi_w)

    marginals, kept = _mean_field(log_probs, spatial, bilateral, settings.iterations, plausible)
    result = torch.zeros(count, height * width, device=probs.device)
    result[kept] = marginals.T
    return result.view(probs.shape)


def _mean_field(
    log_probs: torch.Tensor,
    spatial: "Lattice",
    bilateral: "Lattice",
    iterations: int,
    plausible: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run mean field on log probabilities (N, C): marginals (N, L) of the labels that are plausible
    to the end, and these labels (L,).
    """
    # Both kernels' vertices in one table, so that a point reads all its corners in one sum.
    corners = torch.cat([spatial.corners, bilateral.corners + spatial.size], 1)
    shares = torch.cat([spatial.shares, bilateral.shares], 1)
    marginals = softmax_rows(log_probs)
    labels = torch.arange(log_probs.shape[1], device=log_probs.device)
    step = len(marginals)
    if log_probs.device.type == "cpu":
        step = CHUNK

    for _ in range(iterations):
        alive = (marginals >= plausible).any(0)  # a third of the time of amax(0)
        if not alive.all():
            kept = alive.nonzero().flatten()  # index_select takes an eighth of the time of an index
            marginals = marginals.index_select(1, kept)
            log_probs = log_probs.index_select(1, kept)
            labels = labels[kept]

        table = torch.cat([spatial.spread(marginals), bilateral.spread(marginals)])
        parts = (rows.split(step) for rows in (marginals, corners, shares, log_probs))
        # safe in place: neighbours are read from `table`, not from `marginals`
        for part, *inputs in zip(*parts):
            part.copy_(_update(table, *inputs))
    return marginals, labels


def _update(
    table: torch.Tensor, corners: torch.Tensor, shares: torch.Tensor, log_probs: torch.Tensor
) -> torch.Tensor:
    """Return new marginals (n, C) of n points from what their corners (n, k) hold in the table (M,
    C).
    """
    return softmax_rows(
        embedding_bag(corners, table, mode="sum", per_sample_weights=shares).add_(log_probs)
    )


def softmax_rows(energy: torch.Tensor) -> torch.Tensor:
    """Take the softmax of each row of (N, C). On a CPU PyTorch's own takes four times as long for
    rows that fill no vector.
    """
    if energy.device.type != "cpu" or energy.shape[1] >= 16:
        return energy.softmax(1)
    powers = (energy - energy.amax(1, keepdim=True)).exp_()
    return powers.div_(powers.sum(1, keepdim=True))


def pydensecrf(
    image: torch.Tensor, probs: torch.Tensor, settings: CRFSettings = CRFSettings()
) -> torch.Tensor:
    """Do what `dense_crf` does, by the C++ library of that name.

    Raises:
        UserError: it is not installed.
        ValueError: image and probs do not fit.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise UserError(
            "crf_backend pydensecrf is not installed; `pip install pydensecrf2` (Python up to "
            "3.12, needs a compiler) or use crf_backend torch"
        ) from error

    check_sizes(image, probs)
    count, height, width = probs.shape
    unary = -probs.float().clamp(MIN_PROB, 1).log().flatten(1).cpu().numpy()
    model = DenseCRF2D(width, height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=settings.pos_xy_std, compat=settings.pos_w)
    pixels = np.ascontiguousarray(image.cpu().numpy())
    model.addPairwiseBilateral(
        sxy=settings.bi_xy_std, srgb=settings.bi_rgb_std, rgbim=pixels, compat=settings.bi_w
    )
    marginals = np.array(model.inference(settings.iterations))

    return torch.tensor(marginals, device=probs.device).view(probs.shape)


def check_sizes(image: torch.Tensor, probs: torch.Tensor) -> None:
    """Raise ValueError unless image is (H, W, 3) uint8 and probs (C, H, W)."""
    if image.dtype != torch.uint8 or probs.ndim != 3 or image.shape != (*probs.shape[1:], 3):
        raise ValueError(
            f"image {tuple(image.shape)} {image.dtype}, probs {tuple(probs.shape)} are not (H, W, "
            "3) uint8, (C, H, W)"
        )


class Lattice:
    """Gaussian filter, symmetrically normalised, over points scattered in a d-dimensional space.

    Each point gives its value to the d + 1 corners of the lattice simplex around it ("splat"), the
    corners are blurred with [1 2 1] along the d + 1 lattice directions, and each point reads its
    corners back ("slice"). All three are sums of few weighted rows, which is what `embedding_bag`
    computes.

    corners (N, d + 1) int32 and shares (N, d + 1) float32: the rows of `spread`'s result, of which
    there are `size`, that a point reads, and their weights.
    """

    def __init__(self, features: torch.Tensor, weight: float = 1.0) -> None:
        """
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
        vertices = codes[first]
        starts = first.nonzero().flatten().int()
        corners = torch.empty_like(order, dtype=torch.int32)
        corners.scatter_(0, order, first.cumsum(0, dtype=torch.int32) - 1)
        points = order.int().div_(side, rounding_mode="floor")

        self.size = len(vertices)
        self.corners = corners.view(-1, side)
        self.shares = shares
        self._splat = (points, starts, shares.flatten()[order])
        self._blur = [_neighbours(vertices, stride) for stride in strides]

        norm = self(torch.ones_like(features[0])[:, None]).flatten().clamp_min(1e-20).rsqrt()
        self._splat = (points, starts, self._splat[2].mul_(norm[points]))
        self.shares = shares * (weight * norm)[:, None]

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """Splat and blur (N, C) float32 onto the vertices: (size, C)."""
        points, starts, shares = self._splat
        values = embedding_bag(points, values, starts, mode="sum", per_sample_weights=shares)
        for near, shares in self._blur:
            values = embedding_bag(near, values, mode="sum", per_sample_weights=shares)
        return values

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return (N, C) of (N, C) float32: weight * D^-1/2 K D^-1/2 values, where K is the Gaussian
        and D its row sums.
        """
        return embedding_bag(
            self.corners, self.spread(values), mode="sum", per_sample_weights=self.shares
        )


def _corners(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Return the d + 1 lattice vertices around each point.

    Args:
        features: (d, N).

    Returns:
        codes (N, d + 1), a number for each vertex, int32 where that holds them, else int64; shares
        (N, d + 1) float32, the point's barycentric coordinates; strides: what a step along each of
        the d + 1 lattice directions adds to a code.
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
    for k in range(d):
        codes[:, k + 1] = codes[:, k] - stride[order[k]]

    return codes, shares.T.contiguous(), strides


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


def _neighbours(vertices: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (M, 3) int32 and weights (M, 3) of one blur: each vertex and its neighbours at
    code -step and +step.

    A neighbour that no point touches has value 0: it gets weight 0.
    """
    own = torch.arange(len(vertices), device=vertices.device, dtype=torch.int32)
    near = [own]
    weights = [torch.ones_like(own, dtype=torch.float32)]
    for code in (vertices - step, vertices + step):
        found = torch.searchsorted(vertices, code, out_int32=True).clamp_max_(len(vertices) - 1)
        exists = vertices[found] == code
        near.append(torch.where(exists, found, own))
        weights.append(0.5 * exists)
    return torch.stack(near, 1), torch.stack(weights, 1)
