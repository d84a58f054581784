"""How a run is scored, where it executes, and what it leaves behind."""

from dataclasses import dataclass

from utils.common.errors import UserError
from utils.common.options import Role, Settings, option, shown

CRF_GROUP = "dense CRF"
SEEDS_GROUP = "seeds"
LEAST_DEVIATION = 0.1  # of a kernel; below it every pixel is alone


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
    eval_images: int = option(
        0,
        "evaluation",
        "validation images scored during training, evenly spaced in their list; 0: all",
        Role.WATCH,
        low=0,
    )
    eval_seeds: bool = option(
        True,
        "evaluation",
        "also score seeds and pseudo labels where training images have masks, which nothing is "
        "trained on",
        Role.WATCH,
        before=False,
    )
    seeds_split: str = option(
        "train",
        "evaluation",
        "list of the images whose seeds are scored: a name in the data set, or a file",
        Role.PLACE,
    )
    seeds_images: int = option(
        500,
        "evaluation",
        "images whose seeds are scored, evenly spaced in their list; 0: all",
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
            raise UserError(f"--scales {shown(self.scales)} must be one or more positive numbers")


@dataclass(frozen=True)
class CRFSettings(Settings):
    """Constants of the dense CRF, in testing and where pseudo labels are refined by it: rounds of
    mean field, deviation and weight of its two kernels.
    """

    crf_iterations: int = option(
        10, CRF_GROUP, "rounds of the dense CRF", Role.TEST, low=0, decides=True
    )
    crf_pos_xy_std: float = option(
        3.0,
        CRF_GROUP,
        "deviation of the CRF's spatial kernel, px",
        Role.TEST,
        low=LEAST_DEVIATION,
        decides=True,
    )
    crf_pos_w: float = option(
        3.0,
        CRF_GROUP,
        "weight of the CRF's spatial kernel",
        Role.TEST,
        low=0,
        decides=True,
    )
    crf_bi_xy_std: float = option(
        64.0,
        CRF_GROUP,
        "deviation of the CRF's bilateral kernel, px",
        Role.TEST,
        low=LEAST_DEVIATION,
        decides=True,
    )
    crf_bi_rgb_std: float = option(
        5.0,
        CRF_GROUP,
        "deviation of the CRF's bilateral kernel, grey levels",
        Role.TEST,
        low=LEAST_DEVIATION,
        decides=True,
    )
    crf_bi_w: float = option(
        4.0,
        CRF_GROUP,
        "weight of the CRF's bilateral kernel",
        Role.TEST,
        low=0,
        decides=True,
    )

    @property
    def crf_words(self) -> str:
        """Return the constants in words, as they stand beside results."""
        return (
            f"{self.crf_iterations} iterations; Gaussian kernel of {self.crf_pos_xy_std:g} px, "
            f"weight {self.crf_pos_w:g}; bilateral kernel of {self.crf_bi_xy_std:g} px and "
            f"{self.crf_bi_rgb_std:g} grey levels, weight {self.crf_bi_w:g}"
        )


@dataclass(frozen=True)
class SeedSettings(Settings):
    """How seeds and pseudo labels of whole images are made."""

    seed_size: str = option(
        "padded",
        SEEDS_GROUP,
        "whole images whose seeds are made are padded to whole patches, or resized to them; "
        "CLIP-ES: resized",
        Role.TEST,
        choices=("padded", "resized"),
    )
    seed_refinement: str = option(
        "par",
        SEEDS_GROUP,
        "how seeds of whole images become pseudo labels; CLIP-ES: crf",
        Role.TEST,
        choices=("par", "crf"),
    )
    seed_confidence: float = option(
        0.0,
        SEEDS_GROUP,
        "pseudo labels less sure than this after the CRF are written as 255; CLIP-ES: 0.95",
        Role.TEST,
        low=0,
        high=1,
    )


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
        -1,
        "run",
        "data loading processes; 0 loads in the training process; -1: one per core, at most 8",
        Role.MACHINE,
        low=-1,
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
