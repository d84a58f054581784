"""DINOv2 (Oquab et al., TMLR 2024), a second frozen backbone that was trained without any label.

Letters: B images, h x w patches of 14 px, N = h * w, R register tokens, T = 1 + R + N, D channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from clip.blocks import embed_patches, mean_of_heads
from clip.resize import resize
from model.transformer import Block
from model.vit_forms import (
    DINO_HUGGING_FACE,
    depth_of,
    heads_of,
    in_deit_names,
    refuse_others,
    refuse_patches,
)
from utils.common.errors import UserError
from utils.common.identity import identity_of

OFFSET = 0.1  # patches that the published resizing of the position table adds to each side
REGISTERS = ("register_tokens", "reg_token")  # official name, timm's name
UNUSED = ("mask_token",)
PATCH = 14  # px
WANTED = "give weights of a DINOv2 ViT-S/14, B/14 or L/14, with or without registers"
# Parts of tensor names -> what a file is that has one of them.
OTHERS = {
    ("visual.conv1.", "vision_model."): "a CLIP, which --clip_path takes",
    ("fusion.merge.",): "a checkpoint of this project, which --model_path takes",
    ("pos_embed_cls",): "a trained class-token ViT, which --mct_path takes",
    ("vit.encoder.layer.",): "a ViT without LayerScale, such as DeiT",
    ("rope_embed.",): "a ViT with rotary positions, such as DINOv3",
}
SIZES_FROM = {  # tensors that tell a DINOv2 and its sizes, and their numbers of dimensions
    "cls_token": 3,
    "pos_embed": 3,
    "patch_embed.proj.weight": 4,
    "patch_embed.proj.bias": 1,
    "blocks.0.ls1.gamma": 1,
}


@dataclass(frozen=True)
class DinoFeatures:
    """What DINOv2 says of images.

    tokens (B, T, D): class token, registers, patches, after the final norm. attention: maps
    (B, N, N) between patches, head means of the blocks asked for. grid: (h, w) of the patches.
    """

    tokens: Tensor
    attention: list[Tensor]
    grid: tuple[int, int]

    @property
    def patches(self) -> Tensor:
        """Return the patch tokens (B, N, D) after the final norm."""
        return self.tokens[:, self.tokens.shape[1] - self.grid[0] * self.grid[1] :]


class DinoViT(nn.Module):
    """DINOv2's vision transformer, with LayerScale folded into the layers before it."""

    def __init__(
        self,
        dim: int,
        depth: int,
        hidden: int,
        patch: int,
        grid: int,
        registers: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.sha256 = ""  # of the file it came from
        self.identity = ""  # the same in every form
        self.patch = patch
        self.grid = grid
        self.registers = registers

        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dim))
        self.patch_embed = nn.Conv2d(3, dim, patch, patch)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, 1e-6)

    @property
    def width(self) -> int:
        """Return D, its channels."""
        return self.cls_token.shape[-1]

    def position(self, h: int, w: int) -> Tensor:
        """Return the position table (1, 1 + h*w, D), resized bicubically to h x w patches.

        As published: by a scale factor that is a little too large, or, for models with registers,
        to the exact size with antialiasing.
        """
        if (h, w) == (self.grid, self.grid):
            return self.pos_embed

        table = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))
        if self.registers:
            table = F.interpolate(table, (h, w), mode="bicubic", antialias=True)
        else:
            factors = ((h + OFFSET) / self.grid, (w + OFFSET) / self.grid)
            table = F.interpolate(table, scale_factor=factors, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2)], dim=1)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Turn normalised images (B, 3, H, W) into the tokens (B, T, D) of the first block.

        What is left over of whole patches at the right and below is not seen.
        """
        patches = embed_patches(images, self.patch_embed)
        h, w = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        classes = self.cls_token.expand(len(images), -1, -1).to(patches.dtype)
        tokens = torch.cat([classes, patches], dim=1) + self.position(h, w).to(patches.dtype)

        registers = self.register_tokens.expand(len(images), -1, -1).to(patches.dtype)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1), (h, w)

    @record_function("DINO")
    def look(self, images: Tensor, maps: int = 0) -> DinoFeatures:
        """Look at images (B, 3, H, W) of any size, brought to whole patches bilinearly (WeCLIP+).

        Their sides shrink by less than a patch. maps: as in `forward`.
        """
        size = [max(1, side // self.patch) * self.patch for side in images.shape[-2:]]
        return self(resize(images, size), maps)

    @torch.no_grad()
    def forward(self, images: Tensor, maps: int = 0) -> DinoFeatures:
        """Look at normalised images (B, 3, H, W); keep attention maps of the last `maps` blocks."""
        stream, grid = self.embed(images)
        first = 1 + self.registers
        attention = []
        for number, block in enumerate(self.blocks):
            rows = 0
            if number >= len(self.blocks) - maps:
                rows = stream.shape[1]
            stream, weights = block(stream, rows)
            if weights is not None:
                mean = mean_of_heads(weights)
                attention.append(mean[:, first:, first:])
        return DinoFeatures(self.norm(stream), attention, grid)


def load_dino(
    state: dict[str, Tensor], source: str = "the weights file", heads: int | None = None
) -> DinoViT:
    """Build the DINOv2 that named tensors describe: frozen, float32, eval mode.

    Names may be official, timm's or those of Hugging Face; sizes are read from the tensors, but for
    the number of attention heads (default: one per 64 channels, as published models have). Raises
    UserError, which begins with `source`, where they are of another model.
    """
    state = in_deit_names(state, DINO_HUGGING_FACE)
    state = {name: tensor for name, tensor in state.items() if name not in UNUSED}
    refuse_others(state, source, WANTED, OTHERS)
    _refuse_plain(state, source)
    refuse_patches(state, source, WANTED, PATCH)
    for name, dimensions in SIZES_FROM.items():
        if name not in state or state[name].ndim != dimensions:
            raise UserError(
                f"{source} is no DINOv2, as it has no tensor {name} of {dimensions} dimensions; "
                f"{WANTED}"
            )

    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    heads = heads or heads_of(dim, source, WANTED)
    depth = depth_of(state)
    fused = _folded(state, depth)
    side = math.isqrt(fused["pos_embed"].shape[1] - 1)
    registers = fused["register_tokens"].shape[1]
    layers = [fused.get(f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2")]
    if layers[0] is None or layers[1] is None or layers[0].shape[0] != layers[1].shape[-1]:
        raise UserError(
            f"{source} is a DINOv2 with gated MLPs (ViT-g), which is not supported; {WANTED}"
        )

    hidden = layers[0].shape[0]
    model = DinoViT(dim, depth, hidden, patch, side, registers, heads)
    try:
        model.load_state_dict(fused)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{source} is no whole DINOv2 ({reason}); give complete weights") from None
    return model.eval().requires_grad_(False)


def dino_identity(dino: DinoViT) -> str:
    """Compute a digest that is the same for the same DINOv2 under any names.

    The class token's position counts as part of the token, since timm adds it there.
    """
    tensors = dict(dino.state_dict())
    table = tensors.pop("pos_embed")
    tensors["cls_token"] = tensors["cls_token"] + table[:, :1]
    return identity_of({**tensors, "pos_embed": table[:, 1:]})


def _refuse_plain(state: dict[str, Tensor], source: str) -> None:
    """Raise UserError, which begins with `source`, where a ViT has no LayerScale."""
    tokens = "cls_token" in state and "pos_embed" in state
    if tokens and not any(".ls1." in name for name in state):
        raise UserError(f"{source} is a ViT without LayerScale, such as DeiT; {WANTED}")


def _folded(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Multiply LayerScale into the layers before it, and bring all to this class's names."""
    state = dict(state)
    for number in range(depth):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gamma = state.pop(f"blocks.{number}.{scale}.gamma", None)
            for kind in ("weight", "bias"):
                name = f"blocks.{number}.{layer}.{kind}"
                if gamma is None or name not in state:
                    continue
                factor = gamma
                if kind == "weight":
                    factor = gamma[:, None]
                state[name] = state[name] * factor

    for kind in ("weight", "bias"):
        state[f"patch_embed.{kind}"] = state.pop(f"patch_embed.proj.{kind}")
    dim = state["cls_token"].shape[-1]
    registers = [state.pop(name) for name in REGISTERS if name in state]
    state["register_tokens"] = registers[0] if registers else torch.zeros(1, 0, dim)
    if math.isqrt(state["pos_embed"].shape[1]) ** 2 == state["pos_embed"].shape[1]:
        state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, 1, 0))  # timm adds it to cls_token
    return state
