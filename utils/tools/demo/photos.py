"""What the page shows things of: photos that are handed in, and drawn examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from datasets.pictures import open_image
from datasets.specs import VOC, DatasetSpec
from datasets.toy.scene import picture
from datasets.toy.words import wordings
from utils.common.errors import UserError

MOST_PIXELS = 40_000_000  # of a photo: it is held in memory, and its mask is made at its size
EXAMPLES = 6
_OF_LISTS = " or take it off the list"  # what `datasets.pictures` says of files in folders
# of drawn pictures
_SEED = 8
_SIZE = 256
_TRIED = 100


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture (H, W, 3) uint8 RGB under the name that it came with. tags: what an example is
    known to show. drawn: whether it is an example.
    """

    name: str
    image: np.ndarray
    tags: tuple[str, ...] = ()
    drawn: bool = False

    @property
    def size(self) -> str:
        """Return the width and height, in words."""
        height, width = self.image.shape[:2]
        return f"{width} x {height} px"


def read_photo(path: Path) -> Photo:
    """Read a file that was handed in.

    Raises:
        UserError: it is no picture, is damaged, or its header announces more than MOST_PIXELS,
            which are then not decoded.
    """
    try:
        return Photo(path.name, _decoded(path))
    except UserError as error:
        raise UserError(str(error).removesuffix(_OF_LISTS)) from None


def _decoded(path: Path) -> np.ndarray:
    """Read the pixels (H, W, 3) uint8, unless there are too many."""
    opened = open_image(path, path.name)
    height, width = opened.shape
    if height * width > MOST_PIXELS:
        raise UserError(
            f"{path.name} has {height * width / 1e6:.0f} million pixels ({width} x {height}), the "
            f"page takes {MOST_PIXELS / 1e6:.0f} million; shrink it, or give it to "
            "`python -m utils.tools.label`"
        )
    return np.array(opened.decoded())


def examples(spec: DatasetSpec, count: int = EXAMPLES) -> list[Photo]:
    """Draw toy pictures of these classes, of as many different ones as can be; none where no toy
    picture shows them.
    """
    drawn = islice(_drawn(_known(spec)), count)
    return [
        Photo(f"example {number}", image, tags, drawn=True)
        for number, (image, tags) in enumerate(drawn, start=1)
    ]


def _drawn(known: dict[int, str]) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """Draw pictures all of whose classes are known, each with one that none before had; yields
    them with their tags.
    """
    seen: set[int] = set()
    for number in range(_TRIED):
        if number % len(VOC.classes) not in known:  # its main class
            continue
        scene = picture(_SEED, "val", number, _SIZE)
        if set(scene.classes) <= known.keys() and not set(scene.classes) <= seen:
            seen |= set(scene.classes)
            yield scene.image, tuple(known[k] for k in scene.classes)


def _known(spec: DatasetSpec) -> dict[int, str]:
    """Name in a class list of each class of the toy (0-based) that it has, under any wording."""
    known = {}
    for k, drawn in enumerate(VOC.classes):
        named = [name for name in spec.classes if name in wordings(drawn)]
        if named:
            known[k] = named[0]
    return known
