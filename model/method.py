"""The choices that define a variant of the method. `configs/published_step.yaml` holds the
published ones.
"""

from dataclasses import dataclass

from model.dense_settings import DenseSettings
from model.target_settings import TargetSettings
from utils.common.errors import UserError
from utils.common.options import Role, option


@dataclass(frozen=True)
class Phase:
    """What has begun at some point of training.

    after_switch: attention maps are selected by the predicted affinity rather than averaged.
    self_training: the network learns from itself too, in the way that `self_train` says.
    """

    after_switch: bool = False
    self_training: bool = False


BEGINNING = Phase()


@dataclass(frozen=True)
class Method(DenseSettings, TargetSettings):
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
    cam_skip: int = option(
        0,
        "method",
        "CLIP blocks that the tokens which Grad-CAM reads jump over; WeCLIP+ on VOC: 1",
        Role.METHOD,
        low=0,
    )
    cam: str = option(
        "gradcam",
        "method",
        "CLIP's class activation maps: Grad-CAM, a dense read-out of patches, or the mean of both",
        Role.METHOD,
        choices=("gradcam", "dense", "both"),
    )
    dino_use: str = option(
        "features",
        "method",
        "what the DINO of --dino_path is for: features of the decoder, its attention as one more "
        "map of the affinity, both, or --proxy dino alone",
        Role.METHOD,
        choices=("features", "affinity", "both", "proxy"),
    )
    reweight: str = option(
        "none",
        "method",
        "CAMs are weighted by the network's own prediction of their class before they spread",
        Role.METHOD,
        choices=("none", "prediction"),
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
    distribution_distance: str = option(
        "hellinger",
        "method",
        "how unlike two distributions are: Hellinger's distance, squared, or the Jensen-Shannon "
        "divergence (CD-CLIP), which takes longer",
        Role.METHOD,
        choices=("hellinger", "jensen_shannon"),
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
    clip_map: str = option(
        "mean",
        "method",
        "scale of CLIP's attention maps: means over heads; ExCEL: sums in the blocks read out",
        Role.METHOD,
        choices=("mean", "summed"),
    )
    skipped_maps: int = option(
        0, "method", "last CLIP attention maps left out of both", Role.METHOD, low=0
    )
    boxes: bool = option(
        True,
        "method",
        "CLIP's CAMs spread from within boxes around their strong regions; WeCLIP+ on VOC: false",
        Role.METHOD,
    )
    box_threshold: float = option(
        0.4,
        "method",
        "share of a CAM's peak that counts as a strong region, 0..1",
        Role.METHOD,
        low=0,
        high=1,
    )
    transition_power: int = option(
        2,
        "method",
        "power of the transition matrix, so many steps do CAMs spread; published: 2",
        Role.METHOD,
        low=1,
        high=8,
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
    def reads_densely(self) -> bool:
        """Return True if anything is made from a dense read-out of CLIP."""
        for_maps = self.cam in ("dense", "both")
        return self.branches != "vit" and (for_maps or self.distribution != "none")

    @property
    def dino_features(self) -> bool:
        """Return True if DINO, where there is one, gives features to the decoder, in tests too."""
        return self.dino_use in ("features", "both")

    @property
    def dino_map(self) -> bool:
        """Return True if DINO's attention, where there is one, is a map of the affinity."""
        return self.dino_use in ("affinity", "both")

    @property
    def uses_boxes(self) -> bool:
        """Return True if CLIP's CAMs spread from within boxes; distributions, which correct the
        affinity instead, do without (CD-CLIP).
        """
        return self.boxes and self.distribution == "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_proxy()

        if not self.uses_boxes and self.propagation_mask == "last_class":
            without = "--boxes false" if not self.boxes else f"--distribution {self.distribution}"
            raise UserError(
                f"--propagation_mask last_class takes the boxes of CLIP's CAMs, which {without} "
                "leaves out; use --propagation_mask none"
            )

        if self.clip_map == "summed" and not self.reads_densely:
            raise UserError(
                "--clip_map summed is for blocks that are read out densely, and there are none; "
                "add --cam dense, or use --clip_map mean"
            )

        if self.map_selection == "mass" and self.vit_map == "scaled" and self.branches != "clip":
            raise UserError(
                "--map_selection mass compares total masses, which --vit_map scaled makes equal; "
                "use --vit_map summed, or --map_selection fit"
            )

        self._check_targets()

    def _check_targets(self) -> None:
        """Raise UserError where what is to be learned is not made."""
        if self.targets == "pair" and self.branches != "fusion":
            raise UserError(
                f"--targets pair needs the labels of two branches, --branches {self.branches} "
                "makes those of one; use --branches fusion, or --targets hard"
            )

        if self.branches == "fusion" and self.label_fusion == "max_id":
            for setting, value, other in (
                ("targets", "soft", "hard"),
                ("self_train", "scores", "labels"),
            ):
                if getattr(self, setting) == value:
                    raise UserError(
                        f"--{setting} {value} needs joined scores, and --label_fusion max_id joins "
                        f"labels; use --label_fusion scores, or --{setting} {other}"
                    )

    def _check_proxy(self) -> None:
        """Raise UserError where a proxy is asked for that nothing reads, or that is not there."""
        if self.proxy == "none":
            if self.dense_parts == "proxy":
                raise UserError(
                    "--dense_parts proxy has no --proxy; name one, such as --proxy clip"
                )
            return

        if not self.reads_densely:
            raise UserError(
                f"--proxy {self.proxy} acts in a dense read-out of CLIP, and there is none; add "
                "--cam dense, or use --proxy none"
            )
        if self.proxy == "vit" and self.branches == "clip":
            raise UserError(
                "--proxy vit compares patches of the class-token ViT, which --branches clip leaves "
                "out; use another --proxy, or --branches fusion"
            )
        if self.dense_parts == "proxy" and (self.dense_blocks > 1 or self.dense_std > 0):
            raise UserError(
                "--dense_parts proxy reads the last block by the proxy alone; use --dense_blocks 1 "
                "and --dense_std 0"
            )
