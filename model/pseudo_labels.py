"""From refined CAMs to label maps: scores at image size, a background score, refinement, argmax."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.cam import normalise
from model.class_rows import ClassRows
from model.losses import IGNORE
from model.method import Method
from model.outputs import PseudoLabels, Seeds
from model.par import refine
from model.resize import resize

# what the published min-max of each branch's CAMs adds to their range
CLIP_EPS = 1e-7
VIT_EPS = 1e-8


def with_background(scores: Tensor, rows: ClassRows, power: float = 1.0) -> list[Tensor]:
    """Put the background, (1 - max over its classes)^power, in front of each image's scores, (n, H,
    W) in 0..1 in all: (1 + its classes, H, W) per image.
    """
    return [channels_of(own, power) for own in rows.by_image(scores)]


def channels_of(scores: Tensor, power: float = 1.0) -> Tensor:
    """Put the background's score, (1 - max)^power, in front of those of n classes (n, H, W) in
    0..1; n may be 0.
    """
    channels = F.pad(scores, (0, 0, 0, 0, 1, 0))
    channels[0] = (1 - channels.amax(dim=0)) ** power
    return channels


def label_map(images: Sequence[Tensor], rows: ClassRows) -> Tensor:
    """Choose labels (B, H, W) long, 0 or class + 1, by argmax of the channels [background, classes]
    of each image (1 + its classes, H, W).
    """
    labels = [F.pad(classes + 1, (1, 0)) for classes in rows.by_image(rows.index[:, 1])]
    # on the CPU `max` takes a third of argmax's time
    winners = [channels.max(dim=0).indices for channels in images]
    return torch.stack([own[winner] for own, winner in zip(labels, winners)])


def soft_labels(images: Sequence[Tensor], rows: ClassRows) -> Tensor:
    """Make targets (B, K+1, H, W) that sum to 1 from the channels [background, classes] of each
    image (1 + its classes, H, W) >= 0; classes that it is not tagged with have 0.
    """
    num_labels = rows.tags.shape[1] + 1
    soft = images[0].new_zeros(len(images), num_labels, *images[0].shape[-2:])
    classes = rows.by_image(rows.index[:, 1])
    for target, channels, own in zip(soft, images, classes):
        target[F.pad(own + 1, (1, 0))] = channels / channels.sum(dim=0)
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


def seed_labels(seeds: Seeds, size: Sequence[int], method: Method) -> dict[str, Tensor]:
    """Make the label maps (B, *size) of each branch and, with both, "fused": argmax of the scores
    without refinement.
    """
    powers = background_powers(method)
    labels = {
        name: label_map(with_background(scores, seeds.rows, powers[name]), seeds.rows)
        for name, scores in score_maps(seeds, size).items()
    }
    if "fused" in labels and method.label_fusion == "max_id":
        labels["fused"] = torch.maximum(labels["clip"], labels["vit"])
    return labels


def make_labels(
    images: Tensor, seeds: Seeds, method: Method, valid: Tensor | None = None
) -> PseudoLabels:
    """Make refined label maps of normalised images (B, 3, H, W) and seeds; 255 where `valid` (B, H,
    W) bool is False.

    One refinement of the only or the joined scores ("scores"), or one per branch and the larger
    number ("max_id"). The refined scores are kept where they are the targets, and the label of each
    branch is made where both are.
    """
    scores = score_maps(seeds, images.shape[-2:])
    powers = background_powers(method)

    def sharpened(name: str) -> list[Tensor]:
        channels = with_background(scores[name], seeds.rows, powers[name])
        return refine(images, channels, method.par_iterations)

    def refined(name: str) -> Tensor:
        return label_map(sharpened(name), seeds.rows)

    soft = None
    if "fused" in scores and method.label_fusion == "max_id" and seeds.vit is not None:
        vit = _label_at_patch_size(images, seeds.rows, seeds.vit, method)
        labels = {"clip": refined("clip"), "vit": vit}
        combined = torch.maximum(labels["clip"], labels["vit"])
    else:
        whole = "fused" if "fused" in scores else next(iter(scores))
        sharp = sharpened(whole)
        combined = label_map(sharp, seeds.rows)
        others = [name for name in wanted_branches(method) if name in scores and name != whole]
        labels = {whole: combined} | {name: refined(name) for name in others}
        if method.targets == "soft":
            soft = soft_labels(sharp, seeds.rows)
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
    """List the branches whose own labels are made beside the joined ones."""
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
