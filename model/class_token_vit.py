"""The ViT branch: a vision transformer with one token a class, on patches of two sizes
(MCTformer+).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from model.outputs import VitOutput
from model.transformer import Block, Mlp


class PatchEmbed(nn.Module):
    """Non-overlapping square patches through one linear map; what is left over at the right and
    below is dropped.
    """

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, H // patch, W // patch)."""
        return self.proj(images)


class CrossAttention(nn.Module):
    """Multi-head attention from one set of tokens to another, with separate q, k and v matrices."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wq, self.wk, self.wv, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Queries (B, Q, D), context (B, T, D) -> (B, Q, D)."""
        q, k, v = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.wq, queries), (self.wk, context), (self.wv, context))
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TokenFusion(nn.Module):
    """Class tokens read the tokens of one patch size by cross-attention (model/README.md,
    "ViT").
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, 1e-6)
        self.attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, 1e-6)
        self.mlp = Mlp(dim, hidden, F.gelu)

    def forward(self, classes: Tensor, patches: Tensor) -> Tensor:
        """Class tokens (B, K, D) and patch tokens (B, P, D) -> both in a row (B, K+P, D), the
        patches unchanged.
        """
        context = self.norm1(torch.cat([classes, patches], dim=1))
        classes = classes + self.attn(context[:, : classes.shape[1]], context)
        return torch.cat([classes + self.mlp(self.norm2(classes)), patches], dim=1)


class ClassTokenViT(nn.Module):
    """Two streams, small and large patches, through the same blocks; tensor names are those of
    MCTformer+ checkpoints.

    After half of the blocks both streams take the LARGE stream's class tokens, each updated by what
    its own patches say (model/README.md, "ViT"). `pre_norm` adds a LayerNorm before the first
    block, as CLIP's tower has one. Images may have any size from twice the patch up; the position
    table of `input_size` is resized to it.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4,
        patch: int = 16,
        input_size: int = 448,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        hidden, native = int(embed_dim * mlp_ratio), input_size // patch
        self.num_classes, self.patch = num_classes, patch
        self.cls_token = nn.Parameter(torch.empty(1, num_classes, embed_dim))
        self.pos_embed_cls = nn.Parameter(torch.empty(1, num_classes, embed_dim))
        self.pos_embed_pat = nn.Parameter(torch.empty(1, native**2, embed_dim))
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.patch_embed = PatchEmbed(embed_dim, patch)
        self.patch_embed_large = PatchEmbed(embed_dim, 2 * patch)
        self.norm_pre = nn.LayerNorm(embed_dim) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(embed_dim, heads, hidden) for _ in range(depth))
        self.fuse_token = TokenFusion(embed_dim, heads, hidden)
        self.head = nn.Conv2d(embed_dim, num_classes, 3, padding=1)
        for table in (self.cls_token, self.pos_embed_cls, self.pos_embed_pat):
            nn.init.trunc_normal_(table, std=0.02)

    @record_function("ViT")
    def forward(self, images: Tensor, maps: str = "none", patch_block: int = 0) -> VitOutput:
        """Normalised images (B, 3, H, W) -> `VitOutput`. ValueError where a side is below twice the
        patch.

        maps: which attention maps are kept, "none", "patch" (`class_to_patch`, `patch_affinity`) or
        "all" (also `attention`). patch_block: the block, from 1, whose patch rows are
        `patch_affinity`; 0 sums all.
        """
        small, large = (
            self._embed(images, self.patch_embed),
            self._embed(images, self.patch_embed_large),
        )
        classes, embeddings, attention = self.num_classes, [], []
        class_rows = patch_rows = 0.0
        for number, block in enumerate(self.blocks):
            patches_too = maps == "all" or (maps == "patch" and patch_block in (0, number + 1))
            rows = small.shape[1] if patches_too else 0 if maps == "none" else classes
            if number == len(self.blocks) // 2:
                small, large = self._exchange(small, large)
                embeddings += [small[:, :classes], large[:, :classes]]
            small, weights = block(small, rows)
            large, _ = block(large)
            embeddings += [small[:, :classes], large[:, :classes]]
            if rows:
                mean = weights.mean(dim=1, dtype=torch.float32)
                class_rows = class_rows + mean[:, :classes]
            if patches_too and patch_block in (0, number + 1):
                patch_rows = patch_rows + mean[:, classes:, classes:]
            if maps == "all":
                attention.append(weights)
        x_patch, x_large = (
            self._map(small, images, self.patch),
            self._map(large, images, 2 * self.patch),
        )
        scores = self.head(x_patch + self.alpha * _resize(x_large, x_patch.shape[-2:], "bilinear"))
        return VitOutput(
            cls_logits=(small[:, :classes] + large[:, :classes]).mean(dim=-1) / 2,
            patch_logits=ranked_pool(scores),
            patch_large_logits=ranked_pool(self.head(x_large)),
            cls_embeddings=embeddings,
            scores=scores,
            x_patch=x_patch,
            class_to_patch=None
            if maps == "none"
            else (class_rows[..., classes:] / len(self.blocks)).unflatten(2, x_patch.shape[-2:]),
            patch_affinity=patch_rows if maps in ("patch", "all") else None,
            attention=attention,
        )

    def patch_features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> `VitOutput.x_patch` (B, D, h, w) alone, by fused
        attention.

        The large patches are followed only up to the exchange, where their class tokens reach the
        small ones.
        """
        small, large = (
            self._embed(images, self.patch_embed),
            self._embed(images, self.patch_embed_large),
        )
        half = len(self.blocks) // 2
        for block in self.blocks[:half]:
            small, large = block(small)[0], block(large)[0]
        small = self.fuse_token(large[:, : self.num_classes], small[:, self.num_classes :])
        for block in self.blocks[half:]:
            small = block(small)[0]
        return self._map(small, images, self.patch)

    def position(self, grid: tuple[int, int]) -> Tensor:
        """Position table of an h x w grid (1, D, h, w): the one of `input_size`, resized
        bicubically.
        """
        side = round(self.pos_embed_pat.shape[1] ** 0.5)
        return _resize(
            self.pos_embed_pat.transpose(1, 2).unflatten(2, (side, side)), grid, "bicubic"
        )

    def _embed(self, images: Tensor, patch_embed: PatchEmbed) -> Tensor:
        """(B, 3, H, W) -> (B, K+P, D), class tokens first, positions added."""
        if min(images.shape[-2:]) < 2 * self.patch:
            height, width = images.shape[-2:]
            raise ValueError(
                f"image of {height} x {width} px; both sides must be at least {2 * self.patch}"
            )
        patches = patch_embed(images)
        patches = patches + self.position(patches.shape[-2:])
        classes = (self.cls_token + self.pos_embed_cls).expand(len(images), -1, -1)
        return self.norm_pre(torch.cat([classes, patches.flatten(2).transpose(1, 2)], dim=1))

    def _exchange(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of both streams, (B, K+P, D) each -> the same with class tokens that know both."""
        classes = large[:, : self.num_classes]
        return tuple(
            self.fuse_token(classes, stream[:, self.num_classes :]) for stream in (small, large)
        )

    def _map(self, tokens: Tensor, images: Tensor, patch: int) -> Tensor:
        """(B, K+P, D) -> patch tokens as a map (B, D, H // patch, W // patch)."""
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return tokens[:, self.num_classes :].transpose(1, 2).unflatten(2, grid)


def _resize(maps: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(B, D, h, w) -> (B, D, *size) with half-pixel centres and no antialiasing; untouched where it
    fits already.
    """
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


def ranked_pool(scores: Tensor, decay: float = 0.996) -> Tensor:
    """Class maps (B, K, h, w) -> logits (B, K): weighted mean, the r-th largest value weighs
    decay^r (MCTformer+).
    """
    ranked = scores.flatten(2).sort(dim=-1, descending=True).values
    weights = decay ** torch.arange(ranked.shape[-1], device=scores.device, dtype=torch.float32)
    return (ranked * weights).sum(dim=-1) / weights.sum()
