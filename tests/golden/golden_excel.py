"""Parity of ExCEL's whole training step, under the recipes configs/excel_voc.yaml and
configs/excel_coco.yaml.

Two things of the published code are put in from here, as no recipe has them: means over the whole
batch, and features that are changed in place after they were listed for the decoder.
"""

from dataclasses import replace
from unittest.mock import patch

from golden_family import normalised
from golden_file import GoldenFile, close, mostly_same
from golden_weclip import check_pairs, check_training, recipe, weclip
from torch import Tensor

from clip.resize import resize
from model.criterion import replace_labels
from model.cvf import CVF
from model.dense import attend
from model.head import SegmentationHead
from model.outputs import CVFOutput
from model.proxy import centred_cosine
from utils.config import Config

RECIPES = {21: "excel_voc", 81: "excel_coco"}  # by the number of labels
READ = 6  # maps that the file holds


def joint(features: Tensor, scale: float, shift: float = 1.0, joint: bool = False) -> Tensor:
    """Centred cosines whose mean is over the batch, asked for or not."""
    return centred_cosine(features, scale, shift, joint=True)


def changed_in_place(model: CVF, tokens: list[Tensor]) -> list[Tensor]:
    """Patch tokens (B, N, C) that the published decoder is given, from those after blocks 1..L-1.

    The first block that is read out is listed as the end of the read-out's own path, the others but
    the last with the attention of the block after them added.
    """
    readout = model.method.readout
    blocks = list(model.clip.blocks[-readout.blocks :])
    stream = path = tokens[-readout.blocks]
    listed = []
    for block in blocks:
        path = path + attend(block, stream, readout)
        listed.append(stream + block.attn(block.ln_1(stream)))
        stream = block(stream)
    listed = [*tokens[: -readout.blocks], path, *listed[1:], stream]
    return [each[:, 1:] for each in listed]


def same_constants(golden: GoldenFile, settings: Config) -> None:
    """Constants that the file names are the recipe's."""
    config = golden.config
    assert config["box_threshold"] == settings.box_threshold
    assert config["attn_layers"] == settings.early_maps == settings.late_maps
    assert config["radius"] == settings.radius
    assert config["w_affinity"] == settings.w_attn
    assert config["head"]["features"] == config["clip"]["vision_layers"]


def check_excel(golden: GoldenFile) -> None:
    """Maps, labels, losses and gradients, before and after the switch-over, and with labels of the
    network itself.
    """
    name = RECIPES[golden.config["head"]["num_classes"]]
    settings = recipe(golden, name)
    same_constants(golden, settings)
    if settings.self_train == "none":  # the file has the last stage for both
        settings = replace(
            settings,
            self_train="affinity",
            self_train_iters=settings.switch_iters + 1,
            self_train_at=0.0,
            predicted_classes="all",
        )
        print(f"{name}, overridden: the last stage of excel_voc")
    print(f"{name}, overridden: means over the batch, features changed in place")

    model = weclip(golden, settings)

    def published_tokens(_: SegmentationHead, tokens: list[Tensor]) -> list[Tensor]:
        return changed_in_place(model, tokens)

    stages = {
        "before": settings.switch_iters - 1,
        "after": settings.switch_iters,
        "late": settings.self_train_iters,
    }
    with (
        patch("model.proxy.centred_cosine", joint),
        patch.object(SegmentationHead, "fused_tokens", published_tokens),
    ):
        check_maps(golden, model)
        for stage, step in stages.items():
            check_stage(golden, stage, model, settings, step)


def check_maps(golden: GoldenFile, model: CVF) -> None:
    """Attention maps of the last blocks, and fused features."""
    images = normalised(golden["image_u8"])
    features = model.clip.features(images, maps=READ - 1)
    expected = golden["attn_last6"]
    for ours, theirs in zip(model.seed_maker.clip_maps(features), expected, strict=True):
        close(ours, theirs[:, 1:, 1:])
    fused = model.fusion(model.head.fused_tokens(features.tokens))
    close(fused.transpose(1, 2).unflatten(2, features.grid), golden["fused"])


def check_stage(golden: GoldenFile, stage: str, model: CVF, settings: Config, step: int) -> None:
    """One training step at an iteration of a stage."""
    out: CVFOutput = model(normalised(golden["image_u8"]), golden["tags"], settings.phase(step))
    close(out.logits, golden["seg"])
    close(out.affinity, golden["attn_pred"])
    seeds = out.labels.seeds
    cams = "before_cams" if stage == "before" else "after_cams"
    close(seeds.clip_cams.flatten(1), golden[cams], 0, 1e-3)
    close(seeds.clip, golden[f"{stage}_refined"], 1e-5)
    mostly_same(out.labels.combined, golden[f"{stage}_labels"])

    labels = out.labels.affinity
    if stage == "late":
        logits = resize(out.logits, labels.shape[-2:])
        labels = replace_labels(logits, out.labels, None, settings).affinity
        mostly_same(labels, golden["late_seg_labels"])
    check_pairs(golden, stage, settings, out, labels)
    check_training(golden, stage, model, settings, step)
