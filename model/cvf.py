"""The whole network, stage after stage as in the figure of model/README.md: a frozen CLIP and a
class-token ViT make pseudo labels, and a decoder is trained on them. A frozen DINO may stand beside
CLIP. Letters of shapes and words such as "seeds" or "switch-over" are explained on that page.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from clip.model import ImageFeatures, VisionTransformer
from model.class_token_vit import ClassTokenViT
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder, predicted_affinity
from model.dino import DinoFeatures, DinoViT
from model.method import BEGINNING, Method, Phase
from model.noise import Noise, drop_channels
from model.outputs import CVFOutput, PseudoLabels, Reading, Seeds, Views, VitOutput
from model.precision import float32_region
from model.proxy import cosine_affinity
from model.pseudo_labels import make_labels, seed_labels
from model.replay import Replay, mapped
from model.resize import resize_tokens
from model.seeds import SeedMaker
from model.text_match import TextMatch

# `Noise` gives each place of the network random numbers of its own, by the number of the place:
# this one drops channels of CLIP's fused features, the next one those of DINO's. The ViT's are
# smaller.
FUSION_SITE = 1 << 16
DINO_MAPS = 2  # last blocks of DINO whose attention is averaged, as in WeCLIP+'s code
# Setting `affinity_head` -> how affinity (B, N, N) is predicted from fused tokens (B, N, dim).
AFFINITY_HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "dot": predicted_affinity,
    "cosine": cosine_affinity,
}


class CVF(nn.Module):
    """The whole method; its parts are passed in. CLIP and DINO are frozen here and stay in eval
    mode.

    clip: its image tower. logit_scale: CLIP's own, a logarithm. text (K+M, E): unit text features,
    K classes, then M >= 1 background words; kept out of the state dict.
    vit: None exactly for branches "clip". wide: head on the ViT's patches, whose logits are mixed
    with the decoder's in a learned share; None leaves the decoder's alone. dino: a second frozen
    backbone, None where nothing of it is used. dino_fusion: brings its patches to the decoder's
    width; None where it gives no features. text_match: brings CLIP's match of patches and texts to
    the decoder; None leaves it out. ValueError where the parts do not fit together.
    """

    text: Tensor  # a buffer

    def __init__(
        self,
        clip: VisionTransformer,
        logit_scale: float,
        text: Tensor,
        vit: ClassTokenViT | None,
        fusion: FeatureFusion,
        decoder: SegmentationDecoder,
        wide: LargeFOV | None,
        method: Method,
        dino: DinoViT | None = None,
        dino_fusion: FeatureFusion | None = None,
        text_match: TextMatch | None = None,
    ) -> None:
        super().__init__()
        if (vit is None) != (method.branches == "clip") or (vit is None and wide is not None):
            raise ValueError(
                f"branches {method.branches!r} with vit {type(vit).__name__}, wide "
                f"{type(wide).__name__}"
            )
        if not 1 <= -method.cam_block < len(clip.blocks):
            raise ValueError(
                f"cam_block is {method.cam_block}; choose from -1 to {1 - len(clip.blocks)}"
            )
        if not 1 <= method.dense_blocks < len(clip.blocks):
            raise ValueError(f"dense_blocks is {method.dense_blocks} of {len(clip.blocks)} blocks")
        if dino is None and dino_fusion is not None:
            raise ValueError("a fusion of DINO's features without DINO")

        self.clip = clip.eval().requires_grad_(False)
        self.dino = None if dino is None else dino.eval().requires_grad_(False)
        self.dino_fusion = dino_fusion
        self.vit = vit
        self.fusion = fusion
        self.decoder = decoder
        self.wide = wide
        self.text_match = text_match
        # share of the decoder's logits, the rest being LargeFOV's
        self.alpha = None if wide is None else nn.Parameter(torch.full((1,), 0.5))
        self.logit_scale = float(logit_scale)
        self.method = method
        self.register_buffer("text", text.detach(), persistent=False)
        self._replay = Replay()

    def train(self, mode: bool = True) -> "CVF":
        """As `nn.Module.train`, but CLIP and DINO stay in eval mode."""
        super().train(mode)
        self.clip.eval()
        if self.dino is not None:
            self.dino.eval()
        return self

    def _apply(self, *given: Any, **named: Any) -> "CVF":
        """As `nn.Module._apply`, which moves a network: what was recorded is of its old place."""
        self._replay = Replay()
        return super()._apply(*given, **named)

    def segment(self, images: Tensor) -> Tensor:
        """Segment normalised images (B, 3, H, W): logits (B, K+1, h, w), as `forward` has them, but
        without tags, CAMs and attention maps.
        """
        return self._replay("segment", self._segment, images)

    def _segment(self, images: Tensor) -> Tensor:
        tokens, grid = self._clip_tokens(images)
        match_features, match_logits = self._match_texts(tokens[-1], grid)
        dino = None
        if self.dino is not None and self.dino_fusion is not None:
            dino = self.dino.look(images)
        x_patch = None
        if self.vit is not None and self.wide is not None:
            x_patch = self.vit.patch_features(images)
        streams = self._fused(self._read_tokens(tokens), dino, grid, match_features)
        return self._logits(streams, x_patch, grid, match_logits)[0]

    def forward(
        self,
        images: Tensor,
        tags: Tensor,
        phase: Phase = BEGINNING,
        valid: Tensor | None = None,
        noise: Noise | None = None,
    ) -> CVFOutput:
        """Run the forward of one training step: logits, pseudo labels, and what their losses need
        (model/README.md, "The figure").

        images (B, 3, H, W) normalised; tags (B, K), above 0 where tagged, an image may have none,
        best on the CPU (a GPU is then not waited for); phase: what has begun; valid (B, H, W) bool,
        False on padding, which gets label 255; noise: the samples' random numbers by which channels
        of the fused features are dropped, None in testing.
        """
        clip = self._clip_features(images, phase.after_switch)
        dino = self._dino_features(images)
        vit = self._vit_output(images)

        x_patch = None if vit is None else vit.x_patch
        height, width = images.shape[-2:]
        read = self._replay(
            f"decoder of {height} x {width} px",
            self._read,
            *(clip.tokens, dino, x_patch, clip.grid, noise),
            learned=self._reading_parameters(),
        )
        patch_logits = self._patch_logits(vit)

        views = Views(clip, dino, vit, read.fused, read.affinity, read.logits, phase)
        seeds = self.seed_maker.seeds(views, tags)
        labels = self._labels(images, seeds, valid)
        return CVFOutput(read.logits, read.affinity, patch_logits, labels, read.opinions)

    @torch.no_grad()
    def seeds(self, images: Tensor, tags: Tensor, phase: Phase = BEGINNING) -> dict[str, Tensor]:
        """Make label maps (B, H, W) long of what supervises the decoder, to be scored on masks.

        "clip", "vit", "fused": argmax of the propagated CAMs without refinement, of each branch in
        use and of both joined; "pseudo": the final labels. Arguments as in `forward`.
        """
        labels = self(images, tags, phase).labels
        with float32_region(images.device):
            seeds = seed_labels(labels.seeds, images.shape[-2:], self.method)
        return {**seeds, "pseudo": labels.combined}

    @property
    def seed_maker(self) -> SeedMaker:
        """Return what makes seeds, with the tensors where they are now."""
        return SeedMaker(self.clip, self.logit_scale, self.text, self.method)

    @property
    def vit_learns(self) -> bool:
        """True if any tensor of the ViT is trained; a frozen one has no patch loss."""
        if self.vit is None:
            return False
        return any(tensor.requires_grad for tensor in self.vit.parameters())

    def _vit_output(self, images: Tensor) -> VitOutput | None:
        """What the ViT says of the images, of which it learns by its patches alone; None without a
        ViT.
        """
        if self.vit is None:
            return None
        learned = list(self.vit.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.vit_learns):
            return self._replay("ViT", self._look_by_vit, images, learned=learned)

    def _look_by_vit(self, images: Tensor) -> VitOutput:
        assert self.vit is not None
        output = self.vit(images, maps="patch", patch_block=self.method.vit_map_block)
        return replace(mapped(output, Tensor.detach), x_patch=output.x_patch)

    def _patch_logits(self, vit: VitOutput | None) -> Tensor | None:
        """Pool head(`x_patch`) to logits (B, K), for the patch loss: small patches alone, unlike
        `VitOutput.patch_logits`. None where there is nothing to learn from them.
        """
        if vit is None or self.vit is None or self.vit.head is None or not self.vit_learns:
            return None
        return self.vit.pool(self.vit.head(vit.x_patch))

    @record_function("CLIP")
    @torch.no_grad()
    def _clip_features(self, images: Tensor, after_switch: bool) -> ImageFeatures:
        """Run CLIP's blocks 1..L-1; keep their tokens and the maps that `build_affinity` reads, but
        for the last block's, which is made later (`SeedMaker.clip_maps`).
        """
        method = self.method
        count = (method.late_maps if after_switch else method.early_maps) + method.skipped_maps
        maps = 0 if method.branches == "vit" else count - 1
        look = partial(self.clip.features, maps=maps)
        return self._replay(f"CLIP with {maps} maps", look, images)

    @torch.no_grad()
    def _clip_tokens(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Tokens (B, 1+N, C) after blocks 1..L-1, by fused attention, and the grid."""
        stream, grid = self.clip.embed(images)
        tokens = []
        for block in self.clip.blocks[:-1]:
            stream = block(stream)
            tokens.append(stream)
        return tokens, grid

    def _match_texts(
        self, tokens: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Match the patches of tokens (B, 1+N, C), those after block L-1, with the texts
        (`TextMatch`): features (B, N, dim) and logits (B, K+1, h, w), which are added to the
        decoder's; None without `text_match`.
        """
        if self.text_match is None:
            return None, None
        classes = self.decoder.predict.out_features - 1
        return self.text_match(self.clip, tokens, grid, self.text, classes, self.logit_scale)

    @torch.no_grad()
    def _read_tokens(self, tokens: list[Tensor]) -> list[Tensor]:
        """Choose from the tokens (B, T, C) after blocks 1..L-1 the patch tokens to be fused; those
        after block L are made if it is one of them.
        """
        count = len(self.fusion.mlps)
        if count == len(self.clip.blocks):
            tokens = [*tokens, self.clip.blocks[-1](tokens[-1])]
        return [stream[:, 1:] for stream in tokens[-count:]]

    def _dino_features(self, images: Tensor) -> DinoFeatures | None:
        """What DINO says of the images; None without DINO."""
        if self.dino is None:
            return None
        return self.dino.look(images, DINO_MAPS if self.method.dino_map else 0)

    def _reading_parameters(self) -> list[Tensor]:
        """Return the parameters of what `_read` runs, but for frozen backbones."""
        parts = (self.fusion, self.dino_fusion, self.decoder, self.wide, self.text_match)
        tensors: list[Tensor] = []
        for part in parts:
            if part is not None:
                tensors += part.parameters()
        if self.alpha is not None:
            tensors.append(self.alpha)
        return tensors

    def _read(
        self,
        tokens: list[Tensor],
        dino: DinoFeatures | None,
        x_patch: Tensor | None,
        grid: tuple[int, int],
        noise: Noise | None,
    ) -> Reading:
        """Read what the backbones say: CLIP's tokens (B, 1+N, C) after blocks 1..L-1 on a grid
        (h, w), DINO's features and the ViT's patches (B, D, h, w).
        """
        match_features, match_logits = self._match_texts(tokens[-1], grid)
        streams = self._fused(self._read_tokens(tokens), dino, grid, match_features, noise)
        fused = streams[0] if len(streams) == 1 else torch.cat(streams, dim=-1)
        affinity = AFFINITY_HEADS[self.method.affinity_head](fused)
        logits, opinions = self._logits(streams, x_patch, grid, match_logits)
        return Reading(fused, affinity, logits, opinions)

    def _fused(
        self,
        tokens: list[Tensor],
        dino: DinoFeatures | None,
        grid: tuple[int, int],
        match_features: Tensor | None,
        noise: Noise | None = None,
    ) -> list[Tensor]:
        """Fuse the patch tokens (B, N, C) of CLIP's blocks to (B, N, dim), and those of DINO, if it
        gives features, to the same on CLIP's grid: one stream per backbone.

        match_features (B, N, dim): of `_match_texts`, added to CLIP's stream.
        """
        dropout = self.method.fusion_dropout
        fused = self.fusion(tokens)
        if match_features is not None:
            fused = fused + match_features

        streams = [drop_channels(fused, dropout, noise, FUSION_SITE)]
        if dino is not None and self.dino_fusion is not None:
            fused = self.dino_fusion([dino.patches])
            fused = drop_channels(fused, dropout, noise, FUSION_SITE + 1)
            streams.append(resize_tokens(fused, dino.grid, grid))
        return streams

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
        (B, K+1, h, w): of `_match_texts`, added at the end.
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

    @torch.no_grad()
    def _labels(self, images: Tensor, seeds: Seeds, valid: Tensor | None) -> PseudoLabels:
        """Make pseudo labels of the seeds by refinement and argmax, in float32."""
        with float32_region(images.device):
            return make_labels(images.float(), seeds, self.method, valid)
