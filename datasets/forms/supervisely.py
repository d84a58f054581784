"""Supervisely's project: meta.json, and in each data set's folder `ann` a JSON per picture."""

import base64
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.folders import files_below
from datasets.forms.shapes import outline, patch, png_pixels
from datasets.rows import Pixels, Region, Row, called_by_place, row_of
from datasets.tables import key_of
from utils.common.errors import UserError
from utils.common.files import read_json

_MOST = 1 << 28  # bytes of a bitmap without its compression


def found(folder: Path) -> Path | None:
    """Return the meta.json of a project's folder; None where it is none."""
    meta = folder / "meta.json"
    if meta.is_file() and "classes" in read_json(meta, kinds=(dict, list)):
        return meta
    return None


def read(meta: Path, classes: Sequence[str]) -> Iterator[Row]:
    """Yield the annotated pictures of a project. Tags of pictures count where they are names of
    classes.

    Raises UserError where a file is malformed.
    """
    folder = meta.parent
    below = files_below(folder, (".json",)).files
    files = [file for file in below if file.parent.name == "ann"]
    if not files:
        raise UserError(f"{meta} has no folder `ann` of annotations below it; name the project")

    known = {key_of(name) for name in classes}
    for file in files:
        yield _row(file, file.relative_to(folder), known)


def _row(file: Path, below: Path, known: set[str]) -> Row:
    content = read_json(file)
    called = called_by_place(below.with_suffix(""), "ann", "img")
    try:
        sides = content.get("size") or {}
        size = None
        if sides:
            size = (int(sides["height"]), int(sides["width"]))
        regions = [
            Region(str(each["classTitle"]), _pixels(each)) for each in content.get("objects", [])
        ]
        tags = [_tag(tag) for tag in content.get("tags", [])]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{file} is no annotation of Supervisely ({type(error).__name__}: {error}); "
            "export it again"
        ) from error

    return row_of(str(file), called, regions, size, [tag for tag in tags if key_of(tag) in known])


def _tag(tag: Any) -> str:
    """Return the name of a tag, which is the tag itself or stands in it."""
    if isinstance(tag, dict):
        tag = tag["name"]
    return str(tag)


def _pixels(each: dict) -> Pixels | None:
    points = each.get("points") or {}
    bitmap = each.get("bitmap")
    kind = each.get("type", "polygon")
    if bitmap:
        kind = "bitmap"
    kind = each.get("geometryType") or kind

    if kind in ("bitmap", "alpha_mask"):
        bitmap = bitmap or each[kind]
        left, top = (int(side) for side in bitmap["origin"])
        return patch(top, left, partial(_bitmap, str(bitmap["data"])))
    if kind == "polygon":
        return outline([points["exterior"]], points.get("interior") or ())
    return None


def _bitmap(text: str) -> np.ndarray:
    """Read a PNG in base64, mostly compressed once more."""
    content = base64.b64decode(text)
    if content.startswith(b"\x89PNG"):
        return png_pixels(content)
    try:
        return png_pixels(zlib.decompressobj().decompress(content, _MOST))
    except zlib.error as error:
        raise ValueError(str(error)) from error
