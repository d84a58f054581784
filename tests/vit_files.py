"""Weights files of class-token ViTs for tests: a small MCTformer+ that its authors' code wrote, the
same tensors in the forms of its other versions, and a random DeiT.
"""

from pathlib import Path

import torch
from torch import Tensor

from model.transformer import Block
from utils.common.safe_tensors import read_tensors

DATA = Path(__file__).parent / "model" / "data"
MCTFORMER_PLUS = DATA / "mctformer_plus" / "checkpoint.pth"  # 20 classes, 64 px, 2 blocks


def as_v2(plus: dict[str, Tensor]) -> dict[str, Tensor]:
    """MCTformer+'s tensors as MCTformer V2 would hold them, in one position table."""
    tables = ("pos_embed", "pos_embed_cls", "pos_embed_pat")
    joined = torch.cat([plus["pos_embed_cls"], plus["pos_embed_pat"]], dim=1)
    return {name: t for name, t in plus.items() if name not in tables} | {"pos_embed": joined}


def as_v1(plus: dict[str, Tensor]) -> dict[str, Tensor]:
    """MCTformer+'s tensors as MCTformer V1 would hold them, whose head is linear and never used."""
    v2 = as_v2(plus)
    return v2 | {"head.weight": v2["head.weight"][:, :, 0, 0]}


def deit(dim: int = 64, depth: int = 2, side: int = 4, patch: int = 16) -> dict[str, Tensor]:
    """Random tensors of a DeiT of side x side patches, with its classifier of ten classes."""
    blocks = torch.nn.ModuleList(Block(dim, 1, 4 * dim) for _ in range(depth))
    return {
        **{f"blocks.{name}": tensor.detach() for name, tensor in blocks.state_dict().items()},
        "patch_embed.proj.weight": torch.randn(dim, 3, patch, patch),
        "patch_embed.proj.bias": torch.randn(dim),
        "cls_token": torch.randn(1, 1, dim),
        "pos_embed": torch.randn(1, side * side + 1, dim),
        "norm.weight": torch.randn(dim),
        "norm.bias": torch.randn(dim),
        "head.weight": torch.randn(10, dim),
        "head.bias": torch.randn(10),
    }


def dino(
    dim: int = 64, depth: int = 2, side: int = 4, patch: int = 14, registers: int = 0
) -> dict[str, Tensor]:
    """Random tensors of a DINOv2 of side x side patches, under their official names."""
    state = deit(dim, depth, side, patch)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    state["mask_token"] = torch.randn(1, dim)
    if registers:
        state["register_tokens"] = torch.randn(1, registers, dim)
    for number in range(depth):
        for scale in ("ls1", "ls2"):
            state[f"blocks.{number}.{scale}.gamma"] = 1 + 0.1 * torch.randn(dim)
    return state


def in_hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DeiT's tensors as transformers' `ViTForImageClassification` names and splits them."""
    renamed = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3)):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = third.clone()
        else:
            renamed[name] = tensor
    for ours, theirs in (
        ("blocks.", "vit.encoder.layer."),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("cls_token", "vit.embeddings.cls_token"),
        ("pos_embed", "vit.embeddings.position_embeddings"),
        ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
        ("head.", "classifier."),
    ):
        renamed = {name.replace(ours, theirs): tensor for name, tensor in renamed.items()}
    return {
        f"vit.layer{name}" if name.startswith("norm.") else name: tensor
        for name, tensor in renamed.items()
    }


def dino_in_timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DINOv2 with registers as timm holds it: the class token has its position added."""
    renamed = {name: tensor for name, tensor in state.items() if name != "mask_token"}
    renamed["reg_token"] = renamed.pop("register_tokens")
    renamed["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    renamed["pos_embed"] = state["pos_embed"][:, 1:]
    return renamed


def dino_in_hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A DINOv2's tensors as transformers' `Dinov2Model` names and splits them."""
    renamed = in_hugging_face_names(state)
    for theirs, ours in (
        ("vit.embeddings.", "embeddings."),
        ("vit.encoder.", "encoder."),
        ("vit.layernorm.", "layernorm."),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    ):
        renamed = {name.replace(theirs, ours): tensor for name, tensor in renamed.items()}
    named = {}
    for name, tensor in renamed.items():
        # the MLP's second layer is the only other one called so
        own = name.replace(".output.dense", ".mlp.fc2")
        if ".attention.output.dense" in name:
            own = name
        if name in ("mask_token", "register_tokens"):
            own = f"embeddings.{name}"
        named[own] = tensor
    return named


def mctformer_plus() -> dict[str, Tensor]:
    """The tensors of the small MCTformer+."""
    return read_tensors(MCTFORMER_PLUS, "the test's MCTformer+")


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a state dict as its publishers do, under "model"."""
    torch.save({"model": state}, path)
    return path
