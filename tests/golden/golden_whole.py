"""Checks of the whole model under the published configurations (tests/golden/README.md,
"The whole model").
"""

import json
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from golden_file import GoldenFile, close, each_close, mostly_same, same
from golden_parts import check_texts
from golden_weights import head_shapes
from torch import Tensor

from clip.loader import PATCH
from clip.resize import resize
from datasets.specs import SPECS
from datasets.transforms import normalise
from model import losses
from model.affinity import propagate
from model.class_rows import ClassRows
from model.criterion import criterion
from model.cvf import CVF
from model.method import Phase
from model.outputs import CVFOutput
from utils.build import build_cvf
from utils.config import Config, load_config
from utils.inference.multi_scale import multi_scale, resize_long

# px; no multiples of a patch at scales 1 and 0.75, which brings both to whole numbers
UNEVEN = (372, 500)


def published_config(golden: GoldenFile) -> Config:
    """The published configuration of the file's dataset, with the file's decoder sizes."""
    head = golden.config["head"]
    spec = next(spec for spec in SPECS.values() if len(spec.classes) == head["num_classes"] - 1)
    config = load_config(f"published_step_{spec.name}")
    return replace(config, decoder_width=head["embed_dim"], decoder_layers=head["layers"])


def whole_model(golden: GoldenFile, text: Tensor, config: Config | None = None) -> CVF:
    """CVF as a configuration, the published one if none is given, builds it, with the file's
    weights; no dropout.
    """
    vit = golden.vit()
    model = build_cvf(
        config or published_config(golden), golden.clip(), text, vit, vit.num_classes
    ).eval()
    fixed = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(("clip.", "vit."))
    }
    model.load_state_dict(golden.head() | fixed)
    return model


def check_cvf_forward(golden: GoldenFile) -> None:
    check_texts(golden)
    model = whole_model(golden, torch.cat([golden["text_fg"], golden["text_bg"]]))
    images = golden["image"]
    with torch.no_grad():
        vit = model.vit(images, maps="patch")
    close(vit.cams, golden["mct_cams"])
    close(vit.patch_affinity, golden["mct_patch_attn_sum"])
    close(vit.x_patch, golden["mct_x_patch"])
    for stage, after_switch in (("before", False), ("after", True)):
        out = model(images, golden["tags"], Phase(after_switch))
        close(out.logits, golden["seg"])
        close(out.affinity, golden["attn_pred"])
        close(out.patch_logits, golden["x_patch_logits"])
        check_labels(golden, stage, out)
        check_training(golden, stage, out, model)


def check_labels(golden: GoldenFile, stage: str, out: CVFOutput) -> None:
    """CAMs, transition and pseudo labels of a forward."""
    labels, seeds = out.labels, out.labels.seeds
    rows = seeds.rows
    same(rows.index, golden["refined_class"])
    close(seeds.clip_cams, golden["cams"], relative=0, absolute=1e-3)
    close(seeds.clip, golden[f"{stage}_refined"], 1e-5)
    last = seeds.boxes[
        torch.searchsorted(rows.images, torch.arange(len(rows.tags)), right=True) - 1
    ]
    if f"{stage}_trans" in golden:
        close(seeds.transition * last.flatten(1)[:, None], golden[f"{stage}_trans"], 1e-5)
    close(seeds.vit, rows.pick(golden[f"{stage}_refine_cams"]), 1e-5)
    every = ClassRows.from_tags(torch.ones_like(rows.tags))
    spread = propagate(
        seeds.transition, every, golden["mct_cams"].flatten(0, 1), last[every.images]
    )
    close(spread.view_as(golden["mct_cams"]), golden[f"{stage}_refine_cams"], 1e-5)
    mostly_same(labels.clip, golden[f"{stage}_cam_labels"])
    mostly_same(labels.vit, golden[f"{stage}_pseudo"])
    mostly_same(labels.combined, golden[f"{stage}_combined"])


def check_training(golden: GoldenFile, stage: str, out: CVFOutput, model: CVF) -> None:
    """Affinity labels, losses and gradients of a forward."""
    radius, grid = published_config(golden).radius, tuple(out.logits.shape[-2:])
    targets = losses.pair_targets(out.labels.affinity, grid, losses.radius_mask(grid, radius))
    each_close(
        torch.stack([(targets == 1).sum(), (targets == 0).sum()]) + 1,
        golden[f"{stage}_aff_counts"],
        1e-3,
    )
    if f"{stage}_aff_label" in golden:
        mostly_same(targets, golden[f"{stage}_aff_label"])
    terms = criterion(out, golden["tags"], radius)
    total = (
        terms["seg"]
        + golden.config["w_attn"] * terms["affinity"]
        + golden.config["w_pat"] * terms["patch"]
    )
    each_close(
        torch.stack([terms["seg"], terms["affinity"], terms["patch"], total]),
        golden[f"{stage}_losses"],
        1e-3,
    )

    published = {name: own for own, (name, _) in head_shapes(golden.config["head"]).items()}
    trained = dict(json.loads(golden["trainable_names"]))
    parameters = [model.get_parameter(published[name]) for name in trained]
    gradients = dict(zip(trained, torch.autograd.grad(total, parameters)))
    each_close(
        torch.stack([g.norm() for g in gradients.values()]), golden[f"{stage}_grad_norms"], 5e-3
    )
    for array, name in (
        ("pred_weight", "decoder.linear_pred.weight"),
        ("fuse_bias", "decoder_fts_fuse.linear_fuse.bias"),
        ("proj0_bias", "decoder_fts_fuse.linears_modulelist.0.proj.bias"),
    ):
        if (expected := f"{stage}_grad_{array}") in golden:
            close(gradients[name].view(trained[name]), golden[expected], 5e-3)


@torch.no_grad()
def check_inference(golden: GoldenFile) -> None:
    photo = golden["image_u8"]
    image = normalise(photo.permute(2, 0, 1)[None])
    close(image[0], golden["image"])

    config = published_config(golden)
    text = torch.ones(golden.config["mct"]["num_classes"] + 1, golden.config["clip"]["embed_dim"])
    model = whole_model(golden, text, config)
    scales, padded = golden.config["scales"], config.pad_images

    large = resize_long(image, golden.config["resize_long"])
    single, multi = multi_scale(model.segment, large, scales, padded=padded)
    for logits, name, labels in ((single, "segs", "pred"), (multi, "msc_segs", "msc_pred")):
        close(logits, golden[name])
        mostly_same(resize(logits, photo.shape[:2])[0].argmax(0), golden[labels])

    uneven = resize(image, UNEVEN)
    single, multi = multi_scale(model.segment, uneven, scales, padded=padded)
    whole_patches = [side // PATCH * PATCH for side in UNEVEN]
    seen = uneven[..., : whole_patches[0], : whole_patches[1]]
    close(single, model.segment(seen))
    close(multi, published_multi_scale(model, uneven, scales))


def published_multi_scale(model: CVF, image: Tensor, scales: list[float]) -> Tensor:
    """The published loop over scales and mirror images, written out: nothing is padded."""
    results: list[Tensor] = []
    for scale in scales:
        scaled = F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
        plain, mirrored = model.segment(scaled), model.segment(scaled.flip(3))
        if results:
            size = results[0].shape[-2:]
            plain, mirrored = resize(plain, size), resize(mirrored, size)
        results.append((plain + mirrored.flip(3)) / 2)
    return torch.stack(results).mean(dim=0)


WHOLE: dict[str, Callable[[GoldenFile], None]] = {
    "cvf_forward": check_cvf_forward,
    "cvf_forward_coco": check_cvf_forward,
    "inference": check_inference,
}
