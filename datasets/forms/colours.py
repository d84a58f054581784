"""Masks in colours with a list of what they mean, labelmap.txt, as CVAT's "Segmentation mask", and
its "PASCAL VOC", which has boxes beside them.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from datasets.folders import files_below
from datasets.forms import voc
from datasets.forms.voc_lists import LABEL_MAP, joined, listed_below
from datasets.pictures import open_image
from datasets.rows import Region, Row, called_by_place, row_of
from datasets.specs import palette
from datasets.voc_xml import parsed_xml
from utils.common.errors import UserError
from utils.common.files import decoded_text

_FOLDER = "SegmentationClass"
_VOC = (voc.BOXES, voc.PICTURES)  # beside these, masks lie in their own folder alone
_NUMBERS = (1 << np.arange(0, 24, 8)).astype(np.int64)  # of r, g, b: one number per colour


def found(folder: Path) -> Path | None:
    """Return the list of colours of a folder of masks; None where it has no list, or no mask, as
    CVAT's "PASCAL VOC" of boxes alone.
    """
    listed = folder / LABEL_MAP
    if listed.is_file() and _masks(folder):
        return listed
    return None


def read(listed: Path) -> Iterator[Row]:
    """Yield the pictures of a list of colours: of a mask a region per class that is seen. Classes
    that VOC's XML and lists beside the masks name are added.

    Raises UserError where the list is malformed, or a mask is broken or has another colour.
    """
    colours = _colours(listed)
    folder = listed.parent
    masks = _masks(folder)
    rows = joined(_boxed(folder), listed_below(folder))
    tagged = {row.called[0]: row for row in rows}

    for name, file in masks.items():
        image = open_image(file).decoded()
        called = called_by_place(PurePath(_FOLDER, name), _FOLDER, voc.PICTURES)
        more: Sequence[str] = ()
        if called[0] in tagged:
            more = tagged.pop(called[0]).words
        yield row_of(str(file), called, _regions(file, image, colours), image.size[::-1], more)

    yield from tagged.values()


def _masks(folder: Path) -> dict[str, Path]:
    """Return the masks of an export by name."""
    if (folder / _FOLDER).is_dir():
        folder /= _FOLDER
    elif any((folder / name).is_dir() for name in _VOC):
        return {}
    files = files_below(folder, (".png",)).files
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _boxed(folder: Path) -> Iterator[Row]:
    """Yield what VOC's XML in an export says."""
    for file in files_below(folder / voc.BOXES, (".xml",)).files:
        root = parsed_xml(file)
        if root.tag == voc.TAG:
            yield voc.read(file, root, file.relative_to(folder))


def _regions(file: Path, image: Image.Image, colours: dict[int, str]) -> list[Region]:
    numbers = np.array(image).astype(np.int64) @ _NUMBERS
    shown = np.unique(numbers).tolist()
    strange = next((number for number in shown if number not in colours), None)
    if strange is not None:
        red, green, blue = strange & 255, strange >> 8 & 255, strange >> 16
        raise UserError(
            f"{file} has the colour {red},{green},{blue}, which {LABEL_MAP} lacks; add it"
        )
    return [Region(colours[number], partial(_same, numbers, number)) for number in shown]


def _same(numbers: np.ndarray, number: int, height: int, width: int, place: str) -> np.ndarray:
    if numbers.shape != (height, width):
        raise UserError(f"{place} is no mask of {width} x {height} pixels; export it again")
    return numbers == number


def _colours(listed: Path) -> dict[int, str]:
    """Return the classes by the number of their colour, of lines NAME:R,G,B:PARTS:ACTIONS. Without
    colours, they have those of VOC in the order of lines.
    """
    colours: dict[int, str] = {}
    in_order = palette()
    lines = decoded_text(listed, listed.read_bytes()).splitlines()

    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, rgb = line.split(":")[:2]
            if rgb:
                colour = np.array(rgb.split(","), np.int64)
            else:
                colour = np.array(in_order[len(colours)], np.int64)
            colours[int(colour @ _NUMBERS)] = name.strip()
        except (ValueError, IndexError, OverflowError):
            raise UserError(
                f"{listed}, line {number} is {line!r:.60}; write it as cat:255,0,0::"
            ) from None

    return colours
