"""What is minimised: the losses of an output, by name, unweighted."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from clip.resize import by_products
from model.losses import (
    IGNORE,
    Reduce,
    affinity_loss,
    class_contrast_loss,
    pair_targets,
    radius_mask,
    seg_loss,
    single_process,
    tag_loss,
)
from model.method import BEGINNING, Method, Phase
from model.outputs import CVFOutput, PseudoLabels, VitOutput
from model.predictions import allowed_labels, own_labels
from model.targets import candidate_loss, collision_loss, dice_loss


@dataclass(frozen=True)
class Replaced:
    """Labels with the network's own in their place where it is sure.

    combined, affinity (B, H, W) long, as in `PseudoLabels`. own (B, H, W) long: what it predicts;
    sure (B, H, W) bool: where that replaces labels of the segmentation.
    """

    combined: Tensor
    affinity: Tensor
    own: Tensor
    sure: Tensor


@record_function("losses")
def criterion(
    output: CVFOutput,
    tags: Tensor,
    radius: int = 8,
    reduce: Reduce = single_process,
    method: Method | None = None,
    phase: Phase = BEGINNING,
) -> dict[str, Tensor]:
    """Compute the unweighted losses of `CVF.forward` (model/README.md, "Losses"): "seg",
    "affinity", with a ViT "patch", and those that the method gives a weight, "dice" and "cross".

    tags (B, K) in {0, 1}; `radius` in patches; method: None for the default settings;
    phase: once the network learns from itself, its own labels may replace others
    (`replace_labels`). The logits are brought to the labels' size.
    """
    method = method or Method()
    labels = output.labels
    size = labels.combined.shape[-2:]
    logits = by_products(output.logits, size)

    replaces = phase.self_training and method.self_train in ("labels", "affinity")
    predicts = replaces or method.w_cross > 0
    allowed = None
    if predicts and method.predicted_classes == "tags":
        allowed = allowed_labels(tags, logits.device)
    replaced = None
    supervising = labels.affinity
    combined = labels.combined
    if replaces:
        replaced = replace_labels(logits, labels, allowed, method)
        supervising = replaced.affinity
        combined = replaced.combined

    height, width = output.logits.shape[-2:]
    grid = (height, width)
    pairs = pair_targets(supervising, grid, radius_mask(grid, radius, logits.device))
    losses = {
        "seg": segmentation_loss(logits, labels, replaced, method, reduce),
        "affinity": affinity_loss(output.affinity, pairs, reduce),
    }
    if output.patch_logits is not None:
        losses["patch"] = tag_loss(output.patch_logits, tags, reduce)
    if method.w_dice:
        losses["dice"] = dice_loss(logits, combined, method.dice_classes == "all", reduce)
    if method.w_cross:
        opinions = [by_products(opinion, size) for opinion in output.opinions]
        losses["cross"] = cross_loss(opinions, combined == IGNORE, allowed, reduce)
    return losses


def replace_labels(
    logits: Tensor, labels: PseudoLabels, allowed: Tensor | None, method: Method
) -> Replaced:
    """Put the network's own labels in the place of others where it is sure (WeCLIP+, ExCEL).

    logits (B, K+1, H, W); allowed (B, K+1) bool: labels that it may name, None: all. By
    `self_train` the labels of the segmentation are replaced, or those of the affinity, never both.
    255 stays.
    """
    own, probability = own_labels(logits.detach(), allowed)
    sure = (probability > method.self_train_at) & (labels.combined != IGNORE)

    if method.self_train == "affinity":
        affinity = torch.where(sure, own, labels.affinity)
        return Replaced(labels.combined, affinity, own, torch.zeros_like(sure))
    return Replaced(torch.where(sure, own, labels.combined), labels.affinity, own, sure)


def segmentation_loss(
    logits: Tensor,
    labels: PseudoLabels,
    replaced: Replaced | None,
    method: Method,
    reduce: Reduce = single_process,
) -> Tensor:
    """Compute the loss of logits (B, K+1, H, W) on hard, soft or paired targets.

    replaced: the network's own labels, which stand in for any kind of target where it is sure;
    None: nowhere. ValueError where the labels lack what the targets are made of.
    """
    combined = labels.combined
    if replaced is not None:
        combined = replaced.combined
    if method.targets == "soft":
        if labels.soft is None:
            raise ValueError("soft targets, but the labels have no refined scores")
        soft = labels.soft
        if replaced is not None:
            certain = F.one_hot(replaced.own, soft.shape[1]).permute(0, 3, 1, 2)
            soft = torch.where(replaced.sure[:, None], certain.to(soft), soft)
        return collision_loss(logits, soft, combined != IGNORE, reduce)

    if method.targets == "pair":
        if labels.clip is None or labels.vit is None:
            raise ValueError("paired targets, but not the labels of both branches")
        first = labels.clip
        doubtful = torch.ones_like(first, dtype=torch.bool)
        if replaced is not None:
            first = torch.where(replaced.sure, replaced.own, first)
            doubtful = ~replaced.sure
        return candidate_loss(logits, first, labels.vit, doubtful, reduce)
    return seg_loss(logits, combined, reduce)


def cross_loss(
    opinions: list[Tensor],
    ignored: Tensor,
    allowed: Tensor | None,
    reduce: Reduce = single_process,
) -> Tensor:
    """Compute by how much each of two predictors misses the other's labels (WeCLIP+).

    opinions: logits (B, K+1, H, W) of both; ignored (B, H, W) bool; allowed (B, K+1) bool: labels
    that a prediction may name, None: all. ValueError unless there are two.
    """
    if len(opinions) != 2:
        raise ValueError(f"{len(opinions)} predictors; two are needed to learn from each other")

    labels = [own_labels(opinion.detach(), allowed)[0] for opinion in opinions]
    first, second = (label.masked_fill(ignored, IGNORE) for label in labels)
    return seg_loss(opinions[0], second, reduce) + seg_loss(opinions[1], first, reduce)


def classifier_criterion(
    output: VitOutput, tags: Tensor, reduce: Reduce = single_process, by_image: bool = True
) -> dict[str, Tensor]:
    """Compute the unweighted losses of the class-token ViT's own training from tags (B, K): "cls",
    "patch" and "contrast".

    "patch" is the mean over the patch sizes, missing without a patch head; `by_image` says how
    "contrast" is averaged (model/README.md, "Training of the ViT").
    """
    losses = {"cls": tag_loss(output.cls_logits, tags, reduce)}
    pooled = [output.patch_logits, output.patch_large_logits]
    patch = [tag_loss(logits, tags, reduce) for logits in pooled if logits is not None]
    if patch:
        losses["patch"] = functools.reduce(torch.add, patch) / len(patch)

    losses["contrast"] = class_contrast_loss(
        output.cls_embeddings, tags, reduce=reduce, by_image=by_image
    )
    return losses
