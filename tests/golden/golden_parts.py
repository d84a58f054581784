"""Checks of single pieces against a golden file, one function a case (tests/golden/README.md,
"Pieces").
"""

import json
from collections.abc import Callable

import pytest
import torch
from golden_file import GoldenFile, close, each_close, mostly_same, same
from golden_weights import head_shapes
from helpers import gradcam
from torch import Tensor

from clip.resize import resize
from clip.tokenizer import Tokenizer
from datasets.specs import SPECS
from model import losses
from model.affinity import build_affinity, propagate, select_by_mass, transition_matrix
from model.boxes import box_mask
from model.cam import normalise, text_probabilities
from model.class_rows import ClassRows
from model.class_token_vit import ranked_pool
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder, predicted_affinity
from model.method import Method
from model.par import refine
from utils.inference.crf import CRFSettings, dense_crf
from utils.metrics import ConfusionMatrix
from utils.training.optim import schedule

PUBLISHED = Method(vit_map="summed", map_selection="mass")


def rows_of(present: Tensor, classes: int) -> ClassRows:
    """The rows of one image with these classes."""
    return ClassRows.from_tags(torch.zeros(1, classes).index_fill(1, present, 1))


def check_texts(golden: GoldenFile) -> None:
    """Prompts, token ids and text features of a whole dataset."""
    foreground, background = golden["prompts_fg"], golden["prompts_bg"]
    spec = next(spec for spec in SPECS.values() if len(spec.classes) == len(foreground))
    assert spec.texts() == foreground + background
    tokens = Tokenizer()(spec.texts())
    same(tokens, torch.cat([golden["tokens_fg"], golden["tokens_bg"]]))
    with torch.no_grad():
        features = torch.nn.functional.normalize(golden.clip().encode_text(tokens), dim=1)
    close(features, torch.cat([golden["text_fg"], golden["text_bg"]]))


@torch.no_grad()
def check_clip_features(golden: GoldenFile) -> None:
    clip, text = golden.clip(), golden["last_text"]
    tokens = Tokenizer()(golden["text_strings"])
    same(tokens, golden["text_tokens"])
    close(clip.encode_text(tokens), golden["text_features"])
    for variant in golden.names("_image"):
        images = golden[f"{variant}_image"]
        features = clip.visual.features(images)
        close(clip.visual.position(*features.grid), golden[f"{variant}_pos_embed"])
        close(torch.stack(features.tokens), golden[f"{variant}_features"])
        close(torch.stack(features.attention), golden[f"{variant}_attn"])
        last, attention = clip.visual.blocks[-1].with_attention(features.tokens[-1])
        close(attention, golden[f"{variant}_last_attn"])
        everything = torch.ones(len(images), len(text), dtype=torch.bool)
        probs = text_probabilities(
            clip.visual.project(last)[:, 1:], text, clip.logit_scale.item(), everything
        )
        close(probs, golden[f"{variant}_last_probs"])


def check_gradcam(golden: GoldenFile) -> None:
    check_texts(golden)
    text = torch.cat([golden["text_fg"], golden["text_bg"]])
    clip, present, classes = golden.clip(), golden["present"], len(golden["text_fg"])
    rows = rows_of(present, classes)
    candidates = torch.cat([present, torch.arange(classes, len(text))])
    for variant in golden.names("_image"):
        features = clip.visual.features(golden[f"{variant}_image"])
        grid = features.grid
        cam = gradcam(clip.visual, clip.logit_scale.item(), features.tokens[-1], grid, rows, text)
        close(cam.cams, golden[f"{variant}_cams"], relative=0, absolute=1e-3)
        close(cam.probs[:, candidates], golden[f"{variant}_probs"])
        assert cam.probs.sum().item() == pytest.approx(1, abs=1e-5)  # the other classes have none
        close(cam.activations.transpose(1, 2).unflatten(2, grid), golden[f"{variant}_activations"])
        close(cam.channel_weights, golden[f"{variant}_channel_weights"])


def paint(boxes: Tensor, shape: torch.Size) -> Tensor:
    """Rows (map, x0, y0, x1, y1) -> bool maps with these boxes filled."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for number, x0, y0, x1, y1 in boxes.tolist():
        mask[number, y0:y1, x0:x1] = True
    return mask


def check_cam_refine(golden: GoldenFile) -> None:
    close(transition_matrix(golden["sinkhorn_in"][None])[0], golden["sinkhorn_out"], 1e-5)
    for percent in (
        suffix.removeprefix("box_masks_")
        for suffix in golden.names("")
        if suffix.startswith("box_masks_")
    ):
        mask = box_mask(golden["box_maps"], int(percent) / 100, clip_edges=True)
        same(mask, golden[f"box_masks_{percent}"])
        same(mask, paint(golden[f"boxes_{percent}"], mask.shape))
    close(
        select_by_mass(golden["select_seg"], golden["select_maps"][:, None])[0],
        golden["select_out"],
        1e-5,
    )
    check_whole_refinement(golden)


def check_whole_refinement(golden: GoldenFile) -> None:
    clip, images = golden.clip(), golden["image"]
    features = clip.visual.features(images)
    close(features.tokens[-1].transpose(0, 1), golden["image_features"])
    for dataset, threshold, foreground in (
        ("voc", 0.4, golden["text_fg"]),
        ("coco", 0.7, golden["text_fg80"]),
    ):
        rows = rows_of(golden["present"], len(foreground))
        tokens = golden["image_features"].transpose(0, 1)
        text = torch.cat([foreground, golden["text_bg"]])
        cam = gradcam(clip.visual, clip.logit_scale.item(), tokens, features.grid, rows, text)
        last = clip.visual.blocks[-1]
        last_map = last.attn.maps(last.ln_1(tokens))
        clip_maps = [m[:, 1:, 1:] for m in (*golden["attn_list"][:, None], last_map)]
        boxes = box_mask(cam.cams, threshold, clip_edges=True)
        for kind, after_switch in (("mean", False), ("seg", True)):
            affinity = build_affinity(
                clip_maps, golden["patch_attn"], golden["seg_attn"], PUBLISHED, after_switch
            )
            transition = transition_matrix(affinity)
            refined = propagate(transition, rows, cam.cams, boxes)
            close(refined, golden[f"{dataset}_{kind}_refined"], 1e-5)
            close(transition[0] * boxes[-1].flatten(), golden[f"{dataset}_{kind}_trans"], 1e-5)
            if (highres := f"{dataset}_{kind}_highres") in golden:
                resized = resize(normalise(refined)[None], images.shape[-2:])[0]
                close(resized, golden[highres], relative=0, absolute=1e-3)


@torch.no_grad()
def check_mctformer(golden: GoldenFile) -> None:
    vit = golden.vit()
    for variant in golden.names("_image"):
        images = golden[f"{variant}_image"]
        out = vit(images, maps="all")
        for name, patch in (("small", vit.patch), ("large", 2 * vit.patch)):
            grid = (images.shape[-2] // patch, images.shape[-1] // patch)
            close(vit.position(grid).flatten(2)[0].T, golden[f"{variant}_pos_{name}"])
        close(torch.stack(out.attention), golden[f"{variant}_attn"])
        close(out.cams, golden[f"{variant}_cams"])
        close(out.x_patch, golden[f"{variant}_x_patch"])
        close(vit.patch_features(images), golden[f"{variant}_x_patch"])
        close(out.patch_affinity, golden[f"{variant}_patch_attn_sum"])
        close(out.cls_logits, golden[f"{variant}_cls_logits"])
        close(torch.stack(out.cls_embeddings), golden[f"{variant}_cls_embeddings"])
        close(out.patch_logits, golden[f"{variant}_patch_logits"])
        close(out.patch_large_logits, golden[f"{variant}_patch_large_logits"])


def check_par(golden: GoldenFile) -> None:
    rounds, dilations, image = (
        golden.config["num_iter"],
        tuple(golden.config["dilations"]),
        golden["image"],
    )
    for masks, refined, times in (
        ("masks", "out", rounds),
        ("masks", "out_1", 1),
        ("small_masks", "small_out", rounds),
    ):
        close(refine(image, golden[masks], times, dilations)[0], golden[refined][0], 0, 1e-5)
    (small,) = refine(image, golden["small_masks"], rounds, dilations)
    labels = golden["small_keys"][resize(small[None], image.shape[-2:])[0].argmax(0)]
    mostly_same(labels, golden["small_labels"])


def check_losses(golden: GoldenFile) -> None:
    config, grid = golden.config, tuple(golden.config["grid"])
    logits = golden["seg_pred"].requires_grad_()
    seg = losses.seg_loss(logits, golden["seg_label"])
    each_close(seg, golden["seg_loss"], 1e-3)
    close(torch.autograd.grad(seg, logits)[0], golden["seg_grad"], 5e-3)

    mask, labels = losses.radius_mask(grid, config["radius"]), golden["aff_cam_label"]
    same(mask, golden["radius_mask"])
    targets = losses.pair_targets(labels, grid, mask)
    same(targets, golden["aff_label"])
    same(losses.pair_targets(labels, grid), golden["aff_label_nomask"])
    same((targets == 1).sum() + 1, golden["aff_pos"])
    same((targets == 0).sum() + 1, golden["aff_neg"])
    predicted = golden["aff_pred"].requires_grad_()
    affinity = losses.affinity_loss(predicted, targets)
    each_close(affinity, golden["aff_loss"], 1e-3)
    close(torch.autograd.grad(affinity, predicted)[0][:, 90], golden["aff_grad_row90"], 5e-3)

    close(ranked_pool(golden["pool_scores"], config["decay"]), golden["pool_logits"])
    each_close(
        losses.tag_loss(golden["pool_logits"], golden["pool_targets"]), golden["pool_loss"], 1e-3
    )
    check_optimiser(golden)


def check_optimiser(golden: GoldenFile) -> None:
    lr, adam = golden.config["lr"], golden.config["adam"]

    def factor(step: int) -> float:
        return schedule(step, lr["max_iter"], lr["warmup"], True, lr["warmup_ratio"], lr["power"])

    factors = golden["lr_mult"]
    each_close(
        torch.tensor([factor(step) for step in range(len(factors))], dtype=torch.float64),
        factors,
        1e-9,
    )
    parameter, trace = torch.nn.Parameter(golden["adam_start"].clone()), []
    optimiser = torch.optim.AdamW(
        [parameter], betas=adam["betas"], eps=adam["eps"], weight_decay=adam["weight_decay"]
    )
    for step, gradient in enumerate(golden["adam_grads"]):
        optimiser.param_groups[0]["lr"] = adam["lr"] * factor(step)
        parameter.grad = gradient.clone()
        optimiser.step()
        trace.append(parameter.detach().clone())
    close(torch.stack(trace), golden["adam_trace"])


@torch.no_grad()
def check_head(golden: GoldenFile) -> None:
    head, state = golden.config["head"], golden.head()
    assert dict(head_shapes(head).values()) == {
        name: tuple(shape) for name, shape in json.loads(golden["names"])
    }
    parts = torch.nn.ModuleDict(
        {
            "fusion": FeatureFusion(head["features"], head["clip_width"], head["embed_dim"]),
            "decoder": SegmentationDecoder(head["num_classes"], head["embed_dim"], head["layers"]),
            "wide": LargeFOV(head["mct_dim"], head["num_classes"]),
        }
    )
    alpha = state.pop("alpha")
    parts.load_state_dict(state)
    features = golden["features"]
    grid = tuple(features.shape[-2:])
    tokens = parts["fusion"]([feature.flatten(2).transpose(1, 2) for feature in features])
    close(tokens.transpose(1, 2).unflatten(2, grid), golden["fused"])
    close(predicted_affinity(tokens), golden["attn_pred"])
    seg, wide = parts["decoder"](tokens, grid), parts["wide"](golden["x_patch"])
    close(seg, golden["seg"])
    close(wide, golden["seg_1"])
    close(alpha * seg + (1 - alpha) * wide, golden["seg_mix"])
    for block, attention in zip(parts["decoder"].blocks, golden["decoder_attn"], strict=True):
        tokens, weights = block(tokens, rows=tokens.shape[1])
        close(weights.mean(dim=1), attention)


def check_crf(golden: GoldenFile) -> None:
    config, image = golden.config, golden["image"]
    probs = resize(golden["logits"], image.shape[:2]).softmax(dim=1)[0]
    same(probs.argmax(0), golden["labels_before"])
    kernels = {
        f"crf_{name}": config[name]
        for name in ("pos_xy_std", "pos_w", "bi_xy_std", "bi_rgb_std", "bi_w")
    }
    marginals = dense_crf(image, probs, CRFSettings(config["iter_max"], **kernels))
    close(marginals, golden["marginals"], relative=0, absolute=1e-3)
    mostly_same(marginals.argmax(0), golden["labels"])


def check_metrics(golden: GoldenFile) -> None:
    numbers = sorted(
        int(name.removeprefix("gt_")) for name in golden.names("") if name.startswith("gt_")
    )
    # c81: counted with 81 classes
    (wider,) = (name for name in golden.names("_summary") if name.startswith("c"))
    matrix, larger = ConfusionMatrix(golden.config["num_classes"]), ConfusionMatrix(int(wider[1:]))
    for done, number in enumerate(numbers, start=1):
        matrix.update(golden[f"pred_{number}"], golden[f"gt_{number}"])
        larger.update(golden[f"pred_{number}"], golden[f"gt_{number}"])
        for stage in {2: ["first2"], len(numbers): ["all"]}.get(done, []):
            same(matrix.counts, golden[f"{stage}_hist"])
            close_or_nan(matrix.iou(), golden[f"{stage}_iou"])
            close_or_nan(summary(matrix), golden[f"{stage}_summary"])
    close_or_nan(summary(larger), golden[f"{wider}_summary"])
    assert (
        golden.config["ignore_index"] == 255
        and matrix.counts[golden.config["absent_class"]].sum() == 0
    )


def summary(matrix: ConfusionMatrix) -> Tensor:
    """Pixel accuracy, mean accuracy, mIoU, float64."""
    return torch.tensor(
        [matrix.pixel_accuracy(), matrix.mean_accuracy(), matrix.miou()], dtype=torch.float64
    )


def close_or_nan(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-12, undefined in the same places."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12, equal_nan=True)


PARTS: dict[str, Callable[[GoldenFile], None]] = {
    "clip_features": check_clip_features,
    "gradcam": check_gradcam,
    "cam_refine": check_cam_refine,
    "mctformer": check_mctformer,
    "par": check_par,
    "losses": check_losses,
    "head": check_head,
    "crf": check_crf,
    "metrics": check_metrics,
}
