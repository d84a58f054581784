"""What several test files share: a tiny CLIP file, toy data in both layouts, and a training of seconds."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import train_voc
from clip.model import CLIP, VisionTransformer
from clip.tokenizer import Tokenizer
from datasets.specs import COCO, VOC
from datasets.toy.write import write_coco, write_voc
from utils import engine

TRAIN, VAL, SIZE = 24, 4, 96


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


def counted(patch: pytest.MonkeyPatch, at: int | None = None, event: Callable[[], None] | None = None) -> list[str]:
    """Stage of each training step from now on, as a list that grows; `event` happens at the start of step `at`."""
    seen, step_of = [], engine.train_step

    def step(stage: engine.Stage, *rest: object) -> dict[str, torch.Tensor]:
        if len(seen) == at:
            event()
        seen.append(stage.name)
        return step_of(stage, *rest)

    patch.setattr(engine, "train_step", step)
    return seen


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_clip()` as safetensors."""
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(clip_tensors(tiny_clip()), path)
    return path


@pytest.fixture(scope="session")
def toy_voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a toy VOC: TRAIN + VAL pictures of SIZE px."""
    root = tmp_path_factory.mktemp("data") / "voc"
    write_voc(root, TRAIN, VAL, SIZE, seed=0)
    return root


@pytest.fixture(scope="session")
def toy_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as COCO."""
    root = tmp_path_factory.mktemp("data") / "coco"
    write_coco(root, TRAIN, VAL, SIZE, seed=0)
    return root


@pytest.fixture(scope="session")
def quick(clip_file: Path) -> list[str]:
    """Training flags, all but --data_root and --work_dir, with which both stages together take seconds."""
    settings = {
        "clip_path": clip_file, "init": "clip_visual", "crop_size": 64, "mct_crop_size": 64, "decoder_width": 16,
        "decoder_layers": 1, "par_iterations": 2, "mct_epochs": 1, "mct_batch_size": 12, "max_iters": 4,
        "batch_size": 2, "warmup_iters": 1, "switch_iters": 2, "eval_every": 3, "eval_images": 2, "resize_long": 64,
        "device": "cpu", "precision": "fp32", "workers": 0, "threads": 1, "log_every": 1, "checkpoint_every": 2,
    }  # fmt: skip
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def trained(toy_voc: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one whole training, of 2 iterations of stage 1 and 4 of stage 2."""
    folder = tmp_path_factory.mktemp("runs") / "voc"
    assert run(train_voc.main, "--data_root", toy_voc, "--work_dir", folder, "--eval_seeds", *quick) == 0
    return folder


@pytest.fixture
def start(toy_voc: Path, quick: list[str], tmp_path: Path) -> list[str]:
    """Flags of the same training in the folder `tmp_path / "run"`, seeds not scored."""
    return ["--data_root", str(toy_voc), "--work_dir", str(tmp_path / "run"), *quick]


@pytest.fixture
def without_masks(toy_voc: Path, tmp_path: Path) -> Path:
    """A copy of the toy VOC that has no mask."""
    return shutil.copytree(toy_voc, tmp_path / "data", ignore=shutil.ignore_patterns("SegmentationClass*"))
