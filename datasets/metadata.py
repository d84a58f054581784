"""What a picture file says beside its pixels: the orientation is read, a declared range too, and
the rest is taken out before any library sees it.

Cameras, editors and phones write text, profiles and positions that are mistyped, cut short or
megabytes long, and libraries that parse them refuse the picture. None of it is needed here.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ORIENTATION = 0x0112  # EXIF tag, and the tag of TIFF's own directory

_PNG = b"\x89PNG\r\n\x1a\n"
# Without acTL, fcTL and fdAT a moving picture is its first one.
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

# APP0 (JFIF) and APP14 (Adobe) tell how colours are coded; other APPn and comments are left out.
_JPEG_LEFT_OUT = {*range(0xE1, 0xF0), 0xFE} - {0xEE}
_JPEG_EXIF = 0xE1
_JPEG_SCAN = 0xDA

_TIFF_STARTS = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
# Tags of a directory without which the pixels cannot be decoded: sizes, coding, strips and tiles,
# colours, and the forms of JPEG within TIFF.
_TIFF_PIXELS = {
    *range(256, 260),
    *(262, 266, 273, 277, 278, 279, 280, 281, 284, 292, 293, 317, 320),
    *range(322, 326),
    *(332, 334, 336, 338, 339, 340, 341, 347),
    *range(512, 522),
    *(529, 530, 531, 532, 50674),
}
_TIFF_BITS = 258  # bits per sample
_TIFF_CHANNELS = 277
_TIFF_PLANES = 284  # 2: the channels lie apart from each other
_TIFF_EXTRA = 338  # what channels beyond the colours are; 0: no transparency
_TIFF_MOST = (281, 341)  # largest value, declared by the writer

# Types of numbers in a directory: their code in `struct`. Text is none: no viewer turns by it.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q"}
_FRACTIONS = {5: "I", 10: "i"}

_AVIF_BRANDS = (b"avif", b"avis")
_AVIF_EXIF = re.compile(rb"(infe.{4}(?:.{2}|.{4}).{2})Exif", re.DOTALL)


@dataclass(frozen=True)
class Stripped:
    """A picture file without metadata, and what was read of that.

    content: the bytes that decode to the pixels as stored. orientation: 1..8 as in EXIF, 1 where
    none is legible. white: largest value that the file declares, 0 where it declares none.

    Of TIFF alone: size, (width, height) in px as stored; channels and their bits; apart: whether
    the channels lie apart from each other; opaque: whether it says that no channel is transparency,
    as of infrared beside colours.
    """

    content: bytes
    orientation: int = 1
    white: int = 0
    size: tuple[int, int] | None = None
    channels: int = 0
    bits: int = 8
    apart: bool = False
    opaque: bool = False


def stripped(content: bytes) -> Stripped:
    """Take the metadata out of a picture file of any format; what is no picture stays as it is."""
    for start, strip in _FORMATS.items():
        if content.startswith(start):
            return strip(content)
    if content[4:8] == b"ftyp" and content[8:12] in _AVIF_BRANDS:
        # Boxes turn it, and EXIF does not (ISO 23008-12), which is skipped without its name.
        return Stripped(_AVIF_EXIF.sub(rb"\1none", content))
    return Stripped(content)


def orientation_in(block: bytes) -> int:
    """Read the orientation, 1..8, of an EXIF block; 1 where there is none, or none that is legible.

    Only the one entry is looked at, so that no other entry can be in the way.
    """
    while block.startswith(b"Exif\0"):  # some writers put the marker in twice
        block = block[6:]

    order, big = _TIFF_STARTS.get(block[:4], ("", False))
    if not order:
        return 1

    entries = _Directory(block, order, big).entries
    found = next((entry for entry in entries if entry.tag == ORIENTATION), None)
    if found is None:
        return 1
    return _orientation(found.number)


def _orientation(value: float | None) -> int:
    if value is None or value not in range(1, 9):
        return 1
    return int(value)


def _jpeg(content: bytes) -> Stripped:
    """Walk the segments before the first scan; from anything odd on, the bytes stay as they are."""
    kept = [content[:2]]
    orientation = 0
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a filling byte
            place += 1
            continue
        if marker == _JPEG_SCAN or 0xD0 <= marker <= 0xD9 or marker in (0, 1):
            break
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        body = content[place + 4 : end]
        if marker == _JPEG_EXIF and body.startswith(b"Exif\0"):
            orientation = orientation or orientation_in(body)
        if marker not in _JPEG_LEFT_OUT:
            kept.append(content[place:end])
        place = end

    return Stripped(b"".join([*kept, content[place:]]), orientation or 1)


def _png(content: bytes) -> Stripped:
    kept = [_PNG]
    orientation = 1
    place = len(_PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if kind in _PNG_PIXELS:
            kept.append(content[place:end])
        elif kind == b"eXIf":
            orientation = orientation_in(content[place + 8 : end - 4])
        place = end
    return Stripped(b"".join(kept), orientation)


def _webp(content: bytes) -> Stripped:
    """Look for EXIF only: the decoder hands the other chunks on unread."""
    place = 12
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        if kind == b"EXIF":
            return Stripped(content, orientation_in(content[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2
    return Stripped(content)


def _tiff(content: bytes) -> Stripped:
    """Rewrite the first directory with the tags of the pixels alone, and as the only one."""
    directory = _Directory(content, *_TIFF_STARTS[content[:4]])
    found = {entry.tag: entry.number for entry in directory.entries}
    most = max((found.get(tag) or 0 for tag in _TIFF_MOST), default=0)
    bits = int(found.get(_TIFF_BITS) or 1)
    white = 0
    if 255 < most < 2**bits - 1 and math.isfinite(most):
        white = int(most)

    size = None
    width, height = (int(found.get(tag) or 0) for tag in (256, 257))
    if width and height:
        size = (width, height)

    channels = int(found.get(_TIFF_CHANNELS) or 1)
    tags = set(_TIFF_PIXELS)
    if channels == 1:
        tags.discard(_TIFF_PLANES)  # which says nothing, and is in Pillow's way

    return Stripped(
        directory.rewritten(tags),
        _orientation(found.get(ORIENTATION)),
        white,
        size,
        channels=channels,
        bits=bits,
        apart=found.get(_TIFF_PLANES) == 2,
        opaque=found.get(_TIFF_EXTRA) == 0,
    )


@dataclass(frozen=True)
class _Entry:
    """One entry of a directory: its tag, its first value if that is a number, its bytes."""

    tag: int
    number: float | None
    raw: bytes


class _Directory:
    """The first directory of a TIFF structure, small or big, as far as it is legible."""

    def __init__(self, block: bytes, order: str, big: bool) -> None:
        self._block = block
        self._order = order
        self._wide = "I"
        self._counter = "H"
        place = 4
        if big:
            self._wide = "Q"
            self._counter = "Q"
            place = 8

        self._start = self._whole(self._wide, place)
        self.entries = list(self._read()) if self._start else []

    def _unpack(self, code: str, place: int) -> float | None:
        """Return one value; None beyond the end."""
        try:
            return struct.unpack_from(self._order + code, self._block, place)[0]
        except (struct.error, OverflowError):
            return None

    def _whole(self, code: str, place: int) -> int:
        """Return one whole number; 0 beyond the end."""
        return int(self._unpack(code, place) or 0)

    def _read(self) -> Iterator[_Entry]:
        value = struct.calcsize(self._wide)
        size = 4 + 2 * value
        count = self._whole(self._counter, self._start)
        first = self._start + struct.calcsize(self._counter)
        for place in range(first, min(first + count * size, len(self._block) - size + 1), size):
            tag = self._whole("H", place)
            yield _Entry(tag, self._number(place, value), self._block[place : place + size])

    def _number(self, place: int, value: int) -> float | None:
        """Return the first value of the entry at `place`, whose values stand in `value` bytes or
        elsewhere.
        """
        kind = self._whole("H", place + 2)
        count = self._whole(self._wide, place + 4)
        code = _NUMBERS.get(kind) or _FRACTIONS.get(kind)
        if code is None or not count:
            return None

        width = struct.calcsize(code)
        if kind in _FRACTIONS:
            width *= 2
        at = place + 4 + value
        if width * count > value:
            at = self._whole(self._wide, at)

        number = self._unpack(code, at)
        if kind in _FRACTIONS and number is not None:
            below = self._unpack(code, at + width // 2)
            if not below:
                return None
            return number / below
        return number

    def rewritten(self, tags: set[int]) -> bytes:
        """Rewrite the structure with a directory of these tags alone and no further one; its data
        stay where they are.
        """
        kept = [entry.raw for entry in self.entries if entry.tag in tags]
        if not kept:
            return self._block
        head = struct.pack(self._order + self._counter, len(kept))
        changed = b"".join([head, *kept, bytes(struct.calcsize(self._wide))])
        return self._block[: self._start] + changed + self._block[self._start + len(changed) :]


_FORMATS: dict[bytes, Callable[[bytes], Stripped]] = {
    b"\xff\xd8": _jpeg,
    _PNG: _png,
    b"RIFF": _webp,
    **dict.fromkeys(_TIFF_STARTS, _tiff),
}
