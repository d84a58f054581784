"""Load CLIP weights, in whatever public form they come: see `README.md` for the list."""

from collections.abc import Collection
from pathlib import Path

from clip.activation import known_activation
from clip.model import CLIP
from clip.names import HUB, OFFICIAL, official_names, prefix_of
from utils.common.errors import UserError
from utils.common.files import sha256_of
from utils.common.identity import identity_of
from utils.common.safe_tensors import TensorFile, open_tensors
from utils.common.torch_files import TORCHSCRIPT
from utils.common.weights import TOY, find_weights, matches_publisher

# made by utils/tools/pretrain_toy_clip.py
TOY_CLIP = Path(__file__).with_name(TOY.name)
PATCH = 16  # px; every stage of the method counts in these
WHAT = "CLIP file"
# what a file is that holds no CLIP this project can use, by a part of one of its tensors' names
_OTHERS = {
    "visual.layer1.": "a CLIP with a ResNet",
    "visual.attnpool.": "a CLIP with a ResNet",
    "visual.trunk.": "a CLIP around a tower of the timm library",
    "vision_model.head.probe": "a SigLIP",
    "decoder.": "a checkpoint of this project or another model with a decoder",
    "cls_token": "a ViT without texts, such as DeiT",
    "embeddings.patch_embeddings.": "a ViT without texts, such as DeiT",
}


def load_clip(
    path: str | Path, activation: str = "auto", trained_activation: str | None = None
) -> CLIP:
    """Load a CLIP ViT in float32, eval mode, frozen; its architecture is read from the tensors,
    every one of which must match.

    Args:
        path: a file, a model's folder, the name of a model in the Hub's cache, or "toy" for the toy
            CLIP shipped here.
        activation: "quick_gelu" or "gelu" where nothing in or beside the file tells it; "auto" is
            what the file tells.
        trained_activation: the one that a checkpoint was trained with, which is taken as it is.

    The file's SHA-256 is left in the attribute `sha256`, the CLIP's own digest, which does not
    depend on the file's form, in `identity`. Raises UserError when the file is missing, truncated,
    not a CLIP of this patch size, bears the official name without its checksum, or its activation
    is not known.
    """
    path = TOY_CLIP if str(path) == "toy" else find_weights(path, WHAT)
    file = open_tensors(path, WHAT)
    check_usable(file)

    digest = sha256_of(path)
    if file.container == TORCHSCRIPT and not matches_publisher(path, digest):
        raise UserError(
            f"{WHAT} {path} has SHA-256 {digest[:12]}..., not that of the official file; "
            "fetch it again with `python -m utils.tools.download clip`, or rename it if it is "
            "your own"
        )

    try:
        state = official_names(file)
        CLIP.without_values(state)  # what is no CLIP is said to be none before all else
        activation = trained_activation or choose_activation(file, digest, activation)
        model = CLIP.from_state_dict(state, activation)
    except ValueError as error:
        raise _no_clip(file, str(error)) from None
    model.requires_grad_(False)
    model.sha256 = digest
    model.identity = identity_of(model.state_dict(), model.activation)
    return model


def check_usable(file: TensorFile) -> None:
    """Raise UserError where a file holds no CLIP, or one of another patch size; reads nothing."""
    try:
        prefix = prefix_of(file.keys())
    except ValueError as error:
        raise _no_clip(file, str(error)) from None

    shape = file.shape(prefix + HUB) or file.shape(prefix + OFFICIAL)
    if len(shape) != 4 or any(name.startswith(f"{prefix}visual.layer1.") for name in file):
        raise _no_clip(file, f"no tensor {OFFICIAL} of 4 dimensions")
    if shape[-1] != PATCH:
        raise UserError(
            f"{WHAT} {file.path} is a CLIP ViT with patches of {shape[-1]} px; this project needs "
            f"patches of {PATCH} px, give a ViT-B/16 such as the official ViT-B-16.pt"
        )


def choose_activation(file: TensorFile, sha256: str, asked: str) -> str:
    """Choose the activation that the user names or the file tells.

    Raises UserError where neither does, or they disagree.
    """
    known = known_activation(file, sha256)
    if known is None:
        if asked != "auto":
            return asked
        raise UserError(
            f"{WHAT} {file.path} does not tell its activation, and no config.json or "
            "open_clip_config.json beside it does; put that file there, or name the activation: "
            "--clip_activation quick_gelu for OpenAI's weights, gelu for LAION's and DataComp's"
        )

    if asked not in ("auto", known.activation):
        raise UserError(
            f"--clip_activation {asked} is not that of {file.path}, which has {known.activation} "
            f"according to {known.source}; leave the flag out"
        )
    return known.activation


def _other(names: Collection[str]) -> str:
    """Say what a file is by its tensors' names, where that is no CLIP ViT of the usual form."""
    for part, kind in _OTHERS.items():
        if any(name.startswith(part) or f".{part}" in name for name in names):
            return kind
    return ""


def _no_clip(file: TensorFile, reason: str) -> UserError:
    kind = _other(file.keys())
    instead = f" but {kind}" if kind else ""
    return UserError(
        f"{file.path} is not a CLIP ViT{instead} ({reason[:160]}); give ViT-B-16.pt or a file of "
        "that form"
    )
