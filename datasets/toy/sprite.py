"""From a drawing to pixels: pose, tones, pattern, light and outline of one object."""

import colorsys
import math
from dataclasses import dataclass

import numpy as np

from datasets.toy.pen import Pen
from datasets.toy.shapes import Hsv, Shape
from datasets.toy.textures import cut
from utils.common.opencv import cv2

_USUAL = 0.85  # share of objects in their class's usual colours and patterns
_ANY_PATTERN = ("plain", "grain", "blotch", "stripe", "dots", "check", "cloud")
_FINE = 2  # drawn this many times larger, then averaged down
_BITS = 4  # fractional bits of polygon corners


_FIXED: dict[str, Hsv] = {
    "lips": (0, 0.6, 0.7),
    "horn": (42, 0.2, 0.85),
    "white": (40, 0.04, 0.96),
    "lamp": (50, 0.6, 0.98),
    "red": (0, 0.85, 0.8),
}


@dataclass(frozen=True)
class Sprite:
    """One object on nothing: `colour` (h, w, 3) float32 0-255 already times `alpha`; `alpha` (h, w)
    float32 0-1.
    """

    colour: np.ndarray
    alpha: np.ndarray


def rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Return RGB 0-255 of a hue in degrees and a saturation and value that are cut to 0-1."""
    saturation = min(max(saturation, 0.0), 1.0)
    value = min(max(value, 0.0), 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def _near(pen: Pen, hsv: Hsv) -> Hsv:
    """Draw a tone close to the given one."""
    return hsv[0] + pen.vary(-10, 10), hsv[1] * pen.vary(0.75, 1.15), hsv[2] * pen.vary(0.82, 1.12)


def _tones(pen: Pen, shape: Shape, usual: bool) -> dict[str, Hsv]:
    """Draw every tone a drawing may name, as HSV."""
    if usual:
        body = _near(pen, pen.pick(shape.bodies))
        accent = _near(pen, pen.pick(shape.accents))
    else:
        body = (pen.vary(0, 360), pen.vary(0.2, 0.9), pen.vary(0.35, 0.95))
        accent = (body[0] + pen.vary(60, 300), pen.vary(0.2, 0.9), pen.vary(0.25, 0.95))

    leaf = (pen.vary(85, 140), pen.vary(0.5, 0.8), pen.vary(0.45, 0.75))
    skin = (pen.vary(18, 28), pen.vary(0.3, 0.6))
    varied: dict[str, Hsv] = {
        "body": body,
        "accent": accent,
        "breast": (body[0], 0.3 * body[1], 0.6 * body[2] + 0.38),
        "wood": _near(pen, (26, 0.62, 0.55)),
        "cloth": pen.pick(((40, 0.04, 0.95), accent)),
        "leaf": leaf,
        "pot": pen.pick((body, (14, 0.7, 0.68))),
        "skin": (*skin, pen.vary(0.45, 0.92)),
        "hair": (pen.vary(15, 40), pen.vary(0.2, 0.7), pen.vary(0.08, 0.65)),
        "mane": (20, 0.4, pen.vary(0.08, 0.25)),
        "face": (30, 0.15, pen.vary(0.1, 0.2)),
        "beak": (pen.vary(30, 48), 0.85, 0.92),
        "pink": (pen.vary(350, 366), 0.38, 0.92),
        "cat_eye": (pen.vary(60, 130), 0.7, 0.85),
        "collar": _near(pen, (0, 0.85, 0.8)),
        "dark": (0, 0.1, pen.vary(0.07, 0.17)),
        "tyre": (0, 0.04, pen.vary(0.08, 0.18)),
        "case": (0, 0.0, pen.vary(0.08, 0.3)),
        "metal": (215, 0.06, pen.vary(0.5, 0.8)),
        "steel": (215, 0.08, pen.vary(0.3, 0.5)),
        "disc": (50, pen.vary(0.04, 0.2), pen.vary(0.75, 0.92)),
        "glass": (pen.vary(195, 215), pen.vary(0.15, 0.45), pen.vary(0.6, 0.9)),
        "sail": (45, pen.vary(0.02, 0.12), 0.95),
        "label": (45, pen.vary(0.05, 0.25), 0.93),
        "screen": (pen.vary(180, 230), pen.vary(0.4, 0.8), pen.vary(0.75, 0.98)),
        "scenery": (pen.vary(80, 150), 0.65, pen.vary(0.45, 0.8)),
    }
    return _FIXED | varied


def _tone(tones: dict[str, Hsv], name: str) -> tuple[float, ...]:
    """Return RGB 0-255 of a tone; `x_dark` and `x_light` are shades of x."""
    if name in tones:
        return rgb(*tones[name])
    base, _, shade = name.partition("_")
    hue, saturation, value = tones[base]
    if shade == "dark":
        return rgb(hue, saturation, 0.7 * value)
    return rgb(hue, 0.8 * saturation, 1.15 * value + 0.04)


def _pose(pen: Pen, tilt: float) -> np.ndarray:
    """Draw a (2, 2) map of row vectors: mirror, stretch, shear, small rotation."""
    angle = math.radians(pen.rng.normal(0, tilt))
    mirror = pen.pick((-1, 1))
    stretch = pen.vary(0.87, 1.15)
    shear = pen.vary(-0.12, 0.12)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.array([[mirror * stretch, 0.0], [shear, 1.0 / stretch]]) @ turn


def paint(rng: np.random.Generator, shape: Shape, size: float) -> Sprite:
    """Draw one object of a class in a random pose and dress, its longer side about `size` pixels.

    Drawn at twice the size and averaged, so that its borders are smooth; a dark outline and shading
    from above keep it apart from any background.
    """
    pen = Pen(rng)
    shape.draw(pen)
    pose = _pose(pen, shape.tilt)
    usual = pen.chance(_USUAL)
    tones = _tones(pen, shape, usual)
    patterns = shape.patterns if usual else _ANY_PATTERN
    pattern = pen.pick(patterns)

    index, names = _rasterise(pen.parts, pose, size)
    height = index.shape[0] // _FINE
    width = index.shape[1] // _FINE
    palette = np.zeros((256, 4), np.uint8)

    for label, name in enumerate(names, start=1):
        palette[label] = (*_tone(tones, name), 255)

    fine = palette.view(np.uint32)[:, 0][index].view(np.uint8).reshape(*index.shape, 4)
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    border = cv2.morphologyEx(index, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    ink = cv2.resize(border.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_AREA)
    light = 1 + pen.vary(0.05, 0.17) * cut(
        rng, pattern, height, width, pen.vary(0.8, 1.6) * size / 110
    )
    light += np.linspace(pen.vary(0.03, 0.2), pen.vary(-0.25, 0), height, dtype=np.float32)[:, None]
    light *= 1 - pen.vary(0.25, 0.6) / 255 * ink.astype(np.float32)
    alpha = coarse[..., 3] / 255

    return Sprite(np.minimum(coarse[..., :3] * light[..., None], 255 * alpha[..., None]), alpha)


def _rasterise(
    parts: list[tuple[np.ndarray, str]], pose: np.ndarray, size: float
) -> tuple[np.ndarray, list[str]]:
    """Return a (h, w) uint8 map of tone numbers (0 nothing) at `_FINE` times the size, and the
    names of tones 1, 2, ...
    """
    placed = np.concatenate([points for points, _ in parts]) @ pose
    low = placed.min(axis=0)
    high = placed.max(axis=0)
    zoom = _FINE * size / (high - low).max()
    width, height = (np.ceil((high - low) * zoom / _FINE).astype(int) + 2) * _FINE
    index = np.zeros((height, width), np.uint8)
    corners = np.rint(((placed - low) * zoom + _FINE) * (1 << _BITS)).astype(np.int32)
    numbers: dict[str, int] = {}
    start = 0

    for points, tone in parts:
        stop = start + len(points)
        number = numbers.setdefault(tone, len(numbers) + 1)
        cv2.fillPoly(index, [corners[start:stop]], number, cv2.LINE_8, _BITS)
        start = stop

    return index, list(numbers)
