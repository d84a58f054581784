"""Which activation a CLIP was trained with. Its tensors do not tell, so it is known from what lies
beside them, or not at all: OpenAI's models have QuickGELU, most later ones the exact GELU.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clip.blocks import ACTIVATIONS
from clip.names import HUB, prefix_of
from utils.common.errors import UserError
from utils.common.files import read_json
from utils.common.safe_tensors import TensorFile
from utils.common.torch_files import TORCHSCRIPT
from utils.common.weights import known_by

METADATA = "clip_activation"  # key under which this project keeps it in a safetensors file
_OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Known:
    """An activation, and how it is known."""

    activation: str
    source: str


def known_activation(file: TensorFile, sha256: str) -> Known | None:
    """Find the activation of the CLIP in a file with this SHA-256; None where nothing says it.

    A configuration is looked for beside the name that was given, which may be a link. Raises
    UserError where it cannot be read, or says an activation that is not supported.
    """
    if METADATA in file.metadata:
        return Known(_supported(file.metadata[METADATA], file.path), "the file's own metadata")
    public = known_by(sha256)
    if public is not None and public.activation:
        return Known(public.activation, "its SHA-256")
    if file.container == TORCHSCRIPT:
        return Known("quick_gelu", "its being OpenAI's TorchScript form")

    prefix = prefix_of(file.keys())
    if all(prefix + number in file for number in _OPENAI_NUMBERS):
        return Known("quick_gelu", "OpenAI's three numbers in it")
    return _from_config(file.path.parent, prefix + HUB in file)


def _from_config(folder: Path, hub_names: bool) -> Known | None:
    """Look into the configuration of the library whose names the file has, else the other's."""
    libraries = [("open_clip_config.json", _of_open_clip), ("config.json", _of_hub)]
    if hub_names:
        libraries.reverse()

    for name, read in libraries:
        path = folder / name
        if not path.is_file():
            continue
        activation = read(read_json(path))
        if activation is not None:
            return Known(_supported(activation, path), f"{name} beside it")
    return None


def _of_open_clip(config: dict[str, Any]) -> Any:
    """Read QuickGELU where it says so, else the exact one; None for another library's file."""
    model = config.get("model_cfg")
    if not isinstance(model, dict):
        return None
    if model.get("quick_gelu") is True:
        return "quick_gelu"
    return "gelu"


def _of_hub(config: dict[str, Any]) -> Any:
    """Read both towers' `hidden_act`, QuickGELU where it is left out; None for no CLIP."""
    towers = [_tower(config, "vision_config"), _tower(config, "text_config")]
    if config.get("model_type", "clip") != "clip" or not any(towers):
        return None
    vision, text = (tower.get("hidden_act", "quick_gelu") for tower in towers)
    if vision == text:
        return vision
    return f"{vision} for images and {text} for texts"


def _tower(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Join a tower's settings; old files keep them twice, and the second ones count."""
    both = [config.get(name), config.get(f"{name}_dict")]
    return {key: value for part in both if isinstance(part, dict) for key, value in part.items()}


def _supported(activation: Any, path: Path) -> str:
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UserError(
            f"{path} has the activation {str(activation)[:60]}, which is not supported; give a "
            f"CLIP with {_or(ACTIVATIONS)}"
        )
    return activation


def _or(names: Collection[str]) -> str:
    return " or ".join(names)
