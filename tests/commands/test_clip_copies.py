"""A checkpoint runs with its CLIP in whatever file that is, and with no other; and what the command
about weights files says.
"""

import json
from pathlib import Path

import pytest
import torch
from archives import hub_tensors
from helpers import ROOT, clip_tensors, counted, crash, run, tiny_clip
from safetensors.torch import save_file
from vit_files import MCTFORMER_PLUS, deit, saved

import train_voc
from utils.common.entry import command
from utils.common.errors import UserError
from utils.inference import Segmenter
from utils.tools import shrink, weights


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tests' CLIP as a model's folder of the Hub."""
    return hub_folder(tmp_path / "copy", "quick_gelu")


def hub_folder(folder: Path, activation: str, seed: int = 0) -> Path:
    folder.mkdir()
    save_file(hub_tensors(clip_tensors(tiny_clip(seed))), folder / "model.safetensors")
    towers = {name: {"hidden_act": activation} for name in ("vision_config", "text_config")}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **towers}))
    return folder


def changed(checkpoint: Path, target: Path, *without: str) -> Path:
    """A checkpoint that lacks some of its entries."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({key: value for key, value in content.items() if key not in without}, target)
    return target


def test_a_checkpoint_runs_with_any_copy_of_its_clip(
    trained: Path, copy: Path, clip_file: Path, tmp_path: Path
) -> None:
    final = trained / "checkpoints" / "final.pt"
    own = Segmenter.from_checkpoint(final, clip_path=str(clip_file), device="cpu").model
    other = Segmenter.from_checkpoint(final, clip_path=str(copy), device="cpu").model
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in own.state_dict().items())

    wrong = hub_folder(tmp_path / "wrong", "quick_gelu", seed=1)
    with pytest.raises(UserError, match="is not the CLIP this checkpoint was trained with"):
        Segmenter.from_checkpoint(final, clip_path=str(wrong), device="cpu")
    bare = copy / "model.safetensors"
    (copy / "config.json").unlink()  # the checkpoint knows the activation
    Segmenter.from_checkpoint(final, clip_path=str(bare), device="cpu")

    small = tmp_path / "small.pt"
    assert run(command(shrink.main), "--model_path", final, "--out", small) == 0
    Segmenter.from_checkpoint(small, clip_path=str(copy), device="cpu")


def test_an_old_checkpoint_runs_with_its_own_file(
    trained: Path, copy: Path, clip_file: Path, tmp_path: Path
) -> None:
    new = trained / "checkpoints" / "final.pt"
    old = changed(new, tmp_path / "old.pt", "clip_identity", "clip_activation")
    Segmenter.from_checkpoint(old, clip_path=str(clip_file), device="cpu")
    with pytest.raises(UserError, match="is not the CLIP this checkpoint was trained with"):
        Segmenter.from_checkpoint(old, clip_path=str(copy), device="cpu")


def test_a_training_goes_on_with_a_copy_of_its_clip(
    start: list[str],
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        counted(patch, at=5, event=crash)
        assert run(train_voc.main, *start) == 130

    again = [*start, "--resume", "--clip_path"]
    other = hub_folder(tmp_path / "other", "gelu")
    assert run(train_voc.main, *again, other) == 2
    assert "was trained with another CLIP" in capsys.readouterr().err
    assert run(train_voc.main, *again, copy) == 0


def test_a_checkpoint_that_names_no_activation_is_refused(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)
    for activation in ("relu", ["gelu"], 3):
        torch.save({**content, "clip_activation": activation}, tmp_path / "a.pt")
        with pytest.raises(UserError, match="activation .* which there is not"):
            Segmenter.from_checkpoint(tmp_path / "a.pt", device="cpu")


def test_the_command_says_what_weights_are(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.pt"
    page.write_text("<html></html>")
    files = ["toy", copy, saved(tmp_path / "deit.pth", deit()), MCTFORMER_PLUS]
    assert run(command(weights.main), *files, ROOT / "model" / "toy_voc.pt") == 0
    said = capsys.readouterr().out
    for line in (
        "activation   quick_gelu, by its SHA-256",
        "activation   quick_gelu, by config.json beside it",
        "used as      --deit_path",
        "class-token ViT of 20 classes, 2 blocks of 64 channels, one stream",
        "used as      --mct_path",
        "CVF trained on voc, 20 classes + background",
        "used as      --model_path",
        "that of toy_clip.safetensors",
        "parameters   3,524,225",
    ):
        assert line in said, line
    assert run(command(weights.main), page) == 2
    assert "it is a web page" in capsys.readouterr().err
    assert run(command(weights.main), saved(tmp_path / "other.pt", {"a": torch.ones(2)})) == 0
    said = capsys.readouterr().out
    assert "used as      nothing here" in said
    assert "--model_path no: the file" in said and "is not a checkpoint of this project" in said
