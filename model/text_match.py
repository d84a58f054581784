"""How well each patch matches each text of CLIP, given to the decoder (ours), so that it need not
learn the classes from nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from clip.model import VisionTransformer
from model.dense import DenseReadout, dense_tokens, patch_logits
from utils.common.precision import float32_region

READOUT = DenseReadout("k")  # the last block, its keys attending to themselves
START_SHARE = 1.0  # of the match in the logits; learned from there on


class TextMatch(nn.Module):
    """A dense read-out of CLIP's last block, as features and as logits of the decoder.

    width: channels E of CLIP's joint space. dim: channels of the decoder.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.share = nn.Parameter(torch.full((1,), START_SHARE))

    @record_function("text match")
    def forward(
        self,
        visual: VisionTransformer,
        tokens: Tensor,
        grid: tuple[int, int],
        text: Tensor,
        classes: int,
        logit_scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Match each patch with each text.

        Args:
            visual: CLIP's image tower, frozen.
            tokens: (B, 1+N, C) after block L-1.
            grid: (h, w) of the N patches.
            text: (K+M, E), K classes, then M background words.
            classes: K.
            logit_scale: CLIP's own, a logarithm.

        Returns:
            Features (B, N, dim), and logits (B, K+1, h, w): a learned share of exp(logit_scale) *
            cosine, the background's being the log-sum-exp of its words', less the mean of all K+1.
        """
        with torch.no_grad(), float32_region(tokens.device):
            patches = dense_tokens(visual, tokens.float(), grid, READOUT)[:, 1:]
            scores = patch_logits(patches, text.float(), logit_scale)
            background = scores[..., classes:].logsumexp(dim=-1, keepdim=True)
            match = torch.cat([background, scores[..., :classes]], dim=-1)
            match = match - match.mean(dim=-1, keepdim=True)
            # of a mean square of 1
            patches = F.normalize(patches, dim=-1) * patches.shape[-1] ** 0.5

        logits = self.share * match.transpose(1, 2).unflatten(2, grid)
        return self.mlp(patches), logits
