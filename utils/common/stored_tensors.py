"""Tensors that are still in their file, and why a file cannot be read."""

import math
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# what to do about a file
AGAIN = "it is truncated, fetch it again"
OTHER = "it is not a weights file, give one"
UNKNOWN = "it is truncated or not a weights file, fetch it again"
_LARGE = 1 << 20  # bytes


class Unreadable(Exception):
    """Why a file is not read, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


def first_sentence(error: Exception) -> str:
    """Cut off what PyTorch goes on to advise: to unpickle the file, or to report a fault."""
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0][:160]


class Record:
    """Bytes of a file that hold a storage; their checksum, where there is one, is checked once."""

    def __init__(self, path: Path, start: int, size: int, name: str, crc: int = 0) -> None:
        if start + size > path.stat().st_size:
            raise Unreadable(f"{name} ends beyond the file", AGAIN)
        self.path = path
        self.start = start
        self.size = size
        self.name = name
        self.crc = crc  # 0: none was written, or it is found right

    def read(self, first: int, size: int) -> Tensor:
        """Read bytes (size,) from byte `first` of the record on; Unreadable if it is damaged."""
        if self.crc and size < self.size:
            self._check(zlib.crc32(self.read_part(0, self.size).numpy().data))

        content = self.read_part(first, size)
        if self.crc:
            self._check(zlib.crc32(content.numpy().data))
        return content

    def read_part(self, first: int, size: int) -> Tensor:
        """Read as `read`, unchecked."""
        content = _memory(size)
        with self.path.open("rb") as file:
            file.seek(self.start + first)
            if file.readinto(content.numpy().data) != size:
                raise Unreadable(f"{self.name} ends beyond the file", AGAIN)
        return content

    def _check(self, crc: int) -> None:
        if crc != self.crc:
            raise Unreadable(f"{self.name} is damaged, its checksum differs", "fetch it again")
        self.crc = 0


class InMemory(Record):
    """Bytes that are in memory already, as they lie in a pickle."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self.size = len(content)
        self.name = name
        self.crc = 0

    def read_part(self, first: int, size: int) -> Tensor:
        """Copy bytes (size,) from byte `first` on."""
        content = _memory(size)
        content.numpy().data[:] = self.content[first : first + size]
        return content


def _memory(size: int) -> Tensor:
    """Make room (size,) to read bytes into.

    Large ones are pages of their own, given back at once when a tensor is converted and dropped:
    from the allocator's heap they would leave holes of 100 MB in all.
    """
    if size < _LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file; offset and strides in elements."""

    record: Record
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        plain = all(isinstance(number, int) and number >= 0 for number in numbers)
        if not plain or len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor has the shape {str(self.shape)[:40]}")
        if (self.offset + self.span) * self.dtype.itemsize > self.record.size:
            raise ValueError(f"a tensor of shape {self.shape} is larger than {self.record.name}")

    @property
    def span(self) -> int:
        """Count the elements from the first to the last, both included."""
        if 0 in self.shape:
            return 0
        return 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides))

    @property
    def nbytes(self) -> int:
        """Tell the memory that it fills once it is read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """Read the tensor into memory of its own, on the CPU."""
        size = self.dtype.itemsize
        flat = self.record.read(self.offset * size, self.span * size).view(self.dtype)
        return flat.as_strided(self.shape, self.strides).contiguous()
