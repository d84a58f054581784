"""Whether the run in a folder may be continued: only as the training that began it."""

from operator import itemgetter
from pathlib import Path
from typing import Any

from datasets.predictions import PSEUDO_LABELS
from utils.common.errors import UserError
from utils.common.options import options
from utils.config import CONFIG_FILE, Config, completed, from_dict, read_yaml
from utils.run_folder.checkpoint import STAGES, checkpoint_of, newest_whole, same_clip

OR_ANEW = "or name another --work_dir"


def check_folder(folder: Path, config: Config, resume: bool) -> None:
    """Raise UserError where the folder holds results that are not to be continued, or a run of
    other settings, or bears a name that TensorBoard cannot write.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--work_dir {folder} holds bytes that are no UTF-8 text; name another folder"
        ) from None

    if not resume and _has_results(folder):
        raise UserError(
            f"--work_dir {folder} already holds a run; add --resume to continue it, {OR_ANEW}"
        )

    saved = folder / CONFIG_FILE
    if resume and saved.is_file() and _has_results(folder):
        check_settings(config, completed(read_yaml(saved)), saved, folder)


def _has_results(folder: Path) -> bool:
    """Return True unless a run ended before its first checkpoint or pseudo label, as one does that
    asks for more memory than there is; such a run may begin anew with other settings.
    """
    places = (folder / "checkpoints", folder / PSEUDO_LABELS)
    return any(place.is_dir() and any(place.iterdir()) for place in places)


def check_settings(config: Config, stored: dict[str, Any], place: Path, folder: Path) -> None:
    """Raise UserError when the settings that the file at `place` holds describe another training
    than `config`. `folder` is that of the run.
    """
    theirs = from_dict(stored, f"--resume: {place}")
    differing = []
    for name, meaning in options(Config).items():
        whole = meaning.part_of
        if whole and getattr(theirs, whole) == getattr(config, whole) == "none":
            continue
        if meaning.role.fixed and getattr(theirs, name) != getattr(config, name):
            differing.append((meaning.scaled, name))
    if not differing:
        return

    _, name = min(differing, key=itemgetter(0))  # what follows max_iters comes after it
    raise UserError(
        f"--resume: {place} was trained with {name} {getattr(theirs, name)!r}, not "
        f"{getattr(config, name)!r}; go on with --config {folder / CONFIG_FILE} and without "
        f"--{name}, {OR_ANEW}"
    )


def check_checkpoints(folder: Path, config: Config, facts: dict[str, Any]) -> str:
    """Raise UserError unless each stage's checkpoint, if any, is of this very training.

    `facts` are what the checkpoints of this run hold: classes, clip_sha256 and data. Returns what
    could not be checked, in one sentence, or nothing.
    """
    unknown = ""
    for stage in STAGES:
        if not checkpoint_of(folder, stage).is_file():
            continue
        content, path = newest_whole(checkpoint_of(folder, stage), "--resume")
        check_settings(config, content["config"], path, folder)
        _check_facts(content, path, config, facts)

        if isinstance(content.get("data"), dict):
            _check_data(content["data"], path, config, facts["data"])
        else:
            unknown = (
                f"{path} does not say which images and tags it was trained on; whether they are "
                "the same could not be checked"
            )
    return unknown


def _check_facts(
    content: dict[str, Any], path: Path, config: Config, facts: dict[str, Any]
) -> None:
    if not same_clip(content, facts):
        raise UserError(
            f"--resume: {path} was trained with another CLIP than --clip_path "
            f"{config.clip_path}; give that"
        )

    if content.get("dino_identity") != facts.get("dino_identity"):
        raise UserError(
            f"--resume: {path} was trained with another DINO than --dino_path "
            f"{config.dino_path or 'none'}; give that, {OR_ANEW}"
        )

    if content["classes"] != facts["classes"]:
        raise UserError(f"--resume: {path} was trained with other classes; give those, {OR_ANEW}")

    if "optimiser" not in content:
        raise UserError(
            f"--resume: {path} is a final checkpoint, which cannot be continued; name another "
            "--work_dir"
        )


def _check_data(theirs: dict[str, Any], path: Path, config: Config, ours: dict[str, str]) -> None:
    if theirs.get("images") != ours["images"]:
        raise UserError(
            f"--resume: {path} was trained on other images than --train_split "
            f"{config.train_split} lists; give the list it began with, {OR_ANEW}"
        )
    if theirs.get("tags") != ours["tags"]:
        source = f"--data_root {config.data_root}"
        if config.tags:
            source = f"--tags {config.tags}"
        raise UserError(
            f"--resume: {path} was trained with other tags than {source} has; give those it began "
            f"with, {OR_ANEW}"
        )
