"""Weights files of the official form, and files that would run code if they were unpickled."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from clip.model import CLIP, VisionTransformer

FLOAT32 = re.compile(r"(^|\.)ln_|class_embedding|positional_embedding|token_embedding|logit_scale")
PLAIN_NUMBERS = {"input_resolution": 64, "context_length": 77, "vocab_size": 49408}


class Holder(nn.Module):
    """A module tree with given tensors, for archives that hold the names of another model."""

    def __init__(self, tensors: dict[str, Tensor]):
        super().__init__()
        own = {name: tensor for name, tensor in tensors.items() if "." not in name}
        for name, tensor in own.items():
            if tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)
        for child in dict.fromkeys(name.split(".")[0] for name in tensors if name not in own):
            inner = {
                name[len(child) + 1 :]: t
                for name, t in tensors.items()
                if name.startswith(child + ".")
            }
            self.add_module(child, Holder(inner))

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_torchscript(tensors: dict[str, Tensor], path: Path) -> None:
    """The official file's form: half precision, a TorchScript archive with three plain numbers
    among the tensors.
    """
    half = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    holder = Holder(
        {**half, **{name: torch.tensor(value) for name, value in PLAIN_NUMBERS.items()}}
    )
    holder.visual.input_resolution = 64  # attributes of the archive's modules that are no tensors
    holder.visual.sizes = [1, 2]
    holder.visual.attn_mask = torch.zeros(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, the official file stays
        torch.jit.script(holder).save(str(path))


class _Traced(CLIP):
    """A CLIP whose forward pass, which is traced, runs both towers."""

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual(images), self.encode_text(tokens)


def traced_clip(visual: VisionTransformer, *sizes: int) -> _Traced:
    """A CLIP of random weights that `save_traced` takes; sizes as for `CLIP`."""
    return _Traced(visual, *sizes).eval().requires_grad_(False)


def save_traced(model: _Traced, path: Path) -> None:
    """The official file's form, as it was made: a traced module whose code fills hundreds of
    deflated records, half precision but for norms, embeddings and tables, three numbers.
    """
    side = model.visual.grid * model.visual.patch_size
    tokens = torch.zeros(1, len(model.positional_embedding), dtype=torch.long)
    tokens[0, 5] = len(model.token_embedding.weight) - 1
    for name, value in PLAIN_NUMBERS.items():
        model.register_buffer(name, torch.tensor(value))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and shapes become constants
        traced = torch.jit.trace(
            model, (torch.zeros(1, 3, side, side), tokens), check_trace=False, strict=False
        )
        for name, parameter in traced.named_parameters():
            if not FLOAT32.search(name):
                parameter.data = parameter.data.half()
        traced.save(str(path))


_HUB_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
}
_HUB_PARTS = {
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "transformer.resblocks": "text_model.encoder.layers",
    "ln_final": "text_model.final_layer_norm",
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def hub_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP's tensors as the Hub's transformers library names, splits and turns them."""
    named = {}
    for name, tensor in tensors.items():
        hub = _HUB_NAMES.get(name, name)
        if hub == name:
            for ours, theirs in _HUB_PARTS.items():
                hub = hub.replace(ours, theirs)

        if "attn.in_proj_" in hub:
            stem, kind = hub.split("attn.in_proj_")
            for part, third in zip("qkv", tensor.chunk(3)):
                named[f"{stem}self_attn.{part}_proj.{kind}"] = third.clone()
        elif name in ("visual.proj", "text_projection"):
            named[hub] = tensor.T.contiguous()
        else:
            named[hub] = tensor
    return named


class Payload:
    """A pickle of it calls `function(*arguments)` when it is loaded."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def as_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def as_archive(content: object, path: Path) -> None:
    """`content` as the pickle of something that looks like a TorchScript archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/code/__torch__.py", "")
        archive.writestr("archive/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("archive/version", "3\n")
