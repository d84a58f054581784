"""Which images of a split are scored: those with masks, or some of them, spread over the list; and
what a run says of its masks before it starts. Masks are located here and never opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.coco_json import coco_year
from datasets.coco_masks import mask_folders, rule_of, short_name
from datasets.layouts import voc_mask_folders
from datasets.lists import Item, Items, spread


@dataclass(frozen=True)
class Scored:
    """The images of a list of `total` that are scored: `places` in it, of the `masked` ones."""

    split: str
    total: int
    masked: int
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def label(self) -> str:
        """Return the split as results name it, such as "train, spread over 1464"."""
        pool = f"those of {self.total} with masks"
        if self.masked == self.total:
            pool = str(self.total)
        if len(self) < self.masked:
            return f"{self.split}, spread over {pool}"
        if self.masked == self.total:
            return self.split
        return f"{self.split}, {pool}"


def scored_images(split: str, images: Sequence[Item], most: int = 0) -> Scored:
    """Choose the images of a list that are scored: all with masks, or at most `most` (0: all) of
    them at even distances, from the first on.
    """
    masked = np.flatnonzero(Items.of(images).masked).tolist()
    return Scored(split, len(images), len(masked), spread(masked, most))


def masks_found(layout: str, root: str | Path, split: str, images: Sequence[Item]) -> str:
    """Say how many images of a split have masks, and what is there instead where they have none.

    split: the data set's own name for it. Raises UserError where masks of COCO were made by a rule
    of an earlier version.
    """
    images = Items.of(images)
    masked = images.masked
    head = f"{masked.sum():,} of {len(images):,} images have masks"
    if not masked.any():
        return f"{head}; {_instead(layout, Path(root), split, images.names[0])}"

    if not masked.all():
        without = images.names[int(masked.argmin())]
        head += f" (not {without}, for one): scores are over those with masks alone"
    rule = mask_rule(layout, images)
    if rule:
        head += f"; {rule}"
    return head


def mask_rule(layout: str, images: Sequence[Item]) -> str:
    """Return how the masks of COCO were made, in words; "" of other data. Raises UserError as
    `masks_found` does.
    """
    images = Items.of(images)
    if layout != "coco" or not images.masked.any():
        return ""
    mask = Path(images.masks[int(images.masked.argmax())])
    return f"masks of COCO: {rule_of(mask.parent)}"


def _instead(layout: str, root: Path, split: str, name: str) -> str:
    """Return what lies where masks are looked for, and what the image `name` needs there."""
    if layout == "custom":
        return "the data were prepared without; `python -m datasets.prepare custom --masks DIR`"
    folders = voc_mask_folders(root)
    if layout == "coco":
        folders = mask_folders(root, split, coco_year(root, split))

    expected = f"{name}.png"
    if short_name(name) != name:
        expected += f" or {short_name(name)}.png"
    for folder in folders:
        if not folder.is_dir():
            continue
        names = [file.name for file in folder.iterdir()]
        if found := min((each for each in names if each[0] != "."), default=None):
            return f"found names like {found} in {folder}, expected {expected}"
    return f"expected {expected} in {' or '.join(map(str, folders))}"
