"""Parity of WeCLIP's whole training step, under the recipes configs/weclip_voc.yaml and
configs/weclip_coco.yaml.
"""

from dataclasses import replace

import golden_weights
import torch
from golden_family import normalised
from golden_file import GoldenFile, close, each_close, mostly_same
from torch import Tensor

from model import losses
from model.affinity import transition_matrix
from model.cvf import CVF
from model.outputs import CVFOutput
from utils.build import build_cvf
from utils.config import Config, load_config
from utils.training.stages import pseudo_label_losses

FLAT = ("fusion.merge.weight", "decoder.predict.weight")  # linear here, 1 x 1 convolutions there
RECIPES = {21: "weclip_voc", 81: "weclip_coco"}  # by the number of labels


def recipe(golden: GoldenFile, name: str) -> Config:
    """A recipe with the file's sizes and without dropout. Says what it overrides."""
    head = golden.config["head"]
    settings = load_config(name)

    wanted = {
        "decoder_width": head["embed_dim"],
        "decoder_layers": head["layers"],
        "fusion_dropout": 0.0,
    }
    overridden = {key: value for key, value in wanted.items() if getattr(settings, key) != value}
    print(f"{name}, overridden: {overridden}")
    return replace(settings, **overridden)


def same_constants(golden: GoldenFile, settings: Config) -> None:
    """Constants that the file names are the recipe's."""
    config = golden.config
    assert config["box_threshold"] == settings.box_threshold
    assert config["maps_before"] == settings.early_maps
    assert config["maps_after"] == settings.late_maps
    assert config["radius"] == settings.radius
    assert config["w_affinity"] == settings.w_attn


def weclip(golden: GoldenFile, settings: Config) -> CVF:
    """The recipe's model with the file's weights; no dropout."""
    text = golden["text"] if "text" in golden else torch.cat([golden["text_fg"], golden["text_bg"]])
    classes = golden.config["head"]["num_classes"] - 1
    model = build_cvf(settings, golden.clip(), text, None, classes).eval()

    own = {name: model.get_parameter(name).shape for name in trained(model)}
    published = golden_weights.fill(
        {
            golden_weights.published_name(name): (*shape, 1, 1) if name in FLAT else tuple(shape)
            for name, shape in own.items()
        },
        golden.config["seed"],
    )
    assert golden_weights.digest(published) == golden.config["sha256"]["head"]
    for name, shape in own.items():
        tensor = published[golden_weights.published_name(name)]
        model.get_parameter(name).data.copy_(tensor.view(shape))
    return model


def trained(model: CVF) -> list[str]:
    """Names of what WeCLIP trains."""
    return [name for name, _ in model.named_parameters() if not name.startswith("clip.")]


def check_weclip(golden: GoldenFile) -> None:
    """Labels, losses and gradients, before and after the switch-over."""
    settings = recipe(golden, RECIPES[golden.config["head"]["num_classes"]])
    same_constants(golden, settings)
    model = weclip(golden, settings)
    images = normalised(golden["image_u8"])
    for stage, step in (("before", settings.switch_iters - 1), ("after", settings.switch_iters)):
        out = model(images, golden["tags"], settings.phase(step))
        close(out.logits, golden["seg"])
        close(out.affinity, golden["attn_pred"])
        seeds = out.labels.seeds
        close(seeds.clip_cams, golden["before_cams"], 0, 1e-3)
        expected = transition_matrix(golden[f"{stage}_affinity"])
        close(seeds.transition, expected, 1e-5)
        close(seeds.clip, golden[f"{stage}_refined"], 1e-5)
        mostly_same(out.labels.combined, golden[f"{stage}_labels"])
        check_pairs(golden, stage, settings, out, out.labels.affinity)
        check_training(golden, stage, model, settings, step)


def check_pairs(
    golden: GoldenFile, stage: str, settings: Config, out: CVFOutput, labels: Tensor
) -> None:
    """Counts of pairs of patches with the same and with other labels (B, H, W)."""
    grid = tuple(out.logits.shape[-2:])
    mask = losses.radius_mask(grid, settings.radius)
    targets = losses.pair_targets(labels, grid, mask)
    counts = torch.stack([(targets == 1).sum(), (targets == 0).sum()])
    each_close(counts, golden[f"{stage}_aff_counts"], 1e-3)


def check_training(golden: GoldenFile, stage: str, model: CVF, settings: Config, step: int) -> None:
    """Losses, as a training step of the recipe has them, and gradients of what is trained."""
    config, images = golden.config, normalised(golden["image_u8"])
    valid = torch.zeros(len(images), *images.shape[-2:], dtype=torch.bool)
    # nothing is valid: padding is trained on all the same
    batch = {"tags": golden["tags"].float(), "valid": valid, "index": torch.arange(len(images))}
    terms = pseudo_label_losses(model, images, batch, step, settings)
    total = sum(terms.values())
    affinity = terms["affinity"] / settings.w_attn  # unweighted in the file
    each_close(torch.stack([terms["seg"], affinity, total]), golden[f"{stage}_losses"], 1e-3)

    own = {golden_weights.published_name(name): name for name in trained(model)}
    parameters = [model.get_parameter(own[name]) for name in config["grad_names"]]
    gradients = torch.autograd.grad(total, parameters)
    norms = torch.stack([gradient.norm() for gradient in gradients])
    each_close(norms, golden[f"{stage}_grad_norms"], 5e-3)
    bias = config["grad_names"].index("decoder_fts_fuse.linear_fuse.bias")
    close(gradients[bias], golden[f"{stage}_grad_fuse_bias"], 5e-3)
