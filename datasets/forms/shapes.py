"""Pixels of objects as tools write them: outlines in px or in shares, and small pictures that lie
somewhere in the large one.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from datasets.polygons import polygon_pixels
from datasets.rows import Pixels
from utils.common.errors import UserError

MOST_PIXELS = 1 << 27  # of one object's picture: a few bytes can announce any number
_CORNERS = 64  # of an ellipse as polygon


def outline(
    polygons: Sequence[Any], holes: Sequence[Any] = (), relative: bool = False
) -> Pixels | None:
    """Return the function for the union of polygons less that of holes, each [[x, y], ...] or x0,
    y0, x1, ...; px, or with `relative` shares of width and height. None where no polygon has the
    three points that an area needs.
    """
    if not _have_area(polygons):
        return None
    return partial(_inside, polygons, holes, relative)


def ellipse(
    x: float, y: float, rx: float, ry: float, degrees: float = 0, relative: bool = False
) -> Pixels:
    """Return the function for an ellipse of this centre and these half axes, turned clockwise."""
    turn = np.deg2rad(degrees)
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    along = rx * np.cos(angle)
    across = ry * np.sin(angle)
    xs = x + along * np.cos(turn) - across * np.sin(turn)
    ys = y + along * np.sin(turn) + across * np.cos(turn)
    return partial(_inside, [np.stack([xs, ys], 1)], (), relative)


def patch(top: int, left: int, read: Callable[[], np.ndarray]) -> Pixels:
    """Return the function for a small (h, w) bool picture whose upper left pixel lies there; what
    reaches beyond the picture is cut off.
    """
    return partial(_patched, top, left, read)


def counted_runs(counts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width) bool of run lengths along rows, of pixels outside first. Raises
    ValueError where they do not fill it, or it is larger than MOST_PIXELS.
    """
    fills = 0 <= height * width <= MOST_PIXELS and counts.sum() == height * width
    if (counts < 0).any() or not fills:
        raise ValueError(f"run lengths of {counts.sum()} pixels for {width} x {height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(height, width)


def png_pixels(content: bytes) -> np.ndarray:
    """Return (h, w) bool of a small PNG: where it is opaque if it has transparency, else not black.

    Raises ValueError where it is no PNG, or has more than MOST_PIXELS.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a PNG of {image.width} x {image.height}")
        if image.has_transparency_data:
            return np.array(image.convert("RGBA"))[..., 3] > 0
        values: np.ndarray = np.atleast_3d(np.array(image))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no PNG, {error}") from error

    return np.max(values, axis=2) > 0


def _have_area(polygons: Sequence[Any]) -> bool:
    """Tell whether a polygon has three points; yes of what are none, which drawing refuses."""
    try:
        return any(np.asarray(polygon, np.float64).size >= 6 for polygon in polygons)
    except (TypeError, ValueError, OverflowError):
        return True


def _inside(
    polygons: Sequence[Any],
    holes: Sequence[Any],
    relative: bool,
    height: int,
    width: int,
    place: str,
) -> np.ndarray:
    scale = np.ones(2)
    if relative:
        scale = np.array([width, height], np.float64)

    outer, inner = (_points(group, scale, place) for group in (polygons, holes))
    pixels = polygon_pixels(outer, height, width, place)
    if not pixels.any() and _is_outside(outer, height, width):
        raise UserError(
            f"{place} has a polygon outside the picture of {width} x {height}; correct it"
        )

    return pixels & ~polygon_pixels(inner, height, width, place)


def _points(polygons: Sequence[Any], scale: np.ndarray, place: str) -> list[np.ndarray]:
    """Return x0, y0, x1, y1, ... in px of each polygon."""
    try:
        arrays = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{place} has a polygon that is no list of points ({error}); correct it"
        ) from error
    return [(points * scale).ravel() for points in arrays]


def _is_outside(polygons: Sequence[np.ndarray], height: int, width: int) -> bool:
    """Tell whether no polygon, of at least one point, touches the picture."""
    points = np.concatenate([np.zeros(0), *polygons]).reshape(-1, 2)
    low = points.min(0, initial=np.inf)
    high = points.max(0, initial=-np.inf)
    return len(points) > 0 and bool((high < 0).any() or (low > (width, height)).any())


def _patched(
    top: int, left: int, read: Callable[[], np.ndarray], height: int, width: int, place: str
) -> np.ndarray:
    try:
        small = read()
    except (TypeError, ValueError, OverflowError, IndexError) as error:
        raise UserError(f"{place} has no legible pixels ({error}); export it again") from error

    pixels = np.zeros((height, width), bool)
    up = max(0, top)
    across = max(0, left)
    down = min(height, top + small.shape[0])
    right = min(width, left + small.shape[1])
    if down <= up or right <= across:
        raise UserError(f"{place} lies outside the picture of {width} x {height}; export it again")
    pixels[up:down, across:right] = small[up - top : down - top, across - left : right - left]
    return pixels
