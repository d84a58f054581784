"""Exports of annotation tools as tests write them, and what is read of them."""

import json
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.annotations import matched, tags_of_file
from datasets.pictures import open_image
from datasets.prepare.drawn import labels_of
from datasets.specs import DatasetSpec

SPEC = DatasetSpec("custom", ("cat", "dog"), ("",) * 2, ())
FILES = [PurePosixPath(name) for name in ("a.jpg", "sub/b.jpg", "c.jpg")]
HEIGHT, WIDTH = 24, 32

CAT = np.zeros((HEIGHT, WIDTH), np.uint8)
CAT[2:18, 2:12] = 1
DOG = np.zeros((HEIGHT, WIDTH), np.uint8)
DOG[4:10, 20:30] = 2
DOG[6:8, 23:26] = 0
HOLED = CAT.copy()
HOLED[4:8, 4:6] = 0


def tags(path: Path, files: list[PurePosixPath] = FILES, root: str | Path = "photos") -> dict:
    """Read the classes of each picture that an export names."""
    found = tags_of_file(path, files, SPEC, [Path(root)])
    return {str(file): sorted(classes) for file, classes in found.items()}


def masks(path: Path, photos: Path, files: list[PurePosixPath] = FILES) -> dict:
    """Draw the labels of each picture that an export names; None of one without a mask."""
    rows = matched(path, files, SPEC, [photos], "--masks", partial=True, outlines=True)
    return {str(f): labels_of(row, open_image(photos / f), SPEC) for f, row in rows}


def written(path: Path, content: object) -> Path:
    """Write a text, or JSON of anything else, below folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def coco(**more: object) -> dict:
    """Return COCO's JSON of one picture without an object."""
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH, **more}],
        "categories": [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "pets"},
            {"id": 2, "name": "dog", "supercategory": "pets"},
        ],
        "annotations": [],
    }


def object_of(category: int, outline: object, **more: object) -> dict:
    """Return an annotation of that picture."""
    return {"id": 1, "image_id": 0, "category_id": category, "segmentation": outline, **more}


def task(name: str, *results: dict) -> dict:
    """Return one of Label Studio's tasks, of a picture of 32 x 24 px that was annotated once."""
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    return {"data": {"image": name}, "annotations": [{"result": [size | one for one in results]}]}


def xml(inside: str, version: str = "1.1") -> str:
    """Return CVAT's XML of what stands inside."""
    return f"<annotations><version>{version}</version>{inside}</annotations>"


def cvat(inside: str, size: str = "width='32' height='24'") -> str:
    """Return CVAT's XML of one picture."""
    return xml(f"<image name='a.jpg' {size}>{inside}</image>")
