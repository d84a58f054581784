"""Affinity of patches whose distributions over all classes are alike (our reading of CD-CLIP).

Two patches of one object may answer its class with different strength, yet say much the same of all
classes together. The paper (Yang et al., CVPR 2026) leaves constants and one product open; the
choices here are settings.
"""

import torch
from torch import Tensor

_EPS = 1e-12


def jensen_shannon(p: Tensor) -> Tensor:
    """Compute the Jensen-Shannon divergence, in nats, 0..ln 2, between all rows of each image.

    p (B, N, X) distributions over X texts, rows summing to 1 -> (B, N, N), symmetric, 0 on the
    diagonal.
    """
    entropy = _negative_entropy(p).sum(dim=-1)
    mixed = p.new_zeros(*p.shape[:2], p.shape[1])
    for channel in p.unbind(dim=-1):  # one (B, N, N) buffer, not X of them
        mixed += _negative_entropy((channel[:, :, None] + channel[:, None]) / 2)
    return (entropy[:, :, None] + entropy[:, None]).div_(2).sub_(mixed).clamp_(min=0)


def hellinger(p: Tensor) -> Tensor:
    """Compute the squared Hellinger distance, 0..1, between all rows of each image.

    It bounds the Jensen-Shannon divergence on both sides up to constants, and is one matrix
    product. p (B, N, X) -> (B, N, N).
    """
    root = p.sqrt()
    return (1 - root @ root.transpose(1, 2)).clamp(min=0)


DISTANCES = {"jensen_shannon": jensen_shannon, "hellinger": hellinger}


def distribution_affinity(p: Tensor, tau: float, distance: str = "hellinger") -> Tensor:
    """Compute affinity (B, N, N), rows summing to 1, of patches with distributions p (B, N, X).

    Softmax over each row of (1 - distance) / tau. tau > 0, in units of the distance: of order 0.1
    for probabilities of exp(logit_scale) * cosine.
    """
    return torch.softmax((1 - DISTANCES[distance](p)) / tau, dim=-1)


def corrected(affinity: Tensor, distribution: Tensor, product: str) -> Tensor:
    """Correct an affinity (B, N, N) by that of distributions (B, N, N).

    product: "matrix" spreads one along the other, "elements" keeps what both say, rows again
    summing to 1.
    """
    if product == "matrix":
        return distribution @ affinity
    both = distribution * affinity
    return both / both.sum(dim=-1, keepdim=True).clamp(min=_EPS)


def _negative_entropy(p: Tensor) -> Tensor:
    """Compute p ln p, 0 for p = 0."""
    return torch.special.xlogy(p, p)
