"""What several test files share: a tiny CLIP file, toy data in both layouts, and a training of
seconds.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import SIZE, TRAIN, VAL, clip_tensors, run, tiny_clip
from markupsafe import Markup
from safetensors.torch import save_file

import train_voc
from clip.activation import METADATA
from datasets.toy.write import write_coco, write_voc
from utils.common.entry import make_room_for_sockets
from utils.report import plots

# What a start from a terminal leaves as it is: a job in the background has SIGINT ignored, `nohup`
# SIGHUP.
PLAIN = {
    "SIGINT": signal.default_int_handler,
    **dict.fromkeys(("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"), signal.SIG_DFL),
}
OTHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "PYTHONIOENCODING")


@pytest.fixture(scope="session", autouse=True)
def plain_surroundings() -> Iterator[None]:
    """Signals, temporary folder and environment of a plain start, however these tests were
    started.
    """
    for name, handler in PLAIN.items():
        signal.signal(getattr(signal, name), handler)
    with pytest.MonkeyPatch.context() as patch:
        for name in OTHERS:
            patch.delenv(name, raising=False)
        make_room_for_sockets()
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers of PyTorch for every test, whichever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty picture for each plot of a report: to draw them takes a third of a training of
    seconds and half of a test. What is marked `drawn`, the run `trained` and all that runs in a
    process of its own draw theirs.
    """
    if request.node.get_closest_marker("drawn") is None:
        monkeypatch.setattr(plots, "svg", lambda *_: Markup("<svg></svg>"))


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_clip()` as safetensors."""
    path = tmp_path_factory.mktemp("clip") / "tiny.safetensors"
    save_file(clip_tensors(tiny_clip()), path, {METADATA: "quick_gelu"})
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
    """Training flags, all but --data_root and --work_dir, with which both stages together take
    seconds.
    """
    settings = {
        "clip_path": clip_file,
        "init": "clip_visual",
        "crop_size": 64,
        "mct_crop_size": 64,
        "decoder_width": 16,
        "decoder_layers": 1,
        "lr": 0.0002,
        "vit_lr_factor": 0.1,
        "par_iterations": 2,
        "mct_epochs": 1,
        "mct_batch_size": 12,
        "max_iters": 4,
        "batch_size": 2,
        "warmup_iters": 1,
        "switch_iters": 2,
        "eval_every": 3,
        "eval_images": 2,
        "eval_seeds": "false",
        "seeds_images": 2,
        "resize_long": 64,
        "device": "cpu",
        "precision": "fp32",
        "workers": 0,
        "threads": 1,
        "log_every": 1,
        "checkpoint_every": 2,
    }
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def trained(toy_voc: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one whole training, of 2 iterations of stage 1 and 4 of stage 2."""
    folder = tmp_path_factory.mktemp("runs") / "voc"
    assert (
        run(train_voc.main, "--data_root", toy_voc, "--work_dir", folder, *quick, "--eval_seeds")
        == 0
    )
    return folder


@pytest.fixture
def start(toy_voc: Path, quick: list[str], tmp_path: Path) -> list[str]:
    """Flags of the same training in the folder `tmp_path / "run"`, seeds not scored."""
    return ["--data_root", str(toy_voc), "--work_dir", str(tmp_path / "run"), *quick]


@pytest.fixture
def without_masks(toy_voc: Path, tmp_path: Path) -> Path:
    """A copy of the toy VOC that has no mask."""
    return shutil.copytree(
        toy_voc, tmp_path / "data", ignore=shutil.ignore_patterns("SegmentationClass*")
    )
