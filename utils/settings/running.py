"""How a run is scored, where it executes, and what it leaves behind."""

from dataclasses import dataclass

from utils.common.errors import UserError
from utils.common.options import Role, Settings, option


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
