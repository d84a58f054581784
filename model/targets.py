"""Losses on targets that are not one label: soft labels, pairs of candidates, overlaps of regions.

All are sums divided by counts, as those of `model.losses`; `reduce` makes counts global.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.losses import IGNORE, Reduce, single_process

_EPS = 1e-8


def collision_loss(
    logits: Tensor, targets: Tensor, known: Tensor | None = None, reduce: Reduce = single_process
) -> Tensor:
    """Compute the mean of -ln(sum_c p_c y_c), the chance that two draws give the same label.

    Unlike cross-entropy it does not ask the network to be as unsure as its target (collision
    cross-entropy; Li and Boykov, 2026).

    logits (B, K+1, H, W); targets y (B, K+1, H, W) >= 0, not normalised here; known (B, H, W) bool:
    pixels that train, None: all.
    """
    agreement = (logits.float().softmax(dim=1) * targets).sum(dim=1)
    loss = -(agreement + _EPS).log()

    if known is None:
        known = torch.ones_like(loss, dtype=torch.bool)
    return (loss * known).sum() / reduce(known.sum()).clamp(min=1)


def candidate_loss(
    logits: Tensor,
    labels: Tensor,
    others: Tensor,
    doubtful: Tensor,
    reduce: Reduce = single_process,
) -> Tensor:
    """Compute -ln(p_label + p_other) where two opinions differ, -ln p_label elsewhere.

    Half of the mean over pixels labelled background plus half of that over foreground pixels, as in
    `seg_loss`; a kind without pixels counts 0 (DAPS, 2026).

    logits (B, K+1, H, W); labels, others (B, H, W) long, 255 in labels left out; doubtful (B, H, W)
    bool: where both labels are candidates.
    """
    known = labels != IGNORE
    doubtful = doubtful & known & (others != IGNORE) & (others != labels)
    log_p = logits.float().log_softmax(dim=1)
    first = _at(log_p, labels.masked_fill(~known, 0))
    second = _at(log_p, others.masked_fill(~doubtful, 0))
    loss = -torch.where(doubtful, torch.logaddexp(first, second), first)

    parts = torch.stack([labels == 0, (labels != 0) & known])
    sums = torch.stack([(loss * part).sum() for part in parts])
    counts = reduce(parts.sum(dim=(1, 2, 3)))
    return (sums / counts.clamp(min=1)).sum() / 2


def dice_loss(
    logits: Tensor, labels: Tensor, published: bool = False, reduce: Reduce = single_process
) -> Tensor:
    """Compute 1 - the mean over classes of the Dice overlap 2 sum(p y) / (sum(p) + sum(y)).

    p: predicted probability, y: 1 where labelled. Sums are over the batch. Ours: pixels labelled
    255 are left out, the mean is over classes in the labels. Published (WeCLIP+, Zhang et al.,
    TPAMI 2025): such pixels count as predicted, and classes that occur nowhere count with overlap
    0.

    logits (B, K+1, H, W); labels (B, H, W) long.
    """
    p = logits.float().softmax(dim=1)
    known = labels != IGNORE
    truth = F.one_hot(labels.masked_fill(~known, 0), logits.shape[1]).permute(0, 3, 1, 2)
    truth = (truth * known[:, None]).to(p)

    counted = p
    if not published:
        counted = p * known[:, None]

    overlap = _over_processes((p * truth).sum(dim=(0, 2, 3)), reduce)
    pixels = reduce(truth.sum(dim=(0, 2, 3)))
    areas = _over_processes(counted.sum(dim=(0, 2, 3)), reduce) + pixels
    dice = 2 * overlap / (areas + 1e-7)

    classes = torch.ones_like(dice)
    if not published:
        classes = (pixels > 0).to(dice)
    loss = 1 - (dice * classes).sum() / classes.sum().clamp(min=1)

    # Every process has the loss of the whole batch, with the gradient of its own part alone: each
    # returns a share of the value, and its gradient whole.
    share = 1 / reduce(torch.ones_like(loss.detach()))
    return loss - (1 - share) * loss.detach()


def _over_processes(sums: Tensor, reduce: Reduce) -> Tensor:
    """Add up sums over processes; the gradient is that of this process's own part."""
    return reduce(sums.detach()) + sums - sums.detach()


def _at(log_p: Tensor, labels: Tensor) -> Tensor:
    """Pick the entries (B, H, W) of (B, K+1, H, W) at labels (B, H, W)."""
    return log_p.gather(1, labels[:, None])[:, 0]
