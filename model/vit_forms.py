"""The names under which libraries publish the tensors of one and the same vision transformer, and
the tensors that tell other models from it.

DeiT's own names, which timm uses too, are those of this project.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from clip.blocks import HEAD_WIDTH
from clip.loader import PATCH
from utils.common.errors import UserError

# Their name -> DeiT's, with or without the last part ("weight", "bias"); N is a block's number.
HUGGING_FACE = {
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "vit.encoder.layer.N.layernorm_before": "blocks.N.norm1",
    "vit.encoder.layer.N.attention.attention.query": "blocks.N.attn.q",
    "vit.encoder.layer.N.attention.attention.key": "blocks.N.attn.k",
    "vit.encoder.layer.N.attention.attention.value": "blocks.N.attn.v",
    "vit.encoder.layer.N.attention.output.dense": "blocks.N.attn.proj",
    "vit.encoder.layer.N.layernorm_after": "blocks.N.norm2",
    "vit.encoder.layer.N.intermediate.dense": "blocks.N.mlp.fc1",
    "vit.encoder.layer.N.output.dense": "blocks.N.mlp.fc2",
    "vit.layernorm": "norm",
    "classifier": "head",
}
CLIP_TOWER = {
    "class_embedding": "cls_token",
    "positional_embedding": "pos_embed",
    "conv1": "patch_embed.proj",
    "ln_pre": "norm_pre",
    "transformer.resblocks.N.ln_1": "blocks.N.norm1",
    "transformer.resblocks.N.attn.in_proj_weight": "blocks.N.attn.qkv.weight",
    "transformer.resblocks.N.attn.in_proj_bias": "blocks.N.attn.qkv.bias",
    "transformer.resblocks.N.attn.out_proj": "blocks.N.attn.proj",
    "transformer.resblocks.N.ln_2": "blocks.N.norm2",
    "transformer.resblocks.N.mlp.c_fc": "blocks.N.mlp.fc1",
    "transformer.resblocks.N.mlp.c_proj": "blocks.N.mlp.fc2",
    "ln_post": "norm",
    "proj": "head.weight",
}

DINO_HUGGING_FACE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer.N.norm1": "blocks.N.norm1",
    "encoder.layer.N.attention.attention.query": "blocks.N.attn.q",
    "encoder.layer.N.attention.attention.key": "blocks.N.attn.k",
    "encoder.layer.N.attention.attention.value": "blocks.N.attn.v",
    "encoder.layer.N.attention.output.dense": "blocks.N.attn.proj",
    "encoder.layer.N.layer_scale1.lambda1": "blocks.N.ls1.gamma",
    "encoder.layer.N.norm2": "blocks.N.norm2",
    "encoder.layer.N.mlp.fc1": "blocks.N.mlp.fc1",
    "encoder.layer.N.mlp.fc2": "blocks.N.mlp.fc2",
    "encoder.layer.N.layer_scale2.lambda1": "blocks.N.ls2.gamma",
    "layernorm": "norm",
}

# Parts of tensor names -> what a file is that has one of them.
OTHERS = {
    ("dist_token", "distillation_token"): "a distilled DeiT, which has a second token",
    ("register_tokens", "reg_token"): "a ViT with register tokens, as some DINOv2 have",
    (".ls1.", ".layer_scale1.", ".gamma_1"): "a ViT with LayerScale, as DINOv2 has",
    ("visual.conv1.", "vision_model."): "a CLIP, which --clip_path takes",
    ("fusion.merge.",): "a whole CVF, whose ViT is the classifier.pt beside it",
}


def in_deit_names(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Name the tensors of a ViT as DeiT does: float32, q, k and v of a block joined in one, without
    what a training puts before every name.

    names: one of the tables above. What it does not know keeps its name.
    """
    prefix = _prefix(state, names)
    renamed = {
        _deit_name(name.removeprefix(prefix), names): tensor.float()
        for name, tensor in state.items()
    }
    for query in [name for name in renamed if ".attn.q." in name]:
        parts = [query.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if len({renamed[name].shape for name in parts if name in renamed}) == 1:
            joined = torch.cat([renamed.pop(name) for name in parts if name in renamed])
            renamed[query.replace(".attn.q.", ".attn.qkv.")] = joined
    return renamed


def _prefix(state: Collection[str], names: dict[str, str]) -> str:
    """Find what stands before the names of the one ViT that there is, such as `module.` of several
    processes or `_orig_mod.` of a compiled model; perhaps nothing.
    """
    token = "cls_token"
    theirs = [name for name, own in names.items() if own == token]
    found = set()
    for name in state:
        ending = next((each for each in (*theirs, token) if f".{name}".endswith(f".{each}")), None)
        if ending:
            found.add(name.removesuffix(ending))

    if len(found) != 1:
        return ""
    return found.pop()


def _deit_name(name: str, names: dict[str, str]) -> str:
    """Return DeiT's name of a tensor, or its own where the table does not have it."""
    number = re.search(r"\.\d+\.", name)
    pattern = re.sub(r"\.\d+\.", ".N.", name, count=1)
    module, _, kind = pattern.rpartition(".")
    if pattern in names:
        found = names[pattern]
    elif module in names:
        found = f"{names[module]}.{kind}"
    else:
        return name
    if number is not None:
        found = found.replace(".N.", number[0])
    return found


def refuse_others(
    state: dict[str, Tensor],
    source: str,
    wanted: str,
    others: Mapping[tuple[str, ...], str] = OTHERS,
) -> None:
    """Raise UserError, which begins with `source` and ends with what is `wanted`, for tensors in
    DeiT's names that are another model's.

    others: parts of tensor names -> what a file is that has one of them.
    """
    for parts, kind in others.items():
        if any(part in name for part in parts for name in state):
            raise UserError(f"{source} is {kind}; {wanted}")


def refuse_patches(state: dict[str, Tensor], source: str, wanted: str, patch: int = PATCH) -> None:
    """Raise UserError, which begins with `source` and ends with what is `wanted`, for tensors in
    DeiT's names that were made for patches of another size than `patch`, px.
    """
    kernel = state.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-1] != patch:
        raise UserError(
            f"{source} is a ViT with patches of {kernel.shape[-1]} px, not {patch}; {wanted}"
        )


def depth_of(state: Iterable[str]) -> int:
    """Count the blocks of a ViT by its tensors' names, which are DeiT's."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def heads_of(dim: int, source: str, wanted: str = "give one that is") -> int:
    """Return the number of attention heads of a ViT of this width. Raises UserError, which begins
    with `source` and ends with what is `wanted`, for one that cannot be cut into heads.
    """
    heads = max(1, dim // HEAD_WIDTH)
    if dim % heads:
        raise UserError(
            f"{source} is a ViT of width {dim}, no multiple of {HEAD_WIDTH} channels per head; "
            f"{wanted}"
        )
    return heads
