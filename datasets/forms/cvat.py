"""CVAT's own XML, in the form "CVAT for images"."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from datasets.forms.shapes import counted_runs, ellipse, outline, patch
from datasets.rows import Pixels, Region, Row, row_of
from utils.common.errors import UserError

_OBJECTS = ("polygon", "mask", "ellipse", "box", "polyline", "points", "cuboid", "skeleton", "tag")


def read(path: Path, root: Element) -> Iterator[Row]:
    """Yield the images of a file whose root is <annotations>.

    Raises UserError where it is of a video or of another version, or an object is malformed.
    """
    version = root.findtext("version", "").strip()
    if version.partition(".")[0] not in ("", "1"):
        raise UserError(
            f"{path} is of version {version} of CVAT's XML; export it as CVAT for images 1.1"
        )
    if root.find("track") is not None:
        raise UserError(f"{path} is CVAT's form for video; export it as CVAT for images 1.1")

    for image in root.findall("image"):
        name = image.get("name", "")
        place = f"{path}, image {name}"
        sides = (image.get("height"), image.get("width"))
        try:
            size = None
            if None not in sides:
                size = (int(float(str(sides[0]))), int(float(str(sides[1]))))
            regions = [_region(each) for each in image if each.tag in _OBJECTS]
        except (KeyError, ValueError, OverflowError) as error:
            raise UserError(
                f"{place} has an attribute that is missing or malformed ({error}); export it again"
            ) from error
        below = image.get("subset", "")
        if below:
            below = f"{below}/{name}"
        yield row_of(place, (below, name), regions, size)


def _region(element: Element) -> Region:
    shapes = {"polygon": _polygon, "mask": _mask, "ellipse": _ellipse}
    pixels = None
    if element.tag in shapes:
        pixels = shapes[element.tag](element.attrib)
    return Region(element.attrib["label"].strip(), pixels)


def _polygon(given: Mapping[str, str]) -> Pixels | None:
    points = [point.split(",") for point in given["points"].split(";")]
    return outline([np.array(points, np.float64)])


def _ellipse(given: Mapping[str, str]) -> Pixels:
    x, y, rx, ry = (float(given[name]) for name in ("cx", "cy", "rx", "ry"))
    return ellipse(x, y, rx, ry, float(given.get("rotation", 0)))


def _mask(given: Mapping[str, str]) -> Pixels:
    """Run lengths along the rows of a rectangle, of pixels outside first."""
    left, top, width, height = (
        round(float(given[name])) for name in ("left", "top", "width", "height")
    )
    counts = np.array(given["rle"].split(","), np.int64)
    return patch(top, left, partial(counted_runs, counts, height, width))
