"""A run of training, and what a stage of it is made of."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.data import Batch, TaggedImages
from datasets.lists import Item
from utils.common.progress import progress
from utils.config import Config
from utils.inference.evaluation import masked_loader
from utils.recipe import LossesBeside
from utils.run_folder.bad_images import note_bad_image, readable
from utils.run_folder.recorder import Recorder
from utils.training.forecast import Forecast


@dataclass(frozen=True)
class Run:
    """Where a run executes and what it writes; `facts` go into every checkpoint (classes, CLIP's
    checksum, ...). What is `rehearsed` comes again, and notes nothing.
    """

    config: Config
    device: torch.device
    rank: int
    world: int
    folder: Path
    recorder: Recorder
    facts: dict[str, Any] = field(default_factory=dict)
    forecast: Forecast = field(default_factory=Forecast)
    rehearsed: bool = False

    def note_bad_image(self, place: str, reason: str) -> None:
        """Note that a picture was skipped at a place of the run, and why."""
        if not self.rehearsed:
            note_bad_image(self.folder, place, reason)

    def samples(
        self, items: Sequence[Item], what: str, leave: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield this process's share of images, as `MaskedImages` gives them, under a bar called
        `what`, which stays at the end if `leave`. One that cannot be read is noted or ends the run.
        """
        loader = masked_loader(items, self.config, self.rank, self.world)
        bar = progress(loader, self.config.quiet, desc=what, leave=leave)
        return readable(bar, partial(self.note_bad_image, what))


@dataclass(frozen=True)
class Stage:
    """One stage of training. `losses(images, batch, step)` gives named, weighted terms, whose sum
    is minimised.
    """

    name: str
    module: nn.Module
    optimiser: torch.optim.Optimizer
    rate: Callable[[int], float]
    losses: Callable[[Tensor, Batch, int], dict[str, Tensor]]
    data: TaggedImages
    iterations: int
    batch_size: int
    evaluate: Callable[[int], None] | None = None
    evaluation: str = "evaluation"  # under what name its scores are recorded
    eval_every: int = 0  # iterations; 0: those of the configuration
    beside: LossesBeside | None = None  # numbers of others
    repeats_last: bool = True  # a finished stage that is resumed is evaluated again

    def evaluations_after(self, done: int, every: int) -> int:
        """Return how many evaluations are due after iteration `done`, the last one included."""
        if self.evaluate is None:
            return 0
        every = self.eval_every or every
        return (self.iterations - 1) // every - done // every + 1
