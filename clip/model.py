"""CLIP's image and text towers (Radford et al., 2021), with what weakly-supervised segmentation
needs from them: patch tokens after every block, head-averaged attention maps, and any image size.

Tensor names are those of the official checkpoints. Shapes: B images, h x w patches of 16 px, N = h
* w, T = 1 + N tokens (class token first), C channels, L blocks, E the joint embedding size.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from clip.blocks import HEAD_WIDTH, ResidualBlock, Transformer, embed_patches
from clip.resize import resize
from utils.common.device import without_values

# stored in archives, made anew here
NOT_WEIGHTS = {
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
    "position_ids",
}
SIZES_FROM = {  # tensors that tell a checkpoint's sizes, and their numbers of dimensions
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "positional_embedding": 2,
    "text_projection": 2,
    "token_embedding.weight": 2,
}


@dataclass(frozen=True)
class ImageFeatures:
    """What the first blocks of the image tower leave behind."""

    tokens: list[Tensor]  # (B, T, C) residual stream after blocks 1..depth
    # (B, T, T) of the last of these blocks, as many as asked for, averaged over heads
    attention: list[Tensor]
    grid: tuple[int, int]  # (h, w)


def _random(*shape: int, std: float) -> nn.Parameter:
    """Make a parameter of normal values."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=std))


class VisionTransformer(nn.Module):
    """CLIP's image tower. Its position table is resized to the grid of the image at hand."""

    def __init__(
        self,
        width: int,
        layers: int,
        embed_dim: int,
        patch_size: int = 16,
        grid: int = 14,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.patch_size = patch_size
        self.width = width
        self.grid = grid

        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = _random(width, std=width**-0.5)
        self.positional_embedding = _random(grid * grid + 1, width, std=width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, max(1, width // HEAD_WIDTH), activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = _random(width, embed_dim, std=width**-0.5)

    @property
    def blocks(self) -> Sequence[ResidualBlock]:
        """Return the L residual blocks."""
        return cast(Sequence[ResidualBlock], self.transformer.resblocks)

    def position(self, h: int, w: int) -> Tensor:
        """Return the position table (1 + h*w, C): the native grid brought to h x w bilinearly, the
        class token's row kept.
        """
        if (h, w) == (self.grid, self.grid):
            return self.positional_embedding
        native = self.positional_embedding[1:].T.unflatten(1, (self.grid, self.grid))[None]
        table = resize(native, (h, w))[0].flatten(1).T
        return torch.cat([self.positional_embedding[:1], table])

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed normalised images (B, 3, H, W): tokens (B, T, C) that enter the first block, and
        the grid (h, w).
        """
        patches = embed_patches(images, self.conv1)
        h, w = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        class_token = self.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        return self.ln_pre(
            torch.cat([class_token, patches], 1) + self.position(h, w).to(patches.dtype)
        ), (h, w)

    def features(
        self, images: Tensor, depth: int | None = None, maps: int | None = None
    ) -> ImageFeatures:
        """Run blocks 1..depth (default L - 1); keep each one's tokens, and the last `maps`
        attentions (default all).
        """
        if depth is None:
            depth = len(self.blocks) - 1
        blocks = self.blocks[:depth]
        x, grid = self.embed(images)
        tokens = []
        attention = []
        for remaining, block in zip(range(len(blocks), 0, -1), blocks):
            if maps is None or remaining <= maps:
                x, attended = block.with_attention(x)
                attention.append(attended)
            else:
                x = block(x)
            tokens.append(x)

        return ImageFeatures(tokens, attention, grid)

    def project(self, tokens: Tensor) -> Tensor:
        """Project the last block's tokens (..., C) to the joint space (..., E), not normalised."""
        return self.ln_post(tokens) @ self.proj

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) as tokens in the joint space (B, T, E), class token first, not
        normalised.
        """
        return self.project(self.transformer(self.embed(images)[0]))


class CLIP(nn.Module):
    """Both towers. `token_ids` (sorted) lists the vocabulary rows present when a checkpoint holds
    only some of them.
    """

    token_ids: Tensor | None  # a buffer
    # of a CLIP that was loaded from a file: the file's checksum, and the CLIP's own in any file
    sha256: str = ""
    identity: str = ""

    def __init__(
        self,
        visual: VisionTransformer,
        embed_dim: int,
        text_width: int,
        text_layers: int,
        context: int = 77,
        vocabulary: int = 49408,
        token_ids: Tensor | None = None,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        if token_ids is not None:
            vocabulary = len(token_ids)

        self.activation = activation  # of the text tower; the image tower has its own
        self.visual = visual
        self.transformer = Transformer(
            text_width, text_layers, max(1, text_width // HEAD_WIDTH), activation
        )
        self.token_embedding = nn.Embedding(vocabulary, text_width)
        self.positional_embedding = _random(context, text_width, std=0.01)
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = _random(text_width, embed_dim, std=text_width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("token_ids", token_ids)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids (T, 77), zero-padded, as text features (T, E), read at the end-of-text
        token, not normalised.

        The mask is causal, so the padding is cut before the tower runs. Raises ValueError on a
        token without a row, or on more tokens than there are positions.
        """
        end = tokens.argmax(1)  # the end-of-text token has the largest id
        tokens = tokens[:, : int(end.max()) + 1].contiguous()
        if tokens.shape[1] > len(self.positional_embedding):
            raise ValueError(
                f"it has {tokens.shape[1]} tokens and this checkpoint takes at most "
                f"{len(self.positional_embedding)}"
            )
        if self.token_ids is not None:
            rows = torch.searchsorted(self.token_ids, tokens).clamp(max=len(self.token_ids) - 1)
            unknown = (self.token_ids[rows] != tokens) & (
                torch.arange(tokens.shape[1]).to(end) <= end[:, None]
            )
            if unknown.any():
                raise ValueError(f"token {int(tokens[unknown][0])} has no row in this checkpoint")
            tokens = rows

        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x, causal=True))
        return x[torch.arange(len(x), device=x.device), end] @ self.text_projection

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], activation: str = "quick_gelu") -> "CLIP":
        """Build the CLIP that a state dict with official names describes: float32, eval mode, every
        tensor matched.

        Each tensor is asked of `state` when its turn comes, so that a file can be read into the
        model one tensor at a time. float32 tensors are taken as they are, not copied.

        Raises ValueError naming the tensors when the state dict is not a CLIP ViT or does not fit.
        """
        model = cls.without_values(state, activation)
        values = {}
        for name in _weights(state):
            tensor = state[name]
            values[name] = tensor.float() if tensor.is_floating_point() else tensor.long()

        try:
            model.load_state_dict(values, assign=True)
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from None

        return model.eval()

    @classmethod
    def without_values(cls, state: Mapping[str, Tensor], activation: str = "quick_gelu") -> "CLIP":
        """Build the CLIP that a state dict describes with tensors that take no memory yet.

        Raises ValueError where the sizes cannot be read, or the names are not those of a CLIP ViT.
        """
        names = _weights(state)
        sizes: dict[str, tuple[int, ...]] = {}
        for name, dimensions in SIZES_FROM.items():
            sizes[name] = state[name].shape if name in names else ()
            if len(sizes[name]) != dimensions or 0 in sizes[name]:
                raise ValueError(f"no tensor {name} of {dimensions} dimensions")

        width, _, patch, _ = sizes["visual.conv1.weight"]
        text_width, embed_dim = sizes["text_projection"]
        for channels in (width, text_width):
            if channels > HEAD_WIDTH and channels % HEAD_WIDTH:
                raise ValueError(f"{channels} channels are no multiple of {HEAD_WIDTH}")

        grid = math.isqrt(sizes["visual.positional_embedding"][0] - 1)
        depth = _depth(names, "visual.transformer.")
        text_depth = _depth(names, "transformer.")
        token_ids: Tensor | None = None
        with without_values():
            if "token_ids" in names:
                token_ids = torch.empty(sizes["token_embedding.weight"][0], dtype=torch.long)
            model = cls(
                VisionTransformer(width, depth, embed_dim, patch, grid, activation),
                embed_dim,
                text_width,
                text_depth,
                sizes["positional_embedding"][0],
                sizes["token_embedding.weight"][0],
                token_ids,
                activation,
            )
        _check_names(model, names)
        return model


def _weights(state: Iterable[str]) -> list[str]:
    """List the names of a state dict that are weights."""
    return [name for name in state if name.rpartition(".")[2] not in NOT_WEIGHTS]


def _check_names(model: CLIP, names: Collection[str]) -> None:
    """Raise ValueError where the names are not those of the model's own tensors."""
    own = model.state_dict().keys()
    problems = {
        "missing": [name for name in own if name not in names],
        "unexpected": [name for name in names if name not in own],
    }
    if found := [f"{kind}: {', '.join(some[:3])}" for kind, some in problems.items() if some]:
        raise ValueError("; ".join(found))


def _depth(names: Iterable[str], prefix: str) -> int:
    """Count the residual blocks under a prefix."""
    start = f"{prefix}resblocks."
    return len({name[len(start) :].split(".")[0] for name in names if name.startswith(start)})
