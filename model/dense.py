"""Dense read-outs of a frozen CLIP: patch tokens in the space of the texts, without a gradient.

The last block of CLIP mixes patches by the likeness of queries and keys, which was never trained to
keep places apart. Letting queries, keys or values attend to themselves does, and needs no training.
The published ways differ in few choices, which are the settings of `DenseReadout`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.blocks import ResidualBlock
from clip.model import VisionTransformer
from clip.resize import resize, resize_tokens
from model.cam import normalise
from model.class_rows import ClassRows
from utils.common.precision import float32_region, to_device

_EPS = 1e-12


@dataclass(frozen=True)
class DenseReadout:
    """How the last blocks of CLIP are read out.

    parts: what attends to itself, letters of "qkv"; "" lets each token keep its own value; "cross"
        is CLIP's own attention of queries to keys.
    blocks: how many of the last blocks are read out; the outputs of their attention are added up.
    average: attention of several parts is averaged; else summed, so that each row sums to the
        number of parts.
    heads: "own" attention of each head, or one for all heads, their "mean" or "sum".
    std: deviation, in patches, of a Gaussian that draws attention to near patches; 0: none.
    residual: "none" reads the attention's output alone, "stream" adds it to the stream that enters
        the blocks, "block" also runs the MLP after it.
    """

    parts: str = "k"
    blocks: int = 1
    average: bool = True
    heads: str = "own"
    std: float = 0.0
    residual: str = "none"

    def __post_init__(self) -> None:
        if self.parts != "cross" and not set(self.parts) <= set("qkv"):
            raise ValueError(f"parts is {self.parts!r}; use letters of 'qkv', or 'cross'")
        if self.heads not in ("own", "mean", "sum"):
            raise ValueError(f"heads is {self.heads!r}; choose from own, mean, sum")
        if self.residual not in ("none", "stream", "block"):
            raise ValueError(f"residual is {self.residual!r}; choose from none, stream, block")
        if self.blocks > 1 and self.residual != "stream":
            raise ValueError("several blocks are read out along the stream; use residual 'stream'")


# The published ways (their last-block forms; ExCEL's with five).
READOUTS = {
    "maskclip": DenseReadout(parts=""),  # Zhou et al., ECCV 2022
    "sclip": DenseReadout(parts="qk", average=False, residual="block"),  # Wang et al., ECCV 2024
    "clearclip": DenseReadout(parts="q"),  # Lan et al., ECCV 2024
    "naclip": DenseReadout(parts="k", std=5.0),  # Hajimiri et al., WACV 2025
    "excel": DenseReadout(parts="qkv", blocks=5, heads="sum", residual="stream"),  # CVPR 2025
}


def dense_tokens(
    visual: VisionTransformer,
    tokens: Tensor,
    grid: tuple[int, int],
    readout: DenseReadout,
    proxy: Tensor | None = None,
) -> Tensor:
    """Read out CLIP's last blocks for every token.

    Args:
        visual: image tower of L blocks.
        tokens: (B, T, C) stream that enters the first of the `readout.blocks` last blocks.
        grid: (h, w) of the patches.
        readout: which attention, of how many blocks, and what is added to it.
        proxy: (B, N, N) attention between patches, rows summing to 1, that is added to each head's
            (learned proxy of ExCEL, section 3.3).

    Returns:
        (B, T, E) tokens in the joint space, not normalised. With residual "stream" the class token
        is the one of CLIP's own last block.
    """
    prior = None
    if readout.std:
        prior = gaussian_prior(grid, readout.std).to(tokens.device)

    stream = tokens
    for block in visual.blocks[-readout.blocks :]:
        attended = attend(block, tokens, readout, prior, proxy)
        if readout.residual == "none":
            stream = attended
        elif readout.residual == "block":
            stream = block.mix(stream, attended)
        else:
            stream = stream + attended
        if readout.residual == "stream":
            tokens = block(tokens)

    if readout.residual == "stream":
        stream = torch.cat([tokens[:, :1], stream[:, 1:]], dim=1)
    return visual.project(stream)


def attend(
    block: ResidualBlock,
    tokens: Tensor,
    readout: DenseReadout,
    prior: Tensor | None = None,
    proxy: Tensor | None = None,
) -> Tensor:
    """Attend by `self_attention` and project (B, T, C) -> (B, T, C), without residual and MLP."""
    query, key, value = block.attn.split(block.ln_1(tokens))
    weights = self_attention(query, key, value, readout, prior)
    if proxy is not None:
        weights = weights + F.pad(proxy, (1, 0, 1, 0))[:, None]
    if readout.heads == "mean":
        weights = weights.mean(dim=1, keepdim=True)
    if readout.heads == "sum":
        weights = weights.sum(dim=1, keepdim=True)

    mixed = weights @ value
    return block.attn.out_proj(mixed.transpose(1, 2).flatten(2))


def self_attention(
    query: Tensor, key: Tensor, value: Tensor, readout: DenseReadout, prior: Tensor | None = None
) -> Tensor:
    """Compute attention weights (B, heads, T, T) from queries, keys and values (B, heads, T,
    C/heads); where each token keeps its own value, they are 1 from it to itself.

    prior (T, T) is added to the scaled products, before the softmax.
    """
    if readout.parts == "":
        own = torch.eye(query.shape[-2], dtype=query.dtype, device=query.device)
        return own.expand(*query.shape[:2], -1, -1)

    pairs = [(query, key)]
    if readout.parts != "cross":
        named = {"q": query, "k": key, "v": value}
        pairs = [(named[part], named[part]) for part in readout.parts]

    maps = []
    for one, other in pairs:
        products = one @ other.transpose(-2, -1) * one.shape[-1] ** -0.5
        if prior is not None:
            products = products + prior
        maps.append(products.softmax(dim=-1))

    total = functools.reduce(torch.add, maps)
    if readout.average:
        return total / len(pairs)
    return total


def gaussian_prior(grid: tuple[int, int], std: float) -> Tensor:
    """Compute (T, T): exp(-d^2 / (2 std^2)) for patches of the (h, w) grid that lie d patches
    apart, 0 for the class token (NACLIP).
    """
    rows, columns = (torch.arange(length, dtype=torch.float32) for length in grid)
    rows = rows.repeat_interleave(grid[1])
    columns = columns.repeat(grid[0])
    squared = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    return F.pad(torch.exp(-squared / (2 * std**2)), (1, 0, 1, 0))


def surgery_cams(dense: Tensor, text: Tensor, published: bool = False) -> Tensor:
    """Compute class activation maps by what a text scores beyond the mean of all texts.

    Source: feature surgery of CLIP Surgery (Li et al., 2023), as ExCEL uses it. Texts are weighted
    by how well they fit the class token: softmax of 2 * cosine, the factor as published.

    Args:
        dense: (B, T, E) of `dense_tokens`.
        text: (K+M, E) unit text features, classes and background words.
        published: unit length is over tokens for each channel, not over channels for each token,
            and the class token takes part in the min-max.

    Returns:
        (B, N, K+M) in 0..1, patches only.
    """
    axis = 1 if published else 2
    unit = dense / dense.norm(dim=axis, keepdim=True).clamp(min=_EPS)
    fit = torch.softmax(2 * unit[:, 0] @ text.T, dim=-1)
    weights = fit / fit.mean(dim=-1, keepdim=True)

    scores = weights[:, None] * (unit @ text.T)
    scores = scores - scores.mean(dim=-1, keepdim=True)
    if not published:
        scores = scores[:, 1:]

    low = scores.amin(dim=1, keepdim=True)
    high = scores.amax(dim=1, keepdim=True)
    cams = (scores - low) / (high - low).clamp(min=_EPS)
    if published:
        return cams[:, 1:]
    return cams


def patch_logits(patches: Tensor, text: Tensor, logit_scale: float) -> Tensor:
    """Compute exp(logit_scale) * cosine of patches (B, N, E) and texts (K+M, E) -> (B, N, K+M)."""
    cosine = F.normalize(patches, dim=-1) @ F.normalize(text, dim=-1).T
    return cosine * math.exp(logit_scale)


def patch_probabilities(
    patches: Tensor, text: Tensor, logit_scale: float, allowed: Tensor
) -> Tensor:
    """Compute the probability of each allowed text at each patch.

    patches (B, N, E) of any length; text (K+M, E); logit_scale: CLIP's own, a logarithm; allowed
    (B, K+M) bool, a tagged class or a background word -> (B, N, K+M), 0 where not allowed, summing
    to 1.
    """
    logits = patch_logits(patches, text, logit_scale)
    return torch.softmax(logits.masked_fill(~allowed[:, None], float("-inf")), dim=-1)


def softmax_cams(
    patches: Tensor, text: Tensor, logit_scale: float, allowed: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Stretch each map of `patch_probabilities` to its own range: (B, K+M, h, w) in 0..1."""
    scores = patch_probabilities(patches, text, logit_scale, allowed)
    return normalise(scores.transpose(1, 2).unflatten(2, grid).flatten(0, 1)).unflatten(
        0, (len(patches), -1)
    )


def dense_cams(
    dense: Tensor,
    text: Tensor,
    logit_scale: float,
    rows: ClassRows,
    grid: tuple[int, int],
    kind: str,
) -> Tensor:
    """Make maps (n, h, w) in 0..1 of the tagged classes from a read-out (B, T, E), in float32.

    kind: "softmax" of `softmax_cams`, "surgery" of `surgery_cams`, "surgery_by_channel" its
    published form.
    """
    with float32_region(dense.device):
        if kind == "softmax":
            allowed = to_device(rows.allowed(len(text)), dense.device)
            return rows.pick(softmax_cams(dense[:, 1:], text, logit_scale, allowed, grid))

        cams = surgery_cams(dense, text, published=kind == "surgery_by_channel")
        return rows.pick(cams.transpose(1, 2).unflatten(2, grid))


def proxy_tokens(
    visual: VisionTransformer,
    tokens: Tensor,
    grid: tuple[int, int],
    attention: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Read out CLIP's last block by attention that other features give (ProxyCLIP, ECCV 2024).

    tokens (B, T, C) enter the last block, their patches on `grid`; attention (B, N', N') is between
    the cells of a grid of `size`, to which the values are brought -> (B, N', E), not normalised.
    """
    block = visual.blocks[-1]
    _, _, value = block.attn.split(block.ln_1(tokens))
    heads = value.shape[1]
    width = value.shape[-1]

    maps = value[:, :, 1:].transpose(2, 3).flatten(1, 2).unflatten(2, grid)
    maps = resize(maps, size)
    value = maps.flatten(2).unflatten(1, (heads, width)).transpose(2, 3)

    mixed = attention[:, None] @ value
    return visual.project(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))


def tokens_by_proxy(
    visual: VisionTransformer,
    tokens: Tensor,
    grid: tuple[int, int],
    attention: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Read out CLIP's last block as `proxy_tokens` does, brought to CLIP's own grid, and put the
    class token in front.

    Arguments as of `proxy_tokens`. Returns (B, T, E); the class token is that of CLIP's own last
    block.
    """
    patches = proxy_tokens(visual, tokens, grid, attention, size)
    classes = visual.project(visual.blocks[-1](tokens)[:, :1])
    return torch.cat([classes, resize_tokens(patches, size, grid)], dim=1)
