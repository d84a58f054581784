"""Label maps as LabelMe's JSON, one per photo, with polygons.

Vertices lie a quarter of a pixel inside their region. So does what LabelMe makes of a polygon,
which rounds coordinates down and draws the outline too: with a tolerance of 0, it has the same
pixels.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import numpy as np

from datasets.exporting.target import INSET, Collector, Target, copy_photo, objects_of, photo_name
from datasets.lists import Item
from utils.common.files import encoded, write_whole

VERSION = "5.0.0"  # since then, LabelMe's form has not changed in what is written here


def write(target: Target, item: Item, labels: np.ndarray) -> None:
    """Write the JSON of a label map (H, W) uint8."""
    options = target.options
    found = objects_of(labels, options.objects)
    shapes = []
    for number, (label, polygons) in enumerate(
        zip(found.labels.tolist(), found.polygons(options.slack, INSET)), 1
    ):
        group = number if len(polygons) > 1 else None
        shapes += [
            {
                "label": target.spec.label_names[label],
                "points": ring.tolist(),
                "group_id": group,
                "shape_type": "polygon",
                "flags": {},
            }
            for ring in polygons
        ]

    content = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": _photo(target, item),
        "imageData": None,
        "imageHeight": labels.shape[0],
        "imageWidth": labels.shape[1],
    }
    text = json.dumps(content, ensure_ascii=False)
    write_whole(target.folder / f"{item.name}.json", encoded(text))


def _photo(target: Target, item: Item) -> str:
    """Say where the photo lies, as seen from the JSON; whole where there is no such path."""
    if target.options.copy_images:
        copy_photo(item, target.folder / photo_name(item))
        return photo_name(item).rpartition("/")[2]

    photo = item.image.absolute()
    place = (target.final / item.name).absolute().parent
    try:
        return Path(os.path.relpath(photo, place)).as_posix()
    except ValueError:  # on another drive
        return PurePath(photo).as_posix()


@contextmanager
def gather(target: Target) -> Iterator[Collector]:
    """Write nothing more: every photo has a file of its own."""
    yield lambda item, content: None
