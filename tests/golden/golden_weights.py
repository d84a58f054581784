"""Random weights of the golden files: a pure function of (seed, published tensor name, shape).
Nothing is trained.

The names and shapes come from our own modules, translated to those of the published checkpoints;
`digest` proves that names, shapes and numbers are the ones a golden file was made with.
"""

import hashlib
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clip.model import CLIP, VisionTransformer
from model.class_token_vit import ClassTokenViT
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder

Shapes = dict[str, tuple[int, ...]]
# pos_embed and pos_embed_*
_TABLES = {
    "class_embedding",
    "positional_embedding",
    "cls_token",
    "pos_embed",
}
_TO_PUBLISHED = (
    (r"^(dino_)?fusion\.mlps\.(\d+)\.0\.", r"\1decoder_fts_fuse.linears_modulelist.\2.proj."),
    (r"^(dino_)?fusion\.mlps\.(\d+)\.2\.", r"\1decoder_fts_fuse.linears_modulelist.\2.proj_2."),
    (r"^(dino_)?fusion\.merge\.", r"\1decoder_fts_fuse.linear_fuse."),
    (r"^decoder\.predict\.", "decoder.linear_pred."),
    (r"^decoder\.blocks\.", "decoder.transformer.resblocks."),
    (r"\.attn\.qkv\.", ".attn.in_proj_"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"^wide\.layers\.0\.", "decoder_1.conv6."),
    (r"^wide\.layers\.2\.", "decoder_1.conv7."),
    (r"^wide\.layers\.4\.", "decoder_1.conv8."),
)


def published_name(name: str) -> str:
    """Name in the published CVF checkpoint of one of our trained tensors (`CVF.state_dict`, without
    clip and vit).
    """
    for pattern, replacement in _TO_PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def head_shapes(head: Mapping[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Our name -> (published name, published shape) of everything CVF trains beside the ViT."""
    parts = {
        "fusion": FeatureFusion(head["features"], head["clip_width"], head["embed_dim"]),
        "decoder": SegmentationDecoder(head["num_classes"], head["embed_dim"], head["layers"]),
        "wide": LargeFOV(head["mct_dim"], head["num_classes"]),
    }
    own = {name: tuple(t.shape) for name, t in nn.ModuleDict(parts).state_dict().items()} | {
        "alpha": (1,)
    }
    # linear here, 1 x 1 convolutions there
    convolved = (
        "fusion.merge.weight",
        "decoder.predict.weight",
    )
    return {
        n: (published_name(n), (*shape, 1, 1) if n in convolved else shape)
        for n, shape in own.items()
    }


def clip_weights(sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """State dict of a CLIP under the official names; `sizes` as in a golden file's config."""
    tower = VisionTransformer(
        sizes["vision_width"],
        sizes["vision_layers"],
        sizes["embed_dim"],
        sizes["patch"],
        sizes["grid"],
    )
    text = (sizes[name] for name in ("embed_dim", "text_width", "text_layers", "context", "vocab"))
    return fill({n: tuple(t.shape) for n, t in CLIP(tower, *text).state_dict().items()}, seed)


def mct_weights(sizes: Mapping[str, int], seed: int) -> dict[str, Tensor]:
    """State dict of an MCTformer+ checkpoint, with the tensors that are stored there and never
    used.
    """
    shapes = {name: tuple(t.shape) for name, t in ClassTokenViT(**sizes).state_dict().items()}
    dim, native = sizes["embed_dim"], (sizes["input_size"] // sizes["patch"]) ** 2
    shapes |= {
        "pos_embed": (1, (224 // sizes["patch"]) ** 2 + 1, dim),
        "pos_embed_pat_large": (1, native // 4, dim),
    }
    return fill(shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}, seed)


def head_weights(head: Mapping[str, int], seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The trained tensors as published, and the same under our names and shapes (`CVF`'s, without
    clip and vit).
    """
    names = head_shapes(head)
    published = fill(dict(names.values()), seed)
    flat = ("fusion.merge.weight", "decoder.predict.weight")
    return published, {
        n: published[p].flatten(1) if n in flat else published[p] for n, (p, _) in names.items()
    }


def rule(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Offset and scale of a tensor's normal draw."""
    leaf = name.rpartition(".")[2]
    if leaf == "logit_scale":
        return math.log(1 / 0.07), 0.0
    if leaf == "alpha":
        return 0.5, 0.1
    if leaf == "gamma":
        return 0.3, 0.1
    if leaf in ("register_tokens", "mask_token"):
        return 0.0, 0.3
    if leaf in _TABLES or leaf.startswith("pos_embed_"):
        return 0.0, 0.3
    if len(shape) < 2:
        return (1.0, 0.1) if len(shape) == 1 and leaf == "weight" else (0.0, 0.02)
    gain = 0.1 if name.endswith("linear_fuse.weight") else 1.0
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def fill(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Names and shapes -> float32 tensors."""

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        offset, scale = rule(name, shape)
        normal = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
        return torch.from_numpy(np.asarray(offset + scale * normal, np.float32))

    return {name: draw(name, shape) for name, shape in shapes.items()}


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over name, shape and float32 bytes of every tensor, in name order."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(f"{name}{list(tensor.shape)}".encode())
        total.update(tensor.numpy().astype("<f4").tobytes())
    return total.hexdigest()
