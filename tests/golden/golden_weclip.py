"""Parity of WeCLIP's whole training step: CVF without a ViT, in WeCLIP's settings."""

import golden_weights
import torch
from golden_family import normalised
from golden_file import GoldenFile, close, each_close, mostly_same

from model import losses
from model.affinity import transition_matrix
from model.cvf import CVF
from model.decoder import FeatureFusion, SegmentationDecoder
from model.method import Method

FLAT = ("fusion.merge.weight", "decoder.predict.weight")  # linear here, 1 x 1 convolutions there


def weclip(golden: GoldenFile) -> CVF:
    """WeCLIP with the file's sizes and weights; no dropout."""
    config = golden.config
    head = config["head"]
    clip = golden.clip()
    method = Method(
        branches="clip",
        box_threshold=config["box_threshold"],
        early_maps=config["maps_before"],
        late_maps=config["maps_after"],
        map_selection="mass",
        vit_map="summed",
        clip_box_edges=True,
    )
    fusion = FeatureFusion(head["features"], head["clip_width"], head["embed_dim"])
    decoder = SegmentationDecoder(head["num_classes"], head["embed_dim"], head["layers"])
    text = torch.cat([golden["text_fg"], golden["text_bg"]])
    scale = float(clip.logit_scale)
    model = CVF(clip.visual, scale, text, None, fusion, decoder, None, method).eval()

    own = {name: model.get_parameter(name).shape for name in trained(model)}
    published = golden_weights.fill(
        {
            golden_weights.published_name(name): (*shape, 1, 1) if name in FLAT else tuple(shape)
            for name, shape in own.items()
        },
        config["seed"],
    )
    assert golden_weights.digest(published) == config["sha256"]["head"]
    for name, shape in own.items():
        tensor = published[golden_weights.published_name(name)]
        model.get_parameter(name).data.copy_(tensor.view(shape))
    return model


def trained(model: CVF) -> list[str]:
    """Names of what WeCLIP trains."""
    return [name for name, _ in model.named_parameters() if not name.startswith("clip.")]


def check_weclip(golden: GoldenFile) -> None:
    """Labels, losses and gradients, before and after the switch-over."""
    model = weclip(golden)
    images = normalised(golden["image_u8"])
    for stage, after_switch in (("before", False), ("after", True)):
        out = model(images, golden["tags"], after_switch)
        close(out.logits, golden["seg"])
        close(out.affinity, golden["attn_pred"])
        seeds = out.labels.seeds
        close(seeds.clip_cams, golden["before_cams"], 0, 1e-3)
        expected = transition_matrix(golden[f"{stage}_affinity"])
        close(seeds.transition, expected, 1e-5)
        close(seeds.clip, golden[f"{stage}_refined"], 1e-5)
        mostly_same(out.labels.combined, golden[f"{stage}_labels"])
        check_training(golden, stage, model, out)


def check_training(golden: GoldenFile, stage: str, model: CVF, out: object) -> None:
    """Losses, counts of pairs, and gradients of what is trained."""
    config = golden.config
    grid = tuple(out.logits.shape[-2:])
    mask = losses.radius_mask(grid, config["radius"])
    targets = losses.affinity_labels(out.labels.affinity, grid, mask)
    counts = torch.stack([(targets == 1).sum(), (targets == 0).sum()])
    each_close(counts, golden[f"{stage}_aff_counts"], 1e-3)

    terms = losses.criterion(out, golden["tags"], config["radius"])
    total = terms["seg"] + config["w_affinity"] * terms["affinity"]
    found = torch.stack([terms["seg"], terms["affinity"], total])
    each_close(found, golden[f"{stage}_losses"], 1e-3)

    own = {golden_weights.published_name(name): name for name in trained(model)}
    parameters = [model.get_parameter(own[name]) for name in config["grad_names"]]
    gradients = torch.autograd.grad(total, parameters)
    norms = torch.stack([gradient.norm() for gradient in gradients])
    each_close(norms, golden[f"{stage}_grad_norms"], 5e-3)
    bias = config["grad_names"].index("decoder_fts_fuse.linear_fuse.bias")
    close(gradients[bias], golden[f"{stage}_grad_fuse_bias"], 5e-3)
