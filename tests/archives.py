"""Weights files of the official form, and files that would run code if they were unpickled."""

import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

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
