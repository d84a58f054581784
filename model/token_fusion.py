"""How the class tokens of a ViT of two patch sizes read the patches of one of them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import attend
from model.transformer import Mlp


class CrossAttention(nn.Module):
    """Multi-head attention from one set of tokens to another, with separate q, k and v matrices."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wq, self.wk, self.wv, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Let queries (B, Q, D) attend to a context (B, T, D); return (B, Q, D)."""
        q, k, v = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.wq, queries), (self.wk, context), (self.wv, context))
        )
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


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
        """Renew class tokens (B, K, D) by patch tokens (B, P, D); return both in a row (B, K+P, D),
        the patches unchanged.
        """
        context = self.norm1(torch.cat([classes, patches], dim=1))
        classes = classes + self.attn(context[:, : classes.shape[1]], context)
        return torch.cat([classes + self.mlp(self.norm2(classes)), patches], dim=1)
