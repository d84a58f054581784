"""The trained segmentation heads: fusion of CLIP's layers, a small transformer, a wide-view head on
the ViT.
"""

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from clip.blocks import quick_gelu
from model.head_settings import DECODER_HEADS
from model.transformer import Block
from utils.common.precision import float32_region


class FeatureFusion(nn.Module):
    """Fusion of the patch tokens after several blocks of a frozen backbone: a two-layer MLP for
    each block, all results side by side, then one linear map to `dim` channels (WeCLIP).

    layers: number of blocks, L-1 for CLIP unless `clip_layers` asks for others, 1 for DINO. width:
    channels of the backbone's tokens.
    """

    def __init__(self, layers: int, width: int, dim: int = 256) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
            for _ in range(layers)
        )
        self.merge = nn.Linear(layers * dim, dim)

    @record_function("fusion")
    def forward(self, features: list[Tensor]) -> Tensor:
        """Fuse the patch tokens (B, N, width) after each block to (B, N, dim). Raises ValueError on
        another number of blocks.
        """
        if len(features) != len(self.mlps):
            raise ValueError(f"{len(features)} layers of features for {len(self.mlps)} MLPs")
        return self.merge(torch.cat([mlp(x) for mlp, x in zip(self.mlps, features)], dim=-1))


class SegmentationDecoder(nn.Module):
    """Transformer blocks as CLIP's over the fused patch tokens, then one linear map to the K+1
    labels (WeCLIP). No positions are added, and no norm stands at the end.
    """

    def __init__(
        self, num_labels: int, dim: int = 256, layers: int = 3, heads: int = DECODER_HEADS
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(dim, heads, 4 * dim, quick_gelu, eps=1e-5) for _ in range(layers)
        )
        self.predict = nn.Linear(dim, num_labels)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predict logits (B, K+1, h, w) from fused tokens (B, N, dim) of an h x w grid."""
        for block in self.blocks:
            tokens, _ = block(tokens)
        return self.predict(tokens).transpose(1, 2).unflatten(2, grid)


class LargeFOV(nn.Module):
    """Wide-view head on a feature map: two dilated 3 x 3 convolutions, then 1 x 1 (Chen et al.,
    2015).

    width: channels between them. dilation: steps between what a convolution sees, in patches.
    """

    def __init__(self, dim: int, num_labels: int, width: int = 512, dilation: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.ReLU(),
            nn.Conv2d(width, num_labels, 1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Predict logits (B, K+1, h, w) from the ViT's patch map (B, D, h, w)."""
        return self.layers(features)


@record_function("predicted affinity")
def predicted_affinity(tokens: Tensor) -> Tensor:
    """Predict from fused tokens (B, N, dim) how likely two patches share a label, (B, N, N) in
    0..1: sigmoid of their products.

    In float32: the transition matrix is made from it, and large products overflow half
    precision (model/README.md, "Decoder").
    """
    with float32_region(tokens.device):
        tokens = tokens.float()
        return torch.sigmoid(tokens @ tokens.transpose(1, 2))
