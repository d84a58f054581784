"""Checkpoints: whole or absent, plain, without paths, and refused when they do not fit."""

import errno
import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from helpers import tiny_clip
from torch import nn

from datasets.specs import VOC
from utils.build import build_cvf, restore
from utils.common.errors import UserError
from utils.common.options import Role, options
from utils.config import Config, names_of
from utils.run_folder import checkpoint
from utils.run_folder.checkpoint import (
    FORMAT,
    keep_numbered,
    load_checkpoint,
    load_trained_state,
    numbered,
    portable,
    save_checkpoint,
    trained_state,
)

SETTINGS = Config(branches="clip", decoder_width=16, decoder_layers=1)
CLASSES = ("aeroplane", "bicycle")


def content() -> dict:
    return {
        "model": {"a": torch.arange(3.0)},
        "config": portable(Config()),
        "step": 3,
        "classes": ["cat"],
        "clip_sha256": "none",
        "text": torch.zeros(2, 3),
    }


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    save_checkpoint(content(), tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", "--model_path")
    assert torch.equal(loaded["model"]["a"], torch.arange(3.0))
    assert loaded["config"] == portable(Config()) and loaded["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_write_that_breaks_off_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(content(), tmp_path / "a.pt")

    def broken(saved: dict, file: object) -> None:
        file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(UserError, match="a.pt cannot be written .* the one before is kept"):
        save_checkpoint({**content(), "step": 4}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt", "--model_path")["step"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_older_checkpoints_are_kept_by_number(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save_checkpoint({**content(), "step": step}, tmp_path / "a.pt")
        keep_numbered(tmp_path / "a.pt", step, 3)
    assert [load_checkpoint(file, "--resume")["step"] for file in numbered(tmp_path / "a.pt")] == [
        20,
        15,
        10,
    ]
    keep_numbered(tmp_path / "a.pt", 20, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(share: float, tmp_path: Path) -> None:
    save_checkpoint(content(), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="--model_path .*a.pt cannot be read; it is truncated"):
        load_checkpoint(tmp_path / "a.pt", "--model_path")


@pytest.mark.parametrize(
    "other",
    [
        [1],
        {"format": FORMAT},
        {**content(), "format": FORMAT + 1},
        {**content(), "format": torch.zeros(3)},
        *(
            {key: value for key, value in {**content(), "format": FORMAT}.items() if key != left}
            for left in content()
        ),
        {**content(), "format": FORMAT, "model": {"a": 1}},
    ],
)
def test_other_files_are_refused(other: object, tmp_path: Path) -> None:
    torch.save(other, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is not a checkpoint of this project"):
        load_checkpoint(tmp_path / "a.pt", "--model_path")
    with pytest.raises(UserError, match="does not exist"):
        load_checkpoint(tmp_path / "b.pt", "--model_path")


class Payload:
    def __init__(self, trace: Path):
        self.trace = str(trace)

    def __reduce__(self) -> tuple:
        return open, (self.trace, "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"format": FORMAT, "model": Payload(tmp_path / "trace")}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Payload(tmp_path / "trace"), 2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError):
            load_checkpoint(tmp_path / name, "--model_path")
    assert not (tmp_path / "trace").exists()


def test_absolute_paths_are_cut_to_their_last_part(tmp_path: Path) -> None:
    meanings = options(Config)
    places = [name for name in names_of(Role.PLACE) if not meanings[name].choices]
    values = {name: str(tmp_path / "secret" / name) for name in places}
    values["dataset"] = "custom"  # as it has a class list
    stored = portable(Config(**values))
    assert all(stored[name] == name for name in places)
    assert str(tmp_path) not in json.dumps(stored)
    assert portable(Config(clip_path="weights/a.pt"))["clip_path"] == "weights/a.pt"
    assert {**stored, **values} == asdict(Config(**values))


def test_trained_tensors_go_back_and_forth_without_the_frozen_ones() -> None:
    module, other = (
        nn.ModuleDict({"clip": nn.Linear(2, 2), "head": nn.Linear(2, 2)}) for _ in range(2)
    )
    kept = other["clip"].weight.detach().clone()
    state = trained_state(module)
    assert set(state) == {"head.weight", "head.bias"}
    load_trained_state(other, state)
    assert torch.equal(other["head"].weight, module["head"].weight) and torch.equal(
        other["clip"].weight, kept
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("head.bias"), r"lacks tensor head.bias \(1 names differ\)"),
        (lambda state: state.update(extra=torch.ones(1)), "has an unknown tensor extra"),
        (
            lambda state: state.update({"head.bias": torch.ones(5)}),
            r"head.bias .* is \(5,\) instead of \(2,\)",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(change: object, said: str) -> None:
    module = nn.ModuleDict({"clip": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    state = trained_state(module)
    change(state)
    with pytest.raises(UserError, match=said):
        load_trained_state(module, state)


def stored(classes: tuple[str, ...]) -> dict:
    """A stage-2 checkpoint of these classes, with its CLIP inside."""
    clip = tiny_clip().requires_grad_(False)
    text = torch.nn.functional.normalize(torch.randn(len(classes) + 3, 32), dim=1)
    model = build_cvf(SETTINGS, clip, text, None, len(classes))
    return {
        "classes": list(classes),
        "clip_sha256": "none",
        "clip": clip.state_dict(),
        "text": text,
        "config": portable(SETTINGS),
        "model": trained_state(model),
    }


def test_a_checkpoint_restores_the_model_and_one_of_other_classes_is_refused() -> None:
    whole = stored(VOC.classes)
    model, spec = restore(whole, SETTINGS)
    assert spec is VOC and not model.training
    for name, tensor in trained_state(model).items():
        assert torch.equal(tensor, whole["model"][name])
    with pytest.raises(UserError, match="other classes"):
        restore(stored(CLASSES), SETTINGS)
    with pytest.raises(UserError, match="other classes"):
        restore({**whole, "classes": list(reversed(VOC.classes))}, SETTINGS)
    with pytest.raises(
        UserError, match=r"fusion.mlps.0.0.weight .* instead of \(65536, "
    ):  # 200 GB, if they were made
        restore(whole, replace(SETTINGS, decoder_width=2**16))
    for clip in ({}, {"a": 1}, [torch.ones(1)]):
        with pytest.raises(UserError, match="holds a CLIP that cannot be used"):
            restore({**whole, "clip": clip}, SETTINGS)
    with pytest.raises(UserError, match="stage 1 alone"):
        restore({**whole, "stage": "classifier"}, SETTINGS)
    with pytest.raises(
        UserError, match="^the checkpoint has no tensor cls_token"
    ):  # as it is of one branch
        restore(whole, replace(SETTINGS, branches="fusion"))
