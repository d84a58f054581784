"""Class-token ViTs from checkpoints: trained ones, DeiT's ImageNet weights, or CLIP's own image
tower.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.class_token_vit import ClassTokenViT
from utils.common.errors import UserError

HEAD_WIDTH = 64  # channels an attention head has in DeiT, MCTformer+ and CLIP
NEW_TOKEN_NOISE = 0.02  # tells the copies of one class token apart
# stored by MCTformer+, never used
MCT_UNUSED = (
    "pos_embed",
    "pos_embed_pat_large",
    "norm.weight",
    "norm.bias",
)
DEIT_UNUSED = ("norm.weight", "norm.bias", "head.weight", "head.bias")  # the ImageNet classifier
_CLIP_BLOCK = {
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}


def load_mct(
    state: dict[str, Tensor], heads: int | None = None, source: str = "--mct_path"
) -> ClassTokenViT:
    """A trained class-token ViT, sizes read from its tensors (names of MCTformer+ checkpoints, or
    saved by us).

    heads: embed_dim / 64 unless given. Raises UserError, which begins with `source`, on missing or
    unexpected tensors; those in `MCT_UNUSED` may be there.
    """
    state = {name: tensor.float() for name, tensor in state.items() if name not in MCT_UNUSED}
    _require(
        state,
        ("cls_token", "pos_embed_pat", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"),
        source,
    )
    _, num_classes, dim = state["cls_token"].shape
    patch = state["patch_embed.proj.weight"].shape[-1]
    vit = ClassTokenViT(
        num_classes,
        dim,
        _depth(state),
        heads or _heads(dim),
        state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        patch,
        math.isqrt(state["pos_embed_pat"].shape[1]) * patch,
        pre_norm="norm_pre.weight" in state,
    )
    _load(vit, state, source)
    return vit


def from_deit(
    state: dict[str, Tensor], num_classes: int, input_size: int = 224, source: str = "--deit_path"
) -> ClassTokenViT:
    """A new class-token ViT that starts from DeiT's ImageNet weights (the checkpoint's "model";
    Touvron et al., 2021).

    Class tokens are copies of DeiT's plus noise; large patches see what small patches see in the
    image at half size; the position table is resized to `input_size`, px. Raises UserError, which
    begins with `source`, on missing or unexpected tensors; those in `DEIT_UNUSED` may be there.
    """
    state = {name: tensor.float() for name, tensor in state.items() if name not in DEIT_UNUSED}
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    _require(state, (*names, "blocks.0.mlp.fc1.weight"), source)
    token, position, kernel, bias = (state.pop(name) for name in names)
    return _start(state, token[0, 0], position[0], kernel, bias, num_classes, input_size, source)


def from_clip(
    visual: nn.Module, num_classes: int, input_size: int = 224, source: str = "the CLIP image tower"
) -> ClassTokenViT:
    """A new class-token ViT that starts from CLIP's image tower (official tensor names), with its
    `ln_pre` kept.

    As `from_deit`; CLIP's patches have no bias, its final norm and projection are left out.
    """
    state = {name: tensor.float() for name, tensor in visual.state_dict().items()}
    token, position, kernel = (
        state[name] for name in ("class_embedding", "positional_embedding", "conv1.weight")
    )
    copied = {f"norm_pre.{kind}": state[f"ln_pre.{kind}"] for kind in ("weight", "bias")}
    prefix = "transformer.resblocks."
    for name, tensor in state.items():
        if name.startswith(prefix):
            number, rest = name[len(prefix) :].split(".", 1)
            copied[f"blocks.{number}.{_CLIP_BLOCK[rest]}"] = tensor
    return _start(
        copied,
        token,
        position,
        kernel,
        token.new_zeros(len(token)),
        num_classes,
        input_size,
        source,
    )


def _start(
    state: dict[str, Tensor],
    token: Tensor,
    position: Tensor,
    kernel: Tensor,
    bias: Tensor,
    num_classes: int,
    input_size: int,
    source: str,
) -> ClassTokenViT:
    """A new ViT around the blocks in `state`, a class token (D,), positions (1 + s * s, D) and a
    patch embedding.
    """
    dim, patch = kernel.shape[0], kernel.shape[-1]
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    vit = ClassTokenViT(
        num_classes,
        dim,
        _depth(state),
        _heads(dim),
        hidden / dim,
        patch,
        input_size,
        "norm_pre.weight" in state,
    )
    tokens = token.expand(1, num_classes, dim)
    new = {
        "cls_token": tokens + NEW_TOKEN_NOISE * torch.randn_like(tokens),
        "pos_embed_cls": position[:1].repeat(num_classes, 1)[None],
        "pos_embed_pat": _resized(position[1:], input_size // patch),
        "patch_embed.proj.weight": kernel,
        "patch_embed.proj.bias": bias,
        "patch_embed_large.proj.weight": half_size_kernel(kernel),
        "patch_embed_large.proj.bias": bias,
    }
    fresh = {
        name: tensor
        for name, tensor in vit.state_dict().items()
        if name.startswith(("fuse_token.", "head.", "alpha"))
    }
    _load(vit, {**fresh, **new, **state}, source)
    return vit


def half_size_kernel(kernel: Tensor) -> Tensor:
    """Kernel (D, 3, p, p) -> (D, 3, 2p, 2p) that gives on an image what `kernel` gives on its 2 x 2
    means.
    """
    return kernel.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4


def _resized(table: Tensor, side: int) -> Tensor:
    """Position table (s * s, D) -> (1, side * side, D), bicubic."""
    native = math.isqrt(len(table))
    if native == side:
        return table[None]
    square = table.T.unflatten(1, (native, native))[None]
    return (
        F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
        .flatten(2)
        .transpose(1, 2)
    )


def _depth(state: dict[str, Tensor]) -> int:
    """Number of blocks."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def _heads(dim: int) -> int:
    """Attention heads of a tower of this width."""
    return max(1, dim // HEAD_WIDTH)


def _require(state: dict[str, Tensor], names: tuple[str, ...], source: str) -> None:
    """UserError where a tensor is missing that the sizes are read from."""
    if missing := [name for name in names if name not in state]:
        raise UserError(
            f"{source} has no tensor {', '.join(missing)}; it is no checkpoint of the expected kind"
        )


def _load(vit: ClassTokenViT, state: dict[str, Tensor], source: str) -> None:
    """Load every tensor by name and shape, or raise UserError with the first names that do not
    fit.
    """
    own = {name: tensor.shape for name, tensor in vit.state_dict().items()}
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            n for n, shape in own.items() if n in state and state[n].shape != shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(
            f"{kind}: {', '.join(names[:5])}" for kind, names in problems.items() if names
        )
        raise UserError(
            f"{source} does not fit a class-token ViT ({found}); give a complete checkpoint of "
            "that kind"
        )
    vit.load_state_dict(state)
