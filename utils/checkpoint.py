"""Checkpoints of tensors and plain types only, written whole or not at all, read without unpickling code."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.config import Config
from utils.errors import UserError

FORMAT = 1
LAST = "last.pt"
PATHS = ("data_root", "classes", "tags", "clip_path", "deit_path", "mct_path", "work_dir", "train_split", "val_split")


def portable(config: Config) -> dict[str, Any]:
    """The configuration as plain values, absolute paths cut to their last part."""
    values = asdict(config)
    for key in PATHS:
        if Path(values[key]).is_absolute():
            values[key] = Path(values[key]).name
    return values


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write to a temporary name, flush to disk, rename: the file at `path` is whole at every moment."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, flag: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises UserError when it is missing, truncated or not one of ours."""
    if not path.is_file():
        raise UserError(f"{flag} {path} does not exist; give the path of a checkpoint that training wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # bytes that are no checkpoint make torch.load fail in any way
        raise UserError(f"{flag} {path} cannot be read; it is truncated or not a checkpoint of this project") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "model" not in content:
        raise UserError(
            f"{flag} {path} is not a checkpoint of this project (format {FORMAT}); give one that training wrote"
        )
    return content


def trained_state(module: nn.Module, frozen: str = "clip.") -> dict[str, Tensor]:
    """A module's tensors without those of the frozen CLIP, which is found by its checksum instead."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(frozen)}


def load_trained_state(module: nn.Module, state: dict[str, Tensor], frozen: str = "clip.") -> None:
    """Load what `trained_state` saved. Every other tensor must be there and fit; raises UserError naming the first."""
    own = module.state_dict()
    expected = {name for name in own if not name.startswith(frozen)}
    if wrong := sorted(expected ^ set(state)):
        kind = "lacks" if wrong[0] in expected else "has an unknown"
        raise UserError(
            f"the checkpoint {kind} tensor {wrong[0]} ({len(wrong)} names differ); it was made for other settings"
        )
    for name in state:
        if own[name].shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            raise UserError(f"tensor {name} of the checkpoint is {shapes}; it was made for other classes or settings")
    module.load_state_dict({**own, **state})
