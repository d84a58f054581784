"""What `torch.save` writes now (zip) and wrote before 2020, and TorchScript archives, the form of
the official CLIP file. Only the records that hold a pickle or a tensor are opened; code
and whatever else lies in an archive is never unpacked.
"""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from utils.common.errors import UserError
from utils.common.inert_pickle import StandIn, load_inert
from utils.common.stored_tensors import (
    AGAIN,
    OTHER,
    UNKNOWN,
    InMemory,
    Record,
    StoredTensor,
    Unreadable,
    first_sentence,
)

TORCHSCRIPT = "TorchScript"
TORCH_ZIP = "torch.save"
TORCH_LEGACY = "torch.save, before 2020"

_DTYPES = {
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
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_WRAPPERS = ("state_dict", "model", "model_state_dict", "module")  # where trainings put theirs


@dataclass(frozen=True)
class _Storage:
    """What a pickle's tensors are views of."""

    record: Record
    dtype: torch.dtype
    offset: int = 0  # elements


def read_zip(path: Path, what: str) -> tuple[str, dict[str, StoredTensor]]:
    """Read an archive that PyTorch wrote: its container's name and its named tensors.

    Raises Unreadable or UserError, with the reason, or any other exception for bytes of no form.
    """
    if not zipfile.is_zipfile(path):
        raise Unreadable("it begins as an archive and its end is missing", AGAIN)
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not pickles:
        raise Unreadable("it is a zip archive of something else", OTHER)

    root = pickles[0].removesuffix("data.pkl")
    found: dict[str, Record] = {}

    def storage(identity: Any) -> _Storage | StandIn:
        """Find the record of a storage that the pickle refers to."""
        kind, dtype, key, *_ = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return StandIn()
        if key not in found:
            found[key] = _zip_record(path, records[f"{root}data/{key}"])
        return _Storage(found[key], dtype)

    content = _zip_record(path, records[pickles[0]])
    order = records.get(f"{root}byteorder")
    if order and bytes(_zip_record(path, order).read(0, order.file_size).numpy()) != b"little":
        raise Unreadable("its numbers are big-endian", "save it anew on a usual machine")

    pickled = io.BytesIO(content.read(0, content.size).numpy().tobytes())
    loaded = load_inert(pickled, content.size, _KNOWN, storage)

    if content.size + sum(record.size for record in found.values()) > path.stat().st_size:
        raise ValueError("its records overlap")
    if has_code(records):
        return TORCHSCRIPT, _attributes(loaded)
    return TORCH_ZIP, _state_dict(loaded, what, path)


def _zip_record(path: Path, record: zipfile.ZipInfo) -> Record:
    """Find a record of a zip archive, stored as it is: nothing is ever unpacked."""
    if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
        raise Unreadable(
            f"its record {record.filename[:80]} is compressed, as PyTorch's never are",
            "it was packed anew or is no weights file, give the original",
        )
    with path.open("rb") as file:
        file.seek(record.header_offset)
        local = file.read(30)
    # the record's own header says how long its name and its padding are
    skipped = 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    start = record.header_offset + skipped
    return Record(path, start, record.file_size, f"the record {record.filename[:80]}", record.CRC)


def read_legacy(path: Path, what: str) -> tuple[str, dict[str, StoredTensor]]:
    """Read as `read_zip` what came before archives: five pickles, then the storages one by one.

    Where a storage lies is known only after the pickle that refers to it, which is read twice.
    """
    size = path.stat().st_size
    widths: dict[str, int] = {}  # bytes of an element, by storage
    records: dict[str, Record] = {}

    def noted(identity: Any) -> StandIn:
        """Keep the width of a storage's elements; it is found later."""
        if identity[0] == "storage" and isinstance(identity[1], torch.dtype):
            widths[identity[2]] = identity[1].itemsize
        return StandIn()

    def storage(identity: Any) -> _Storage | StandIn:
        """Return the storage that the pickle refers to, or a view of it."""
        kind, dtype, key, _, _, view = identity
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return StandIn()

        start = 0
        if view:
            start = view[1]
        return _Storage(records[key], dtype, start)

    with path.open("rb") as file:
        try:
            _pass_head(file, size, noted)
            start = file.tell()
            load_inert(file, size, _KNOWN, noted)
            keys = load_inert(file, size, _KNOWN, noted)
        except (EOFError, ValueError) as error:
            remedy = UNKNOWN
            if not file.read(1):  # at its end
                remedy = AGAIN
            raise Unreadable(first_sentence(error), remedy) from None

        for key in keys:
            count = file.read(8)
            if len(count) < 8:
                raise Unreadable("it ends before its tensors do", AGAIN)
            length = int.from_bytes(count, "little") * widths[key]
            records[key] = Record(path, file.tell(), length, f"the storage {key}"[:80])
            file.seek(length, io.SEEK_CUR)

        file.seek(start)
        loaded = load_inert(file, size, _KNOWN, storage)
    return TORCH_LEGACY, _state_dict(loaded, what, path)


def _pass_head(file: BinaryIO, size: int, persistent: Callable[[Any], Any]) -> None:
    """Read past the three pickles that came first before archives. Raises Unreadable where
    `torch.save` did not write them.
    """
    magic = load_inert(file, size, _KNOWN, persistent)
    if magic != _LEGACY_MAGIC:
        raise Unreadable(
            f"it is a pickle that torch.save did not write, of {_kind(magic)}",
            "save the state_dict() with torch.save and give that",
        )
    for _ in ("format", "machine"):
        load_inert(file, size, _KNOWN, persistent)


def pickled_storage(content: bytes) -> _Storage:
    """Find the storage in the bytes by which a tensor is pickled outside `torch.save`, as in the
    dicts that `np.save` writes: in every PyTorch those of `read_legacy`, of one storage.

    Raises ValueError, with the reason, for any others.
    """

    def storage_type(identity: Any) -> Any:
        """Return the type of the elements of the storage that the pickle refers to."""
        return identity[1]

    file = io.BytesIO(content)
    try:
        _pass_head(file, len(content), storage_type)
        dtype = load_inert(file, len(content), _KNOWN, storage_type)
        load_inert(file, len(content), _KNOWN, storage_type)  # the names of all storages: one
    except Exception as error:  # bytes of no form make the reader fail in any way
        raise ValueError(f"a tensor that cannot be read ({first_sentence(error)})") from error

    count = int.from_bytes(file.read(8), "little")
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor of unknown type")
    return _Storage(InMemory(file.read(count * dtype.itemsize), "its storage"), dtype)


def pickled_array(storage: Any, *form: Any) -> np.ndarray:
    """Read the tensor that a pickle makes of a `pickled_storage`, by offset, shape and strides.

    Raises ValueError where the storage does not hold it.
    """
    stored = _rebuild(storage, *form)
    if not isinstance(stored, StoredTensor) or stored.nbytes > stored.record.size:
        raise ValueError("a tensor that its storage does not hold")

    tensor = stored.read()
    if tensor.dtype == torch.bfloat16:  # which NumPy lacks
        tensor = tensor.float()
    return tensor.numpy()


def has_code(records: Iterable[str]) -> bool:
    """Tell whether an archive of these records is of TorchScript."""
    return any("/code/" in name or name.endswith("constants.pkl") for name in records)


def _rebuild(
    storage: Any, offset: int, shape: Any, strides: Any, *_: Any
) -> "StoredTensor | StandIn":
    if not isinstance(storage, _Storage):
        return StandIn()
    return StoredTensor(
        storage.record, storage.dtype, storage.offset + offset, tuple(shape), tuple(strides)
    )


def _rebuild_typed(
    storage: Any, offset: int, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *___: Any
) -> "StoredTensor | StandIn":
    """Make a tensor from a storage of bytes."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        return StandIn()
    return StoredTensor(storage.record, dtype, offset, tuple(shape), tuple(strides))


def _rebuild_subclass(function: Any, _: Any, arguments: tuple, *__: Any) -> Any:
    """Make a tensor that has attributes, without them."""
    if function not in (_rebuild, _rebuild_typed):
        return StandIn()
    return function(*arguments)


def _first(value: Any, *_: Any) -> Any:
    return value


_KNOWN: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_tensor_v3": _rebuild_typed,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.jit._pickle.restore_type_tag": _first,
    "torch.storage.UntypedStorage": torch.uint8,
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in _DTYPES.items()},
    **{str(dtype): dtype for dtype in _DTYPES.values()},
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},
}


def _attributes(root: Any) -> dict[str, StoredTensor]:
    """Collect the tensors of a TorchScript module and the modules in it by their dotted names."""
    if not isinstance(root, StandIn):
        raise Unreadable(f"its module is {_kind(root)}", OTHER)

    found: dict[str, StoredTensor] = {}
    left = [("", root)]
    seen = set()
    while left:
        prefix, module = left.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name, value in module.attributes.items():
            if isinstance(value, StoredTensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, StandIn):
                left.append((f"{prefix}{name}.", value))
    return found


def _state_dict(content: Any, what: str, path: Path) -> dict[str, StoredTensor]:
    """Find the named tensors in what a file holds: itself, or where trainings put theirs."""
    while isinstance(content, dict):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), dict | StandIn)]
        if not inner:
            break
        content = inner[0]

    if not isinstance(content, dict):
        raise UserError(
            f"{what} {path} holds no state dict but {_kind(content)}; save the state_dict() of "
            "the model and give that"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, StoredTensor):
            raise UserError(
                f"{what} {path} holds no state dict: {str(name)[:80]} is {_kind(value)}, no "
                "tensor; give a file of named tensors"
            )
    return content


def _kind(value: Any) -> str:
    """Say in words what an object of a pickle is."""
    if isinstance(value, StoredTensor):
        return "one tensor"
    if isinstance(value, StandIn):
        return f"a whole pickled {value.named[:80]}, whose code is not run"
    if isinstance(value, type) and issubclass(value, StandIn):
        return f"the name {value.named[:80]}"
    return f"a Python {type(value).__name__}"
