"""Masks in colours with a list of what they mean, labelmap.txt, as CVAT's "Segmentation mask"."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from datasets.folders import files_below
from datasets.pictures import open_image
from datasets.rows import Region, Row, row_of
from datasets.specs import palette
from utils.common.errors import UserError
from utils.common.files import decoded_text

LIST = "labelmap.txt"
_FOLDER = "SegmentationClass"
_LISTS = Path("ImageSets") / "Segmentation"
_NUMBERS = (1 << np.arange(0, 24, 8)).astype(np.int64)  # of r, g, b: one number per colour


def found(folder: Path) -> Path | None:
    """Return the list of colours of a folder; None where it has none."""
    listed = folder / LIST
    if not listed.is_file():
        return None
    return listed


def read(listed: Path) -> Iterator[Row]:
    """Yield the masks beside a list of colours: a region per class that is seen.

    Raises UserError where the list is malformed, or a mask is broken or has another colour.
    """
    colours = _colours(listed)
    folder = listed.parent
    if (folder / _FOLDER).is_dir():
        folder /= _FOLDER
    files = files_below(folder, (".png",)).files
    if not files:
        raise UserError(f"{listed} has no PNGs beside it, nor in {_FOLDER}; name the whole export")

    by_name = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
    for name, file in by_name.items():
        image = open_image(file).decoded()
        regions = _regions(file, image, colours)
        yield row_of(str(file), (name, PurePosixPath(name).name), regions, image.size[::-1])

    for name, place in _names(listed.parent / _LISTS).items():
        if name not in by_name:  # CVAT writes no mask of a picture without an object
            yield row_of(place, (name,), [])


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
