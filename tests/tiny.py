"""Tiny random parts for the tests of `model`: a CLIP tower of 4 blocks, a ViT of 4, K = 5
classes.
"""

import torch
import vit_files
from torch import Tensor

from clip.model import VisionTransformer
from model.class_token_vit import ClassTokenViT
from model.cvf import CVF
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder
from model.dino import load_dino
from model.method import Method, Phase
from model.text_match import TextMatch

CLASSES, WORDS = 5, 3
LOGIT_SCALE = 3.0
LATE = Phase(after_switch=True)


def tower() -> VisionTransformer:
    """A CLIP image tower: 4 blocks, 128 channels, native grid 3 x 3, joint space of 64."""
    return VisionTransformer(128, 4, 64, 16, 3).eval().requires_grad_(False)


def texts() -> Tensor:
    """Unit text features of the classes and of the background words."""
    return torch.nn.functional.normalize(torch.randn(CLASSES + WORDS, 64), dim=1)


def vit(**sizes: int) -> ClassTokenViT:
    """A class-token ViT: 4 blocks, 64 channels, native grid 4 x 4."""
    return ClassTokenViT(
        CLASSES, **({"embed_dim": 64, "depth": 4, "heads": 2, "input_size": 64} | sizes)
    )


def cvf(
    dino: bool = False, clip_layers: str = "all", text_match: bool = False, **choices: object
) -> CVF:
    """The whole model with `Method(**choices)`, in training mode; with a DINO of 2 blocks, and told
    by texts, if asked for.
    """
    method = Method(par_iterations=3, **choices)
    branch = None if method.branches == "clip" else vit()
    wide = None if branch is None else LargeFOV(64, CLASSES + 1, width=16)
    decoder = SegmentationDecoder(CLASSES + 1, 32, layers=1, heads=4)
    layers = 1 if clip_layers == "last" else 3
    parts = [tower(), LOGIT_SCALE, texts(), branch, FeatureFusion(layers, 128, 32)]
    second = load_dino(vit_files.dino()) if dino else None
    fusion = FeatureFusion(1, 64, 32) if dino and method.dino_features else None
    match = TextMatch(64, 32) if text_match else None
    return CVF(*parts, decoder, wide, method, second, fusion, match).train()


def batch() -> tuple[Tensor, Tensor]:
    """Images (3, 3, 64, 48) and tags: two classes, none, one."""
    tags = torch.zeros(3, CLASSES)
    tags[0, 1] = tags[0, 3] = tags[2, 0] = 1
    return torch.randn(3, 3, 64, 48), tags
