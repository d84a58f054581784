"""The ViT branch: a vision transformer with one token per class, on patches of one or two sizes
(MCTformer, MCTformer+).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from clip.blocks import embed_patches
from clip.resize import resize
from model.kept_attention import KeptAttention
from model.noise import Noise, drop_path
from model.outputs import VitOutput
from model.token_fusion import TokenFusion
from model.transformer import Block, Drop


class PatchEmbed(nn.Module):
    """Non-overlapping square patches through one linear map; what is left over at the right and
    below is dropped.
    """

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Embed the patches of images, (B, 3, H, W) -> (B, D, H // patch, W // patch)."""
        return embed_patches(images, self.proj)


# What differs between MCTformer's versions (Xu et al., 2022 and 2024).
# plus: MCTformer+, and all that is trained here. Ranked pooling of the patch scores, CAM
#       sqrt(mean attention * scores).
# v2:   one position table for class tokens and patches, mean pooling, CAM
#       sum of attention * scores.
# v1:   as v2 without a patch head; its CAM is the attention alone.
VERSIONS = ("plus", "v2", "v1")


class ClassTokenViT(nn.Module):
    """A vision transformer with a token per class, on patches of one or of two sizes; tensor names
    are those of MCTformer's checkpoints.

    streams: 2 sends small and large patches through the same blocks. After half of them both
    streams take the LARGE stream's class tokens, each updated by what its own patches say
    (model/README.md, "ViT"). 1 has small patches alone, as the published MCTformers do.
    version: how logits and CAMs are read from the tokens, one of `VERSIONS`. pre_norm adds a
    LayerNorm before the first block, as CLIP's tower has one. Images may have any size from the
    largest patch up; the position table of `input_size`, px, is resized to it. ValueError for an
    unknown version or number of streams. start: identity of the weights that it was started from,
    "" where it was not started from a file.
    """

    start: str = ""

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
        streams: int = 2,
        version: str = "plus",
    ) -> None:
        super().__init__()
        possible = (1, 2) if version == "plus" else (1,)
        if version not in VERSIONS or streams not in possible:
            raise ValueError(f"there is no class-token ViT {version!r} of {streams} streams")
        hidden = int(embed_dim * mlp_ratio)
        native = input_size // patch
        self.num_classes = num_classes
        self.patch = patch
        self.streams = streams
        self.version = version

        self.cls_token = nn.Parameter(torch.empty(1, num_classes, embed_dim))
        if version == "plus":
            self.pos_embed_cls = nn.Parameter(torch.empty(1, num_classes, embed_dim))
            self.pos_embed_pat = nn.Parameter(torch.empty(1, native**2, embed_dim))
        else:
            self.pos_embed = nn.Parameter(torch.empty(1, num_classes + native**2, embed_dim))
        if streams == 2:
            self.alpha = nn.Parameter(torch.full((1,), 0.5))

        self.patch_embed = PatchEmbed(embed_dim, patch)
        if streams == 2:
            self.patch_embed_large = PatchEmbed(embed_dim, 2 * patch)
        self.norm_pre = nn.LayerNorm(embed_dim) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(embed_dim, heads, hidden) for _ in range(depth))
        if streams == 2:
            self.fuse_token = TokenFusion(embed_dim, heads, hidden)
        self.head = None if version == "v1" else nn.Conv2d(embed_dim, num_classes, 3, padding=1)

        for name, table in self.named_parameters(recurse=False):
            if name != "alpha":
                nn.init.trunc_normal_(table, std=0.02)

    @record_function("ViT")
    def forward(
        self,
        images: Tensor,
        maps: str = "none",
        patch_block: int = 0,
        noise: Noise | None = None,
        drop_rate: float = 0.0,
    ) -> VitOutput:
        """Score the classes of normalised images (B, 3, H, W) at every patch, and keep attention
        maps. Raises ValueError where a side is below the largest patch.

        maps: which attention maps are kept, "none", "patch" (`class_to_patch`, `patch_affinity`) or
        "all" (also `attention`). patch_block: the block, from 1, whose patch rows are
        `patch_affinity`; 0 sums all. noise, drop_rate: in training, how likely the last block's
        residual branches are dropped; the blocks before it less, in proportion.
        """
        streams = self._embed(images)
        classes = self.num_classes
        embeddings = []
        kept = KeptAttention(maps, patch_block, classes)
        drawn = None
        if noise is not None and drop_rate > 0:
            drawn = noise.first(4 * len(self.blocks))

        for number, block in enumerate(self.blocks):
            if self.streams == 2 and number == len(self.blocks) // 2:
                streams = self._exchange(streams)
                embeddings += [tokens[:, :classes] for tokens in streams]

            rows = kept.rows(number, streams[0].shape[1])
            drops = self._drops(number, drawn, drop_rate)
            small, weights = block(streams[0], rows, drops[0])
            large = [block(tokens, 0, drops[1])[0] for tokens in streams[1:]]
            streams = [small, *large]
            embeddings += [tokens[:, :classes] for tokens in streams]
            kept.add(number, weights)

        x_patch = self._map(streams[0], images, self.patch)
        scores, patch_large_logits = self._scores(x_patch, streams, images)
        class_tokens = functools.reduce(torch.add, [tokens[:, :classes] for tokens in streams])
        patch_logits = None
        if scores is not None:
            patch_logits = self.pool(scores)

        class_to_patch = None
        cams = None
        if kept.of_classes is not None:
            to_patch = kept.of_classes[..., classes:] / len(self.blocks)
            class_to_patch = to_patch.unflatten(2, x_patch.shape[-2:])
            cams = self._cams(class_to_patch, scores)

        return VitOutput(
            cls_logits=class_tokens.mean(dim=-1) / self.streams,
            patch_logits=patch_logits,
            patch_large_logits=patch_large_logits,
            cls_embeddings=embeddings,
            scores=scores,
            x_patch=x_patch,
            class_to_patch=class_to_patch,
            patch_affinity=kept.of_patches,
            attention=kept.weights,
            cams=cams,
        )

    def patch_features(self, images: Tensor) -> Tensor:
        """Compute `VitOutput.x_patch` (B, D, h, w) of normalised images (B, 3, H, W) alone, by
        fused attention.

        Large patches are followed only up to the exchange, where their class tokens reach the small
        ones.
        """
        streams = self._embed(images)
        half = len(self.blocks) // 2
        for block in self.blocks[:half]:
            streams = [block(tokens)[0] for tokens in streams]

        small = streams[0]
        if self.streams == 2:
            small = self.fuse_token(streams[1][:, : self.num_classes], small[:, self.num_classes :])
        for block in self.blocks[half:]:
            small = block(small)[0]
        return self._map(small, images, self.patch)

    def _drops(self, number: int, drawn: Tensor | None, rate: float) -> list[Drop | None]:
        """Tell how block `number`, from 0, drops the residual branches of each stream; None: not at
        all.

        drawn (B, 4 L): a number in [0, 1) for each of the four branches of every block (2 streams,
        attention and MLP). rate: the last block's.
        """
        rate = rate * number / max(1, len(self.blocks) - 1)
        if drawn is None or rate == 0:
            return [None, None]
        own = drawn[:, 4 * number :]

        def drop(branch: Tensor, which: int, stream: int) -> Tensor:
            return drop_path(branch, rate, own[:, 2 * stream + which])

        return [functools.partial(drop, stream=stream) for stream in range(2)]

    def pool(self, scores: Tensor) -> Tensor:
        """Pool class maps (B, K, h, w) to logits (B, K): by rank, in version "v2" by the mean."""
        if self.version == "plus":
            return ranked_pool(scores)
        return scores.mean(dim=(-2, -1))

    def positions(self) -> tuple[Tensor, Tensor]:
        """Return the position tables of the class tokens (1, K, D) and of the patches of
        `input_size` (1, N, D).
        """
        if self.version == "plus":
            return self.pos_embed_cls, self.pos_embed_pat
        return self.pos_embed[:, : self.num_classes], self.pos_embed[:, self.num_classes :]

    def position(self, grid: Sequence[int]) -> Tensor:
        """Return the position table of an h x w grid (1, D, h, w): the one of `input_size`, resized
        bicubically.
        """
        _, table = self.positions()
        side = math.isqrt(table.shape[1])
        native = table.transpose(1, 2).unflatten(2, (side, side))
        if tuple(grid) == (side, side):
            return native
        return resize(native, grid, "bicubic")

    def _embed(self, images: Tensor) -> list[Tensor]:
        """Embed images (B, 3, H, W) as tokens (B, K+P, D) of each stream, class tokens first,
        positions added.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.streams * self.patch:
            raise ValueError(
                f"image of {height} x {width} px; both sides must be at least "
                f"{self.streams * self.patch}"
            )
        streams = [self._tokens(images, self.patch_embed)]
        if self.streams == 2:
            streams.append(self._tokens(images, self.patch_embed_large))
        return streams

    def _tokens(self, images: Tensor, patch_embed: PatchEmbed) -> Tensor:
        """Embed images (B, 3, H, W) as tokens (B, K+P, D) of one patch size."""
        position, _ = self.positions()
        classes = (self.cls_token + position).expand(len(images), -1, -1)
        patches = patch_embed(images)
        patches = patches + self.position(patches.shape[-2:])
        return self.norm_pre(torch.cat([classes, patches.flatten(2).transpose(1, 2)], dim=1))

    def _exchange(self, streams: list[Tensor]) -> list[Tensor]:
        """Give the tokens (B, K+P, D) of both streams the large stream's class tokens, renewed by
        each stream's own patches.
        """
        classes = streams[1][:, : self.num_classes]
        return [self.fuse_token(classes, tokens[:, self.num_classes :]) for tokens in streams]

    def _scores(
        self, x_patch: Tensor, streams: list[Tensor], images: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Score small patches (B, D, h, w) and last tokens of all streams: class maps (B, K, h, w)
        and the large patches' own logits (B, K); None where there is no head, or no large patches.
        """
        if self.head is None:
            return None, None
        if self.streams == 1:
            return self.head(x_patch), None
        x_large = self._map(streams[1], images, 2 * self.patch)
        scores = self.head(x_patch + self.alpha * resize(x_large, x_patch.shape[-2:]))
        return scores, self.pool(self.head(x_large))

    @torch.no_grad()
    def _cams(self, class_to_patch: Tensor, scores: Tensor | None) -> Tensor:
        """Turn attention and class maps (B, K, h, w) into class activation maps (B, K, h, w), >= 0,
        as the version has them.
        """
        if self.version == "v1" or scores is None:
            return class_to_patch
        cams = class_to_patch * scores.float().relu()
        if self.version == "plus":
            return cams.sqrt()
        return len(self.blocks) * cams

    def _map(self, tokens: Tensor, images: Tensor, patch: int) -> Tensor:
        """Lay the patch tokens of (B, K+P, D) out as a map (B, D, H // patch, W // patch)."""
        grid = (images.shape[-2] // patch, images.shape[-1] // patch)
        return tokens[:, self.num_classes :].transpose(1, 2).unflatten(2, grid)


def ranked_pool(scores: Tensor, decay: float = 0.996) -> Tensor:
    """Pool class maps (B, K, h, w) to logits (B, K) by a weighted mean: the r-th largest value
    weighs decay^r (MCTformer+).
    """
    ranked = scores.flatten(2).sort(dim=-1, descending=True).values
    weights = decay ** torch.arange(ranked.shape[-1], device=scores.device, dtype=torch.float32)
    return (ranked * weights).sum(dim=-1) / weights.sum()
