"""Pre-norm transformer block, shared by the class-token ViT and the segmentation decoder."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import attention_weights, is_half_on_cpu

Activation = Callable[[Tensor], Tensor]
Drop = Callable[[Tensor, int], Tensor]


class Attention(nn.Module):
    """Multi-head self-attention with q, k and v packed in one matrix (Vaswani et al., 2017, section
    3.2).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rows: int = 0) -> tuple[Tensor, Tensor | None]:
        """Attend among tokens, (B, T, D) -> (B, T, D); return also what the first `rows` tokens
        attend to.

        The latter are (B, heads, rows, T) softmax weights without gradient (rows sum to 1); None
        for no rows.
        """
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2)
        )
        weights = None
        # where all weights are wanted they need not be made twice, but a graph would keep them
        wanted = rows == x.shape[1] and not torch.is_grad_enabled()
        if wanted or is_half_on_cpu(q):
            every = attention_weights(q, k)
            mixed = every @ v
            if rows:
                weights = every.detach()[:, :, :rows]
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
            if rows:
                weights = attention_weights(q.detach()[:, :, :rows], k.detach())

        return self.proj(mixed.transpose(1, 2).flatten(2)), weights


class Mlp(nn.Module):
    """Two linear layers with an activation between them, (..., D) -> (..., D)."""

    def __init__(self, dim: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Run the two layers, (..., D) -> (..., D)."""
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """x += attention(norm1 x); x += mlp(norm2 x) (Dosovitskiy et al., 2021, equations 2 and 3)."""

    def __init__(
        self, dim: int, heads: int, hidden: int, activation: Activation = F.gelu, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, hidden, activation)

    def forward(
        self, x: Tensor, rows: int = 0, drop: Drop | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Run the block, (B, T, D) -> (B, T, D); return also the attention weights of the first
        `rows` tokens, as `Attention` gives them.

        drop: changes the residual branches, 0 attention and 1 MLP, in training (stochastic depth).
        """
        attended, weights = self.attn(self.norm1(x), rows)
        if drop is not None:
            attended = drop(attended, 0)
        x = x + attended

        changed = self.mlp(self.norm2(x))
        if drop is not None:
            changed = drop(changed, 1)
        return x + changed, weights
