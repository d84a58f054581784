"""Class-token ViTs from checkpoints: trained ones, DeiT's ImageNet weights, or CLIP's own image
tower.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clip.resize import resize
from model.class_token_vit import ClassTokenViT
from model.vit_forms import (
    CLIP_TOWER,
    HUGGING_FACE,
    depth_of,
    heads_of,
    in_deit_names,
    refuse_others,
    refuse_patches,
)
from utils.common.errors import UserError
from utils.common.identity import identity_of

NEW_TOKEN_NOISE = 0.02  # tells the copies of one class token apart
DEIT_UNUSED = ("norm.weight", "norm.bias", "head.weight", "head.bias")  # the ImageNet classifier
# stored by MCTformer's versions, never used
MCT_UNUSED = {
    "plus": ("pos_embed", "pos_embed_pat_large", "norm.weight", "norm.bias"),
    "v2": ("norm.weight", "norm.bias"),
    "v1": ("norm.weight", "norm.bias", "head.weight", "head.bias"),
}
MCT_WANTED = "give MCTformer V2, MCTformer+ or a classifier.pt of this project"
DEIT_WANTED = "give DeiT-S (deit_small_patch16_224), the official, timm's or Hugging Face's file"

# tensors that sizes are read from, and how many dimensions they have
_TOWER = {"cls_token": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
_OF_MCT = {
    "plus": {**_TOWER, "pos_embed_pat": 3},
    "v2": {**_TOWER, "pos_embed": 3, "head.weight": 4},
    "v1": {**_TOWER, "pos_embed": 3, "head.weight": 2},
}
_OF_DEIT = {**_TOWER, "pos_embed": 3, "patch_embed.proj.bias": 1}


def load_mct(
    state: dict[str, Tensor], heads: int | None = None, source: str = "--mct_path"
) -> ClassTokenViT:
    """Build a trained class-token ViT from its tensors: MCTformer V1, V2, MCTformer+, or one that
    this project saved. Version, streams and sizes are read from them.

    heads: embed_dim / 64 unless given. Raises UserError, which begins with `source`, on another
    model's tensors, on missing and on unexpected ones; those in `MCT_UNUSED` may be there.
    """
    state = in_deit_names(state, HUGGING_FACE)
    refuse_others(state, source, MCT_WANTED)
    refuse_patches(state, source, MCT_WANTED)
    version = _version(state)
    _require(state, _OF_MCT[version], source)
    _, num_classes, dim = state["cls_token"].shape
    if version == "v1" and num_classes == 1 and len(state["head.weight"]) != 1:
        raise UserError(
            f"{source} is a ViT with one class token, which --deit_path takes; {MCT_WANTED}"
        )

    if version == "plus":
        rows = state["pos_embed_pat"].shape[1]
    else:
        rows = state["pos_embed"].shape[1] - num_classes
    patch = state["patch_embed.proj.weight"].shape[-1]
    streams = 1
    if "patch_embed_large.proj.weight" in state:
        streams = 2

    vit = ClassTokenViT(
        num_classes,
        dim,
        depth_of(state),
        heads or heads_of(dim, source),
        state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        patch,
        _side(rows, source) * patch,
        pre_norm="norm_pre.weight" in state,
        streams=streams,
        version=version,
    )
    unused = MCT_UNUSED[version]
    _load(vit, {name: tensor for name, tensor in state.items() if name not in unused}, source)
    return vit


def from_deit(
    state: dict[str, Tensor],
    num_classes: int,
    input_size: int = 224,
    source: str = "--deit_path",
    streams: int = 2,
) -> ClassTokenViT:
    """Start a new class-token ViT from DeiT's ImageNet weights (Touvron et al., 2021), in the names
    of its publisher, of timm or of Hugging Face.

    Class tokens are copies of DeiT's plus noise; large patches, of two streams, see what small
    patches see in the image at half size; the position table is resized to `input_size`, px. Raises
    UserError, which begins with `source`, on another model's tensors, on missing and on unexpected
    ones; those in `DEIT_UNUSED` may be there.
    """
    state = in_deit_names(state, HUGGING_FACE)
    refuse_others(state, source, DEIT_WANTED)
    refuse_patches(state, source, DEIT_WANTED)
    _require(state, _OF_DEIT, source)
    if state["cls_token"].shape[:2] != (1, 1) or "pos_embed_pat" in state:
        raise UserError(
            f"{source} is a trained class-token ViT, which --mct_path takes; {DEIT_WANTED}"
        )

    return _start(state, num_classes, input_size, source, streams)


def deit_identity(state: dict[str, Tensor]) -> str:
    """Return what is the same for the same DeiT in the official, timm's and Hugging Face's file."""
    return identity_of(in_deit_names(state, HUGGING_FACE))


def from_clip(
    visual: nn.Module,
    num_classes: int,
    input_size: int = 224,
    source: str = "the CLIP image tower",
    streams: int = 2,
) -> ClassTokenViT:
    """Start a new class-token ViT from CLIP's image tower (official tensor names), with its
    `ln_pre` kept.

    As `from_deit`; CLIP's patches have no bias, its final norm and projection are left out.
    """
    state = in_deit_names(visual.state_dict(), CLIP_TOWER)
    token = state["cls_token"]
    state |= {
        "cls_token": token[None, None],
        "pos_embed": state["pos_embed"][None],
        "patch_embed.proj.bias": token.new_zeros(len(token)),
    }

    return _start(state, num_classes, input_size, source, streams)


def _start(
    state: dict[str, Tensor], num_classes: int, input_size: int, source: str, streams: int
) -> ClassTokenViT:
    """Build a new class-token ViT around the blocks of a one-token ViT in DeiT's names."""
    token = state["cls_token"]
    position = state["pos_embed"][0]
    kernel = state["patch_embed.proj.weight"]
    bias = state["patch_embed.proj.bias"]
    dim = token.shape[-1]
    patch = kernel.shape[-1]
    native = _side(len(position) - 1, source)
    vit = ClassTokenViT(
        num_classes,
        dim,
        depth_of(state),
        heads_of(dim, source),
        state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
        patch,
        input_size,
        "norm_pre.weight" in state,
        streams,
    )

    tokens = token.expand(1, num_classes, dim)
    new = {
        "cls_token": tokens + NEW_TOKEN_NOISE * torch.randn_like(tokens),
        "pos_embed_cls": position[:1].repeat(num_classes, 1)[None],
        "pos_embed_pat": _resized(position[1:], native, input_size // patch),
    }
    if streams == 2:
        new["patch_embed_large.proj.weight"] = half_size_kernel(kernel)
        new["patch_embed_large.proj.bias"] = bias
    fresh = {
        name: tensor
        for name, tensor in vit.state_dict().items()
        if name.startswith(("fuse_token.", "head.", "alpha"))
    }
    unused = ("pos_embed", *DEIT_UNUSED)
    kept = {name: tensor for name, tensor in state.items() if name not in unused}
    _load(vit, {**kept, **fresh, **new}, source)
    return vit


def half_size_kernel(kernel: Tensor) -> Tensor:
    """Make a kernel (D, 3, 2p, 2p) that gives what `kernel` gives on 2 x 2 means of an image."""
    return kernel.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4


def _resized(table: Tensor, native: int, side: int) -> Tensor:
    """Resize a position table (native * native, D) to (1, side * side, D), bicubically."""
    if native == side:
        return table[None]
    square = table.T.unflatten(1, (native, native))[None]
    return resize(square, (side, side), "bicubic").flatten(2).transpose(1, 2)


def _version(state: dict[str, Tensor]) -> str:
    """Tell which of `VERSIONS` these tensors are: only MCTformer+ has two position tables, V1 no
    convolution on the patches.
    """
    if "pos_embed_pat" in state:
        return "plus"
    head = state.get("head.weight")
    if head is not None and head.ndim == 2:
        return "v1"
    return "v2"


def _side(rows: int, source: str) -> int:
    """Return the side, in patches, of the square grid that a position table was made for."""
    side = math.isqrt(max(0, rows))
    if side < 1 or side * side != rows:
        raise UserError(
            f"{source} has positions of {rows} patches, which are no square; give a ViT of square "
            "images"
        )
    return side


def _require(state: dict[str, Tensor], dimensions: dict[str, int], source: str) -> None:
    """Raise UserError where a tensor that sizes are read from is missing or of other dimensions."""
    missing = [
        name
        for name, number in dimensions.items()
        if name not in state or state[name].ndim != number or not state[name].numel()
    ]
    if missing:
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
