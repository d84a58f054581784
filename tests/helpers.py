"""What several test files use: a tiny CLIP, calls of entry scripts, and what a training left
behind.
"""

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clip.model import CLIP, VisionTransformer
from clip.tokenizer import Tokenizer
from datasets.specs import COCO, VOC
from model import cam
from model.class_rows import ClassRows
from utils.training import loop

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VAL, SIZE = 24, 4, 96
GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def device_named(name: str) -> torch.device:
    """The CPU or the first GPU; skips the test where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0) if name == "cuda" else torch.device("cpu")


def tiny_clip(seed: int = 0) -> CLIP:
    """A random CLIP of 3 + 1 blocks and 64 channels that holds the token rows of every prompt."""
    torch.manual_seed(seed)
    token_ids = Tokenizer()([*VOC.texts(), *COCO.texts()]).unique()
    return CLIP(VisionTransformer(64, 3, 32, 16, 4), 32, 64, 1, token_ids=token_ids)


def clip_tensors(model: CLIP) -> dict[str, Tensor]:
    """Tensors of a CLIP, each in memory of its own."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def run(main: Callable[[], None], *arguments: object) -> int:
    """Exit status of an entry script called with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        try:
            main()
        except SystemExit as stopped:
            return stopped.code
        finally:
            torch.set_flush_denormal(False)  # as it was: hypothesis wants every number
    return 0


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "final.pt", weights_only=True)["model"]


def same_weights(one: Path, other: Path) -> bool:
    a, b = final_weights(one), final_weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(folder: Path) -> list[bytes]:
    """The lines of a run's metrics.csv but those that tell the time."""
    lines = (folder / "metrics.csv").read_bytes().splitlines(keepends=True)
    return [line for line in lines if not re.search(rb",(seconds|memory),", line)]


def crash() -> None:
    """Ends training between two checkpoints."""
    raise KeyboardInterrupt


def signalled() -> None:
    """Asks this process to stop, as a batch system does."""
    os.kill(os.getpid(), signal.SIGTERM)


def counted(
    patch: pytest.MonkeyPatch, at: int | None = None, event: Callable[[], None] | None = None
) -> list[str]:
    """Stage of each training step from now on, as a list that grows; `event` happens at the start
    of step `at`.
    """
    seen, step_of = [], loop.train_step

    def step(stage: loop.Stage, *rest: object) -> dict[str, torch.Tensor]:
        if len(seen) == at:
            event()
        seen.append(stage.name)
        return step_of(stage, *rest)

    patch.setattr(loop, "train_step", step)
    return seen


def gradcam(
    visual: VisionTransformer,
    logit_scale: float,
    tokens: Tensor,
    grid: tuple[int, int],
    rows: ClassRows,
    text: Tensor,
    block: int = -1,
) -> cam.GradCAM:
    """Grad-CAM of the tagged classes of a batch."""
    allowed = rows.allowed(len(text)).to(tokens.device)
    return cam.gradcam(visual, logit_scale, grid, text, block, tokens, rows.index, allowed)
