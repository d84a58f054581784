"""LabelMe's JSON beside each picture, of every version."""

import base64
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from posixpath import join, normpath
from typing import Any

import numpy as np

from datasets.forms.shapes import ellipse, outline, patch, png_pixels
from datasets.rows import Pixels, Region, Row, row_of
from datasets.tables import key_of
from utils.common.errors import UserError


def is_labelme(content: Any) -> bool:
    """Tell whether a JSON's content is of this form."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read(path: Path, content: dict, below: str, classes: Sequence[str]) -> Iterator[Row]:
    """Yield the one picture of a file. Its flags count where they are names of classes.

    Raises UserError where a shape is malformed.
    """
    picture = str(content.get("imagePath") or "").replace("\\", "/")
    stem = below + path.stem
    beside = ""
    if picture:
        beside = normpath(join(below, picture))
    called = (beside, picture.rpartition("/")[2], stem)
    known = {key_of(name) for name in classes}
    flags = content.get("flags") or {}
    if not isinstance(flags, dict):
        raise UserError(f"{path} has flags {flags!r:.40}, no object; save it with LabelMe again")

    yield row_of(
        str(path),
        called,
        [_region(path, number, shape) for number, shape in enumerate(content["shapes"], 1)],
        _size(path, content),
        [name for name, is_on in flags.items() if is_on is True and key_of(name) in known],
    )


def _size(path: Path, content: dict) -> tuple[int, int] | None:
    """Return (height, width), which old versions do not tell."""
    height = content.get("imageHeight")
    width = content.get("imageWidth")
    if height is None or width is None:
        return None
    try:
        return int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path} has the size {width!r:.20} x {height!r:.20}; save it with LabelMe again"
        ) from None


def _region(path: Path, number: int, shape: Any) -> Region:
    try:
        return Region(str(shape["label"]), _pixels(shape))
    except (KeyError, TypeError, ValueError, OverflowError, IndexError, AttributeError) as error:
        raise UserError(
            f"{path}, shape {number} is malformed ({type(error).__name__}: {error}); correct it "
            "in LabelMe"
        ) from error


def _pixels(shape: dict) -> Pixels | None:
    kind = shape.get("shape_type") or "polygon"  # old versions had no other
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind == "polygon":
        return outline([points])
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        return ellipse(x, y, radius, radius)
    if kind == "mask":
        left, top = points[0].round().astype(int).tolist()
        return patch(top, left, partial(_mask, str(shape["mask"])))
    return None


def _mask(text: str) -> np.ndarray:
    return png_pixels(base64.b64decode(text))
