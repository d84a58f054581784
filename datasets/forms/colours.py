"""Masks in colours with a list of what they mean, labelmap.txt, as CVAT's "Segmentation mask", and
its "PASCAL VOC", which has boxes beside them.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from datasets.folders import files_below
from datasets.forms import voc
from datasets.pictures import open_image
from datasets.rows import Region, Row, called_by_place, row_of
from datasets.specs import palette
from datasets.voc_xml import parsed_xml
from utils.common.errors import UserError
from utils.common.files import decoded_text

LIST = "labelmap.txt"
_FOLDER = "SegmentationClass"
_LISTS = Path("ImageSets") / "Segmentation"
_BOXES = "Annotations"
_PICTURES = "JPEGImages"
_VOC = (_BOXES, _PICTURES)  # beside these, masks lie in their own folder alone
_NUMBERS = (1 << np.arange(0, 24, 8)).astype(np.int64)  # of r, g, b: one number per colour


def found(folder: Path) -> Path | None:
    """Return the list of colours of a folder of masks; None where it has no list, or no mask, as
    CVAT's "PASCAL VOC" of boxes alone.
    """
    listed = folder / LIST
    if listed.is_file() and _masks(folder):
        return listed
    return None


def read(listed: Path) -> Iterator[Row]:
    """Yield the pictures of a list of colours: of a mask a region per class that is seen. Classes
    of boxes in VOC's XML beside the masks are added.

    Raises UserError where the list is malformed, or a mask is broken or has another colour.
    """
    colours = _colours(listed)
    folder = listed.parent
    masks = _masks(folder)
    boxed = _boxed(folder / _BOXES)

    for name, file in masks.items():
        image = open_image(file).decoded()
        called = called_by_place(PurePath(_FOLDER, name), _FOLDER, _PICTURES)
        more = boxed[name].words if name in boxed else ()
        yield row_of(str(file), called, _regions(file, image, colours), image.size[::-1], more)

    yield from (row for name, row in boxed.items() if name not in masks)
    for name, place in _names(folder / _LISTS).items():
        # CVAT writes no mask and no XML of a picture without an object
        if name not in masks and name not in boxed:
            yield row_of(place, (name,), [])


def _masks(folder: Path) -> dict[str, Path]:
    """Return the masks of an export by name."""
    if (folder / _FOLDER).is_dir():
        folder /= _FOLDER
    elif any((folder / name).is_dir() for name in _VOC):
        return {}
    files = files_below(folder, (".png",)).files
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _boxed(folder: Path) -> dict[str, Row]:
    """Return what VOC's XML below a folder says, by the file's path without suffix."""
    rows = {}
    for file in files_below(folder, (".xml",)).files:
        below = file.relative_to(folder)
        root = parsed_xml(file)
        if root.tag == voc.TAG:
            rows[below.with_suffix("").as_posix()] = voc.read(file, root, below)
    return rows


def _names(folder: Path) -> dict[str, str]:
    """Return the place of each name that the lists of a folder have, by name."""
    names: dict[str, str] = {}
    for file in sorted(folder.glob("*.txt")):
        lines = decoded_text(file, file.read_bytes()).splitlines()
        names |= {line.strip(): f"{file}, {line.strip()}" for line in lines if line.strip()}
    return names


def _regions(file: Path, image: Image.Image, colours: dict[int, str]) -> list[Region]:
    numbers = np.array(image).astype(np.int64) @ _NUMBERS
    shown = np.unique(numbers).tolist()
    strange = next((number for number in shown if number not in colours), None)
    if strange is not None:
        red, green, blue = strange & 255, strange >> 8 & 255, strange >> 16
        raise UserError(f"{file} has the colour {red},{green},{blue}, which {LIST} lacks; add it")
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
