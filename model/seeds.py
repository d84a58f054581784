"""From what the networks say of a batch to its seeds: CAMs of both branches, and the affinity by
which they spread. What becomes of seeds is in `pseudo_labels`.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.profiler import record_function

from clip.model import ImageFeatures, VisionTransformer
from model.affinity import build_affinity, map_on_grid, propagate, transition_matrix
from model.boxes import box_mask
from model.cam import gradcam
from model.class_rows import ClassRows
from model.dense import dense_cams, patch_probabilities
from model.distribution import corrected, distribution_affinity
from model.method import Method
from model.outputs import Seeds, Views
from model.predictions import cam_weights, tagged_logits
from model.proxy import read_out
from model.replay import Replay
from utils.common.precision import float32_region, to_device


@dataclass(frozen=True)
class SeedMaker:
    """What seeds are made with, beside what the networks say: the frozen CLIP, which is asked again
    for gradients and a dense read-out, and the settings.

    clip: its image tower. logit_scale: CLIP's own, a logarithm. text (K+M, E): unit text features
    of K classes and M background words. replay: runs what is much launched for little work.
    """

    clip: VisionTransformer
    logit_scale: float
    text: Tensor
    method: Method
    replay: Replay

    @torch.no_grad()
    def seeds(self, views: Views, tags: Tensor) -> Seeds:
        """Make the CAMs of both branches for tags (B, K), above 0 where tagged, and multiply them
        by the transition matrix; in float32, without autograd.
        """
        method = self.method
        rows = ClassRows.from_tags(tags, views.affinity.device)
        dense = None
        if method.reads_densely:
            dense = self._dense_tokens(views)

        clip_cams = None
        clip_maps = []
        if method.branches != "vit":
            clip_cams, last_map = self._clip_cams(views.clip, rows, dense)
            clip_maps = self.clip_maps(views.clip, last_map)

        with float32_region(views.affinity.device):
            affinity = self._affinity(views, clip_maps)
            if dense is not None and method.distribution != "none":
                affinity = self._corrected(affinity, rows, dense)

            transition = transition_matrix(affinity, method.transition_power)
            return self._spread(views, rows, transition, clip_cams)

    @record_function("dense read-out")
    def _dense_tokens(self, views: Views) -> Tensor:
        """Read CLIP's last blocks out for every token, (B, T, E), in float32."""
        with float32_region(views.affinity.device):
            return read_out(self.clip, views, self.method)

    def _clip_cams(
        self, features: ImageFeatures, rows: ClassRows, dense: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Make CLIP's class activation maps (n, h, w) in 0..1, of one kind or the mean of both, and
        the attention map (B, T, T) of its last block, where that is made on the way.
        """
        method = self.method
        cams = []
        last_map = None
        if method.cam in ("gradcam", "both"):
            own, attention = self._gradcam(features, rows)
            cams.append(own)
            last_map = attention if method.cam_block == -1 else None

        if method.cam in ("dense", "both") and dense is not None:
            kind = method.dense_maps
            own = dense_cams(dense, self.text, self.logit_scale, rows, features.grid, kind)
            cams.append(own)
        return torch.stack(cams).mean(dim=0), last_map

    def _gradcam(self, features: ImageFeatures, rows: ClassRows) -> tuple[Tensor, Tensor]:
        """Make Grad-CAM's maps (n, h, w), and the attention map (B, T, T) of the block it reads."""
        block = self.method.cam_block  # tokens[-1], after block L-1, are what enters block -1
        tokens = features.tokens[block - self.method.cam_skip]
        grid = features.grid
        made = partial(gradcam, self.clip, self.logit_scale, grid, self.text, block)

        def maps(*given: Tensor) -> tuple[Tensor, Tensor]:
            """Return of all that is found what seeds are made of."""
            found = made(*given)
            return found.cams, found.attention

        allowed = to_device(rows.allowed(len(self.text)), tokens.device)
        name = f"Grad-CAM of block {block} on {grid}"
        return self.replay(name, maps, tokens, rows.index, allowed)

    def clip_maps(self, features: ImageFeatures, last_map: Tensor | None = None) -> list[Tensor]:
        """Return CLIP's attention between patches, (B, N, N) per block, in block order.

        last_map (B, T, T): the last block's, made here if None. With `cam_skip` that block reads
        the tokens that Grad-CAM reads, and not those after the block before it.
        """
        last = self.clip.blocks[-1]
        if last_map is None:
            last_map = last.attn.maps(last.ln_1(features.tokens[-1 - self.method.cam_skip]))
        maps = [whole[:, 1:, 1:] for whole in (*features.attention, last_map)]
        if self.method.clip_map == "summed":
            read = self.method.dense_blocks
            maps = [*maps[:-read], *(last.attn.heads * means for means in maps[-read:])]
        return maps

    def _affinity(self, views: Views, clip_maps: list[Tensor]) -> Tensor:
        """Build the affinity (B, N, N) of the maps of all networks."""
        vit_map = None if views.vit is None else views.vit.patch_affinity
        dino_map = None
        if views.dino is not None and views.dino.attention:
            mean = torch.stack(views.dino.attention).mean(dim=0)
            dino_map = map_on_grid(mean, views.dino.grid, views.clip.grid)
        return build_affinity(
            clip_maps, vit_map, views.affinity, self.method, views.phase.after_switch, dino_map
        )

    def _corrected(self, affinity: Tensor, rows: ClassRows, dense: Tensor) -> Tensor:
        """Correct the affinity (B, N, N) by how alike the class distributions of two patches are,
        those of a dense read-out (B, T, E).
        """
        method = self.method
        allowed = to_device(rows.allowed(len(self.text)), dense.device)
        p = patch_probabilities(dense[:, 1:], self.text, self.logit_scale, allowed)
        alike = distribution_affinity(p, method.distribution_tau, method.distribution_distance)
        return corrected(affinity, alike, method.distribution)

    def _spread(
        self, views: Views, rows: ClassRows, transition: Tensor, clip_cams: Tensor | None
    ) -> Seeds:
        """Multiply the CAMs (n, h, w) of both branches by the transition matrix (B, N, N), weighted
        and from within boxes where the settings say so.
        """
        method = self.method
        weights: Tensor | float = 1.0
        if method.reweight != "none":
            weights = cam_weights(views.logits, rows, method.predicted_classes)

        boxes = clip = None
        if clip_cams is not None:
            if method.uses_boxes:
                threshold = method.box_threshold
                clip_edges = method.clip_box_edges
                mask = partial(box_mask, threshold=threshold, clip_edges=clip_edges)
                name = f"boxes above {threshold}, edges clipped: {clip_edges}"
                boxes = self.replay(name, mask, clip_cams)
            clip = propagate(transition, rows, clip_cams * weights, boxes)

        vit_cams = vit = None
        if views.vit is not None and views.vit.cams is not None:
            within = None
            if method.propagation_mask == "last_class" and boxes is not None:
                within = boxes[rows.last]
            vit_cams = rows.pick(views.vit.cams)
            vit = propagate(transition, rows, vit_cams * weights, within)

        own = None
        if views.phase.self_training and method.self_train == "scores":
            own = tagged_logits(views.logits, rows)
        return Seeds(rows, transition, clip_cams, boxes, clip, vit_cams, vit, own)
