"""Parity of the family's parts: dense read-outs, proxies, and losses on targets that are no label.

Each check covers the files whose name begins with its key. NOT_OURS lists arrays of published code
that this repository has no counterpart of, with the reason.
"""

from collections.abc import Callable, Iterator

import torch
from golden_file import GoldenFile, close, each_close, mostly_same
from golden_parts import rows_of
from torch import Tensor

from clip.model import VisionTransformer
from datasets.transforms import normalise
from model import losses
from model.affinity import build_affinity, propagate, transition_matrix
from model.boxes import box_mask
from model.cam import normalise as stretch
from model.dense import (
    READOUTS,
    DenseReadout,
    attend,
    dense_tokens,
    gaussian_prior,
    proxy_tokens,
    self_attention,
    surgery_cams,
)
from model.method import Method
from model.par import refine
from model.proxy import proxy_attention
from model.targets import candidate_loss, collision_loss, dice_loss

NOT_OURS = {
    "dense_lastblock": {
        "pos_bicubic": "a position table resized by scale factor; ours is resized to the grid",
    },
    "dense_excel": {
        "excel_feats": "features that published code changes in place after they were kept",
    },
    "excel_forward": {
        "denorm": "an image cut to whole grey levels; ours is refined as it was normalised",
    },
    "excel_pieces": {
        "tse_": "attribute sentences are not encoded here",
        "ref_denorm": "an image cut to whole grey levels; ours is refined as it was normalised",
    },
    "proxy": {
        "mixed_": "SC-CLIP's mixture",
        "aggregated": "SC-CLIP's averaging of tokens",
        "zeroed": "a form without softmax that its own authors do not use",
    },
    "targets": {
        "contours_": "DS-CRF's edges, which a second network draws",
        "edge_weight_": "DS-CRF's edges, which a second network draws",
        "potts_": "DS-CRF's pairwise terms",
        "cosines": "DS-CRF's soft labels from its own texts",
        "soft_labels_": "DS-CRF's soft labels from its own texts",
        "pair_cams": "DAPS's prototypes and graph",
        "pair_dense": "DAPS's prototypes and graph",
        "pair_graph_cams": "DAPS's prototypes and graph",
        "dice_image_": "DAPS's overlap of single images",
    },
}
REDUCED = ("maskclip", "clearclip", "qk_reduced", "sclip_reduced")  # stored without the class token


def variants(golden: GoldenFile) -> Iterator[str]:
    """Shapes of pictures that a file holds, "sq" and "rect"."""
    yield from (name for name in ("sq", "rect") if f"{name}_tokens" in golden)


def grid_of(image: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of an image (B, H, W, 3)."""
    return image.shape[1] // patch, image.shape[2] // patch


def check_last_block(golden: GoldenFile) -> None:
    """The read-outs of one block."""
    visual = golden.clip().visual
    std = golden.config["naclip_std"]
    readouts = {
        "maskclip": READOUTS["maskclip"],
        "clearclip": READOUTS["clearclip"],
        "sclip": READOUTS["sclip"],
        "naclip": DenseReadout("k", std=std),
        "naclip_std2": DenseReadout("k", std=2.0),
        "naclip_vanilla": DenseReadout("k", std=std, residual="block"),
        "qk_reduced": DenseReadout("cross"),
        "kk": DenseReadout("k"),
        "sclip_reduced": DenseReadout("qk", average=False),
    }
    for variant in variants(golden):
        grid = grid_of(golden[f"{variant}_image_u8"], visual.patch_size)
        tokens = golden[f"{variant}_tokens"]
        for name, readout in readouts.items():
            dense = dense_tokens(visual, tokens, grid, readout)
            if name in REDUCED:
                dense = dense[:, 1:]
            close(dense, golden[f"{variant}_{name}"])

        close(gaussian_prior(grid, std), golden[f"{variant}_naclip_prior"])
        close(gaussian_prior(grid, 2.0), golden[f"{variant}_naclip_std2_prior"])
        close(sclip_attention(visual, tokens), golden[f"{variant}_sclip_attn"])


def sclip_attention(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """SCLIP's attention (B, heads, T, T) of the last block."""
    block = visual.blocks[-1]
    return self_attention(*block.attn.split(block.ln_1(tokens)), READOUTS["sclip"])


def check_excel_tower(golden: GoldenFile) -> None:
    """ExCEL's path of five blocks, of one, and its maps of classes."""
    visual, text = golden.clip().visual, golden["text"]
    several = READOUTS["excel"]
    assert several.blocks == golden.config["blocks"]
    for variant in ("sq", "rect"):
        image = golden[f"{variant}_image_u8"]
        grid = grid_of(image, visual.patch_size)
        close(visual.position(*grid), golden[f"{variant}_pos_bilinear"])

        means = visual.features(normalised(image), depth=len(visual.blocks)).attention
        heads = visual.blocks[0].attn.heads
        counts = [1] * (len(means) - several.blocks) + [heads] * several.blocks
        for count, mean, expected in zip(
            counts, means, golden[f"{variant}_excel_attn"], strict=True
        ):
            close(count * mean, expected)

        before = golden[f"{variant}_excel_before"]
        first = before + attend(visual.blocks[-several.blocks], before, several)
        close(first, golden[f"{variant}_excel_path_first"])

        dense = dense_tokens(visual, before, grid, several)
        close(dense, golden[f"{variant}_excel_dense"])
        unit = dense / dense.norm(dim=1, keepdim=True)
        close(unit, golden[f"{variant}_excel_unit"])
        expected = golden[f"{variant}_excel_cams"][:, 1:]
        close(surgery_cams(dense, text, published=True), expected, 0, 1e-3)

        last = before
        for block in visual.blocks[-several.blocks : -1]:
            last = block(last)
        one = DenseReadout("qkv", 1, heads="sum", residual="stream")
        dense = dense_tokens(visual, last, grid, one)
        close(dense, golden[f"{variant}_excel1_dense"])
        expected = golden[f"{variant}_excel1_cams"][:, 1:]
        close(surgery_cams(dense, text, published=True), expected, 0, 1e-3)


def check_excel_pieces(golden: GoldenFile) -> None:
    """ExCEL's learned proxy, and its refinement of maps of classes."""
    visual = golden.clip().visual
    features = golden["lvc_sq_ex_feats"]
    grid = tuple(features.shape[-2:])
    proxy = proxy_attention(features.flatten(2).transpose(1, 2), joint=True)
    close(proxy, golden["lvc_sq_proxy"])

    images = golden["lvc_sq_image_u8"]
    stream, found = visual.embed(normalised(images))
    assert found == grid
    readout = READOUTS["excel"]
    for block in visual.blocks[: -readout.blocks]:
        stream = block(stream)
    dense = dense_tokens(visual, stream, grid, readout, proxy)
    close(dense, golden["lvc_sq_dense"])
    expected = golden["lvc_sq_cams"][:, 1:]
    close(surgery_cams(dense, golden["lvc_text"], published=True), expected, 0, 1e-3)

    check_refinement(golden)


def check_refinement(golden: GoldenFile) -> None:
    """Maps of classes through affinity, boxes and PAR."""
    cams = golden["ref_cams"]
    side = round(len(cams) ** 0.5)
    present = golden["ref_present"]
    rows = rows_of(present, cams.shape[1])
    picked = cams.T[present].unflatten(1, (side, side))
    maps = list(golden["ref_attn"][-golden.config["attn_layers"] :, None, 1:, 1:])
    predicted = golden["ref_seg_attn"]
    image = normalised(golden["ref_image_u8"][None])

    method = Method(vit_map="summed", map_selection="mass", late_maps=6, early_maps=6)
    for name, threshold in (("mean", 0.79), ("mean88", 0.88), ("seg", 0.79)):
        affinity = build_affinity(maps, None, predicted, method, name == "seg")
        close(affinity[0], golden[f"ref_{name}_affinity"])
        transition = transition_matrix(affinity)
        close(transition[0], golden[f"ref_{name}_trans"], 1e-5)

        boxes = box_mask(picked, threshold, clip_edges=True)
        refined = propagate(transition, rows, picked, boxes)
        close(refined, golden[f"ref_{name}_refined"], 1e-5)

        scores = torch.nn.functional.interpolate(
            stretch(refined)[None], image.shape[-2:], mode="bilinear", align_corners=False
        )
        scores = torch.cat([1 - scores.amax(dim=1, keepdim=True), scores], dim=1)
        expected = golden[f"ref_{name}_scores"]
        step = image.shape[-1] // expected.shape[-1]
        close(scores[0, :, ::step, ::step], expected, 0, 1e-3)

        par = golden.config["par"]
        sharp = refine(image, scores, par["num_iter"], tuple(par["dilations"]))
        keys = torch.cat([torch.zeros(1, dtype=torch.long), present + 1])
        mostly_same(keys[sharp[0].argmax(dim=0)], golden[f"ref_{name}_label"])


def normalised(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) with ImageNet's statistics."""
    return normalise(images.permute(0, 3, 1, 2))


def check_proxy(golden: GoldenFile) -> None:
    """ProxyCLIP's attention from given features."""
    config = golden.config
    visual = golden.clip().visual
    for variant, shifts in (("sq", {"dense": config["beta"], "dense_b1": 1.0}), ("rect", {})):
        features = golden[f"{variant}_features"]
        size = tuple(features.shape[-2:])
        flat = features.flatten(2).transpose(1, 2)
        tokens = golden[f"{variant}_tokens"]
        grid = tuple(config["rect_grid"])
        if variant == "sq":
            grid = grid_of(golden["sq_image_u8"], visual.patch_size)
        for name, shift in (shifts or {"dense": config["beta"]}).items():
            attention = proxy_attention(flat, config["gamma"], shift, joint=True)
            if name == "dense":
                close(attention, golden[f"{variant}_attn"])
            dense = proxy_tokens(visual, tokens, grid, attention, size)
            close(dense, golden[f"{variant}_{name}"])


def with_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    """A loss of logits, and its gradient."""
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    return value.detach(), torch.autograd.grad(value, logits)[0]


def check_targets(golden: GoldenFile) -> None:
    """Losses on soft labels, on pairs of candidates, of overlaps, and their gradients."""
    logits, soft = golden["logits"], golden["soft"]
    value, gradient = with_gradient(lambda x: collision_loss(x, soft), logits)
    each_close(value, golden["cce_loss"], 1e-3)
    close(gradient, golden["cce_grad"], 5e-3)
    hard = torch.nn.functional.one_hot(soft.argmax(dim=1), soft.shape[1]).permute(0, 3, 1, 2)
    each_close(collision_loss(logits, hard.float()), golden["cce_onehot_loss"], 1e-3)
    each_close(collision_loss(logits, 0.6 * soft), golden["cce_unnormalised_loss"], 1e-3)

    labels = golden["pair_pseudo"].long()
    no_background = labels.masked_fill(labels == 0, losses.IGNORE)
    others, doubtful = second_opinion(golden, labels)
    value, gradient = with_gradient(lambda x: candidate_loss(x, labels, others, doubtful), logits)
    each_close(value, golden["pair_loss"], 1e-3)
    close(gradient, golden["pair_grad"], 5e-3)
    each_close(doubtful.double().mean(), golden["pair_conflict_share"], 1e-3)
    value = candidate_loss(
        logits, no_background, others, doubtful & (no_background != losses.IGNORE)
    )
    each_close(value, golden["pair_no_background_loss"], 1e-3)

    value, gradient = with_gradient(lambda x: dice_loss(x, labels, published=True), logits)
    each_close(value, golden["dice_loss"], 1e-3)
    close(gradient, golden["dice_grad"], 5e-3)
    whole = labels.masked_fill(labels == losses.IGNORE, 0)
    each_close(dice_loss(logits, whole, published=True), golden["dice_full_loss"], 1e-3)

    value, gradient = with_gradient(lambda x: losses.seg_loss(x, labels), logits)
    each_close(value, golden["seg_loss"], 1e-3)
    close(gradient, golden["seg_grad"], 5e-3)
    each_close(losses.seg_loss(logits, no_background), golden["seg_no_background_loss"], 1e-3)


def second_opinion(golden: GoldenFile, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, H, W) of the given prototypes, and where they make a label doubtful."""
    confidence, others = torch.nn.functional.interpolate(
        golden["pair_prototype"], labels.shape[-2:], mode="bilinear", align_corners=False
    ).max(dim=1)
    background = torch.ones(len(labels), 1, dtype=torch.bool)
    allowed = torch.cat([background, golden["pair_tags"].bool()], dim=1)
    tagged = allowed.gather(1, others.flatten(1)).view_as(others)
    sure = confidence >= golden.config["min_conf"]
    return others, sure & tagged & (others != labels) & (labels != losses.IGNORE)


FAMILY: dict[str, Callable[[GoldenFile], None]] = {
    "dense_lastblock": check_last_block,
    "dense_excel": check_excel_tower,
    "excel_pieces": check_excel_pieces,
    "proxy": check_proxy,
    "targets": check_targets,
}
