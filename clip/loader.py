"""Load CLIP weights: the official TorchScript archive, a plain state dict, or safetensors."""

from pathlib import Path

from clip.model import CLIP
from utils.common.errors import UserError
from utils.common.files import sha256_of
from utils.common.safe_tensors import read_tensors
from utils.common.weights import matches_publisher

# made by utils/tools/pretrain_toy_clip.py
TOY_CLIP = Path(__file__).with_name("toy_clip.safetensors")


def load_clip(path: str | Path) -> CLIP:
    """CLIP ViT in float32, eval mode, frozen; its architecture is read from the tensors and every
    tensor must match.

    `path` may be "toy" for the toy CLIP shipped here. The file's SHA-256 is left in the attribute
    `sha256`. Raises UserError when the file is missing, truncated, not a CLIP, or bears the
    official name without its checksum.
    """
    path = TOY_CLIP if str(path) == "toy" else Path(path)
    state = read_tensors(path, "CLIP file")
    digest = sha256_of(path)
    if not matches_publisher(path, digest):
        raise UserError(
            f"CLIP file {path} has SHA-256 {digest[:12]}..., not that of the official file; "
            "fetch it again with `python -m utils.tools.download clip`, or rename it if it is "
            "your own"
        )
    try:
        model = CLIP.from_state_dict(state)
    except ValueError as error:
        raise UserError(
            f"{path} is not a CLIP ViT ({str(error)[:160]}); give ViT-B-16.pt or a file of that "
            "form"
        ) from None
    model.requires_grad_(False)
    model.sha256 = digest
    return model
