"""Weights files: what is published under which name and checksum, and where a user's words for one
lead.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from utils.common.errors import UserError


@dataclass(frozen=True)
class PublicFile:
    """One published file. `sha256` may be a prefix where the publisher gives no more."""

    name: str
    address: str
    sha256: str
    hub: str = ""  # the model's name on the Hugging Face Hub, which holds the same weights
    activation: str = ""  # of a CLIP
    needed: bool = True  # by the settings as they are


PUBLIC = {
    "clip": PublicFile(
        "ViT-B-16.pt",
        "https://openaipublic.azureedge.net/clip/models/"
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "openai/clip-vit-base-patch16",
        "quick_gelu",
    ),
    "deit": PublicFile(
        "deit_small_patch16_224-cd65a155.pth",
        "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
        "cd65a155",
        "facebook/deit-small-patch16-224",
    ),
    "dino": PublicFile(
        "dinov2_vits14_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        "facebook/dinov2-small",
        needed=False,
    ),
}
# made by utils/tools/pretrain_toy_clip.py before it wrote the activation into the file
TOY = PublicFile(
    "toy_clip.safetensors",
    "",
    "727950b0a326ec05861a20711bef37b1a285940ff2238562de7062896148448a",
    activation="quick_gelu",
)

# in a model's folder, in the order in which they are taken: the open_clip files before those of the
# Hub, as timm keeps another model under the Hub's name beside them
_IN_FOLDER = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
_MODEL_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def matches_publisher(path: Path, digest: str) -> bool:
    """Tell whether a file that bears a published name has the published checksum."""
    return all(
        digest.startswith(public.sha256) for public in PUBLIC.values() if public.name == path.name
    )


def way_to(path: Path) -> str:
    """Say what to do about a weights file that is not there: only what is published can be
    fetched.
    """
    for name, public in PUBLIC.items():
        if public.name == path.name:
            return f"check the path, or fetch it with `python -m utils.tools.download {name}`"
    return "check the path"


def known_by(sha256: str) -> PublicFile | None:
    """Find the published file with this SHA-256."""
    for public in (*PUBLIC.values(), TOY):
        if sha256.startswith(public.sha256):
            return public
    return None


def find_weights(given: str | Path, what: str) -> Path:
    """Find the weights file that a user means.

    Args:
        given: a file, a model's folder, a folder of the Hub's download cache, or the name of a
            model in that cache, such as openai/clip-vit-base-patch16; what exists as a path is one.
        what: the file's role, for messages.

    Links are not followed: a model's configuration lies beside the link. Nothing is fetched. Raises
    UserError where there is no such file.
    """
    path = Path(given).expanduser()
    if path.is_dir():
        return _in_folder(path, what)
    if path.is_symlink() and not path.exists():
        raise UserError(f"{what} {path} is a link to a file that is gone; fetch it again")
    if path.exists() or not _MODEL_NAME.fullmatch(str(given)):
        return path

    folders = [cache / f"models--{str(given).replace('/', '--')}" for cache in _hub_caches()]
    for folder in folders:
        if folder.is_dir():
            return _in_folder(folder, what)
    if path.suffix in _SUFFIXES:
        return path
    raise UserError(
        f"{what} {given} is no file, no folder and no model in the Hub's cache "
        f"{folders[0].parent}; check the name, or fetch the model first, or copy it and give its "
        "folder"
    )


def _hub_caches() -> list[Path]:
    """List where the Hub's own library keeps what it fetched, in the order in which it asks."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"
    named = []
    if os.environ.get("HF_HUB_CACHE"):
        named.append(Path(os.environ["HF_HUB_CACHE"]))
    if os.environ.get("HF_HOME"):
        named.append(Path(os.environ["HF_HOME"]) / "hub")
    return [folder.expanduser() for folder in (*named, home)]


def _in_folder(folder: Path, what: str) -> Path:
    """Find the weights file in a model's folder, which may be one of the Hub's cache."""
    if (folder / "snapshots").is_dir():
        folder = _snapshot(folder, what)

    for name in _IN_FOLDER:
        file = folder / name
        if file.is_symlink() and not file.exists():
            raise UserError(f"{what} {file} is a link to a file that is gone; fetch it again")
        if file.is_file():
            return file
        if (folder / f"{name}.index.json").is_file():
            raise UserError(
                f"{what} {folder} holds a model in several files ({name}.index.json), which is "
                "not supported; save it as one file"
            )

    files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files[:4])
        raise UserError(f"{what} {folder} is a folder of several files ({names}); name one")
    others = ", ".join(sorted(file.name for file in folder.iterdir())[:4]) or "nothing"
    raise UserError(
        f"{what} {folder} is a folder without a weights file (it holds {others}); give one with "
        f"{_IN_FOLDER[2]} or {_IN_FOLDER[3]}, or a file"
    )


def _snapshot(folder: Path, what: str) -> Path:
    """Find the folder of a cached model's main revision, or of the one that is there."""
    ref = folder / "refs" / "main"
    if ref.is_file():
        found = folder / "snapshots" / ref.read_text(encoding="utf-8", errors="replace").strip()
        if found.is_dir():
            return found
    there = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    if len(there) == 1:
        return there[0]
    raise UserError(
        f"{what} {folder} has no files of the revision main; fetch the model again or give one of "
        "the folders in snapshots/"
    )
