"""What a run learns from: pictures and weights."""

from dataclasses import dataclass

from clip.loader import PATCH
from utils.common.errors import UserError
from utils.common.options import Role, Settings, option


@dataclass(frozen=True)
class DataSettings(Settings):
    """Which pictures a run learns from, and how it sees them."""

    dataset: str = option(
        "voc",
        "data",
        "class list and folder layout",
        Role.DATA,
        choices=("voc", "coco", "custom"),
    )
    data_root: str = option(
        "VOCdevkit/VOC2012",
        "data",
        "folder of the data set",
        Role.PLACE,
        at_test="the checkpoint's",
    )
    train_split: str = option(
        "train_aug",
        "data",
        "list of training images: a name in the data set, or a file",
        Role.PLACE,
    )
    val_split: str = option(
        "val", "data", "list of validation images: a name in the data set, or a file", Role.PLACE
    )
    classes: str = option(
        "",
        "data",
        "class list (YAML) of a custom data set; empty: classes.yaml in data_root",
        Role.PLACE,
    )
    tags: str = option(
        "",
        "data",
        "classes of each image, in any form that `datasets.prepare custom` takes; empty: the data "
        "set's own annotations",
        Role.PLACE,
    )
    crop_size: int = option(
        320, "data", "side of a training crop, px, a multiple of 16", Role.DATA, low=2 * PATCH
    )
    train_long: int = option(
        0,
        "data",
        "longer side that larger training images are shrunk to, before the rescaling and where "
        "their seeds are made, px; 0: they stay",
        Role.DATA,
        low=0,
    )
    scale_min: float = option(
        0.5, "data", "smallest random rescaling of a training image", Role.DATA
    )
    scale_max: float = option(
        2.0, "data", "largest random rescaling of a training image", Role.DATA
    )
    fill: str = option(
        "mean",
        "data",
        "colour of the padding of a crop: the data set's mean, or as published black",
        Role.DATA,
        choices=("mean", "black"),
    )
    on_bad_image: str = option(
        "stop",
        "data",
        "an unreadable picture ends the run, or is skipped and counted",
        Role.MACHINE,
        choices=("stop", "skip"),
    )
    statistics: str = option(
        "imagenet",
        "data",
        "mean and deviation that normalise images",
        Role.DATA,
        choices=("imagenet", "clip"),
        decides=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches("crop_size", self.crop_size)

        if self.classes and self.dataset != "custom":
            raise UserError(
                f"--classes {self.classes} is for --dataset custom; {self.dataset} has its own "
                "classes"
            )
        if not 0 < self.scale_min <= self.scale_max:
            raise UserError(
                f"--scale_min {self.scale_min:g} must be positive and at most --scale_max "
                f"{self.scale_max:g}"
            )


@dataclass(frozen=True)
class WeightSettings(Settings):
    """Weights that a run starts from."""

    clip_path: str = option(
        "weights/ViT-B-16.pt",
        "weights",
        "CLIP weights: a file, a model's folder, or a model's name in the Hub's cache; `toy` is "
        "the toy CLIP in this repository",
        Role.PLACE,
        at_test="the checkpoint's",
    )
    clip_activation: str = option(
        "auto",
        "weights",
        "activation of that CLIP, where neither its file nor a configuration beside it tells",
        Role.PLACE,
        choices=("auto", "quick_gelu", "gelu"),
        before="quick_gelu",
    )
    deit_path: str = option(
        "weights/deit_small_patch16_224-cd65a155.pth",
        "weights",
        "ImageNet weights the class-token ViT starts from",
        Role.PLACE,
    )
    mct_path: str = option(
        "",
        "weights",
        "trained class-token ViT (MCTformer V2, MCTformer+ or a classifier.pt of this project); "
        "given, stage 1 is skipped",
        Role.PLACE,
    )
    dino_path: str = option(
        "",
        "weights",
        "DINOv2 weights, a second frozen backbone: a file, a model's folder, or a model's name in "
        "the Hub's cache; empty: none",
        Role.PLACE,
        at_test="the checkpoint's",
    )
    init: str = option(
        "auto",
        "weights",
        "start of the class-token ViT; auto: deit, beside the toy CLIP clip_visual",
        Role.METHOD,
        choices=("auto", "deit", "clip_visual"),
    )

    @property
    def full_size(self) -> bool:
        """Return True unless the CLIP is the toy's: training takes days without a GPU."""
        return self.clip_path != "toy"

    @property
    def starts_from_clip(self) -> bool:
        """Return whether a new class-token ViT starts from CLIP's image tower, not from DeiT."""
        return self.init == "clip_visual" or (self.init == "auto" and not self.full_size)


def check_patches(name: str, side: int) -> None:
    """Raise UserError unless the setting `name`, a side in px, is a whole number of patches."""
    if side % PATCH:
        near = side // PATCH * PATCH
        raise UserError(
            f"--{name} {side} is not a multiple of patch {PATCH}; use {near} or {near + PATCH}"
        )
