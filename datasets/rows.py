"""What a table, file or folder of annotations says of one picture, whatever its form."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from utils.common.errors import UserError

IGNORED = "ignored"  # category of an object whose pixels do not count
SCORES = ("score", "confidence", "probability")  # what says how sure a class is

# (H, W) bool of an object from the picture's height and width, px, and what errors call it
Pixels = Callable[[int, int, str], np.ndarray]


class Region(NamedTuple):
    """One object: its class, and the function that gives its pixels; None where it has no area of
    its own, as a box or a point.
    """

    category: str
    pixels: Pixels | None = None


class Row(NamedTuple):
    """What is said of a picture: the place, what the picture is called (the first name that fits
    counts), its class names, in one text or in several, and where there are any, its objects, and
    the picture's (height, width) there; whether other rows may say more of the same picture.
    """

    place: str
    called: tuple[str, ...]
    words: str | Sequence[str]
    regions: Sequence[Region] = ()
    size: tuple[int, int] | None = None
    more: bool = False


def row_of(
    place: str,
    called: Iterable[str],
    regions: Sequence[Region],
    size: tuple[int, int] | None = None,
    more: Iterable[str] = (),
) -> Row:
    """Gather a row whose classes are those of its regions, and `more`."""
    words = sorted({region.category for region in regions} | set(more))
    return Row(place, tuple(name for name in called if name), words, regions, size)


def called_by_place(below: PurePath, folder: str, pictures: str) -> tuple[str, str, str]:
    """Return what a picture may be called of which a file in a folder of annotations tells, best
    first: by the file's path with the folder of pictures in place of that one, without it, and by
    name alone. A path that does not name that folder comes first as it is.
    """
    plain = PurePosixPath(*(part for part in below.parts if part != folder)).as_posix()
    if folder not in below.parts:
        return plain, f"{pictures}/{plain}", below.name
    beside = (pictures if part == folder else part for part in below.parts)
    return PurePosixPath(*beside).as_posix(), plain, below.name


def refuse_unsure(place: str, word: Any, score: Any) -> None:
    """Raise UserError where a class has a score other than 1, which says neither yes nor no."""
    if score in (None, "", 1):
        return
    try:
        sure = float(str(score).replace(",", ".")) == 1
    except ValueError:
        sure = False
    if not sure:
        raise UserError(
            f"{place} has {word!r:.60} with a score of {score!r:.20}; keep the classes that the "
            "picture shows, without scores"
        )
