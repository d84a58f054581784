"""Every setting of a run but those of the method itself (model/method.py), in groups.

Together they are a `Config` (utils/config.py). A function asks for the smallest group it needs.
"""

from dataclasses import dataclass

from utils.common.errors import UserError
from utils.common.options import Role, Settings, option

PATCH = 16  # px
STAGE_1 = "stage 1: class-token ViT"
STAGE_2 = "stage 2: CVF"


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
        "tags file (JSON); empty: tags are made from the data set's own annotations",
        Role.PLACE,
    )
    crop_size: int = option(
        320, "data", "side of a training crop, px, a multiple of 16", Role.DATA, low=2 * PATCH
    )
    train_long: int = option(
        0,
        "data",
        "longer side that larger training images are shrunk to before the rescaling, px; 0: they "
        "stay",
        Role.DATA,
        low=0,
    )
    scale_min: float = option(
        0.5, "data", "smallest random rescaling of a training image", Role.DATA
    )
    scale_max: float = option(
        2.0, "data", "largest random rescaling of a training image", Role.DATA
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
                f"--scale_min {self.scale_min} must be positive and at most --scale_max "
                f"{self.scale_max}"
            )


@dataclass(frozen=True)
class WeightSettings(Settings):
    """Weights that a run starts from."""

    clip_path: str = option(
        "weights/ViT-B-16.pt",
        "weights",
        "CLIP weights; `toy` is the toy CLIP in this repository",
        Role.PLACE,
        at_test="the checkpoint's",
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
    init: str = option(
        "auto",
        "weights",
        "start of the class-token ViT; auto: deit, beside the toy CLIP clip_visual",
        Role.METHOD,
        choices=("auto", "deit", "clip_visual"),
    )


@dataclass(frozen=True)
class Stage1Settings(Settings):
    """How the class-token ViT learns the tags."""

    vit_logit_scale: float = option(
        1.0, "method", "factor on class-token logits in stage 1", Role.METHOD
    )
    mct_streams: int = option(
        2,
        STAGE_1,
        "patch sizes: 1, 16 px as MCTformer+, or 2, 32 px too",
        Role.METHOD,
        low=1,
        high=2,
        before=2,
    )
    mct_epochs: int = option(45, STAGE_1, "epochs over the training images", Role.SCHEDULE, low=0)
    mct_batch_size: int = option(32, STAGE_1, "global batch, images", Role.SCHEDULE, low=1)
    mct_lr: float = option(
        5e-4, STAGE_1, "learning rate for a batch of 512 images", Role.SCHEDULE, low=0
    )
    mct_crop_size: int = option(
        320,
        STAGE_1,
        "side of a training crop, px, a multiple of 16",
        Role.SCHEDULE,
        low=2 * PATCH,
    )
    mct_head_lr_factor: float = option(
        1.0, STAGE_1, "learning rate of new tensors, relative", Role.SCHEDULE, low=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches("mct_crop_size", self.mct_crop_size)


@dataclass(frozen=True)
class Stage2Settings(Settings):
    """How the decoder learns the branches' pseudo labels."""

    radius: int = option(
        8,
        "method",
        "affinity is supervised between patches at most this far apart, patches",
        Role.METHOD,
        low=1,
    )
    ignore_padding: bool = option(
        True,
        "method",
        "padding of a crop is label 255; published: false (background)",
        Role.METHOD,
    )
    max_iters: int = option(
        30000,
        STAGE_2,
        "iterations; warm-up, switch-over and validation scale with it",
        Role.SCHEDULE,
        low=1,
    )
    batch_size: int = option(
        4, STAGE_2, "global batch, images, over all processes", Role.SCHEDULE, low=1
    )
    lr: float = option(2e-4, STAGE_2, "learning rate of the decoder", Role.SCHEDULE, low=0)
    vit_lr_factor: float = option(
        0.1,
        STAGE_2,
        "learning rate of the class-token ViT, relative to --lr",
        Role.SCHEDULE,
        low=0,
    )
    weight_decay: float = option(
        0.01, STAGE_2, "AdamW weight decay, both stages", Role.SCHEDULE, low=0
    )
    warmup_iters: int = option(
        1500,
        STAGE_2,
        "iterations of linear warm-up (of the full run)",
        Role.SCHEDULE,
        low=0,
        scaled=True,
    )
    switch_iters: int = option(
        20000,
        STAGE_2,
        "iteration from which affinity is selected (of the full run)",
        Role.SCHEDULE,
        scaled=True,
    )
    schedule: str = option(
        "continuous",
        STAGE_2,
        "learning rate over time",
        Role.SCHEDULE,
        choices=("continuous", "published"),
    )
    train_vit: bool = option(
        True,
        STAGE_2,
        "the ViT branch and the mixing weight learn; published: false",
        Role.METHOD,
    )
    w_attn: float = option(0.1, STAGE_2, "weight of the affinity loss", Role.METHOD)
    w_pat: float = option(0.1, STAGE_2, "weight of the patch loss", Role.METHOD)

    def after_switch(self, step: int) -> bool:
        """True if affinity is selected, no longer averaged, once `step` iterations are done."""
        return step >= self.switch_iters


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """How a run is scored, and how pictures are predicted."""

    eval_every: int = option(
        3000,
        "evaluation",
        "iterations between validations (of the full run; at least 100 in a shorter one)",
        Role.WATCH,
        low=1,
        scaled=True,
    )
    eval_seeds: bool = option(
        False,
        "evaluation",
        "also score CLIP, ViT and fused seeds and pseudo labels with train masks",
        Role.WATCH,
    )
    eval_images: int = option(
        0,
        "evaluation",
        "at most this many images in each evaluation during training; 0: all",
        Role.WATCH,
        low=0,
    )
    resize_long: int = option(
        512, "evaluation", "long side of a test image, px", Role.TEST, low=1, decides=True
    )
    scales: list[float] = option(
        [1.0, 0.75],
        "evaluation",
        "test scales; the first is the single scale",
        Role.TEST,
        decides=True,
    )
    pad_images: bool = option(
        True,
        "evaluation",
        "test images are padded to whole patches; published: false (the rest is not seen)",
        Role.TEST,
        decides=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or min(self.scales) <= 0:
            raise UserError(f"--scales {self.scales} must be one or more positive numbers")


@dataclass(frozen=True)
class RunSettings(Settings):
    """Where a run executes, how it is watched, and what it leaves behind."""

    work_dir: str = option(
        "runs/cvf",
        "run",
        "folder of this run",
        Role.PLACE,
        at_test="the run folder the checkpoint lies in, of --images its pictures/; else "
        "runs/test_NAME",
    )
    device: str = option("auto", "run", "auto, cpu, cuda or cuda:N", Role.MACHINE)
    precision: str = option(
        "auto",
        "run",
        "auto is bf16 where the device has it",
        Role.MACHINE,
        choices=("auto", "fp32", "bf16"),
    )
    workers: int = option(
        2, "run", "data loading processes; 0 loads in the training process", Role.MACHINE, low=0
    )
    threads: int = option(
        0, "run", "CPU threads of PyTorch; 0: PyTorch's own choice", Role.MACHINE, low=0
    )
    visualise: int = option(
        0,
        "run",
        "training images drawn at each validation, truth where there are masks",
        Role.WATCH,
        low=0,
    )
    quiet: bool = option(
        False,
        "run",
        "no progress bars; what training says goes to train.log alone",
        Role.MACHINE,
    )
    seed: int = option(0, "run", "all randomness follows from it", Role.SCHEDULE, low=0)
    log_every: int = option(20, "run", "iterations between log lines", Role.WATCH, low=1)
    checkpoint_every: int = option(500, "run", "iterations between checkpoints", Role.WATCH, low=1)
    keep: int = option(1, "run", "checkpoints kept of each stage, the newest", Role.WATCH, low=1)


def check_patches(name: str, side: int) -> None:
    """Raise UserError unless the setting `name`, a side in px, is a whole number of patches."""
    if side % PATCH:
        near = side // PATCH * PATCH
        raise UserError(
            f"--{name} {side} is not a multiple of patch {PATCH}; use {near} or {near + PATCH}"
        )
