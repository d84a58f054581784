"""XML of one picture: PASCAL VOC's boxes, and the outlines of the old LabelMe, as CVAT writes
them.
"""

from pathlib import Path, PurePath
from xml.etree.ElementTree import Element

import numpy as np

from datasets.forms.shapes import outline
from datasets.rows import Pixels, Region, Row, called_by_place, row_of
from datasets.voc_xml import text_at
from utils.common.errors import UserError
from utils.common.files import is_set

TAG = "annotation"  # of the root
BOXES = "Annotations"  # folder of these files
PICTURES = "JPEGImages"  # folder of their pictures
_SIZES = (("size/height", "size/width"), ("imagesize/nrows", "imagesize/ncols"))


def read(path: Path, root: Element, below: PurePath) -> Row:
    """Return the objects of a file whose root is <annotation>, which is called `below` in its
    folder.

    Its picture has its name, or the name that it says. Raises UserError where a number is none.
    """
    *places, name = called_by_place(below.with_suffix(""), BOXES, PICTURES)
    called = (*places, text_at(root, "filename"), name)
    objects = [each for each in root.findall("object") if not is_set(text_at(each, "deleted"))]

    try:
        regions = [Region(text_at(each, "name"), _pixels(each)) for each in objects]
        sides = next(((h, w) for h, w in _SIZES if text_at(root, h) and text_at(root, w)), None)
        size = sides and (int(float(text_at(root, sides[0]))), int(float(text_at(root, sides[1]))))
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} has a malformed number ({error}); export it again") from error

    return row_of(str(path), called, regions, size or None)


def _pixels(element: Element) -> Pixels | None:
    points = [
        (float(text_at(p, "x")), float(text_at(p, "y"))) for p in element.findall("polygon/pt")
    ]
    is_box = text_at(element, "type") == "bounding_box"
    if is_box:
        return None
    return outline([np.array(points)])
