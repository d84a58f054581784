"""From refined CAMs to label maps: scores at image size, a background score, refinement, argmax."""

import torch
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


def with_background(scores: Tensor, power: float = 1.0) -> Tensor:
    """Scores (B, S, H, W) in 0..1 -> (B, 1+S, H, W) with background (1 - max over classes)^power in
    front.
    """
    background = (1 - scores.amax(dim=1, keepdim=True)) ** power
    return torch.cat([background, scores], dim=1)


def label_map(channels: Tensor, rows: ClassRows) -> Tensor:
    """Channels [background, slots] (B, 1+S, H, W) -> labels (B, H, W) long by argmax: 0, class + 1.

    Empty slots hold 0 and never win: where all classes are 0 the background is 1.
    """
    winner = channels.argmax(dim=1)
    return rows.labels().gather(1, winner.flatten(1)).view(winner.shape)


def score_maps(seeds: Seeds, size: tuple[int, int]) -> dict[str, Tensor]:
    """Scores (B, S, *size) in 0..1 of each branch, "clip" and "vit", and with both their mean,
    "fused" (ours).

    Each CAM is min-max normalised, then resized.
    """
    branches = {"clip": (seeds.clip, CLIP_EPS), "vit": (seeds.vit, VIT_EPS)}
    scores = {
        name: resize(seeds.rows.pack(normalise(cams, eps)), size)
        for name, (cams, eps) in branches.items()
        if cams is not None
    }
    if len(scores) == 2:
        scores["fused"] = (scores["clip"] + scores["vit"]) / 2
    return scores


def seed_labels(seeds: Seeds, size: tuple[int, int], method: Method) -> dict[str, Tensor]:
    """Label maps (B, *size) of each branch and, with both, "fused": argmax of the scores without
    refinement.
    """
    powers = _powers(method)
    labels = {
        name: label_map(with_background(scores, powers[name]), seeds.rows)
        for name, scores in score_maps(seeds, size).items()
    }
    if "fused" in labels and method.label_fusion == "max_id":
        labels["fused"] = torch.maximum(labels["clip"], labels["vit"])
    return labels


def make_labels(
    images: Tensor, seeds: Seeds, method: Method, valid: Tensor | None = None
) -> PseudoLabels:
    """Normalised images (B, 3, H, W) and seeds -> refined label maps; 255 where `valid` (B, H, W)
    bool is False.

    One refinement of the only or the joined scores ("scores"), or one a branch and the larger
    number ("max_id").
    """
    scores, powers = score_maps(seeds, images.shape[-2:]), _powers(method)

    def refined(name: str) -> Tensor:
        channels = with_background(scores[name], powers[name])
        return label_map(refine(images, channels, method.par_iterations), seeds.rows)

    if "fused" not in scores:
        labels = {name: refined(name) for name in scores}
        combined = next(iter(labels.values()))
    elif method.label_fusion == "max_id":
        labels = {"clip": refined("clip"), "vit": _vit_label_at_patch_size(images, seeds, method)}
        combined = torch.maximum(labels["clip"], labels["vit"])
    else:
        labels = {"clip": refined("clip")} if method.affinity_labels == "clip" else {}
        combined = refined("fused")
    clip, vit = labels.get("clip"), labels.get("vit")
    affinity = clip if method.affinity_labels == "clip" and clip is not None else combined
    if valid is not None:
        combined, affinity, clip, vit = (
            None if label is None else label.masked_fill(~valid, IGNORE)
            for label in (combined, affinity, clip, vit)
        )
    return PseudoLabels(combined, affinity, clip, vit, seeds)


def _vit_label_at_patch_size(images: Tensor, seeds: Seeds, method: Method) -> Tensor:
    """Labels (B, H, W) of the ViT branch, refined on the patch grid and then resized, as published
    (model/README.md, "Pseudo labels").
    """
    scores = seeds.rows.pack(normalise(seeds.vit, VIT_EPS))
    channels = with_background(scores, method.background_power_vit)
    refined = refine(images, channels, method.par_iterations)
    return label_map(resize(refined, images.shape[-2:]), seeds.rows)


def _powers(method: Method) -> dict[str, float]:
    """Exponent of the background score of each kind of score."""
    return {
        "clip": method.background_power_clip,
        "vit": method.background_power_vit,
        "fused": method.background_power_fused,
    }
