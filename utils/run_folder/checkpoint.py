"""Checkpoints of tensors and plain types only, written whole or not at all, read without unpickling
code.
"""

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clip.model import CLIP
from model.dino import DinoViT
from utils.common import disk
from utils.common.errors import UserError
from utils.common.files import require_file, written_whole
from utils.common.options import Role
from utils.common.safe_tensors import load_plain
from utils.compatibility import current_tensors
from utils.config import CONFIG_FILE, Config, completed, from_dict, names_of, read_yaml

FORMAT = 1
STEP_DIGITS = 8
# begin the names of tensors that are not kept: CLIP and DINO are found by their checksums
FROZEN = ("clip.", "dino.")
CONTENT = {
    "format": int,
    "config": dict,
    "model": dict,
    "step": int,
    "classes": list,
    "clip_sha256": str,
    "text": Tensor,
}
STAGES = ("classifier", "segmenter")


def portable(config: Config) -> dict[str, Any]:
    """Return the configuration as plain values, absolute paths cut to their last part."""
    values = asdict(config)
    for name in names_of(Role.PLACE):
        if Path(values[name]).is_absolute():
            values[name] = Path(values[name]).name
    return values


def checkpoint_of(folder: Path, stage: str) -> Path:
    """Return the file in a run folder that one of `STAGES` is resumed from."""
    return folder / "checkpoints" / f"{stage}.pt"


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that the file at `path` is whole at every moment, even in a power cut.

    Raises UserError where the disk does not take it; the file that was at `path` stays.
    """
    try:
        with written_whole(path, sync=True) as file:
            torch.save({"format": FORMAT, **content}, file)
    except (OSError, RuntimeError) as error:
        # torch.save hides what the disk said behind a RuntimeError
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise

        raise UserError(
            f"checkpoint {path} cannot be written ({cause.strerror}); the one before is kept, if "
            "there was one; free space or make the folder writable; a training goes on with "
            "--resume"
        ) from None


def keep_numbered(path: Path, step: int, keep: int) -> None:
    """Keep the checkpoint at `path` under a numbered name too, so that `keep` are left; drop older
    numbered ones.

    With `keep` 1 there are none: the file at `path` is the only one. A second name costs no space
    of its own.
    """
    if keep > 1:
        disk.second_name(path, _numbered_name(path, step))
    else:
        keep = 0
    for old in numbered(path)[keep:]:
        disk.remove(old)


def numbered(path: Path) -> list[Path]:
    """Return older checkpoints kept beside the one at `path`, newest first."""
    return sorted(
        path.parent.glob(f"{path.stem}_{'[0-9]' * STEP_DIGITS}{path.suffix}"), reverse=True
    )


def _numbered_name(path: Path, step: int) -> Path:
    return path.with_name(f"{path.stem}_{step:0{STEP_DIGITS}d}{path.suffix}")


def load_checkpoint(path: Path, flag: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, its settings and tensors under today's names.

    Raises UserError when it is missing, truncated or not one of ours.
    """
    require_file(
        path,
        flag,
        "give the path of a checkpoint that training wrote, such as checkpoints/final.pt of a run "
        "folder",
    )

    try:
        content = load_plain(path)
    except Exception:  # bytes that are no checkpoint make torch.load fail in any way
        raise UserError(
            f"{flag} {path} cannot be read; it is truncated or not a checkpoint of this project"
        ) from None

    if not isinstance(content, dict) or not _is_whole(content) or content["format"] != FORMAT:
        raise UserError(
            f"{flag} {path} is not a checkpoint of this project (format {FORMAT}); give one that "
            "training wrote"
        )

    settings = completed(content["config"])
    tensors = current_tensors(content["model"])
    return {**content, "config": settings, "model": tensors}


def checkpoint_config(stored: dict[str, Any], model_path: Path, flags: dict[str, Any]) -> Config:
    """Return a checkpoint's configuration, its places from the run folder it lies in (if whole),
    the machine's settings as they are by default, flags on top.

    Results go to the run folder, or for a checkpoint that lies elsewhere to runs/test_NAME.
    """
    values = dict(stored)
    run = model_path.resolve().parent.parent
    if (run / CONFIG_FILE).is_file():
        saved = read_yaml(run / CONFIG_FILE)
        values |= {name: saved[name] for name in names_of(Role.PLACE) if name in saved}
        values["work_dir"] = str(run)
    else:
        values["work_dir"] = str(Path("runs") / f"test_{model_path.stem}")

    defaults = asdict(Config())
    for name in names_of(Role.MACHINE):
        values[name] = defaults[name]
    return from_dict({**values, **flags}, str(model_path))


def newest_whole(path: Path, flag: str) -> tuple[dict[str, Any], Path]:
    """Read the checkpoint at `path`, or if it is damaged, the newest whole one kept beside it.

    Returns its content and the file that it came from. Raises UserError where none is whole.
    """
    try:
        return load_checkpoint(path, flag), path
    except UserError:
        for older in numbered(path):
            with contextlib.suppress(UserError):
                return load_checkpoint(older, flag), older
        raise


def is_of_stage_1(checkpoint: dict[str, Any]) -> bool:
    """Tell whether a checkpoint holds the class-token ViT of stage 1 alone."""
    return checkpoint.get("stage") == STAGES[0]


def refuse_stage_1(checkpoint: dict[str, Any], named: str) -> None:
    """Raise UserError, which begins with the checkpoint as it is `named`, on one of stage 1, where
    a decoder is needed.
    """
    if is_of_stage_1(checkpoint):
        raise UserError(
            f"{named} is the class-token ViT of stage 1 alone, which has seeds and pseudo labels "
            "(`python -m utils.tools.export`) but no decoder; give the final.pt of a training of "
            "stage 2, which --mct_path begins with this ViT"
        )


def _is_whole(content: dict[str, Any]) -> bool:
    """Return whether all that any use of a checkpoint relies on is there, in its type."""
    return all(isinstance(content.get(key), kind) for key, kind in CONTENT.items()) and all(
        isinstance(name, str) and isinstance(tensor, Tensor)
        for name, tensor in content["model"].items()
    )


def clip_facts(clip: CLIP) -> dict[str, str]:
    """List what a checkpoint keeps of a CLIP that `load_clip` gave, to know it again: its file,
    itself in any file, and its activation.
    """
    return {
        "clip_sha256": clip.sha256,
        "clip_identity": clip.identity,
        "clip_activation": clip.activation,
    }


def same_clip(checkpoint: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Tell whether a checkpoint was trained with the CLIP of these facts, in whatever file it was.

    Older checkpoints know the file alone, and QuickGELU was all there was.
    """
    if "clip_identity" in checkpoint:
        return checkpoint["clip_identity"] == facts["clip_identity"]
    old = {"clip_sha256": checkpoint["clip_sha256"], "clip_activation": "quick_gelu"}
    return all(facts[key] == value for key, value in old.items())


def dino_facts(dino: DinoViT | None) -> dict[str, str]:
    """List what a checkpoint keeps of a DINO to know it again: its file, and itself in any file."""
    if dino is None:
        return {}
    return {"dino_sha256": dino.sha256, "dino_identity": dino.identity}


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's tensors without those of the frozen CLIP and DINO, which are found by their
    checksums instead.
    """
    return {
        name: tensor for name, tensor in module.state_dict().items() if not name.startswith(FROZEN)
    }


def load_trained_state(module: nn.Module, state: dict[str, Tensor], assign: bool = False) -> None:
    """Load what `trained_state` saved. Every other tensor must be there and fit; raises UserError
    naming the first.

    `assign` puts the tensors, in the module's precision, in the place of its own, which may be on
    the device "meta".
    """
    own = module.state_dict()
    expected = {name for name in own if not name.startswith(FROZEN)}
    if wrong := sorted(expected ^ set(state)):
        kind = "lacks" if wrong[0] in expected else "has an unknown"
        raise UserError(
            f"the checkpoint {kind} tensor {wrong[0]} ({len(wrong)} names differ); it was made "
            "for other settings"
        )

    for name in state:
        if own[name].shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            raise UserError(
                f"tensor {name} of the checkpoint is {shapes}; it was made for other classes or "
                "settings"
            )

    state = {name: tensor.to(own[name].dtype) for name, tensor in state.items()}
    module.load_state_dict({**own, **state}, assign=assign)
