"""CVF as its figure: a frozen CLIP, a class-token ViT, labels from both, and the decoder that is
trained on them.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from clip.model import ImageFeatures, VisionTransformer
from model.affinity import build_affinity, propagate, transition_matrix
from model.boxes import box_mask
from model.cam import gradcam
from model.class_rows import ClassRows
from model.class_token_vit import ClassTokenViT
from model.decoder import FeatureFusion, LargeFOV, SegmentationDecoder, predicted_affinity
from model.dense import dense_tokens, softmax_cams, surgery_cams, text_scores
from model.distribution import corrected, distribution_affinity
from model.method import Method
from model.noise import Noise, drop_channels
from model.outputs import CVFOutput, PseudoLabels, Seeds, VitOutput
from model.precision import float32_region, to_device
from model.proxy import cosine_affinity
from model.pseudo_labels import make_labels, seed_labels

FUSION_SITE = 1 << 16  # where the fused features draw; the ViT's blocks draw below
# How affinity is predicted from fused features.
HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "dot": predicted_affinity,
    "cosine": cosine_affinity,
}


class CVF(nn.Module):
    """The whole method; its parts are passed in. CLIP is frozen here and stays in eval mode.

    clip: its image tower. logit_scale: CLIP's own, a logarithm. text (K+M, E): unit text features,
    K classes, then M >= 1 background words; kept out of the state dict.
    vit: None exactly for branches "clip". wide: head on the ViT's patches, whose logits are mixed
    with the decoder's in a learned share; None leaves the decoder's alone. ValueError where the
    parts do not fit together.
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

        self.clip = clip.eval().requires_grad_(False)
        self.vit = vit
        self.fusion = fusion
        self.decoder = decoder
        self.wide = wide
        self.alpha = None if wide is None else nn.Parameter(torch.full((1,), 0.5))
        self.logit_scale = float(logit_scale)
        self.method = method
        self.register_buffer("text", text.detach(), persistent=False)

    def train(self, mode: bool = True) -> "CVF":
        """As `nn.Module.train`, but CLIP stays in eval mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def segment(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, K+1, h, w). No tags, no CAMs, no attention
        maps.
        """
        tokens, grid = self._clip_tokens(images)
        x_patch = None
        if self.vit is not None and self.wide is not None:
            x_patch = self.vit.patch_features(images)
        return self._logits(self.fusion(tokens), x_patch, grid)

    def forward(
        self,
        images: Tensor,
        tags: Tensor,
        after_switch: bool,
        valid: Tensor | None = None,
        noise: Noise | None = None,
    ) -> CVFOutput:
        """One training step's forward (model/README.md, "The figure").

        images (B, 3, H, W) normalised; tags (B, K), above 0 where tagged, an image may have none,
        best on the CPU (a GPU is then not waited for); after_switch: affinity is selected rather
        than averaged; valid (B, H, W) bool, False on padding, which gets label 255; noise: of the
        samples, in training, from which fused features are dropped.
        """
        features = self._clip_features(images, after_switch)
        vit = self._vit_output(images)
        fused = self.fusion([tokens[:, 1:] for tokens in features.tokens])
        fused = drop_channels(fused, self.method.fusion_dropout, noise, FUSION_SITE)
        affinity = HEADS[self.method.affinity_head](fused)
        logits = self._logits(fused, None if vit is None else vit.x_patch, features.grid)
        patch_logits = self._patch_logits(vit)
        seeds = self._seeds(features, vit, affinity, tags, after_switch)
        labels = self._labels(images, seeds, valid)
        return CVFOutput(logits, affinity, patch_logits, labels)

    @torch.no_grad()
    def seeds(self, images: Tensor, tags: Tensor, after_switch: bool) -> dict[str, Tensor]:
        """Label maps (B, H, W) long, to be scored against masks: what CAMs and refinement are
        worth.

        "clip", "vit", "fused": seeds after the transition, without refinement, those of the
        branches in use; "pseudo": the final labels. Arguments as in `forward`.
        """
        labels = self(images, tags, after_switch).labels
        with float32_region(images.device):
            seeds = seed_labels(labels.seeds, images.shape[-2:], self.method)
        return {**seeds, "pseudo": labels.combined}

    @property
    def vit_learns(self) -> bool:
        """True if any tensor of the ViT is trained; a frozen one has no patch loss."""
        if self.vit is None:
            return False
        return any(tensor.requires_grad for tensor in self.vit.parameters())

    def _vit_output(self, images: Tensor) -> VitOutput | None:
        """What the ViT says of the images; None without a ViT."""
        if self.vit is None:
            return None
        with nullcontext() if self.vit_learns else torch.no_grad():
            return self.vit(images, "patch", self.method.vit_map_block)

    def _patch_logits(self, vit: VitOutput | None) -> Tensor | None:
        """Pooled logits (B, K) of small patches; None where there is nothing to learn from them."""
        if vit is None or self.vit is None or self.vit.head is None or not self.vit_learns:
            return None
        return self.vit.pool(self.vit.head(vit.x_patch))

    @record_function("CLIP")
    @torch.no_grad()
    def _clip_features(self, images: Tensor, after_switch: bool) -> ImageFeatures:
        """Run CLIP's blocks 1..L-1; keep their tokens and the maps that `build_affinity` reads."""
        method = self.method
        count = (method.late_maps if after_switch else method.early_maps) + method.skipped_maps
        return self.clip.features(images, maps=0 if method.branches == "vit" else count - 1)

    @torch.no_grad()
    def _clip_tokens(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
        """Patch tokens (B, N, C) after each of blocks 1..L-1, by fused attention, and the grid."""
        stream, grid = self.clip.embed(images)
        tokens = []
        for block in self.clip.blocks[:-1]:
            stream = block(stream)
            tokens.append(stream[:, 1:])
        return tokens, grid

    @record_function("decoder")
    def _logits(self, fused: Tensor, x_patch: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Fused tokens (B, N, dim) and ViT patches (B, D, h, w) -> logits (B, K+1, h, w), mixed if
        `wide` is there.
        """
        logits = self.decoder(fused, grid)
        if self.wide is None or self.alpha is None:
            return logits
        return self.alpha * logits + (1 - self.alpha) * self.wide(x_patch)

    @torch.no_grad()
    def _seeds(
        self,
        features: ImageFeatures,
        vit: VitOutput | None,
        affinity: Tensor,
        tags: Tensor,
        after_switch: bool,
    ) -> Seeds:
        """CAMs of both branches and their way through the transition matrix, in float32, without
        autograd.
        """
        rows = ClassRows.from_tags(tags, affinity.device)
        method = self.method
        clip_cams = boxes = clip = vit_cams = vit_seeds = dense = None
        clip_maps = []
        if method.reads_densely:
            dense = self._dense_tokens(features)
        if method.branches != "vit":
            clip_cams = self._clip_cams(features, rows, dense)
            last = self.clip.blocks[-1]
            last_map = last.attn.maps(last.ln_1(features.tokens[-1]))
            clip_maps = [maps[:, 1:, 1:] for maps in (*features.attention, last_map)]

        with float32_region(affinity.device):
            vit_map = None if vit is None else vit.patch_affinity
            spread = build_affinity(clip_maps, vit_map, affinity, method, after_switch)
            if dense is not None and method.distribution != "none":
                scores = text_scores(dense[:, 1:], self.text, self.logit_scale, self._allowed(rows))
                alike = distribution_affinity(scores, method.distribution_tau)
                spread = corrected(spread, alike, method.distribution)

            transition = transition_matrix(spread)
            if clip_cams is not None:
                boxes = box_mask(clip_cams, method.box_threshold, method.clip_box_edges)
                clip = propagate(transition, rows, clip_cams, boxes)
            if vit is not None and vit.cams is not None:
                within = (
                    boxes[rows.last]
                    if method.propagation_mask == "last_class" and boxes is not None
                    else None
                )
                vit_cams = rows.pick(vit.cams)
                vit_seeds = propagate(transition, rows, vit_cams, within)

        return Seeds(rows, transition, clip_cams, boxes, clip, vit_cams, vit_seeds)

    def _clip_cams(self, features: ImageFeatures, rows: ClassRows, dense: Tensor | None) -> Tensor:
        """Make CLIP's class activation maps (n, h, w) in 0..1, of one kind or the mean of both."""
        method = self.method
        cams = []
        if method.cam != "dense":
            block = method.cam_block
            tokens = features.tokens[block]
            grid = features.grid
            cam = gradcam(self.clip, self.logit_scale, tokens, grid, rows, self.text, block)
            cams.append(cam.cams)
        if method.cam != "gradcam" and dense is not None:
            cams.append(self._dense_cams(dense, features.grid, rows))
        return torch.stack(cams).mean(dim=0)

    @record_function("dense read-out")
    def _dense_tokens(self, features: ImageFeatures) -> Tensor:
        """Read CLIP's last blocks out for every token, (B, T, E), in float32."""
        readout = self.method.readout
        tokens = features.tokens[-readout.blocks].float()
        with float32_region(tokens.device):
            return dense_tokens(self.clip, tokens, features.grid, readout)

    def _dense_cams(self, dense: Tensor, grid: tuple[int, int], rows: ClassRows) -> Tensor:
        """Make maps (n, h, w) in 0..1 of the tagged classes from a dense read-out (B, T, E)."""
        with float32_region(dense.device):
            if self.method.dense_maps == "surgery":
                maps = surgery_cams(dense, self.text).transpose(1, 2).unflatten(2, grid)
            else:
                allowed = self._allowed(rows)
                maps = softmax_cams(dense[:, 1:], self.text, self.logit_scale, allowed, grid)
        return rows.pick(maps)

    def _allowed(self, rows: ClassRows) -> Tensor:
        """Which texts an image is compared with, (B, K+M) bool: its tags, all background words."""
        tags = to_device(rows.tags, self.text.device)
        background = tags.new_ones(len(tags), len(self.text) - tags.shape[1])
        return torch.cat([tags, background], dim=1)

    @torch.no_grad()
    def _labels(self, images: Tensor, seeds: Seeds, valid: Tensor | None) -> PseudoLabels:
        """Refinement and argmax, in float32."""
        with float32_region(images.device):
            return make_labels(images.float(), seeds, self.method, valid)
