"""How a run learns, in two stages."""

from dataclasses import dataclass

from clip.loader import PATCH
from utils.common.options import Role, Settings, option
from utils.settings.data import check_patches

STAGE_1 = "stage 1: class-token ViT"
STAGE_2 = "stage 2: CVF"


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
        448,
        STAGE_1,
        "side of a training crop, px, a multiple of 16",
        Role.SCHEDULE,
        low=2 * PATCH,
        before=320,
    )
    mct_augmentation: str = option(
        "randaugment",
        STAGE_1,
        "training views: random areas with RandAugment and erasing as MCTformer+, or rescaled "
        "as in stage 2",
        Role.SCHEDULE,
        choices=("randaugment", "rescale"),
        before="rescale",
    )
    mct_drop_path: float = option(
        0.1,
        STAGE_1,
        "how likely a residual branch of the last block is dropped; less before it",
        Role.SCHEDULE,
        low=0,
        high=0.9,
        before=0.0,
    )
    mct_weight_decay: float = option(
        0.05, STAGE_1, "AdamW weight decay", Role.SCHEDULE, low=0, before=0.01
    )
    mct_adam_beta2: float = option(
        0.999, STAGE_1, "AdamW's decay of squared gradients", Role.SCHEDULE, low=0, high=0.9999
    )
    mct_decay_tables: bool = option(
        False,
        STAGE_1,
        "class tokens and position tables decay too; MCTformer+: false",
        Role.SCHEDULE,
        before=True,
    )
    mct_warmup_epochs: float = option(
        5.0, STAGE_1, "epochs of linear warm-up", Role.SCHEDULE, low=0, before=2.25
    )
    mct_lr_floor: float = option(
        0.32,
        STAGE_1,
        "share of the learning rate that is left at the end; MCTformer+: 1e-5 of 3.1e-5",
        Role.SCHEDULE,
        low=0,
        high=1,
        before=0.01,
    )
    mct_contrast: str = option(
        "images",
        STAGE_1,
        "the contrast loss is a mean over images, as MCTformer+, or over all tags of a batch",
        Role.SCHEDULE,
        choices=("images", "tags"),
        before="tags",
    )
    mct_eval_epochs: float = option(
        5.0,
        STAGE_1,
        "epochs between two looks at how well tags of validation images are predicted; 0: none",
        Role.WATCH,
        low=0,
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
    lr: float = option(
        2e-3, STAGE_2, "learning rate of fusion and decoder", Role.SCHEDULE, low=0, before=2e-4
    )
    wide_lr_factor: float = option(
        0.25,
        STAGE_2,
        "learning rate of LargeFOV and the mixing weight, relative to --lr",
        Role.SCHEDULE,
        low=0,
        before=1.0,
    )
    vit_lr_factor: float = option(
        0.0,
        STAGE_2,
        "learning rate of the class-token ViT, relative to --lr; 0: frozen, without a patch loss",
        Role.SCHEDULE,
        low=0,
        before=0.1,
    )
    weight_decay: float = option(0.01, STAGE_2, "AdamW weight decay", Role.SCHEDULE, low=0)
    adam_beta2: float = option(
        0.999, STAGE_2, "AdamW's decay of squared gradients", Role.SCHEDULE, low=0, high=0.9999
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
        1_000_000,
        STAGE_2,
        "iteration from which affinity is selected (of the full run); beyond it: never",
        Role.SCHEDULE,
        scaled=True,
        before=20000,
    )
    schedule: str = option(
        "continuous",
        STAGE_2,
        "learning rate over time",
        Role.SCHEDULE,
        choices=("continuous", "published"),
    )
    decay_vectors: bool = option(
        False,
        STAGE_2,
        "biases and norms are decayed too; WeCLIP: true",
        Role.SCHEDULE,
    )
    train_vit: bool = option(
        True,
        STAGE_2,
        "the ViT branch and the mixing weight learn; published: false",
        Role.METHOD,
    )
    w_attn: float = option(0.1, STAGE_2, "weight of the affinity loss", Role.METHOD)
    w_pat: float = option(0.1, STAGE_2, "weight of the patch loss", Role.METHOD)
    stages: str = option(
        "all",
        STAGE_2,
        "where the run ends: after pseudo labels made without training, after stage 1, or at the "
        "end of stage 2",
        Role.WATCH,
        choices=("seeds", "classifier", "all"),
    )

    def after_switch(self, step: int) -> bool:
        """Return True if affinity is selected, not averaged, once `step` iterations are done."""
        return step >= self.switch_iters
