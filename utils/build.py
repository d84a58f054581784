"""Put the parts of a network together: CLIP, class-token ViT, DINO, CVF, new ones or those of a
checkpoint. The only place that knows every part.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip.blocks import ACTIVATIONS
from clip.loader import TOY_CLIP, load_clip
from clip.model import CLIP
from clip.text import text_features
from datasets.classes import spec_of
from datasets.specs import DatasetSpec
from model.class_token_vit import ClassTokenViT
from model.cvf import CVF
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder
from model.dino import DinoViT, dino_identity, load_dino
from model.text_match import TextMatch
from model.vit_loading import MCT_WANTED, deit_identity, from_clip, from_deit, load_mct
from utils.common.device import without_values
from utils.common.errors import UserError
from utils.common.files import sha256_of
from utils.common.safe_tensors import read_tensors
from utils.common.weights import find_weights, matches_publisher
from utils.config import Config, short
from utils.run_folder.checkpoint import (
    clip_facts,
    is_of_stage_1,
    load_trained_state,
    refuse_stage_1,
    same_clip,
)


def testing_script(config: Config) -> str:
    """Return the entry script that tests a checkpoint of this data set."""
    dataset = "voc"
    if config.dataset == "coco":
        dataset = "coco"
    return f"test_msc_flip_{dataset}.py"


def build_vit(config: Config, clip: CLIP, num_classes: int) -> ClassTokenViT:
    """Build the class-token ViT: trained (`mct_path`), or started from DeiT or CLIP's tower. Raises
    UserError on bad files.
    """
    torch.manual_seed(config.seed)  # new class tokens and heads are a function of the seed alone
    if config.mct_path:
        vit = load_mct(
            read_tensors(find_weights(config.mct_path, "--mct_path"), "--mct_path"),
            source=f"--mct_path {config.mct_path}",
        )
        if vit.version == "v1":
            raise UserError(
                f"--mct_path {config.mct_path} is MCTformer V1, which has no patch head, so that "
                f"its attention gives seeds but nothing to train stage 2 on; {MCT_WANTED}"
            )
        if vit.num_classes != num_classes:
            raise UserError(
                f"--mct_path {config.mct_path} has {vit.num_classes} classes, this data set has "
                f"{num_classes}; "
                "give one trained on it"
            )
        return vit

    if config.starts_from_clip:
        return from_clip(clip.visual, num_classes, config.mct_crop_size, streams=config.mct_streams)

    path = find_weights(config.deit_path, "--deit_path")
    state = read_tensors(path, "--deit_path")
    _check_published("deit", path, sha256_of(path))
    vit = from_deit(
        state,
        num_classes,
        config.mct_crop_size,
        source=f"--deit_path {path}",
        streams=config.mct_streams,
    )
    vit.start = deit_identity(state)
    return vit


def _check_published(name: str, path: Path, digest: str) -> None:
    """Raise UserError where a file of this SHA-256 bears the name of the published weights `name`,
    and is not these.
    """
    if not matches_publisher(path, digest):
        raise UserError(
            f"--{name}_path {path} is not the published file; fetch it with `python -m "
            f"utils.tools.download {name}`"
        )


def _check_dino(config: Config) -> None:
    """Raise UserError where settings do not go with the DINO that is given, or with none."""
    fetch = "such as that of `python -m utils.tools.download dino`"
    if config.proxy == "dino" and not config.dino_path:
        raise UserError(
            "--proxy dino compares patches of DINO, and there is no --dino_path; give a DINOv2, "
            f"{fetch} (the toy has none), or use another --proxy"
        )
    if config.dino_path and config.dino_use == "proxy" and config.proxy != "dino":
        raise UserError(
            f"--dino_use proxy leaves --dino_path {config.dino_path} to --proxy dino, but --proxy "
            f"is {config.proxy}; use --proxy dino, or another --dino_use"
        )

    predictors = (config.branches != "clip", bool(config.dino_path) and config.dino_features)
    if config.w_cross and not any(predictors):
        raise UserError(
            f"--w_cross {config.w_cross:g} needs two predictors, and --branches clip without "
            f"features of DINO has one; give a --dino_path, {fetch} (the toy has none), or use "
            "--w_cross 0"
        )


def build_dino(config: Config) -> DinoViT | None:
    """Load the DINOv2 of `dino_path`, frozen; None where there is none. Raises UserError on bad
    files, and where other settings want one, or leave it nothing to do.
    """
    _check_dino(config)
    if not config.dino_path:
        return None

    path = find_weights(config.dino_path, "--dino_path")
    if not path.exists():
        raise UserError(
            f"--dino_path {path} does not exist; check the path or fetch a DINOv2 with `python -m "
            "utils.tools.download dino`"
        )

    state = read_tensors(path, "--dino_path")
    digest = sha256_of(path)
    _check_published("dino", path, digest)
    dino = load_dino(state, f"--dino_path {path}")
    dino.sha256 = digest
    dino.identity = dino_identity(dino)
    return dino


def build_cvf(
    config: Config,
    clip: CLIP,
    text: Tensor,
    vit: ClassTokenViT | None,
    num_classes: int,
    dino: DinoViT | None = None,
) -> CVF:
    """Build CVF with new decoders, their weights a function of the seed. `text` (K+M, E) are unit
    text features.
    """
    torch.manual_seed(config.seed)
    depth = len(clip.visual.blocks)
    _check_blocks(config, depth, vit)

    labels = num_classes + 1
    width = config.decoder_width
    layers = {"inner": depth - 1, "all": depth, "last": 1}[config.clip_layers]
    fusion = FeatureFusion(layers, clip.visual.width, width)
    decoder = SegmentationDecoder(labels, width, config.decoder_layers)
    wide = None
    if vit is not None:
        dim = vit.cls_token.shape[-1]
        wide = LargeFOV(dim, labels, config.wide_width, config.wide_dilation)
    dino_fusion = None
    if dino is not None and config.dino_features:
        dino_fusion = FeatureFusion(1, dino.width, width)

    scale = float(clip.logit_scale)
    text_match = TextMatch(text.shape[-1], width) if config.text_match else None
    return CVF(
        clip.visual,
        scale,
        text,
        vit,
        fusion,
        decoder,
        wide,
        config,
        dino,
        dino_fusion,
        text_match,
    )


def build_untrained(config: Config, spec: DatasetSpec) -> CVF:
    """Build the CVF of settings that train nothing (`--stages seeds`), in eval mode."""
    clip = load_clip(config.clip_path, config.clip_activation)
    vit = None
    if config.branches != "clip":
        vit = build_vit(config, clip, len(spec.classes))
    text = text_features(clip, spec.texts())
    model = build_cvf(config, clip, text, vit, len(spec.classes), build_dino(config))
    return model.eval().requires_grad_(False)


def _check_blocks(config: Config, depth: int, vit: ClassTokenViT | None) -> None:
    """Raise UserError where a setting counts blocks that a CLIP of `depth` blocks, or the ViT, has
    not.
    """
    if not 1 <= -config.cam_block < depth:
        raise UserError(
            f"--cam_block {config.cam_block} is not in this CLIP of {depth} blocks; use -1 to "
            f"{1 - depth}"
        )
    if config.cam_skip - config.cam_block >= depth:
        raise UserError(
            f"--cam_skip {config.cam_skip} leaves no block of this CLIP of {depth} before "
            f"--cam_block {config.cam_block}; use 0 to {depth - 1 + config.cam_block}"
        )

    if config.proxy == "clip" and -config.proxy_block > depth:
        raise UserError(
            f"--proxy_block {config.proxy_block} is not in this CLIP of {depth} blocks; use -2 to "
            f"{-depth}"
        )
    if config.dense_blocks >= depth:
        raise UserError(
            f"--dense_blocks {config.dense_blocks} are too many for this CLIP of {depth} blocks; "
            f"use 1 to {depth - 1}"
        )

    if config.branches != "vit" and config.skipped_maps >= depth:
        raise UserError(
            f"--skipped_maps {config.skipped_maps} leaves no attention map of this CLIP of "
            f"{depth} blocks; "
            f"use at most {depth - 1}"
        )
    if vit is not None and not 0 <= config.vit_map_block <= len(vit.blocks):
        raise UserError(
            f"--vit_map_block {config.vit_map_block} is not in this ViT; use 0 (all) to "
            f"{len(vit.blocks)}"
        )


def clip_of(checkpoint: dict[str, Any], config: Config, given: str | None) -> CLIP:
    """Return the CLIP a checkpoint was trained with: embedded, or found by path, in any file that
    holds the same one. A file that is given is read, and refused where it holds another.
    """
    if not given and checkpoint["clip_sha256"] == sha256_of(TOY_CLIP):
        return load_clip(TOY_CLIP)

    activation = checkpoint.get("clip_activation", "quick_gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UserError(
            f"the checkpoint names a CLIP with the activation {short(activation)}, which there is "
            "not; train or copy it again"
        )
    if "clip" in checkpoint and not given:
        try:
            return CLIP.from_state_dict(checkpoint["clip"], activation).requires_grad_(False)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint holds a CLIP that cannot be used ({error}); train or copy it again"
            ) from None

    path = given or config.clip_path
    clip = load_clip(path, trained_activation=activation)
    if not same_clip(checkpoint, clip_facts(clip)):
        raise UserError(
            f"--clip_path {path} is not the CLIP this checkpoint was trained with; give that one"
        )

    return clip


def dino_of(checkpoint: dict[str, Any], config: Config, labels: bool) -> DinoViT | None:
    """Return the DINO a checkpoint was trained with, found by path in any file that holds the same
    one; None where it was trained without, or where nothing that is asked for needs it.

    labels: pseudo labels are made too, not logits alone.
    """
    if "dino_identity" not in checkpoint:
        if config.dino_path:
            raise UserError(
                f"--dino_path {config.dino_path}: the checkpoint was trained without a DINO; leave "
                "the flag out"
            )
        return None
    if not (labels or config.dino_features):
        return None

    dino = build_dino(config)
    if dino is None or dino.identity != checkpoint["dino_identity"]:
        raise UserError(
            f"--dino_path {config.dino_path or 'none'} is not the DINO this checkpoint was trained "
            "with; give that one"
        )
    return dino


def restore(
    checkpoint: dict[str, Any],
    config: Config,
    given_clip: str | None = None,
    labels: bool = False,
) -> tuple[CVF, DatasetSpec]:
    """Return model and class list of a checkpoint, not to be trained further. Raises UserError when
    its classes or tensors do not fit.

    labels: pseudo labels are to be made too, so that all that makes them is loaded. A checkpoint of
    stage 1 makes them as its training scores them at its end, before a decoder has learned; without
    `labels` it is refused.

    The class names of a custom data set are the checkpoint's own, so that its files are not needed;
    neither is their wording, of which the checkpoint holds the text features.
    """
    classes = tuple(checkpoint["classes"])
    if config.dataset == "custom":
        spec = DatasetSpec("custom", classes, classes, ())
    else:
        spec = spec_of(config.dataset, config.data_root)

    if not labels:
        refuse_stage_1(checkpoint, "the checkpoint")
    if classes != spec.classes:
        raise UserError(
            f"the checkpoint has other classes ({len(classes)}) than {spec.name}; use its own "
            "test script"
        )

    clip = clip_of(checkpoint, config, given_clip)
    dino = dino_of(checkpoint, config, labels)
    stage_1 = is_of_stage_1(checkpoint)
    trained = checkpoint["model"]
    vit = None
    if config.branches != "clip":
        prefix = "" if stage_1 else "vit."
        own = {name[len(prefix) :]: t for name, t in trained.items() if name.startswith(prefix)}
        vit = load_mct(own, source="the checkpoint")

    # without values, so that an absurd width in a damaged file takes no memory
    with nullcontext() if stage_1 else without_values():
        model = build_cvf(config, clip, checkpoint["text"], vit, len(spec.classes), dino)
    if not stage_1:
        load_trained_state(model, trained, assign=True)

    return model.eval().requires_grad_(False), spec
