"""Masks in colours with a list of what they mean, labelmap.txt, as CVAT's "Segmentation mask"."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.folders import files_below
from datasets.pictures import open_image
from datasets.rows import Region, Row, row_of
from utils.common.errors import UserError
from utils.common.files import decoded_text

LIST = "labelmap.txt"
_FOLDER = "SegmentationClass"
_NUMBERS = (1 << np.arange(0, 24, 8)).astype(np.int64)  # of r, g, b: one number per colour


def found(folder: Path) -> Path | None:
    """The list of colours of a folder; None where it has none."""
    return folder / LIST if (folder / LIST).is_file() else None


def read(listed: Path) -> Iterator[Row]:
    """The masks beside a list of colours: a region per class that is seen.

    Raises UserError where the list is malformed, or a mask is broken or has another colour.
    """
    colours = _colours(listed)
    folder = listed.parent / _FOLDER
    files = files_below(folder, (".png",)).files if folder.is_dir() else []
    if not files:
        raise UserError(f"{listed} has no {_FOLDER} with PNGs beside it; name the whole export")

    for file in files:
        below = file.relative_to(folder).with_suffix("")
        image = open_image(file).decoded()
        regions = _regions(file, image, colours)
        yield row_of(str(file), (below.as_posix(), below.name), regions, image.size[::-1])


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
    """Classes by the number of their colour, of lines NAME:R,G,B:PARTS:ACTIONS."""
    colours = {}
    lines = decoded_text(listed, listed.read_bytes()).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, rgb = line.split(":")[:2]
            colour = np.array(rgb.split(","), np.int64)
            colours[int(colour @ _NUMBERS)] = name.strip()
        except ValueError:
            raise UserError(
                f"{listed}, line {number} is {line!r:.60}; write it as cat:255,0,0::"
            ) from None
    return colours
