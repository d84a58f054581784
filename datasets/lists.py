"""Lists of images that a process holds for the whole of a run, ten million of them too: texts in
one buffer and tags in bits, in place of a Python object for each.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar, overload

import numpy as np

_ERRORS = "surrogatepass"  # file names may hold bytes that are no text
_PART = 100_000  # rows of tags that are unpacked at a time
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """One image of a dataset: its name in lists and tags files, its file, and its mask where there
    is one.
    """

    name: str
    image: Path
    mask: Path | None


def spread(sequence: Sequence[T], most: int) -> tuple[T, ...]:
    """Return at most `most` (0: all) elements at even distances, from the first on."""
    count = min(most or len(sequence), len(sequence))
    return tuple(sequence[k * len(sequence) // count] for k in range(count))


def own_name(item: Item) -> str:
    """Return a photo's path below the folder in which it was found, with / between folders."""
    depth = len(PurePosixPath(item.name).parts)
    return PurePath(*item.image.parts[-depth:]).as_posix()


class Texts(Sequence[str]):
    """Texts of which none changes; each takes its bytes in UTF-8 and eight more."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])  # of each text in the bytes, behind that of none
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text at the end."""
        self._bytes += text.encode(errors=_ERRORS)
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Texts": ...

    def __getitem__(self, place: int | slice) -> "str | Texts":
        if isinstance(place, slice):
            return self.at(range(len(self))[place])
        index = range(len(self))[place]
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode(errors=_ERRORS)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in islice(self._ends, 1, None):
            yield self._bytes[start:end].decode(errors=_ERRORS)
            start = end

    def at(self, places: Iterable[int]) -> "Texts":
        """Return the texts at these places, in their order."""
        return Texts(map(self.__getitem__, places))

    @property
    def filled(self) -> np.ndarray:
        """Return (n,) bool, False where a text is empty."""
        return np.diff(np.array(self._ends)) > 0


class Items(Sequence[Item]):
    """Images of a dataset; an `Item` is made when it is asked for.

    names, images, masks: n texts each, the names and the paths of the files, "" for no mask.
    """

    def __init__(self, files: Iterable[tuple[str, str, str]] = ()) -> None:
        """files: name, path of the image and path of the mask of each, "" for no mask."""
        self.names = Texts()
        self.images = Texts()
        self.masks = Texts()
        for name, image, mask in files:
            self.names.append(name)
            self.images.append(image)
            self.masks.append(mask)

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Items":
        """Return the same images in this form."""
        if isinstance(items, cls):
            return items
        return cls((item.name, str(item.image), str(item.mask or "")) for item in items)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> "Items": ...

    def __getitem__(self, place: int | slice) -> "Item | Items":
        if isinstance(place, slice):
            return self.at(range(len(self))[place])
        mask = self.masks[place]
        return Item(self.names[place], Path(self.images[place]), Path(mask) if mask else None)

    def at(self, places: Sequence[int] | np.ndarray) -> "Items":
        """Return the images at these places, in their order."""
        return Items(
            (self.names[place], self.images[place], self.masks[place]) for place in map(int, places)
        )

    def without_masks(self) -> "Items":
        """Return the same images without their masks."""
        return Items((name, image, "") for name, image in zip(self.names, self.images))

    @property
    def masked(self) -> np.ndarray:
        """Return (n,) bool, True where an image has a mask."""
        return self.masks.filled


@dataclass(frozen=True)
class TagTable:
    """Tags of n images, K classes each: `bits` (n, K / 8 rounded up) uint8, eight classes to a
    byte.
    """

    bits: np.ndarray
    classes: int

    @classmethod
    def of(cls, tags: "np.ndarray | TagTable") -> "TagTable":
        """Return tags (n, K) bool in this form."""
        if isinstance(tags, cls):
            return tags
        matrix = np.asarray(tags, bool)
        return cls(np.packbits(matrix, axis=1), matrix.shape[1])

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(self, place: int) -> np.ndarray:
        """Return the tags (K,) bool of one image."""
        return np.unpackbits(self.bits[place], count=self.classes).astype(bool)

    def at(self, places: Sequence[int] | np.ndarray) -> "TagTable":
        """Return the tags of the images at these places, in their order."""
        return TagTable(self.bits[np.asarray(places, np.int64)], self.classes)

    def matrix(self) -> np.ndarray:
        """Return the tags (n, K) bool of all images."""
        return np.unpackbits(self.bits, axis=1, count=self.classes).astype(bool)

    @property
    def tagged(self) -> np.ndarray:
        """Return (n,) bool, True where an image has a tag."""
        return np.asarray(self.bits.any(axis=1))

    def total(self) -> int:
        """Count the tags of all images."""
        parts = np.array_split(self.bits, 1 + len(self) // _PART)
        return sum(int(np.unpackbits(part).sum()) for part in parts)
