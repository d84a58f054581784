"""Data sets of the size of COCO 2014, and of any number of pictures, that weigh next to nothing on
the disk: names and tags are drawn, the pictures and masks are few small files under many names.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.classes import CLASSES
from datasets.index import INDEX, INDEX_FORMAT
from datasets.lists import Items, Texts
from datasets.specs import COCO
from datasets.tag_sources import COCO_SOURCE, TAGS
from datasets.tags import FORMAT
from utils.metrics import MULTI
from utils.run_folder.journal import Journal, stamp

COCO_IMAGES = {"train": 82_081, "val": 40_137}  # those with objects, as in the field's lists
MEAN_TAGS = 2.9
SIDE = 48  # px
_LINKS = 30_000  # names of one file; file systems allow 65,000 or fewer
_SHARED = "shared.jpg"
LABELS = "labels.png"


def drawn_tags(count: int) -> Iterator[list[str]]:
    """Yield the classes of `count` images, COCO's, one or more each and MEAN_TAGS on average."""
    rng = np.random.default_rng(0)
    classes = np.array(COCO.classes)
    for start in range(0, count, 100_000):
        many = 1 + rng.poisson(MEAN_TAGS - 1, min(100_000, count - start))
        firsts = rng.integers(len(classes), size=len(many))
        for number, first in zip(many.tolist(), firsts.tolist()):
            places = (first + 7 * np.arange(min(number, len(classes)))) % len(classes)
            yield sorted(classes[places].tolist())


def write_coco(root: Path) -> None:
    """Write pictures, masks of val, and prepared tags under COCO's 122,218 names: 90 MB of names,
    half a minute.
    """
    (root / "annotations").mkdir(parents=True)
    for split, count in COCO_IMAGES.items():
        part = f"{split}2014"
        names = [f"COCO_{part}_{7 * number:012d}" for number in range(count)]
        _named(root / "coco2014" / part, names, _picture(), ".jpg")
        if split == "val":
            _named(root / "mask" / part, names, _mask(), ".png")
        _write_tags(root / "annotations" / f"tags_{part}.json", names, COCO_SOURCE)


def write_many(root: Path, count: int) -> None:
    """Write a custom data set of `count` names of one picture: 150 bytes on the disk for each."""
    root.mkdir(parents=True)
    _picture().save(root / _SHARED)
    (root / CLASSES).write_text(json.dumps({"classes": COCO.classes}), encoding="utf-8")
    names = Texts(f"{number % 1000:03d}/photo_{number:010d}" for number in range(count))
    (root / "val.txt").write_text(f"{names[0]}\n", encoding="utf-8")
    with (root / "train.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in names)

    with (root / INDEX).open("w", encoding="utf-8") as file:
        file.write(f'{{"format": {INDEX_FORMAT}, "images": ".", "masks": null, "files": {{\n')
        separator = ""
        for name in names:
            file.write(f'{separator}"{name}": ["{_SHARED}", null]\n')
            separator = ","
        file.write("}}\n")
    _write_tags(root / TAGS, names, "drawn")


def write_entries(folder: Path, images: Items) -> None:
    """Append the entries of a finished prediction of images to the journal of a folder, and write
    the one label map that all of them name.
    """
    _mask().save(folder / LABELS)

    with Journal(folder) as journal:
        for item in images:
            journal.add(
                {
                    "name": item.name,
                    "image": str(item.image),
                    "mask": item.mask and str(item.mask),
                    "size": [SIDE, SIDE],
                    "results": {MULTI: [[0, 0, 1000], [1, 1, 800], [1, 0, 504]]},
                    "pixels": {"0": 1504, "1": 800},
                    "files": [LABELS, LABELS],
                    "changed": stamp(item),
                }
            )


def _picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def _mask() -> Image.Image:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[8:24] = 1
    return Image.fromarray(labels)


def _named(folder: Path, names: Sequence[str], picture: Image.Image, suffix: str) -> None:
    """Save a picture under many names, by links where the file system has them."""
    folder.mkdir(parents=True)
    source = folder
    for number, name in enumerate(names):
        file = folder / f"{name}{suffix}"
        if number % _LINKS == 0:
            picture.save(file)
            source = file
            continue
        try:
            os.link(source, file)
        except OSError:
            shutil.copyfile(source, file)


def _write_tags(path: Path, names: Sequence[str], source: str) -> None:
    """Write a tags file as `datasets.tags` does, without holding it."""
    head = {"format": FORMAT, "dataset": COCO.name, "classes": COCO.classes, "source": source}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "tags": {\n')
        separator = ""
        for name, classes in zip(names, drawn_tags(len(names))):
            file.write(f'{separator} "{name}": {json.dumps(classes)}\n')
            separator = ","
        file.write("}}\n")
