"""From outlines to pixels: what polygons and run lengths cover, by the rule of COCO.

Coordinates are continuous: pixel (row, column) is the square from (column, row) to (column + 1,
row + 1), and belongs to a polygon if its centre lies inside. The way back is `datasets.outlines`.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coder

from utils.common.errors import UserError


def polygon_pixels(
    polygons: Sequence[np.ndarray], height: int, width: int, place: str
) -> np.ndarray:
    """Find the pixels of the union of polygons, by COCO's own rasteriser.

    Args:
        polygons: x0, y0, x1, y1, ... px each; fewer than three points cover nothing.
        height, width: of the picture, px.
        place: what errors call the outline, such as "annotation 7".

    Returns:
        (H, W) bool.

    Raises:
        UserError: a coordinate is not finite or far outside the picture.
    """
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), bool)

    reach = max(np.abs(polygon).max() for polygon in polygons)
    # the rasteriser's memory grows with the coordinates; nan is not below the limit either
    if not reach <= 2 * max(height, width):
        raise UserError(
            f"{place} reaches to {reach:g} px in an image of {width} x {height}; correct its "
            "polygon"
        )

    runs = coder.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return coder.decode(coder.merge(runs)).astype(bool)


def run_pixels(runs: dict, height: int, width: int, place: str) -> np.ndarray:
    """Find the pixels of run lengths, plain or in COCO's compressed form.

    Args:
        runs: `size` and `counts` as in COCO's JSON.
        height, width, place: as of `polygon_pixels`.

    Returns:
        (H, W) bool.

    Raises:
        UserError: they are no run lengths of this size.
    """
    try:
        if runs["size"] != [height, width]:
            raise ValueError(f"size {runs['size']}")

        if isinstance(runs["counts"], list):
            coded = coder.frPyObjects(runs, height, width)
        else:
            coded = {**runs, "counts": runs["counts"].encode()}
        pixels = coder.decode(coded).astype(bool)

        # the decoder leaves what is beyond the last run as memory happened to be
        total = _run_total(coded["counts"])
        if total != height * width:
            raise ValueError(f"runs of {total} pixels in all")

        return pixels
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(
            f"{place} has no run lengths of {height} x {width} pixels ({error}); correct them"
        ) from error


def _run_total(counts: bytes) -> int:
    """Return the pixels of all runs in COCO's compressed form.

    A run is written in groups of five bits, lowest first, with its sign; the sixth bit says whether
    more follow. From the fourth run on, it is the difference from the run before the last.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends):
        return 0

    codes = codes[: ends[-1] + 1]
    places = np.arange(len(codes))
    run = np.searchsorted(ends, places)
    shift = 5 * (places - np.concatenate([[0], ends[:-1] + 1])[run])
    values = np.zeros(len(ends), np.int64)
    np.add.at(values, run, (codes & 31) << shift)
    negative = codes[ends] & 16 != 0
    values[negative] -= np.int64(32) << shift[ends[negative]]

    inside = np.cumsum(values[1::2])
    outside = np.cumsum(values[2::2])
    return int(values[0] + inside.sum() + outside.sum())
