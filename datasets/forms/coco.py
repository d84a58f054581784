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
    """Tell whether a JSON's content is of this form."""
    return isinstance(content, dict) and "images" in content and "categories" in content


def is_empty(content: Any) -> bool:
    """Tell whether a JSON's content is of this form, but lists no image."""
    return is_coco(content) and content["images"] == []


def is_label_studio(content: Any) -> bool:
    """Tell whether Label Studio wrote it, which multiplies shares of the picture as shown by the
    size that the file has before EXIF turns it.
    """
    if not is_coco(content):
        return False
    info = content.get("info")
    return isinstance(info, dict) and info.get("contributor") == "Label Studio"


def read(path: Path, below: str, outlines: bool, relative: bool = False) -> Iterator[Row]:
    """Yield the images of a file, whose folder is called `below` in the export. With `relative`,
    its coordinates count as shares of its sizes.

    Raises UserError where the file is malformed or of another kind of COCO's.
    """
    for image in read_instances(path, outlines):
        size: tuple[int, int] | None = None
        if image.height and image.width:
            size = (image.height, image.width)
        shares = None
        if relative:
            shares = size
            size = None

        yield row_of(
            f"{path}, image {image.file}",
            (below + image.file, image.file, image.before),
            [Region(shape.category, _pixels(shape, shares)) for shape in image.shapes],
            size,
        )


def _pixels(shape: Shape, shares: tuple[int, int] | None) -> Pixels | None:
    """Return the function for the pixels of an annotation; None of one with a box alone."""
    if isinstance(shape.outline, dict):
        return partial(run_pixels, shape.outline)
    if shares is None or not isinstance(shape.outline, list):
        return outline(shape.outline or [])
    polygons = [polygon.reshape(-1, 2) / shares[::-1] for polygon in shape.outline]
    return outline(polygons, relative=True)
