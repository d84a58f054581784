"""Losses. Every one is a sum divided by a count, so that processes can share the counts.

`reduce` takes a tensor of local counts and returns the global ones (an all-reduce sum; the identity
for one process). With it each process's loss is its own numerators over the global counts: the
losses, and their gradients, add up over processes to those of one process that holds the whole
batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = 255  # label of pixels and patch pairs that do not train
Reduce = Callable[[Tensor], Tensor]


def single_process(counts: Tensor) -> Tensor:
    """Leave counts as they are: the `reduce` of a lone process."""
    return counts


def seg_loss(logits: Tensor, labels: Tensor, reduce: Reduce = single_process) -> Tensor:
    """Compute half the sum of two mean cross-entropies, over background and over foreground pixels
    (WeCLIP).

    logits (B, K+1, H, W), labels (B, H, W) long with 255 left out. A kind of pixel that no image
    has counts 0.
    """
    entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    parts = torch.stack([labels == 0, (labels != 0) & (labels != IGNORE)])
    sums = torch.stack([(entropy * part).sum() for part in parts])
    counts = reduce(parts.sum(dim=(1, 2, 3)))
    return (sums / counts.clamp(min=1)).sum() / 2


def radius_mask(grid: tuple[int, int], radius: int, device: torch.device | None = None) -> Tensor:
    """Mark, (N, N) bool, where two patches of the h x w grid lie at most `radius` rows and columns
    apart (AFA).
    """
    rows, cols = (torch.arange(n, device=device) for n in grid)
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_cols = (cols[:, None] - cols).abs() <= radius
    near = near_rows[:, None, :, None] & near_cols[None, :, None, :]
    return near.flatten(2).flatten(0, 1)


def pair_targets(labels: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Tensor:
    """Make the pairwise targets of the predicted affinity (AFA, section 3.3).

    labels (B, H, W) are read at each patch's top-left pixel -> (B, N, N) uint8: 1 the same label
    (background is one), 0 not, 255 where either is 255 or `mask` (N, N) bool is False.
    """
    rows, cols = (
        torch.arange(n, device=labels.device) * s // n for n, s in zip(grid, labels.shape[-2:])
    )
    patches = labels[:, rows][:, :, cols].flatten(1)
    known = patches != IGNORE
    usable = known[:, :, None] & known[:, None, :]
    if mask is not None:
        usable = usable & mask

    same = (patches[:, :, None] == patches[:, None, :]).to(torch.uint8)
    return same.masked_fill(~usable, IGNORE)


def affinity_loss(predicted: Tensor, targets: Tensor, reduce: Reduce = single_process) -> Tensor:
    """Compute the mean distance of predicted affinities (B, N, N) in 0..1 from targets 1 and 0,
    each kind half (AFA).

    Both counts are raised by one, so that a missing kind gives 0; targets 255 are left out.
    """
    parts = torch.stack([targets == 1, targets == 0])
    sums = torch.stack([((1 - predicted) * parts[0]).sum(), (predicted * parts[1]).sum()])
    counts = reduce(parts.sum(dim=(1, 2, 3)))
    return (sums / (counts + 1)).sum() / 2


def tag_loss(logits: Tensor, tags: Tensor, reduce: Reduce = single_process) -> Tensor:
    """Compute the multi-label soft margin: binary cross-entropy of logits (B, K) against tags (B,
    K) in {0, 1}, mean of both.
    """
    tags = tags.to(logits.device, torch.float32, non_blocking=True)
    total = (
        F.binary_cross_entropy_with_logits(logits.float(), tags, reduction="none").mean(dim=1).sum()
    )
    return total / reduce(torch.full((), len(tags), device=logits.device)).clamp(min=1)


def class_contrast_loss(
    embeddings: list[Tensor],
    tags: Tensor,
    layers: int = 12,
    reduce: Reduce = single_process,
    by_image: bool = True,
) -> Tensor:
    """Tell the class tokens apart: each tagged class's token should be like itself more than like
    any other class's.

    embeddings: class tokens (B, K, D), `VitOutput.cls_embeddings`, of which the last `layers`
    entries count: 12 are all blocks of a ViT of one stream, or the last six blocks of two streams;
    tags (B, K) in {0, 1}. Cosine scores K x K, cross-entropy of each tagged row against its own
    index, mean over layers and tagged classes of an image, then over tagged images (MCTformer+);
    or, not `by_image`, over all tagged classes of the batch alike.

    Under autocast the scores are products in half precision, as those of its authors are: of the
    toy's ViT, new or trained, bfloat16 moves the loss by less than 0.1% and its gradient by 2%.
    """
    tokens = F.normalize(torch.stack(embeddings[-layers:]).float(), dim=-1)
    scores = tokens @ tokens.transpose(-2, -1)
    entropy = scores.logsumexp(dim=-1) - scores.diagonal(dim1=-2, dim2=-1)
    tagged = tags.to(scores.device, torch.float32, non_blocking=True)
    entropy = entropy.mean(dim=0) * tagged
    if not by_image:
        return entropy.sum() / reduce(tagged.sum()).clamp(min=1)

    count = tagged.sum(dim=1)
    means = entropy.sum(dim=1) / count.clamp(min=1)
    return means.sum() / reduce((count > 0).sum()).clamp(min=1)
