"""Tensors from files that users hand in, without running anything those files contain.

safetensors and plain state dicts go through their own safe readers. TorchScript archives (the form
of the official CLIP file) hold a pickle whose classes are code of the archive; here it is read by
an unpickler that knows tensors and plain containers only and turns every class of the archive into
an inert bag of attributes.
"""

import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from utils.common.errors import UserError

DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MOST_SHARED = 4  # times the file's size that its tensors may fill: some share their memory


class _Bag:
    """Stands for any object of the archive's own classes: keeps its attributes, runs nothing."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _plain_list(items: list) -> list:
    return list(items)


class _ArchiveUnpickler(pickle.Unpickler):
    """Resolves tensors, ordered dicts and the archive's classes (as `_Bag`); refuses every other
    name.
    """

    def __init__(self, file: BinaryIO, archive: zipfile.ZipFile, prefix: str):
        super().__init__(file, encoding="utf-8")
        self.archive, self.prefix, self.storages = archive, prefix, {}

    def find_class(self, module: str, name: str) -> Any:
        """The harmless stand-in for a name in the pickle; UnpicklingError for any name that is not
        a tensor's.
        """
        if module.startswith("__torch__"):
            return _Bag
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return _plain_list
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not a tensor")

    def persistent_load(self, identity: tuple) -> Tensor:
        """The storage that a record of the archive holds, as a flat tensor; UnpicklingError for
        other records.
        """
        kind, dtype, key, _, count = identity
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown record {kind}")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.prefix}data/{key}"))
            self.storages[key] = torch.frombuffer(data, dtype=dtype, count=count)
        return self.storages[key]


def _named_tensors(bag: _Bag, prefix: str = "") -> dict[str, Tensor]:
    tensors = {}
    for name, value in bag.attributes.items():
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
        elif isinstance(value, _Bag):
            tensors |= _named_tensors(value, f"{prefix}{name}.")
    return tensors


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    _check_stored(path)
    with zipfile.ZipFile(path) as archive:
        record = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(record) as file:
            root = _ArchiveUnpickler(file, archive, record[: -len("data.pkl")]).load()
    tensors = _named_tensors(root)
    _check_extent(tensors, path)
    return tensors


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            "/code/" in name or name.endswith("constants.pkl") for name in archive.namelist()
        )


def _check_stored(path: Path) -> None:
    """PyTorch stores its records as they are; raises ValueError where they would unpack to more
    than the file holds.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(record.file_size for record in archive.infolist())
    if size > path.stat().st_size:
        raise ValueError(f"its records unpack to {size} bytes, more than the file holds")


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    return True


def _check_extent(content: Any, path: Path) -> None:
    """Raises ValueError for tensors, at any depth, that would fill far more memory than the file
    holds bytes.

    A few bytes can show as a tensor of any shape; the first copy of it would exhaust the memory.
    """
    left, seen, extent = [content], set(), 0
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            if part.layout != torch.strided or part.device.type != "cpu":
                raise ValueError("it holds tensors without plain memory")
            extent += part.nbytes
        elif isinstance(part, dict):
            left += part.values()
        elif isinstance(part, list | tuple | set):
            left += part
    if extent > MOST_SHARED * path.stat().st_size:
        raise ValueError(f"its tensors would fill {extent} bytes, far more than the file holds")


def load_plain(path: Path) -> Any:
    """What `torch.save` wrote, tensors and plain types only, on the CPU, in memory bounded by the
    size of the file.

    Refuses TorchScript and tar files, whose code some versions of PyTorch run even under
    `weights_only` (CVE-2025-32434). Raises any exception where the file is no such thing.
    """
    if _is_tar(path) or _is_torchscript(path):
        raise ValueError("it is an archive that may hold code")
    if zipfile.is_zipfile(path):
        _check_stored(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_extent(content, path)
    return content


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Named tensors of a .safetensors file, a state dict (.pt/.pth, bare or under
    "model"/"state_dict") or a TorchScript archive. `what` names the file's role in messages.

    Raises UserError when the file is missing, truncated or of no such form.
    """
    if not path.is_file():
        raise UserError(
            f"{what} {path} does not exist; check the path or fetch it with `python -m "
            "utils.tools.download`"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _is_torchscript(path):
            return _read_torchscript(path)
        content = load_plain(path)
    except Exception as error:  # bytes that are no weights make the readers fail in any way
        raise UserError(
            f"{what} {path} cannot be read ({_first_sentence(error)}); "
            "it is truncated or not a weights file, fetch it again"
        ) from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(f"{what} {path} holds no state dict; give a file of named tensors")
    return content


def _first_sentence(error: Exception) -> str:
    """Without what PyTorch goes on to advise: to unpickle the file, or to report a fault."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:120]
