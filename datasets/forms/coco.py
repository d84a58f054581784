"""COCO's instances JSON with one's own classes, as CVAT, Label Studio, Roboflow and others write
it.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datasets.coco_json import Shape, read_instances
from datasets.forms.shapes import outline
from datasets.polygons import run_pixels
from datasets.rows import Pixels, Region, Row, row_of


def is_coco(content: Any) -> bool:
    """Whether a JSON's content is of this form."""
    return isinstance(content, dict) and "images" in content and "categories" in content


def read(path: Path, below: str, outlines: bool) -> Iterator[Row]:
    """The images of a file, whose folder is called `below` in the export.

    Raises UserError where the file is malformed or of another kind of COCO's.
    """
    for image in read_instances(path, outlines):
        yield row_of(
            f"{path}, image {image.file}",
            (below + image.file, image.file, image.before),
            [Region(shape.category, _pixels(shape)) for shape in image.shapes],
            (image.height, image.width) if image.height and image.width else None,
        )


def _pixels(shape: Shape) -> Pixels | None:
    """The function for the pixels of an annotation; None of one with a box alone."""
    if isinstance(shape.outline, dict):
        return partial(run_pixels, shape.outline)
    return outline(shape.outline) if shape.outline else None
