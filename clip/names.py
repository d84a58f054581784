"""A CLIP's tensors under the official names, whatever names its file has.

Files differ in names (OpenAI's and open_clip's, or the Hub's transformers library's), and in what a
training puts before every name (`module.`, `model.`).
"""

import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

# the Hub's name of a tensor or module, and the official one
_EMBEDDINGS = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
    "logit_scale": "logit_scale",
}
_TOWERS = {"vision_model": "visual.transformer", "text_model": "transformer"}
_IN_BLOCK = {
    "self_attn.q_proj": "attn.in_proj",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_BLOCK = re.compile(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_TRANSPOSED = ("visual.proj", "text_projection")

OFFICIAL = "visual.conv1.weight"
HUB = "vision_model.embeddings.patch_embedding.weight"


class Renamed(Mapping[str, Tensor]):
    """Tensors under other names, each made of one or several when it is asked for."""

    def __init__(
        self,
        source: Mapping[str, Tensor],
        parts: Mapping[str, tuple[str, ...]],
        transposed: Collection[str] = (),
    ) -> None:
        """
        Args:
            source: the tensors under the names they have.
            parts: by new name, the names of the tensors that are joined along their first axis.
            transposed: new names of matrices that the source holds the other way round.

        Raises ValueError naming a part that the source lacks.
        """
        if lacking := [name for names in parts.values() for name in names if name not in source]:
            raise ValueError(f"no tensor {lacking[0]}")

        self.source = source
        self.parts = parts
        self.transposed = transposed

    def __getitem__(self, name: str) -> Tensor:
        tensors = [self.source[part] for part in self.parts[name]]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        if name in self.transposed:
            tensor = tensor.T.contiguous()
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def prefix_of(names: Collection[str]) -> str:
    """Find what stands before a CLIP's names, perhaps nothing.

    Raises ValueError where there is no CLIP, or more than one.
    """
    found = sorted(
        {
            name.removesuffix(ending)
            for ending in (OFFICIAL, HUB)
            for name in names
            if name == ending or name.endswith(f".{ending}")
        }
    )

    if not found:
        raise ValueError(f"no tensor {OFFICIAL} of 4 dimensions")
    if "" not in found and len(found) > 1:
        raise ValueError(f"several CLIPs, under {' and '.join(found)}")
    return found[0]  # "" comes first


def official_names(source: Mapping[str, Tensor]) -> Renamed:
    """Give the CLIP in a file its official names; what a training keeps beside it is left out.

    Raises ValueError where there is no CLIP, or not the whole of one.
    """
    prefix = prefix_of(source.keys())
    names = [name.removeprefix(prefix) for name in source if name.startswith(prefix)]
    if HUB not in names:
        return Renamed(source, {name: (prefix + name,) for name in names})

    parts: dict[str, tuple[str, ...]] = {}
    for name in names:
        if ".k_proj." in name or ".v_proj." in name:
            continue  # joined to q
        whole = [name]
        if ".q_proj." in name:
            whole = [name.replace(".q_proj.", f".{kind}_proj.") for kind in "qkv"]
        parts[_official(name)] = tuple(prefix + part for part in whole)
    return Renamed(source, parts, _TRANSPOSED)


def _official(name: str) -> str:
    """Translate one of the Hub's names; a name that CLIP has not stays."""
    if name in _EMBEDDINGS:
        return _EMBEDDINGS[name]
    block = _BLOCK.fullmatch(name)
    if block is None or block[3] not in _IN_BLOCK:
        return name
    tower, number, module, kind = block.groups()
    dot = "_" if _IN_BLOCK[module] == "attn.in_proj" else "."
    return f"{_TOWERS[tower]}.resblocks.{number}.{_IN_BLOCK[module]}{dot}{kind}"
