"""Class activation maps of CLIP: which patches raise the probability of a tagged class (Grad-CAM on
the text match).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from clip.blocks import ResidualBlock, attention_weights, mean_of_heads
from clip.model import VisionTransformer
from utils.common.precision import float32_region


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM of all tagged classes of a batch, without gradient.

    cams (n, h, w) in 0..1, rows as in `ClassRows`; probs (B, K+M): probabilities of the texts of
    the tagged classes and of all background words, summing to 1, 0 for untagged classes;
    channel_weights (n, C): gradient of the probability of each row's class, mean over patches;
    activations (B, N, C): output of the block's first LayerNorm at the patches; attention
    (B, T, T), T = 1+N: of the block, averaged over heads.
    """

    cams: Tensor
    probs: Tensor
    channel_weights: Tensor
    activations: Tensor
    attention: Tensor


def normalise(maps: Tensor, eps: float = 1e-7) -> Tensor:
    """Bring each of maps (n, h, w) to 0..1: (m - min) / (eps + max(m - min)). A constant map
    becomes 0.
    """
    maps = maps - maps.amin(dim=(-2, -1), keepdim=True)
    return maps / (eps + maps.amax(dim=(-2, -1), keepdim=True))


def text_probabilities(
    patches: Tensor, text: Tensor, logit_scale: float, allowed: Tensor
) -> Tensor:
    """Compute the probabilities (B, K+M) of texts (K+M, E) for whole images from their patch
    tokens.

    patches (B, N, E) in the joint space; allowed (B, K+M) bool: the texts that compete, others get
    0.

    Softmax of exp(logit_scale) * cosine between the mean patch and each allowed text
    (model/README.md, "Grad-CAM").
    """
    image = F.normalize(patches.mean(dim=1), dim=-1)
    logits = image @ F.normalize(text, dim=-1).T * math.exp(logit_scale)
    return torch.softmax(logits.masked_fill(~allowed, float("-inf")), dim=-1)


@record_function("Grad-CAM")
@torch.inference_mode(False)
def gradcam(
    visual: VisionTransformer,
    logit_scale: float,
    grid: tuple[int, int],
    text: Tensor,
    block: int,
    tokens: Tensor,
    index: Tensor,
    allowed: Tensor,
) -> GradCAM:
    """Compute Grad-CAM at the first LayerNorm of `visual.blocks[block]`, for all images and tagged
    classes at once.

    tokens (B, T, C), T = 1+N: the residual stream that enters that block; text (K+M, E): text
    features, K classes then M >= 1 background words; logit_scale: CLIP's own, a logarithm; index
    (n, 2) and allowed (B, K+M): pairs of image and class, and what is compared, of `ClassRows`. The
    channel weight is the patch mean of d probability / d activation, the residual path being
    constant; map = relu(weighted sum of the activations), normalised twice as published (CLIP-ES).
    Works under `torch.no_grad` and in inference mode, as it turns on itself the gradients that it
    needs. Under autocast the blocks run in half precision; all that follows them (text match,
    weighted sum, min-max) in float32.
    """
    tokens, index, allowed = (_outside_inference(each) for each in (tokens, index, allowed))
    images, classes = index.unbind(1)
    first, *later = list(visual.blocks)[block:]

    def probabilities(end: Tensor, allowed: Tensor) -> Tensor:
        """Run the later blocks, and compare the mean patch with the texts."""
        for following in later:
            end = following(end)
        with float32_region(tokens.device):
            # The mean patch may be taken before the linear projection: the same number, and little
            # left to project.
            mean = visual.ln_post(end.float()[:, 1:]).mean(dim=1, keepdim=True)
            return text_probabilities(mean @ visual.proj, text, logit_scale, allowed)

    with torch.no_grad():
        passed = PassedBlock(first, tokens.float())
        probs = probabilities(passed.end, allowed)
    with torch.enable_grad():  # images do not mix, so each row of the sum has its own gradient
        ends = passed.end[images].requires_grad_()
        chosen = probabilities(ends, allowed[images]).gather(1, classes[:, None])
        (gradients,) = torch.autograd.grad(chosen.sum(), ends)

    patches = passed.activations[:, 1:]
    with torch.no_grad():
        weights = passed.pull_back(gradients, images) / patches.shape[1]
        with float32_region(tokens.device):
            cams = torch.relu(torch.einsum("nc,npc->np", weights, patches[images]))
            cams = normalise(normalise(cams.unflatten(1, grid)))
    return GradCAM(cams, probs, weights, patches, mean_of_heads(passed.weights))


def _outside_inference(given: Tensor) -> Tensor:
    """Copy a tensor that was made in inference mode, which autograd refuses; leave any other."""
    return given.clone() if given.is_inference() else given


class PassedBlock:
    """A residual block that the tokens (B, T, C) of images have passed, and the gradient from its
    end back to the output of its first LayerNorm, written out.

    An image passes once for all its classes, and what it passed by is kept: activations, the
    output of the first LayerNorm; parts, queries, keys and values (B, heads, T, C/heads); weights
    (B, heads, T, T) of the attention, and what it mixed, (B, heads, T, C/heads); middle, after the
    attention; slope (B, T, 4 C), the derivative of the MLP's activation function; end. As Grad-CAM
    needs gradients summed over patches alone, `pull_back` sums as early as it can.
    """

    def __init__(self, block: ResidualBlock, stream: Tensor) -> None:
        self.block = block
        self.activations = block.ln_1(stream)
        self.parts = block.attn.split(self.activations)
        query, key, value = self.parts
        self.weights = attention_weights(query, key)
        self.mixed = self.weights @ value
        self.middle = stream + block.attn.out_proj(self.mixed.transpose(1, 2).flatten(2))
        self.widen, activation, self.narrow = cast(
            tuple[nn.Linear, nn.Module, nn.Linear], block.mlp
        )
        hidden, self.slope = value_and_slope(activation, self.widen(block.ln_2(self.middle)))
        self.end = self.middle + self.narrow(hidden)

    def pull_back(self, gradients: Tensor, images: Tensor) -> Tensor:
        """Turn gradients (n, T, C) at the end, each of the image in `images` (n,), into their sums
        (n, C) over the patches of `activations`.
        """
        block = self.block
        hidden = (gradients @ self.narrow.weight).mul_(self.slope[images])
        inner = hidden @ self.widen.weight
        gradients = gradients + vjp(block.ln_2, self.middle[images], inner)

        mixed = gradients @ block.attn.out_proj.weight
        heads = mixed.unflatten(2, (block.attn.heads, -1)).transpose(1, 2)
        with float32_region(mixed.device):
            return self._through_attention(heads, images) @ block.attn.in_proj_weight

    def _through_attention(self, gradients: Tensor, images: Tensor) -> Tensor:
        """Turn gradients (n, heads, T, C/heads) of the mixed values into those of queries, keys and
        values, summed over patches, side by side (n, 3 C).

        For products P of queries and keys, weights S = softmax(P), and dX the gradient of X: dS =
        gradients @ values, dP = S * (dS - rho), rho being the sum of S * dS over keys, which equals
        that of gradients * mixed over channels. Sums over patches leave the class token, place 0,
        out.
        """
        query, key, value = (part[images] for part in self.parts)
        weights = self.weights[images]
        rho = (gradients * self.mixed[images]).sum(dim=-1, keepdim=True)

        # Sums of dP over the queries of patches: (n, heads, T), one value per key.
        both = torch.cat([gradients, rho], dim=-1)[:, :, 1:].transpose(2, 3)
        sums = (both @ weights[:, :, 1:]).transpose(2, 3)
        by_key = (sums[..., :-1] * value).sum(dim=-1) - sums[..., -1]
        # Sums of dP over the keys of patches, one value per query: as a row of dP sums to 0, it is
        # minus the entry of the class token's key.
        to_class = weights[..., 0]
        by_query = -to_class * (gradients @ value[:, :, :1].transpose(2, 3) - rho)[..., 0]

        scale = query.shape[-1] ** -0.5
        # gradients of queries, of keys, of values, each summed over patches
        parts = (
            weighted_sum(scale * by_key, key),
            weighted_sum(scale * by_query, query),
            weighted_sum(1 - to_class.float(), gradients),
        )
        return torch.stack(parts, dim=1).flatten(1)


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum values (n, heads, T, C) over tokens with weights (n, heads, T), in float32."""
    return (weights.float()[:, :, None] @ values.float())[:, :, 0]


@torch.enable_grad()
def value_and_slope(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a function to each element; also return its derivative there, both without a graph."""
    at = at.detach().requires_grad_()
    value = function(at)
    (slope,) = torch.autograd.grad(value, at, torch.ones_like(value))
    return value.detach(), slope


@torch.enable_grad()
def vjp(function: Callable[[Tensor], Tensor], at: Tensor, gradients: Tensor) -> Tensor:
    """Turn gradients of a function's result into those of its argument, of the same shape."""
    at = at.detach().requires_grad_()
    result = function(at)
    return torch.autograd.grad(result, at, gradients.to(result.dtype))[0]
