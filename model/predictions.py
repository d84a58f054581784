"""The network's own prediction as a source of labels, among those that an image may have."""

import torch
from torch import Tensor

from model.class_rows import ClassRows
from utils.common.precision import to_device


def allowed_labels(tags: Tensor, device: torch.device) -> Tensor:
    """Return which labels an image may have, (B, K+1) bool: background and its tags (B, K)."""
    tags = to_device((tags > 0).cpu(), device)
    background = tags.new_ones(len(tags), 1)
    return torch.cat([background, tags], dim=1)


def probabilities(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Compute probabilities (B, K+1, H, W), in float32, among the labels that an image may have.

    logits (B, K+1, H, W); allowed (B, K+1) bool, None: all.
    """
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed[:, :, None, None], float("-inf"))
    return logits.softmax(dim=1)


def own_labels(logits: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the likeliest allowed label of each pixel, (B, H, W) long, and its probability.

    Arguments as of `probabilities`.
    """
    probability, labels = probabilities(logits, allowed).max(dim=1)
    return labels, probability


def tagged_logits(logits: Tensor, rows: ClassRows) -> list[Tensor]:
    """Pick the logits (1 + its classes, h, w) of background and its tagged classes of each image,
    without gradient; logits (B, K+1, h, w).
    """
    return [own[labels].float() for own, labels in zip(logits.detach(), rows.labels())]


def cam_weights(logits: Tensor, rows: ClassRows, classes: str) -> Tensor:
    """Compute how likely the network takes each patch to be of each tagged class (WeCLIP+).

    logits (B, K+1, h, w) -> (n, h, w) in 0..1, without gradient. classes: what it chooses among,
    "all" or the "tags" of the image and background.
    """
    allowed = None
    if classes == "tags":
        allowed = allowed_labels(rows.tags, logits.device)
    return rows.pick(probabilities(logits.detach(), allowed)[:, 1:])
