"""What CLIP's towers are made of, and in part the other networks too: patches, attention, residual
blocks.

Shapes: B images, T tokens, Q of them as queries, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64  # channels per attention head in every ViT here: CLIP, DeiT, MCTformer, DINOv2


def quick_gelu(x: Tensor) -> Tensor:
    """Apply the activation OpenAI's CLIPs were trained with, x * sigmoid(1.702 x), to any shape."""
    return x * torch.sigmoid(1.702 * x)


class QuickGELU(nn.Module):
    """`quick_gelu` as a module, which has a name in the official checkpoints' MLP."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape."""
        return quick_gelu(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


def is_half_on_cpu(x: Tensor) -> bool:
    """Tell whether PyTorch's fused attention is the slow way for x.

    For bfloat16 on a CPU it takes two to four times as long as matrix products and a softmax.
    """
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


def embed_patches(images: Tensor, layer: nn.Conv2d) -> Tensor:
    """Turn the patches of images (B, 3, H, W) into a map (B, D, H // patch, W // patch).

    layer: a convolution whose stride is its kernel, here one matrix product. PyTorch's own takes
    longer, and in bfloat16 on processors with AMX it leaves all but the first row of a map of one
    column unwritten.
    """
    patch = layer.kernel_size[0]
    h = images.shape[-2] // patch
    w = images.shape[-1] // patch
    whole = images[..., : h * patch, : w * patch]
    pixels = whole.unflatten(3, (w, patch)).unflatten(2, (h, patch)).permute(0, 2, 4, 1, 3, 5)
    tokens = F.linear(pixels.flatten(3).flatten(1, 2), layer.weight.flatten(1), layer.bias)
    return tokens.transpose(1, 2).unflatten(2, (h, w))


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Weigh keys (..., T, C) for queries (..., Q, C): softmax of the scaled products, (..., Q, T).

    The weights have the queries' precision, in which they are multiplied with the values; autocast
    would store them in float32 on the way.
    """
    return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1), dim=-1, dtype=q.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Mix values for each query by how alike their keys are to it; `causal`: a token sees none
    after it.

    q (..., Q, C), k and v (..., T, C); the result is (..., Q, C).
    """
    if is_half_on_cpu(q) and not causal:
        return attention_weights(q, k) @ v
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def mean_of_heads(weights: Tensor) -> Tensor:
    """Average attention weights (B, heads, Q, T) over heads: (B, Q, T) in float32.

    For bfloat16 on a CPU it is a matrix product, whose sums are rounded once to bfloat16: a sum in
    float32 would begin with a copy of all weights.
    """
    if not is_half_on_cpu(weights):
        return weights.mean(dim=1, dtype=torch.float32)
    heads = weights.shape[1]
    sums = weights.new_ones(1, heads) @ weights.flatten(2)
    return sums.view(weights[:, 0].shape).float() / heads


class Attention(nn.Module):
    """Multi-head self-attention under CLIP's parameter names; q, k and v are packed in that
    order.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split (B, T, C) into queries, keys and values, each (B, heads, T, C/heads)."""
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        return qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Attend among tokens, (B, T, C) -> (B, T, C); `causal`: a token sees none after it."""
        mixed = attend(*self.split(x), causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attend among tokens (B, T, C); return output (B, T, C) and attention averaged over heads
        (B, T, T).
        """
        q, k, v = self.split(x)
        weights = attention_weights(q, k)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), mean_of_heads(weights)

    def maps(self, x: Tensor) -> Tensor:
        """Compute from tokens (B, T, C) the attention averaged over heads (B, T, T), rows sum to 1;
        no output is made.
        """
        q, k, _ = self.split(x)
        return mean_of_heads(attention_weights(q, k))


class ResidualBlock(nn.Module):
    """Pre-norm transformer block: x += attn(ln_1(x)); x += mlp(ln_2(x))."""

    def __init__(self, width: int, heads: int, activation: str = "quick_gelu"):
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", ACTIVATIONS[activation]())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def mix(self, x: Tensor, attended: Tensor) -> Tensor:
        """Finish the block: add the attention output to the stream, then the MLP."""
        x = x + attended
        return x + self.mlp(self.ln_2(x))

    def with_attention(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the block on (B, T, C); return block output (B, T, C) and head-mean attention (B, T,
        T).
        """
        attended, maps = self.attn.with_maps(self.ln_1(x))
        return self.mix(x, attended), maps

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Run the block, (B, T, C) -> (B, T, C); `causal`: a token attends to none after it."""
        return self.mix(x, self.attn(self.ln_1(x), causal))


class Transformer(nn.Module):
    """A stack of residual blocks, named as in the official checkpoints."""

    def __init__(self, width: int, layers: int, heads: int, activation: str = "quick_gelu"):
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, activation) for _ in range(layers)
        )

    def forward(self, x: Tensor, causal: bool = False) -> Tensor:
        """Run all blocks, (B, T, C) -> (B, T, C)."""
        for block in self.resblocks:
            x = block(x, causal)
        return x
