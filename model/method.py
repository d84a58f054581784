"""The choices that define a variant of the method. `configs/published_step.yaml` holds the
published ones.
"""

from dataclasses import dataclass

from model.dense import DenseReadout
from utils.common.errors import UserError
from utils.common.options import Role, Settings, option

DECODER_HEADS = 8


@dataclass(frozen=True)
class Method(Settings):
    """Settings of `CVF`, in which its variants differ (model/README.md, "Settings").

    label_fusion: the mean of both branches' scores before one refinement at image size; or
    published, the larger label number, ViT labels being refined at patch size.
    vit_map: the ViT's affinity with rows that sum to 1, or published, as it is.
    map_selection: late maps by their fit to the predicted affinity, or published, by their mass.
    """

    branches: str = option(
        "fusion",
        "method",
        "which branches make labels and logits",
        Role.METHOD,
        choices=("clip", "vit", "fusion"),
    )
    cam_block: int = option(
        -1, "method", "CLIP block whose first LayerNorm Grad-CAM reads; -1 is the last", Role.METHOD
    )
    cam: str = option(
        "gradcam",
        "method",
        "CLIP's class activation maps: Grad-CAM, a dense read-out of patches, or the mean of both",
        Role.METHOD,
        choices=("gradcam", "dense", "both"),
    )
    dense_parts: str = option(
        "k",
        "method",
        "what attends to itself in a dense read-out: q, k, v or several; empty: each its own value",
        Role.METHOD,
        choices=("", "q", "k", "v", "qk", "qkv"),
    )
    dense_blocks: int = option(
        1, "method", "last CLIP blocks of a dense read-out", Role.METHOD, low=1
    )
    dense_std: float = option(
        0.0,
        "method",
        "deviation of a Gaussian that draws a dense read-out to near patches, patches; 0: none",
        Role.METHOD,
        low=0,
    )
    dense_maps: str = option(
        "softmax",
        "method",
        "maps of a dense read-out: softmax over tags and background words, or feature surgery",
        Role.METHOD,
        choices=("softmax", "surgery"),
    )
    affinity_head: str = option(
        "dot",
        "method",
        "predicted affinity: sigmoid of products of fused features, or of centred cosines",
        Role.METHOD,
        choices=("dot", "cosine"),
    )
    distribution: str = option(
        "none",
        "method",
        "affinity of patches alike in all classes corrects that of attention: by a product of "
        "matrices, or of elements",
        Role.METHOD,
        choices=("none", "matrix", "elements"),
    )
    distribution_tau: float = option(
        0.1,
        "method",
        "how sharply it tells patches apart, the smaller the more",
        Role.METHOD,
        low=1e-4,
    )
    early_maps: int = option(
        8, "method", "last CLIP attention maps averaged before the switch-over", Role.METHOD, low=1
    )
    late_maps: int = option(
        6,
        "method",
        "last CLIP attention maps selected from after the switch-over",
        Role.METHOD,
        low=1,
    )
    skipped_maps: int = option(
        0, "method", "last CLIP attention maps left out of both", Role.METHOD, low=0
    )
    box_threshold: float = option(
        0.4,
        "method",
        "share of a CAM's peak that counts as a strong region, 0..1",
        Role.METHOD,
        low=0,
        high=1,
    )
    fusion_dropout: float = option(
        0.1,
        "method",
        "share of the fused features' channels that is dropped in training",
        Role.METHOD,
        low=0,
        high=0.9,
        before=0.0,
    )
    par_iterations: int = option(
        20, "method", "rounds of pixel-adaptive refinement", Role.METHOD, low=0
    )
    label_fusion: str = option(
        "scores",
        "method",
        "how the branches' pseudo labels are joined",
        Role.METHOD,
        choices=("scores", "max_id"),
    )
    background_power_clip: float = option(
        1.0, "method", "background score of CLIP CAMs is (1 - max)^power", Role.METHOD, low=0
    )
    background_power_vit: float = option(
        1.0, "method", "background score of ViT CAMs is (1 - max)^power", Role.METHOD, low=0
    )
    background_power_fused: float = option(
        1.0, "method", "background score of fused CAMs is (1 - max)^power", Role.METHOD, low=0
    )
    propagation_mask: str = option(
        "none",
        "method",
        "box mask under which ViT CAMs are propagated; published: last_class",
        Role.METHOD,
        choices=("none", "last_class"),
    )
    vit_map: str = option(
        "scaled",
        "method",
        "scale of the ViT's attention map; published: summed",
        Role.METHOD,
        choices=("scaled", "summed"),
    )
    vit_map_block: int = option(
        0,
        "method",
        "ViT block that the map comes from, 1 is the first; 0: the sum of all",
        Role.METHOD,
    )
    map_selection: str = option(
        "fit",
        "method",
        "late selection of maps; published: mass",
        Role.METHOD,
        choices=("fit", "mass"),
    )
    clip_box_edges: bool = option(
        False, "method", "boxes leave out the last row and column; published: true", Role.METHOD
    )
    affinity_labels: str = option(
        "combined",
        "method",
        "labels that supervise affinity",
        Role.METHOD,
        choices=("combined", "clip"),
    )

    @property
    def readout(self) -> DenseReadout:
        """How a dense read-out of CLIP is made."""
        residual = "stream" if self.dense_blocks > 1 else "none"
        heads = "mean" if self.dense_blocks > 1 else "own"
        return DenseReadout(
            self.dense_parts, self.dense_blocks, heads=heads, std=self.dense_std, residual=residual
        )

    @property
    def reads_densely(self) -> bool:
        """True if anything is made from a dense read-out of CLIP."""
        return self.branches != "vit" and (self.cam != "gradcam" or self.distribution != "none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.map_selection == "mass" and self.vit_map == "scaled" and self.branches != "clip":
            raise UserError(
                "--map_selection mass compares total masses, which --vit_map scaled makes equal; "
                "use --vit_map summed, or --map_selection fit"
            )


@dataclass(frozen=True)
class HeadSettings(Settings):
    """Sizes of what is trained from nothing."""

    decoder_width: int = option(
        256,
        "method",
        "channels of the fused features and the decoder",
        Role.METHOD,
        low=1,
        high=2**16,
    )
    decoder_layers: int = option(
        3, "method", "transformer layers of the decoder", Role.METHOD, low=0, high=100
    )
    wide_width: int = option(
        512,
        "method",
        "channels of the wide-view head on the ViT (LargeFOV)",
        Role.METHOD,
        low=1,
        high=2**16,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_width % DECODER_HEADS:
            raise UserError(
                f"--decoder_width {self.decoder_width} is not a multiple of the decoder's "
                f"{DECODER_HEADS} heads; use 256"
            )
