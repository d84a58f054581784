"""Parity of WeCLIP+'s whole training step and of its losses alone, under the recipes
configs/weclip_plus_voc.yaml and configs/weclip_plus_coco.yaml.
"""

from dataclasses import replace
from typing import Any

import golden_weights
import torch
from golden_dino import dino
from golden_family import normalised
from golden_file import GoldenFile, close, each_close, mostly_same, same
from torch import Tensor

from clip.resize import resize
from model import losses
from model.affinity import transition_matrix
from model.class_rows import ClassRows
from model.criterion import replace_labels
from model.cvf import CVF
from model.outputs import CVFOutput, PseudoLabels, Seeds
from utils.build import build_cvf
from utils.config import Config, load_config
from utils.training.stages import pseudo_label_losses

FLAT = ("fusion.merge.weight", "dino_fusion.merge.weight", "decoder.predict.weight")
RECIPES = {21: "weclip_plus_voc", 81: "weclip_plus_coco"}  # by the number of labels
BIASES = {"grad_fuse_bias": "decoder_fts_fuse", "grad_dino_fuse_bias": "dino_decoder_fts_fuse"}


def recipe(num_labels: int, **wanted: Any) -> Config:
    """The recipe for so many labels, with some settings of the file. Says what it overrides."""
    name = RECIPES[num_labels]
    settings = load_config(name)
    overridden = {key: value for key, value in wanted.items() if getattr(settings, key) != value}
    print(f"{name}, overridden: {overridden}")
    return replace(settings, **overridden)


def weclip_plus(golden: GoldenFile, settings: Config) -> CVF:
    """The recipe's model with the file's weights; no dropout."""
    config = golden.config
    text = torch.cat([golden["text_fg"], golden["text_bg"]])
    classes = config["head"]["num_classes"] - 1
    backbone = dino(golden, "dino")
    model = build_cvf(settings, golden.clip(), text, None, classes, backbone).eval()

    own = {name: tuple(model.get_parameter(name).shape) for name in trained(model)}
    published = golden_weights.fill(
        {
            golden_weights.published_name(name): (*shape, 1, 1) if name in FLAT else shape
            for name, shape in own.items()
        },
        config["head_seed"],
    )
    published["decoder.linear_pred.bias"][0] += config["background_bias"]
    assert golden_weights.digest(published) == config["sha256"]["head"]
    for name, shape in own.items():
        tensor = published[golden_weights.published_name(name)]
        model.get_parameter(name).data.copy_(tensor.view(shape))
    return model


def trained(model: CVF) -> list[str]:
    """Names of what WeCLIP+ trains."""
    frozen = ("clip.", "dino.")
    return [name for name, _ in model.named_parameters() if not name.startswith(frozen)]


def same_constants(golden: GoldenFile, settings: Config) -> None:
    """Constants that the file names are the recipe's."""
    config = golden.config
    assert config["boxes"] == settings.boxes
    if settings.boxes:
        assert config["box_threshold"] == settings.box_threshold
    assert config["maps"] == settings.late_maps
    assert config["cam_input_block"] == 11 - settings.cam_skip
    assert config["radius"] == settings.radius
    weights = (settings.w_attn, settings.w_cross, settings.w_dice)
    assert weights == (config["w_affinity"], config["w_cross"], config["w_dice"])


def check_weclip_plus(golden: GoldenFile) -> None:
    """Features, labels, losses and gradients of one training step."""
    head = golden.config["head"]
    settings = recipe(
        head["num_classes"],
        decoder_width=head["embed_dim"],
        decoder_layers=head["layers"],
        fusion_dropout=0.0,
    )
    same_constants(golden, settings)
    model = weclip_plus(golden, settings)
    images = normalised(golden["image_u8"])
    check_features(golden, model, images)

    out = model(images, golden["tags"], settings.phase(0))
    close(out.opinions[0], golden["seg_clip"])
    close(out.opinions[1], golden["seg_dino"])
    close(out.logits, (golden["seg_clip"] + golden["seg_dino"]) / 2)
    close(out.affinity, golden["attn_pred"])
    seeds = out.labels.seeds
    close(seeds.clip_cams, golden["cams"], 0, 1e-3)
    close(seeds.transition, transition_matrix(golden["affinity"]), 1e-5)
    close(seeds.clip, golden["refined"], 1e-5)
    mostly_same(out.labels.combined, golden["labels"])
    check_opinions(golden, out)
    check_training(golden, model, settings)


def check_features(golden: GoldenFile, model: CVF, images: Tensor) -> None:
    """DINO's patches of the resized picture, and CLIP's fused features."""
    close(model.dino.look(images).patches, golden["dino_tokens"])
    clip = model.clip.features(images)
    fused = model.fusion([clip.tokens[-1][:, 1:]])
    close(fused.transpose(1, 2).unflatten(2, clip.grid), golden["clip_fused"])


def check_opinions(golden: GoldenFile, out: CVFOutput) -> None:
    """What each predictor says of each pixel, what that costs the other, and pairs of patches."""
    sized = [resize(opinion, out.labels.combined.shape[-2:]) for opinion in out.opinions]
    labels = [opinion.argmax(dim=1) for opinion in sized]
    mostly_same(labels[0], golden["clip_labels"])
    mostly_same(labels[1], golden["dino_labels"])
    crossed = [losses.seg_loss(sized[0], labels[1]), losses.seg_loss(sized[1], labels[0])]
    each_close(torch.stack(crossed), golden["losses"][2:4], 1e-3)

    height, width = out.logits.shape[-2:]
    mask = losses.radius_mask((height, width), golden.config["radius"])
    targets = losses.pair_targets(out.labels.affinity, (height, width), mask)
    counts = torch.stack([(targets == 1).sum(), (targets == 0).sum()])
    each_close(counts, golden["aff_counts"], 1e-3)


def check_training(golden: GoldenFile, model: CVF, settings: Config) -> None:
    """Losses, as a training step of the recipe has them, and gradients of what is trained."""
    images = normalised(golden["image_u8"])
    terms = step_losses(model, images, golden["tags"], settings, 0)
    total = sum(terms.values())
    same_losses(terms, golden["losses"], settings)

    own = {golden_weights.published_name(name): name for name in trained(model)}
    names = golden.config["grad_names"]
    parameters = [model.get_parameter(own[name]) for name in names]
    gradients = torch.autograd.grad(total, parameters)
    norms = torch.stack([gradient.norm() for gradient in gradients])
    each_close(norms, golden["grad_norms"], 5e-3)
    for array, fusion in BIASES.items():
        close(gradients[names.index(f"{fusion}.linear_fuse.bias")], golden[array], 5e-3)


def step_losses(
    model: Any, images: Tensor, tags: Tensor, settings: Config, step: int
) -> dict[str, Tensor]:
    """Weighted losses of a batch, as training has them; padding is trained on, so none is told."""
    valid = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    batch = {"tags": tags.float(), "valid": valid, "index": torch.arange(len(images))}
    return pseudo_label_losses(model, images, batch, step, settings)


def same_losses(terms: dict[str, Tensor], expected: Tensor, settings: Config) -> None:
    """The file has both cross terms, all unweighted, and the total."""
    seg, affinity, first, second, dice, total = expected
    unweighted = {
        "seg": seg,
        "affinity": affinity,
        "cross": first + second,
        "dice": dice,
    }
    weights = {"affinity": settings.w_attn, "cross": settings.w_cross, "dice": settings.w_dice}
    assert terms.keys() == unweighted.keys()
    for name, value in unweighted.items():
        each_close(terms[name] / weights.get(name, 1.0), value, 1e-3)
    each_close(sum(terms.values()), total, 1e-3)


def check_step(golden: GoldenFile) -> None:
    """Losses of given logits and labels, before and after the network's own labels replace these,
    and their gradients.
    """
    config = golden.config
    after = config["self_train_after"]
    settings = recipe(config["num_classes"], self_train_iters=after + 1)
    assert config["threshold"] == settings.self_train_at

    given = [golden[name].requires_grad_() for name in ("seg_clip", "seg_dino", "attn_pred")]
    output = output_of(*given, golden["labels"].long())
    size = golden["labels"].shape[-2:]
    images = torch.zeros(len(golden["labels"]), 3, *size)
    tags = torch.ones(len(images), config["num_classes"] - 1)

    for stage, step in (("start", 0), ("at_18000", after), ("self", after + 1)):
        terms = step_losses(lambda *_: output, images, tags, settings, step)
        same_losses(terms, golden[f"{stage}_losses"], settings)
        clip, dino, affinity = torch.autograd.grad(sum(terms.values()), given, retain_graph=True)
        if stage != "at_18000":
            close(clip, golden[f"{stage}_grad_clip"], 5e-3)
            close(dino, golden[f"{stage}_grad_dino"], 5e-3)
        close(affinity, golden["grad_attn_pred"], 5e-3)
    check_own_labels(golden, output, settings)


def output_of(clip: Tensor, dino: Tensor, affinity: Tensor, labels: Tensor) -> CVFOutput:
    """What a model that predicts this would give."""
    rows = ClassRows.from_tags(torch.zeros(len(labels), clip.shape[1] - 1))
    made = PseudoLabels(labels, labels, None, None, Seeds(rows, affinity))
    return CVFOutput((clip + dino) / 2, affinity, None, made, (clip, dino))


def check_own_labels(golden: GoldenFile, output: CVFOutput, settings: Config) -> None:
    """Labels that the segmentation learns, before and after the network's own replace them."""
    labels = output.labels
    same(labels.combined, golden["start_labels"])
    logits = resize(output.logits, labels.combined.shape[-2:])
    replaced = replace_labels(logits, labels, None, settings)
    mostly_same(replaced.combined, golden["self_labels"])
    same(replaced.affinity, golden["labels"])
