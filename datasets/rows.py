"""What a table, file or folder of annotations says of one picture, whatever its form."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

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
    the picture's (height, width) there.
    """

    place: str
    called: tuple[str, ...]
    words: str | Sequence[str]
    regions: Sequence[Region] = ()
    size: tuple[int, int] | None = None


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
