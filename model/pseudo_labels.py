"""From propagated CAMs to label maps: scores at image size, a background score, refinement, argmax.

"Channels" of an image are the scores of background and its tagged classes, in that order.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.resize import resize
from model.cam import normalise
from model.class_rows import ClassRows
from model.losses import IGNORE
from model.method import Method
from model.outputs import PseudoLabels, Seeds
from model.par import refine

# What the published code adds to the range that it divides a CAM by, to bring it to 0..1.
CLIP_EPS = 1e-7
VIT_EPS = 1e-8


def with_background(scores: Tensor, rows: ClassRows, power: float = 1.0) -> list[Tensor]:
    """Turn scores (n, H, W) in 0..1 into the channels (1 + its classes, H, W) of each image, by
    `channels_of`.
    """
    return [channels_of(own, power) for own in rows.by_image(scores)]


def channels_of(scores: Tensor, power: float = 1.0) -> Tensor:
    """Put the background's score, (1 - largest score)^power, in front of the scores (n, H, W) in
    0..1 of one image's n classes: channels (1 + n, H, W). Without classes the background's is 1.
    """
    channels = F.pad(scores, (0, 0, 0, 0, 1, 0))
    # interpolation may put a score above 1 by rounding, and a power of less than 0 is no number
    channels[0] = (1 - channels.amax(dim=0)).clamp(min=0) ** power
    return channels


def label_map(channels: Sequence[Tensor], rows: ClassRows) -> Tensor:
    """Choose labels (B, H, W) long, 0 or class + 1, by argmax of the channels
    (1 + its classes, H, W) of each image.
    """
    # on the CPU `max` takes a third of argmax's time
    winners = [own.max(dim=0).indices for own in channels]
    return torch.stack([own[winner] for own, winner in zip(rows.labels(), winners)])


def soft_labels(channels: Sequence[Tensor], rows: ClassRows) -> Tensor:
    """Make targets (B, K+1, H, W) that sum to 1 from the channels (1 + its classes, H, W) >= 0 of
    each image; classes that it is not tagged with have 0.
    """
    num_labels = rows.tags.shape[1] + 1
    soft = channels[0].new_zeros(len(channels), num_labels, *channels[0].shape[-2:])
    for target, scores, labels in zip(soft, channels, rows.labels()):
        target[labels] = scores / scores.sum(dim=0)
    return soft


def score_maps(seeds: Seeds, size: Sequence[int]) -> dict[str, Tensor]:
    """Return the scores (n, *size) in 0..1 of each branch, "clip" and "vit", and with both their
    mean, "fused" (ours).

    Each CAM is min-max normalised, then resized.
    """
    branches = {"clip": (seeds.clip, CLIP_EPS), "vit": (seeds.vit, VIT_EPS)}
    scores = {
        name: resize(normalise(cams, eps)[:, None], size)[:, 0]
        for name, (cams, eps) in branches.items()
        if cams is not None
    }

    if len(scores) == 2:
        scores["fused"] = (scores["clip"] + scores["vit"]) / 2
    return scores


def join_own(channels: list[Tensor], seeds: Seeds, method: Method) -> list[Tensor]:
    """Mix the channels (1 + its classes, H, W) of each image with the network's own probabilities
    among its tags, where they join the scores (ours; model/README.md, "Targets").
    """
    if seeds.own is None:
        return channels
    share = method.self_train_share
    own = [resize(own[None], channels[0].shape[-2:])[0].softmax(dim=0) for own in seeds.own]
    return [(1 - share) * scores + share * p for scores, p in zip(channels, own)]


def seed_labels(seeds: Seeds, size: Sequence[int], method: Method) -> dict[str, Tensor]:
    """Make the label maps (B, *size) of each branch and, with both, "fused", which the network's
    own prediction may join: argmax of the scores without refinement.
    """
    powers = background_powers(method)
    labels = {}
    for name, scores in score_maps(seeds, size).items():
        channels = with_background(scores, seeds.rows, powers[name])
        if name == "fused":
            channels = join_own(channels, seeds, method)
        labels[name] = label_map(channels, seeds.rows)
    if "fused" in labels and method.label_fusion == "max_id":
        labels["fused"] = torch.maximum(labels["clip"], labels["vit"])
    return labels


def make_labels(
    images: Tensor, seeds: Seeds, method: Method, valid: Tensor | None = None
) -> PseudoLabels:
    """Make refined label maps of normalised images (B, 3, H, W) and seeds; 255 where `valid` (B, H,
    W) bool is False.

    By `label_fusion`: "scores" refines once, the mean of both branches' scores (or the only ones);
    "max_id" refines each branch alone and takes the larger label number. With `targets` "soft" the
    refined scores are kept too; with "pair" each branch's own labels are made too.
    """
    scores = score_maps(seeds, images.shape[-2:])
    powers = background_powers(method)

    whole = "fused" if "fused" in scores else next(iter(scores))

    def refined_channels(name: str) -> list[Tensor]:
        """Refine the scores of one kind, with background, of each image."""
        channels = with_background(scores[name], seeds.rows, powers[name])
        if name == whole:
            channels = join_own(channels, seeds, method)
        return refine(images, channels, method.par_iterations)

    def refined_label(name: str) -> Tensor:
        return label_map(refined_channels(name), seeds.rows)

    soft = None
    if "fused" in scores and method.label_fusion == "max_id" and seeds.vit is not None:
        vit = _label_at_patch_size(images, seeds.rows, seeds.vit, method)
        labels = {"clip": refined_label("clip"), "vit": vit}
        combined = torch.maximum(labels["clip"], labels["vit"])
    else:
        channels = refined_channels(whole)
        combined = label_map(channels, seeds.rows)
        others = [name for name in wanted_branches(method) if name in scores and name != whole]
        labels = {whole: combined} | {name: refined_label(name) for name in others}
        if method.targets == "soft":
            soft = soft_labels(channels, seeds.rows)
    affinity = combined
    if method.affinity_labels == "clip":
        affinity = labels.get("clip", combined)

    if valid is not None:
        padding = ~valid
        combined, affinity = (label.masked_fill(padding, IGNORE) for label in (combined, affinity))
        labels = {name: label.masked_fill(padding, IGNORE) for name, label in labels.items()}
    return PseudoLabels(combined, affinity, labels.get("clip"), labels.get("vit"), seeds, soft)


def _label_at_patch_size(images: Tensor, rows: ClassRows, cams: Tensor, method: Method) -> Tensor:
    """Return the labels (B, H, W) of the ViT branch, refined on the patch grid and then resized, as
    published (model/README.md, "Pseudo labels").
    """
    scores = normalise(cams, VIT_EPS)
    channels = with_background(scores, rows, method.background_power_vit)
    refined = refine(images, channels, method.par_iterations)
    return label_map([resize(own[None], images.shape[-2:])[0] for own in refined], rows)


def wanted_branches(method: Method) -> tuple[str, ...]:
    """List the branches whose own labels are needed beside the joined ones."""
    if method.targets == "pair":
        return ("clip", "vit")
    if method.affinity_labels == "clip":
        return ("clip",)
    return ()


def background_powers(method: Method) -> dict[str, float]:
    """Return the exponent of the background score of each kind of score."""
    return {
        "clip": method.background_power_clip,
        "vit": method.background_power_vit,
        "fused": method.background_power_fused,
    }
