"""Trainings with a DINO beside CLIP: its file, what checkpoints keep of it, and who asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import final_weights, run
from vit_files import dino, dino_in_hugging_face_names, saved

import test_msc_flip_voc
import train_voc
from utils.common.entry import command
from utils.common.errors import UserError
from utils.inference import Segmenter
from utils.tools import export, shrink, weights

PLUS = ["--config", "toy_voc", "weclip_plus", "--dino_path"]


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A DINOv2 of two blocks."""
    return dino(registers=2)


@pytest.fixture
def file(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    """Its file."""
    return saved(tmp_path / "dino.pth", state)


@pytest.fixture
def final(tmp_path: Path) -> Path:
    """Where a training of `start` leaves its checkpoint."""
    return tmp_path / "run" / "checkpoints" / "final.pt"


@pytest.fixture
def testing(final: Path, toy_voc: Path) -> list[object]:
    """Flags that test it on one scale."""
    return ["--model_path", final, "--data_root", toy_voc, "--scales", 1, "--no_crf"]


def sentence(main: Callable[[], None], capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    """What a command that refuses its flags says, on one line."""
    assert run(main, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def test_weclip_plus_trains_and_is_tested_with_the_same_dino(
    start: list[str],
    clip_file: Path,
    file: Path,
    state: dict[str, torch.Tensor],
    final: Path,
    testing: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(train_voc.main, *start, *PLUS, file) == 0
    own = final_weights(tmp_path / "run")
    assert not [name for name in own if name.startswith("dino.")]
    assert own["dino_fusion.merge.weight"].shape == (16, 16)
    assert run(test_msc_flip_voc.main, *testing) == 0

    picture = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    first = Segmenter.from_checkpoint(final, device="cpu").predict(picture[None])[0].logits
    form = saved(tmp_path / "named.pth", dino_in_hugging_face_names(state))
    file.unlink()
    capsys.readouterr()
    assert "dino.pth does not exist" in sentence(test_msc_flip_voc.main, capsys, *testing)
    other = Segmenter.from_checkpoint(final, device="cpu", dino_path=str(form))
    torch.testing.assert_close(other.predict(picture[None])[0].logits, first)

    small = tmp_path / "small.pt"
    assert run(shrink.main, "--model_path", final, "--out", small) == 0
    settings = {"device": "cpu", "clip_path": str(clip_file)}
    halved = Segmenter.from_checkpoint(small, **settings, dino_path=str(form))
    torch.testing.assert_close(halved.predict(picture[None])[0].logits, first, rtol=0, atol=0.02)
    with pytest.raises(UserError, match="--dino_path dino.pth does not exist"):
        Segmenter.from_checkpoint(small, **settings)

    changed = {**state, "cls_token": state["cls_token"] + 1}
    another = saved(tmp_path / "another.pth", changed)
    said = sentence(test_msc_flip_voc.main, capsys, *testing, "--dino_path", another)
    assert "another.pth is not the DINO this checkpoint was trained with; give that one" in said
    said = sentence(train_voc.main, capsys, *start, *PLUS, another, "--resume")
    assert "was trained with another DINO than --dino_path" in said and "another.pth" in said


def test_a_dino_for_labels_alone_is_asked_for_only_where_labels_are_made(
    start: list[str],
    file: Path,
    final: Path,
    testing: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--branches", "clip", "--dino_path", file, "--dino_use", "affinity"]
    assert run(train_voc.main, *start, *flags) == 0
    assert not [name for name in final_weights(tmp_path / "run") if "dino" in name]
    labels = ["--model_path", final, "--out", tmp_path / "out", "--device", "cpu"]
    assert run(export.main, *labels) == 0
    file.unlink()
    assert run(test_msc_flip_voc.main, *testing) == 0
    capsys.readouterr()
    assert "dino.pth does not exist" in sentence(command(export.main), capsys, *labels)


def test_a_checkpoint_without_dino_takes_none(
    trained: Path, toy_voc: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = trained / "checkpoints" / "final.pt"
    content = torch.load(final, weights_only=True)
    assert not [name for name in (*content, *content["model"]) if "dino" in name]
    flags = ["--model_path", final, "--data_root", toy_voc, "--dino_path", file]
    said = sentence(test_msc_flip_voc.main, capsys, *flags)
    assert "dino.pth: the checkpoint was trained without a DINO; leave the flag out" in said


def test_the_weights_command_knows_a_dino(
    file: Path, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    told = weights.describe(str(file))
    assert (
        "  model        DINOv2 ViT, patches of 14 px, 2 blocks of 64 channels, 2 registers" in told
    )
    assert told[-1] == "  used as      --dino_path"
    form = saved(tmp_path / "named.pth", dino_in_hugging_face_names(state))
    identity = [line for line in told if line.startswith("  identity")]
    assert identity == [line for line in weights.describe(str(form)) if "identity" in line]
