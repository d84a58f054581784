"""The trained head: from what the backbones say of a batch to logits and predicted affinity. Its
parts are in `decoder` and `text_match`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from clip.model import VisionTransformer
from clip.resize import resize_tokens
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder, predicted_affinity
from model.dino import DinoFeatures
from model.method import Method
from model.noise import Noise, drop_channels
from model.outputs import HeadOutput
from model.proxy import cosine_affinity
from model.text_match import TextMatch

# `Noise` gives each place of the network random numbers of its own, by the number of the place:
# this one drops channels of CLIP's fused features, the next one those of DINO's. The ViT's are
# smaller.
FUSION_SITE = 1 << 16
# Setting `affinity_head` -> how affinity (B, N, N) is predicted from fused tokens (B, N, dim).
AFFINITY_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "dot": predicted_affinity,
    "cosine": cosine_affinity,
}


@dataclass(frozen=True)
class SegmentationHead:
    """The parts of `CVF` that learn to segment, and the frozen CLIP, which is asked again for its
    last block and its match of patches and texts. They are described there.

    alpha (1,): share of the decoder's logits, the rest being those of `wide`.
    """

    clip: VisionTransformer
    logit_scale: float
    text: Tensor
    method: Method
    fusion: FeatureFusion
    dino_fusion: FeatureFusion | None
    decoder: SegmentationDecoder
    wide: LargeFOV | None
    alpha: Tensor | None
    text_match: TextMatch | None

    def parameters(self) -> list[Tensor]:
        """List the parameters of its parts; CLIP is none of them."""
        tensors: list[Tensor] = []
        for part in (self.fusion, self.dino_fusion, self.decoder, self.wide, self.text_match):
            if part is not None:
                tensors += part.parameters()
        if self.alpha is not None:
            tensors.append(self.alpha)
        return tensors

    def __call__(
        self,
        tokens: list[Tensor],
        dino: DinoFeatures | None,
        x_patch: Tensor | None,
        grid: tuple[int, int],
        noise: Noise | None,
    ) -> HeadOutput:
        """Compute all that a training step needs; arguments as of `segment`.

        noise: random numbers by which channels of the fused features are dropped; None drops none.
        """
        streams, match_logits = self._streams(tokens, dino, grid, noise)
        fused = streams[0] if len(streams) == 1 else torch.cat(streams, dim=-1)
        affinity = AFFINITY_HEADS[self.method.affinity_head](fused)
        logits, opinions = self._logits(streams, x_patch, grid, match_logits)
        return HeadOutput(fused, affinity, logits, opinions)

    def segment(
        self,
        tokens: list[Tensor],
        dino: DinoFeatures | None,
        x_patch: Tensor | None,
        grid: tuple[int, int],
    ) -> Tensor:
        """Compute logits (B, K+1, h, w) alone, as in testing.

        tokens (B, 1+N, C): CLIP's after blocks 1..L-1, on a grid (h, w). dino: features of DINO,
        None without. x_patch (B, D, h, w): the ViT's patches, which `wide` reads.
        """
        streams, match_logits = self._streams(tokens, dino, grid)
        return self._logits(streams, x_patch, grid, match_logits)[0]

    def _streams(
        self,
        tokens: list[Tensor],
        dino: DinoFeatures | None,
        grid: tuple[int, int],
        noise: Noise | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Fuse CLIP's patch tokens to (B, N, dim), and those of DINO, if it gives features, to the
        same on CLIP's grid: one stream per backbone. Return also the logits (B, K+1, h, w) of the
        match with the texts, None without `text_match`.

        Features of that match are added to CLIP's stream.
        """
        dropout = self.method.fusion_dropout
        match_logits = None
        match_features = None
        if self.text_match is not None:
            classes = self.decoder.predict.out_features - 1
            match_features, match_logits = self.text_match(
                self.clip, tokens[-1], grid, self.text, classes, self.logit_scale
            )

        fused = self.fusion(self.fused_tokens(tokens))
        if match_features is not None:
            fused = fused + match_features

        streams = [drop_channels(fused, dropout, noise, FUSION_SITE)]
        if dino is not None and self.dino_fusion is not None:
            fused = self.dino_fusion([dino.patches])
            fused = drop_channels(fused, dropout, noise, FUSION_SITE + 1)
            streams.append(resize_tokens(fused, dino.grid, grid))
        return streams, match_logits

    @torch.no_grad()
    def fused_tokens(self, tokens: list[Tensor]) -> list[Tensor]:
        """Choose from the tokens (B, 1+N, C) after blocks 1..L-1 the patch tokens (B, N, C) to be
        fused; those after block L are made if it is one of them.
        """
        count = len(self.fusion.mlps)
        if count == len(self.clip.blocks):
            tokens = [*tokens, self.clip.blocks[-1](tokens[-1])]
        return [stream[:, 1:] for stream in tokens[-count:]]

    @record_function("decoder")
    def _logits(
        self,
        streams: list[Tensor],
        x_patch: Tensor | None,
        grid: tuple[int, int],
        match_logits: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Predict logits (B, K+1, h, w) from the fused tokens (B, N, dim) of each backbone and,
        where `wide` is there, from the ViT's patches (B, D, h, w); also those of each predictor
        alone (`CVFOutput.opinions`).

        One decoder sees all streams, and the mean of its logits counts (WeCLIP+). match_logits
        (B, K+1, h, w) are added at the end.
        """
        opinions = tuple(self.decoder(stream, grid) for stream in streams)
        logits = opinions[0]
        if len(opinions) > 1:
            logits = torch.stack(opinions).mean(dim=0)

        if self.wide is not None and self.alpha is not None:
            wide = self.wide(x_patch)
            if len(opinions) == 1:
                opinions = (logits, wide)
            logits = self.alpha * logits + (1 - self.alpha) * wide

        if match_logits is not None:
            logits = logits + match_logits
        return logits, opinions
