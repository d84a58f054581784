"""The whole network, stage after stage as in the figure of model/README.md: a frozen CLIP and a
class-token ViT make pseudo labels, and a decoder is trained on them. A frozen DINO may stand beside
CLIP. Letters of shapes and words such as "seeds" or "switch-over" are explained on that page.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from clip.model import ImageFeatures, VisionTransformer
from model.class_token_vit import ClassTokenViT
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder
from model.dino import DinoFeatures, DinoViT
from model.head import SegmentationHead
from model.method import BEGINNING, Method, Phase
from model.noise import Noise
from model.outputs import CVFOutput, PseudoLabels, Seeds, Views, VitOutput
from model.pseudo_labels import make_labels, seed_labels
from model.replay import Replay, mapped
from model.seeds import SeedMaker
from model.text_match import TextMatch
from utils.common.precision import float32_region

DINO_MAPS = 2  # last blocks of DINO whose attention is averaged, as in WeCLIP+'s code


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
        """Set the mode as `nn.Module.train` does; CLIP and DINO stay in eval mode."""
        super().train(mode)
        self.clip.eval()
        if self.dino is not None:
            self.dino.eval()
        return self

    def _apply(self, *given: Any, **named: Any) -> "CVF":
        """Forget what was recorded, as `nn.Module._apply` moves a network to another place."""
        self.forget_graphs()
        return super()._apply(*given, **named)

    def forget_graphs(self) -> None:
        """Let go of what was recorded for a GPU, whose memory is then free for other tensors."""
        self._replay = Replay()

    def segment(self, images: Tensor) -> Tensor:
        """Segment normalised images (B, 3, H, W): logits (B, K+1, h, w), as `forward` has them, but
        without tags, CAMs and attention maps.
        """
        return self._replay("segment", self._segment, images)

    def _segment(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            clip = self.clip.features(images, maps=0)
        dino = None
        if self.dino is not None and self.dino_fusion is not None:
            dino = self.dino.look(images)
        x_patch = None
        if self.vit is not None and self.wide is not None:
            x_patch = self.vit.patch_features(images)
        return self.head.segment(clip.tokens, dino, x_patch, clip.grid)

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
        head = self.head
        found = self._replay(
            f"decoder of {height} x {width} px",
            head,
            *(clip.tokens, dino, x_patch, clip.grid, noise),
            learned=head.parameters(),
        )
        patch_logits = self._patch_logits(vit)

        views = Views(clip, dino, vit, found.fused, found.affinity, found.logits, phase)
        seeds = self.seed_maker.seeds(views, tags)
        labels = self._labels(images, seeds, valid)
        return CVFOutput(found.logits, found.affinity, patch_logits, labels, found.opinions)

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
    def head(self) -> SegmentationHead:
        """Return what learns to segment, with the tensors where they are now."""
        return SegmentationHead(
            self.clip,
            self.logit_scale,
            self.text,
            self.method,
            self.fusion,
            self.dino_fusion,
            self.decoder,
            self.wide,
            self.alpha,
            self.text_match,
        )

    @property
    def seed_maker(self) -> SeedMaker:
        """Return what makes seeds, with the tensors where they are now."""
        return SeedMaker(self.clip, self.logit_scale, self.text, self.method, self._replay)

    @property
    def vit_learns(self) -> bool:
        """Return True if any tensor of the ViT is trained; a frozen one has no patch loss."""
        if self.vit is None:
            return False
        return any(tensor.requires_grad for tensor in self.vit.parameters())

    def _vit_output(self, images: Tensor) -> VitOutput | None:
        """Run the ViT, which learns of what it says by its patches alone; None without a ViT."""
        if self.vit is None:
            return None
        look = partial(_patches_of, self.vit, self.method.vit_map_block)
        learned = list(self.vit.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.vit_learns):
            return self._replay("ViT", look, images, learned=learned)

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

    def _dino_features(self, images: Tensor) -> DinoFeatures | None:
        """Run DINO, for as many attention maps as are used; None without DINO."""
        if self.dino is None:
            return None
        return self.dino.look(images, DINO_MAPS if self.method.dino_map else 0)

    @torch.no_grad()
    def _labels(self, images: Tensor, seeds: Seeds, valid: Tensor | None) -> PseudoLabels:
        """Make pseudo labels of the seeds by refinement and argmax, in float32."""
        with float32_region(images.device):
            return make_labels(images.float(), seeds, self.method, valid)


def _patches_of(vit: ClassTokenViT, map_block: int, images: Tensor) -> VitOutput:
    """Look at images (B, 3, H, W) with the gradient of `x_patch` alone; `patch_affinity` is of
    block `map_block`, 0: of all.
    """
    output = vit(images, maps="patch", patch_block=map_block)
    return replace(mapped(output, Tensor.detach), x_patch=output.x_patch)
