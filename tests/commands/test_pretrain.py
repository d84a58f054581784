"""The training of the toy CLIP goes on where it was stopped."""

from pathlib import Path

import pytest
from helpers import run

from utils.common.entry import command
from utils.tools import pretrain_toy_clip

main = command(pretrain_toy_clip.main)
SMALL = {"width": 64, "layers": 1, "embed_dim": 32, "text_width": 64, "text_layers": 1}
SHORT = {"steps": 2, "batch": 1, "pictures": 3, "refresh": 1, "snapshot": 1, "device": "cpu"}
FLAGS = [word for name, value in (SMALL | SHORT).items() for word in (f"--{name}", value)]


def test_a_stopped_training_of_the_toy_clip_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = pretrain_toy_clip.batch_loss
    steps: list[int] = []
    stop_at = 0

    def noted(*given: object) -> object:
        steps.append(len(steps))
        if len(steps) == stop_at:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(pretrain_toy_clip, "batch_loss", noted)
    monkeypatch.setattr(pretrain_toy_clip, "zero_shot_map", lambda *_: 0.0)
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    assert run(main, "--out", whole, *FLAGS) == 0
    assert [file.name for file in tmp_path.iterdir()] == [whole.name]

    steps.clear()
    stop_at = 2
    assert run(main, "--out", stopped, *FLAGS) == 130
    assert "goes on from the last snapshot" in capsys.readouterr().err

    steps.clear()
    stop_at = 0
    assert run(main, "--out", stopped, *FLAGS) == 0
    assert "1 of 2 steps are done already" in capsys.readouterr().out
    assert len(steps) == 1 and stopped.read_bytes() == whole.read_bytes()


def test_a_training_of_other_settings_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrain_toy_clip, "zero_shot_map", lambda *_: 0.0)
    out = tmp_path / "out.safetensors"
    (tmp_path / "out.safetensors.training").write_bytes(b"torn")
    assert run(main, "--out", out, *FLAGS, "--steps", 1) == 0
    assert "is of other settings, or damaged: begun anew" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_what_another_seed_left_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh, stopped = tmp_path / "fresh.safetensors", tmp_path / "stopped.safetensors"
    monkeypatch.setattr(pretrain_toy_clip, "zero_shot_map", interrupted)
    assert run(main, "--out", stopped, *FLAGS) == 130
    assert "goes on from the last snapshot" in capsys.readouterr().err

    monkeypatch.setattr(pretrain_toy_clip, "zero_shot_map", lambda *_: 0.0)
    for out in (fresh, stopped):
        assert run(main, "--out", out, *FLAGS, "--seed", 1) == 0
    assert "is of other settings, or damaged: begun anew" in capsys.readouterr().out
    assert stopped.read_bytes() == fresh.read_bytes()


def interrupted(*_: object) -> float:
    raise KeyboardInterrupt
