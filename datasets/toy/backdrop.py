"""Textured backgrounds of two zones (and a skyline), and small shapes of no class that clutter
them.
"""

from dataclasses import dataclass

import numpy as np

from datasets.toy.pen import Pen
from datasets.toy.shapes import Hsv
from datasets.toy.sprite import rgb
from datasets.toy.textures import bank, cut
from utils.common.opencv import cv2


@dataclass(frozen=True)
class Stuff:
    """A background word that is drawn: usual tone (HSV), pattern, whether it lies in the upper
    zone, and the share of its brightness that the pattern moves.
    """

    tone: Hsv
    pattern: str
    upper: bool
    strength: float = 0.17


STUFF = {
    "sky": Stuff((212, 0.45, 0.9), "cloud", True, 0.09),
    "wall": Stuff((38, 0.25, 0.72), "brick", True),
    "tree": Stuff((112, 0.6, 0.36), "blotch", True, 0.24),
    "building": Stuff((24, 0.18, 0.55), "window", True),
    "mountain": Stuff((245, 0.2, 0.46), "crag", True, 0.2),
    "grass": Stuff((95, 0.62, 0.56), "grain", False),
    "ground": Stuff((30, 0.48, 0.52), "blotch", False),
    "road": Stuff((220, 0.04, 0.4), "grain", False, 0.1),
    "water": Stuff((200, 0.62, 0.6), "wave", False, 0.14),
    "rock": Stuff((20, 0.08, 0.5), "crag", False, 0.26),
    "railroad": Stuff((26, 0.2, 0.42), "sleeper", False),
}
WORDS = tuple(STUFF)
_UPPER = tuple(word for word in WORDS if STUFF[word].upper)
_LOWER = tuple(word for word in WORDS if not STUFF[word].upper)
_SKYLINE = ("tree", "building", "mountain")  # may stand in front of the sky
CLUTTER = 255  # number of pixels of `Backdrop.stuff` that distractors hide


@dataclass(frozen=True)
class Backdrop:
    """`image` (H, W, 3) float32 about 0-255; `stuff` (H, W) uint8: number in WORDS, or CLUTTER."""

    image: np.ndarray
    stuff: np.ndarray


def backdrop(
    rng: np.random.Generator, height: int, width: int, home: str | None = None
) -> Backdrop:
    """Draw a background whose zone is `home` (a word of STUFF) or anything, with 0-3 shapes of no
    class in front.
    """
    pen = Pen(rng)
    upper = home if home in _UPPER else pen.pick(_UPPER)
    lower = home if home in _LOWER else pen.pick(_LOWER)
    horizon = _horizon(pen, height, width, home)
    image = np.zeros((height, width, 3), np.float32)
    stuff = np.zeros((height, width), np.uint8)
    rows = np.arange(height, dtype=np.float32)[:, None]

    _fill(rng, image, stuff, upper, None)
    likely = 1.0 if upper == "mountain" else 0.5
    if upper in _SKYLINE and pen.chance(likely):
        _fill(
            rng,
            image,
            stuff,
            "sky",
            rows < _skyline(pen, upper, height, width, float(horizon.mean())),
        )

    if horizon.min() < height:
        _fill(rng, image, stuff, lower, rows >= horizon)

    for _ in range(int(rng.integers(0, 4))):
        _distract(pen, image, stuff)

    return Backdrop(image, stuff)


def _horizon(pen: Pen, height: int, width: int, home: str | None) -> np.ndarray:
    """Draw the (W,) row where the lower zone starts in each column; now and then one zone fills the
    picture.
    """
    level = pen.vary(0.3, 0.7)
    kind = pen.rng.random()
    if kind < 0.1 and home not in _LOWER:
        return np.full(width, height, np.float32)
    if kind > 0.9 and home not in _UPPER:
        return np.zeros(width, np.float32)
    bumps = cut(pen.rng, "cloud", 2, width, width / 64)[0]
    slope = np.linspace(-1, 1, width, dtype=np.float32) * pen.vary(-0.05, 0.05)
    return height * (level + slope + pen.vary(0, 0.02) * bumps)


def _skyline(pen: Pen, word: str, height: int, width: int, horizon: float) -> np.ndarray:
    """Draw the (W,) row where the sky ends in each column: peaks, roofs or crowns of trees."""
    knots = 5 if word == "mountain" else 7
    levels = horizon * pen.rng.uniform(0.05, 0.65, knots)
    columns = np.linspace(0, knots - 1, width)
    if word == "building":
        return levels[np.minimum((columns * 0.8).astype(int), knots - 1)]
    line = np.interp(columns, np.arange(knots), levels)
    if word == "tree":
        line = line + 0.05 * height * np.abs(np.sin(columns * 5))
    return line


def _fill(
    rng: np.random.Generator,
    image: np.ndarray,
    stuff: np.ndarray,
    word: str,
    region: np.ndarray | None,
) -> None:
    """Paint one stuff word over the whole picture or a (H, W) region, in place."""
    kind = STUFF[word]
    height, width = stuff.shape
    hue, saturation, value = kind.tone
    colour = rgb(
        hue + rng.uniform(-14, 14),
        saturation * rng.uniform(0.65, 1.25),
        value * rng.uniform(0.75, 1.2),
    )
    zoom = rng.uniform(0.8, 1.8) * min(height, width) / 160
    light = 1 + rng.uniform(0.6, 1.2) * kind.strength * cut(rng, kind.pattern, height, width, zoom)
    layer = light[..., None] * np.array(colour, np.float32)
    if region is None:
        image[:] = layer
        stuff[:] = WORDS.index(word)
        return

    np.copyto(image, layer, where=region[..., None])
    stuff[region] = WORDS.index(word)


def _distract(pen: Pen, image: np.ndarray, stuff: np.ndarray) -> None:
    """Draw one small textured polygon, ellipse or stroke of no class, in place."""
    height, width = stuff.shape
    x = pen.vary(0, width)
    y = pen.vary(0, height)
    size = pen.vary(0.04, 0.13) * min(height, width)

    mask = np.zeros((height, width), np.uint8)
    kind = pen.rng.random()
    if kind < 0.35:
        axes = (int(size) + 1, int(size * pen.vary(0.3, 1)) + 1)
        cv2.ellipse(mask, (int(x), int(y)), axes, pen.vary(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        angles = np.sort(pen.rng.uniform(0, 2 * np.pi, int(pen.vary(3, 7))))
        reach = size * pen.rng.uniform(0.5, 1.4, len(angles))
        points = np.rint(
            np.stack([x + reach * np.cos(angles), y + reach * np.sin(angles)], axis=1)
        ).astype(np.int32)
        if kind < 0.75:
            cv2.fillPoly(mask, [points], 255, cv2.LINE_AA)
        else:
            cv2.polylines(mask, [points], False, 255, max(1, int(size / 6)), cv2.LINE_AA)

    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return

    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cover = mask[window].astype(np.float32) / 255
    tone = rgb(pen.vary(0, 360), pen.vary(0.05, 0.75), pen.vary(0.2, 0.9))
    colour = np.array(tone, np.float32)
    light = 1 + 0.12 * cut(pen.rng, pen.pick(tuple(bank())), *cover.shape)
    cover *= pen.vary(0.6, 1)
    image[window] += cover[..., None] * (light[..., None] * colour - image[window])
    stuff[window][cover > 0.3] = CLUTTER
