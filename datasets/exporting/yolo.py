"""Label maps as YOLO's segmentation has them: photos in `images`, a text per photo in `labels`, a
line per region, and data.yaml.

A line is the number of the class from 0, then x and y of each vertex as shares of width and height.
Vertices lie a quarter of a pixel inside their region, as of `labelme`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import numpy as np
import yaml

from datasets.exporting.target import (
    INSET,
    Collector,
    Target,
    copy_photo,
    link_photo,
    objects_of,
    photo_name,
)
from datasets.lists import Item
from utils.common.files import write_whole

IMAGES = "images"
LABELS = "labels"


def write(target: Target, item: Item, labels: np.ndarray) -> None:
    """Write the text of a label map (H, W) uint8, and put the photo where readers look for it."""
    photo = PurePosixPath(IMAGES) / photo_name(item)
    put = copy_photo if target.options.copy_images else link_photo
    put(item, target.folder / photo)

    found = objects_of(labels, "regions")
    size = labels.shape[::-1]
    outlines = found.polygons(target.options.slack, INSET)
    lines = [
        _line(label - 1, ring / size)
        for label, rings in zip(found.labels.tolist(), outlines)
        for ring in rings
    ]
    write_whole(target.folder / text_of(photo), "".join(lines).encode())


def text_of(photo: PurePosixPath) -> PurePosixPath:
    """Return where readers look for the text of a photo: the last folder `images` of its path is
    `labels` there.
    """
    parts = list(photo.parts)
    last = max(place for place, part in enumerate(parts[:-1]) if part == IMAGES)
    parts[last] = LABELS
    return PurePosixPath(*parts).with_suffix(".txt")


def _line(number: int, ring: np.ndarray) -> str:
    shares = " ".join(f"{share:.7g}" for share in ring.ravel().tolist())
    return f"{number} {shares}\n"


@contextmanager
def gather(target: Target) -> Iterator[Collector]:
    """Write data.yaml, which names the classes."""
    content = {
        "train": IMAGES,
        "val": IMAGES,  # readers ask for both
        "names": dict(enumerate(target.spec.classes)),
    }
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    note = "# All photos stand in both lists; divide them before a training.\n"
    write_whole(target.folder / "data.yaml", (note + text).encode())
    yield lambda item, content: None
