"""Tensors from files that users hand in, without running anything those files contain.

Every container in which weights are published is read here, and a file is opened by its content,
not its suffix. Tensors stay in the file until they are asked for, so that a model can be filled one
tensor at a time.
"""

import json
import math
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.common.errors import UserError
from utils.common.files import require_file
from utils.common.stored_tensors import (
    AGAIN,
    OTHER,
    UNKNOWN,
    Record,
    StoredTensor,
    Unreadable,
    first_sentence,
)
from utils.common.torch_files import has_code, read_legacy, read_zip
from utils.common.weights import way_to

SAFETENSORS = "safetensors"
_SAFETENSORS_DTYPES = {
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LONGEST_HEADER = 100_000_000  # bytes, as the safetensors format has it
_MOST_SHARED = 4  # times the file's size that its tensors may fill: some share their memory


@dataclass(frozen=True)
class TensorFile(Mapping[str, Tensor]):
    """Named tensors of a file, each of which is read when it is asked for."""

    path: Path
    what: str  # the file's role, for messages
    container: str
    stored: dict[str, StoredTensor]
    metadata: dict[str, str] = field(default_factory=dict)  # of safetensors

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor. UserError where its bytes are damaged."""
        stored = self.stored[name]
        try:
            return stored.read()
        except (Unreadable, OSError) as error:
            raise _user_error(self.what, self.path, error) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Tell a tensor's shape, () where there is none of that name; nothing is read."""
        if name not in self.stored:
            return ()
        return self.stored[name].shape


def open_tensors(path: Path, what: str) -> TensorFile:
    """Open the named tensors of a weights file: safetensors, a state dict that `torch.save` wrote
    (bare, or in what a training keeps), a TorchScript archive.

    `what` names the file's role in messages.

    Raises UserError, with the reason, when the file is missing, truncated or of no such form.
    """
    require_file(path, what, way_to(path))

    try:
        file = _open(path, what)
        _check_extent(sum(tensor.nbytes for tensor in file.stored.values()), path)
    except UserError:
        raise
    except Exception as error:  # bytes that are no weights make the readers fail in any way
        raise _user_error(what, path, error) from None

    return file


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Read all named tensors of a file into memory; see `open_tensors`."""
    return dict(open_tensors(path, what))


def _user_error(what: str, path: Path, error: Exception) -> UserError:
    remedy = getattr(error, "remedy", UNKNOWN)
    return UserError(f"{what} {path} cannot be read ({first_sentence(error)}); {remedy}")


def _open(path: Path, what: str) -> TensorFile:
    """Read what a file holds by what it begins with."""
    with path.open("rb") as file:
        head = file.read(512)

    if not head:
        raise Unreadable("it is empty", UNKNOWN)
    if head.startswith(b"PK") or zipfile.is_zipfile(path):
        return TensorFile(path, what, *read_zip(path, what))
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return _open_safetensors(path, what)
    if head[:1] == b"\x80":
        return TensorFile(path, what, *read_legacy(path, what))
    raise _foreign(path, head)


def _foreign(path: Path, head: bytes) -> Unreadable:
    """Say what a file is that holds no weights."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return Unreadable("it is a web page", "it is not a weights file, fetch the file itself")
    if start.startswith(b"version https://git-lfs"):
        return Unreadable("it is a Git LFS pointer, not the file", "fetch it with `git lfs pull`")
    if start.startswith(b"../../blobs/"):
        return Unreadable("it is the text of a lost link", "copy the cache with its links")
    if head.startswith(b"\x1f\x8b"):
        return Unreadable("it is compressed by gzip", "it is not a weights file yet, unpack it")
    if head.startswith(b"\x89HDF"):
        return Unreadable("it is an HDF5 file, as Keras writes", "give the PyTorch weights")
    if not head.strip(b"\0"):
        return Unreadable("it begins with zeros, as a download under way does", AGAIN)
    if _is_tar(path):
        return Unreadable("it is a tar archive, which may hold code", OTHER)

    text = head.decode("latin-1")
    if text.isascii() and text.replace("\n", " ").replace("\t", " ").isprintable():
        return Unreadable(f"it is text, {' '.join(text.split())[:40]!r}", OTHER)
    return Unreadable("it is of no known form", UNKNOWN)


# safetensors


def _open_safetensors(path: Path, what: str) -> TensorFile:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    if len(header) < length:
        raise Unreadable(f"its header has {length} bytes, the file {size}", AGAIN)

    entries = json.loads(header)
    metadata = entries.pop("__metadata__", {})
    start = 8 + length
    whole = start + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if whole > size:
        raise Unreadable(f"it has {size} of {whole} bytes", AGAIN)

    stored = {name: _safetensor(path, start, name, entry) for name, entry in entries.items()}
    if sum(tensor.record.size for tensor in stored.values()) > size:
        raise ValueError("its tensors overlap")
    return TensorFile(path, what, SAFETENSORS, stored, metadata)


def _safetensor(path: Path, start: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    first, end = entry["data_offsets"]
    if entry["dtype"] not in _SAFETENSORS_DTYPES:
        raise Unreadable(
            f"{name[:80]} is of type {str(entry['dtype'])[:20]}", "give the weights as float"
        )
    if not 0 <= first <= end:
        raise ValueError(f"the tensor {name[:80]} ends before it begins")
    shape = tuple(entry["shape"])
    record = Record(path, start + first, end - first, f"the tensor {name[:80]}")
    return StoredTensor(record, _SAFETENSORS_DTYPES[entry["dtype"]], 0, shape, _row_major(shape))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


# checkpoints of this project


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return False
    return True


def _check_extent(extent: int, path: Path) -> None:
    """Raise Unreadable for tensors that would fill far more memory than the file holds bytes.

    A few bytes can show as a tensor of any shape; the first copy of it would exhaust the memory.
    """
    if extent > _MOST_SHARED * path.stat().st_size:
        raise Unreadable(
            f"its tensors would fill {extent} bytes, far more than the file holds", OTHER
        )


def _extent(content: Any) -> int:
    """Count the bytes of all tensors, at any depth; ValueError for any without plain memory."""
    left = [content]
    seen = set()
    extent = 0
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

    return extent


def load_plain(path: Path) -> Any:
    """Read what `torch.save` wrote, tensors and plain types only, on the CPU, in memory bounded by
    the size of the file: a checkpoint of this project, which holds nothing else.

    Refuses TorchScript and tar files, whose code some versions of PyTorch run even under
    `weights_only` (CVE-2025-32434), and records that would unpack to more than the file holds.
    Raises any exception where the file is no such thing.
    """
    records: list[zipfile.ZipInfo] = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()

    if _is_tar(path) or has_code(record.filename for record in records):
        raise ValueError("it is an archive that may hold code")
    size = sum(record.file_size for record in records)
    if size > path.stat().st_size:
        raise ValueError(f"its records unpack to {size} bytes, more than the file holds")

    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_extent(_extent(content), path)
    return content
