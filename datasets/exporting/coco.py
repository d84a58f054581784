"""Label maps as COCO's instances JSON: `instances.json`, written piece by piece.

Objects are compressed run lengths, which hold any shape; with polygons, holes are keyholes. Areas
and boxes are those that pycocotools finds. Numbers of images and annotations count from 1, those of
categories are COCO's own for its classes, else label numbers.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from pycocotools import mask as coder

from datasets.exporting.target import (
    Collector,
    Objects,
    Target,
    copy_photo,
    objects_of,
    photo_name,
)
from datasets.lists import Item, own_name
from datasets.specs import COCO, COCO_IDS, DatasetSpec

FILE = "instances.json"
_PART = "annotations.part"
Outline = dict[str, Any] | list[list[int]]  # run lengths, or polygons


def write(target: Target, item: Item, labels: np.ndarray) -> tuple[dict[str, Any], list[dict]]:
    """Describe a label map (H, W) uint8: its entry and those of its objects, without numbers."""
    options = target.options
    name = own_name(item) if options.keeps_names else photo_name(item)
    if options.copy_images:
        copy_photo(item, target.folder / "images" / name)

    height, width = labels.shape
    found = objects_of(labels, options.objects)
    outlines: Sequence[Outline] = _runs(found)
    if options.polygons:
        outlines = _polygons(found, options.slack)

    categories = category_ids(target.spec)
    entries = [
        {"category_id": categories[label - 1], **_measured(outline, height, width)}
        for label, outline in zip(found.labels.tolist(), outlines)
    ]
    return {"file_name": name, "width": width, "height": height}, entries


def category_ids(spec: DatasetSpec) -> Sequence[int]:
    """Return the category number of each class."""
    if spec.classes == COCO.classes:
        return COCO_IDS
    return range(1, len(spec.classes) + 1)


def _runs(found: Objects) -> list[dict]:
    """Run lengths of each object, not compressed."""
    size = list(found.regions.shape)
    return [{"size": size, "counts": counts} for counts in found.runs()]


def _polygons(found: Objects, tolerance: float) -> list[list[list[int]]]:
    """Return polygons x0, y0, x1, y1, ... px of each object; all corners are corners of pixels."""
    return [
        [ring.astype(int).ravel().tolist() for ring in rings] for rings in found.polygons(tolerance)
    ]


def _measured(outline: Outline, height: int, width: int) -> dict[str, Any]:
    """Return the entries of an annotation that follow from its outline."""
    runs = coder.frPyObjects(outline, height, width)
    if isinstance(outline, list):
        runs = coder.merge(runs)
    else:
        outline = {**runs, "counts": runs["counts"].decode()}

    return {
        "iscrowd": 0,
        "area": int(coder.area(runs)),
        "bbox": coder.toBbox(runs).tolist(),
        "segmentation": outline,
    }


@contextmanager
def gather(target: Target) -> Iterator[Collector]:
    """Write the JSON: images at once, annotations to a file of their own, which is appended."""
    part = target.folder / _PART
    head: dict[str, Any] = {"info": {"description": "label maps as objects"}, "licenses": []}
    head["categories"] = [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in zip(category_ids(target.spec), target.spec.classes)
    ]

    with (target.folder / FILE).open("w+b") as file, part.open("w+b") as objects:
        file.write(f'{json.dumps(head)[:-1]}, "images": ['.encode())
        counted = {"images": 0, "objects": 0}

        def add(item: Item, content: tuple[dict, list[dict]]) -> None:
            """Write the entries of one photo, numbered as they come."""
            image, entries = content
            counted["images"] += 1
            _append(file, counted["images"], image)
            for entry in entries:
                counted["objects"] += 1
                _append(objects, counted["objects"], {"image_id": counted["images"], **entry})

        yield add

        file.write(b'\n], "annotations": [')
        objects.seek(0)
        shutil.copyfileobj(objects, file)
        file.write(b"\n]}\n")
    part.unlink()


def _append(file: BinaryIO, number: int, entry: dict[str, Any]) -> None:
    """Write an entry of a list, with its number, on a line of its own."""
    if number > 1:
        file.write(b",")
    line = json.dumps({"id": number, **entry})
    file.write(f"\n{line}".encode())
