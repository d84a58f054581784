"""The choices that define a variant of the method. Defaults are ours; `configs/published_*.yaml`
holds the others.
"""

from dataclasses import dataclass

_CHOICES = {
    "branches": ("fusion", "clip", "vit"),
    "label_fusion": ("scores", "max_id"),
    "propagation_mask": ("none", "last_class"),
    "vit_map": ("scaled", "summed"),
    "map_selection": ("fit", "mass"),
    "affinity_labels": ("combined", "clip"),
}


@dataclass(frozen=True)
class Method:
    """Settings of `CVF` (model/README.md, "Settings"). ValueError on a word that is no choice.

    branches: which branches make the labels and the affinity. cam_block: CLIP block whose ln_1
    Grad-CAM reads, -1 last. early_maps, late_maps: last CLIP attention maps in use before and after
    the switch-over, counted from the last but `skipped_maps`. box_threshold: share of a CAM's peak
    that counts as strong. par_*: pixel-adaptive refinement. label_fusion: mean of both branches'
    scores before one refinement at image size, or published: the larger label number, ViT labels
    being refined at patch size. background_power_*: background score is (1 - max)^power.
    propagation_mask: published propagates ViT CAMs within the boxes of the image's last class.
    vit_map: the ViT's affinity with rows summing to 1, or published as it is. vit_map_block: the
    ViT block it comes from, 1 is the first, 0 sums all. map_selection: late maps by fit to the
    predicted affinity, or published by mass.
    clip_box_edges: published, boxes leave out the last row and column. affinity_labels: the label
    map that supervises the predicted affinity.
    """

    branches: str = "fusion"
    cam_block: int = -1
    early_maps: int = 8
    late_maps: int = 6
    skipped_maps: int = 0
    box_threshold: float = 0.4
    par_iterations: int = 20
    par_dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    label_fusion: str = "scores"
    background_power_clip: float = 1.0
    background_power_vit: float = 1.0
    background_power_fused: float = 1.0
    propagation_mask: str = "none"
    vit_map: str = "scaled"
    vit_map_block: int = 0
    map_selection: str = "fit"
    clip_box_edges: bool = False
    affinity_labels: str = "combined"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; choose from {', '.join(choices)}"
                )
