"""Dense CRF post-processing, with Gaussian filters on the permutohedral lattice (`lattice`), in
tensor operations on any device.

Source: Krähenbühl & Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NIPS 2011).
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from utils.common.device import fetch
from utils.common.errors import UserError
from utils.common.precision import to_device
from utils.inference.lattice import Lattice, joined
from utils.inference.sums import softmax_rows, sums_on
from utils.settings.running import CRFSettings

MIN_PROB = 1e-5  # probabilities are clipped here before the logarithm
# on sixteen photographs at least 99.91% of pixels kept the label that they have with all labels
PLAUSIBLE = 1e-2
SIZES = 4  # sizes of pictures whose places and filters by place are kept, 68 bytes per pixel


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
    colour = image.to(probs.device).reshape(-1, 3).T.float()
    place = _places(height, width, probs.device)
    both = torch.cat([place / settings.crf_bi_xy_std, colour / settings.crf_bi_rgb_std])
    bilateral = Lattice.of_points(both, settings.crf_bi_w)
    spatial = _spatial(
        height,
        width,
        probs.device,
        settings.crf_pos_xy_std,
        settings.crf_pos_w,
        len(bilateral.near),
    )

    filters = joined(spatial, bilateral)
    marginals, kept = _mean_field(log_probs, filters, settings.crf_iterations, plausible)
    result = marginals.new_zeros(count, height * width)
    result[kept] = marginals.T
    return result.view(probs.shape)


@lru_cache(maxsize=SIZES)
def _places(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the column and the row of each pixel, (2, height * width) float32."""
    rows = torch.arange(height, device=device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=device, dtype=torch.float32).repeat(height)
    return torch.stack([columns, rows])


@lru_cache(maxsize=SIZES)
def _spatial(
    height: int, width: int, device: torch.device, deviation: float, weight: float, blurs: int
) -> Lattice:
    """Return the filter by place alone in so many blurs, which pictures of one size share."""
    points = _places(height, width, device) / deviation
    return Lattice.of_points(points, weight).with_blurs(blurs)


def _mean_field(
    log_probs: torch.Tensor, filters: Lattice, iterations: int, plausible: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run mean field on log probabilities (N, C): marginals (N, L) of the labels that are plausible
    to the end, and these labels (L,).
    """
    device = log_probs.device
    update = sums_on(device).update
    labels = torch.arange(log_probs.shape[1], device=device)
    marginals = softmax_rows(log_probs)
    alive = fetch((marginals >= plausible).any(0))

    for _ in range(iterations):
        table = None
        if device.type == "cuda":  # it spreads while the CPU waits to learn which labels leave
            table = filters.spread(marginals)

        left = alive().nonzero().flatten()
        if len(left) < len(labels):
            kept = to_device(left, device)
            labels = labels[kept]
            # index_select takes an eighth of the time of an index
            marginals = marginals.index_select(1, kept)
            log_probs = log_probs.index_select(1, kept)
            if table is not None:
                table = table.index_select(1, kept)

        if table is None:
            table = filters.spread(marginals)
        alive = fetch(
            update(table, filters.corners, filters.shares, log_probs, marginals, plausible)
        )
    return marginals, labels


def find_pydensecrf() -> Any:
    """Return the class of the C++ library. Raises UserError where it is not installed."""
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise UserError(
            "--crf_backend pydensecrf is not installed; `pip install pydensecrf2` (Python up to "
            "3.12, needs a compiler) or use --crf_backend torch"
        ) from error
    return DenseCRF2D


def pydensecrf(
    image: torch.Tensor, probs: torch.Tensor, settings: CRFSettings = CRFSettings()
) -> torch.Tensor:
    """Do what `dense_crf` does, by the C++ library of that name.

    Raises:
        UserError: it is not installed.
        ValueError: image and probs do not fit.
    """
    library = find_pydensecrf()
    check_sizes(image, probs)
    count, height, width = probs.shape
    unary = -probs.float().clamp(MIN_PROB, 1).log().flatten(1).cpu().numpy()
    model = library(width, height, count)
    model.setUnaryEnergy(np.ascontiguousarray(unary))
    model.addPairwiseGaussian(sxy=settings.crf_pos_xy_std, compat=settings.crf_pos_w)
    pixels = np.ascontiguousarray(image.cpu().numpy())
    model.addPairwiseBilateral(
        sxy=settings.crf_bi_xy_std,
        srgb=settings.crf_bi_rgb_std,
        rgbim=pixels,
        compat=settings.crf_bi_w,
    )
    marginals = np.array(model.inference(settings.crf_iterations))

    return torch.tensor(marginals, device=probs.device).view(probs.shape)


def check_sizes(image: torch.Tensor, probs: torch.Tensor) -> None:
    """Raise ValueError unless image is (H, W, 3) uint8 and probs (C, H, W)."""
    if image.dtype != torch.uint8 or probs.ndim != 3 or image.shape != (*probs.shape[1:], 3):
        raise ValueError(
            f"image {tuple(image.shape)} {image.dtype}, probs {tuple(probs.shape)} are not (H, W, "
            "3) uint8, (C, H, W)"
        )
