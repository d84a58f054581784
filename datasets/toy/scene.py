"""One toy picture with its exact labels: a backdrop, one to three objects, light and noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.specs import IGNORE, VOC
from datasets.toy.backdrop import CLUTTER, WORDS, backdrop
from datasets.toy.shapes import SHAPES
from datasets.toy.sprite import Sprite, paint
from utils.common.opencv import cv2

LEAST_SIDE = 48  # px of a picture
SPLITS = ("train", "val")
Window = tuple[slice, slice]
# longer side of an object over the shorter side of the picture
_ONE = (0.45, 0.9)  # of a single object
_SEVERAL = (0.35, 0.6)
_HOW_MANY = (0.45, 0.35, 0.2)  # share of pictures with one, two, three classes
_LEAST_PIXELS = 40  # of a class that counts as shown
_LEAST_SHARE = 0.2  # of an object's own pixels that are in view
_LEAST_STUFF = 0.1  # of the picture that a word of the background covers
_OUTSIDE = 0.06  # largest share of an object's width or height that the frame cuts off on purpose
_CONTRAST = 40.0  # least mean distance of an object's colour from what it covers, 0-255


@dataclass(frozen=True)
class Scene:
    """A picture and all that is known of it.

    `image` (H, W, 3) uint8 RGB; `labels` (H, W) uint8: 0 background, k + 1 for class k, 255 at
    borders; `classes` the classes k that really show (at least 40 px, and 20% of what was drawn),
    ascending; `stuff` the background words that cover at least 10% of the picture; `instances` (H,
    W) uint8: 0 or 1 + the place of the object in `objects`; `objects` the class of each object.
    """

    image: np.ndarray
    labels: np.ndarray
    classes: tuple[int, ...]
    stuff: tuple[str, ...]
    instances: np.ndarray
    objects: tuple[int, ...]


def random_classes(rng: np.random.Generator, main: int | None = None) -> tuple[int, ...]:
    """Draw one to three distinct classes, 0-based; the first is `main` if it is given."""
    count = int(rng.choice(3, p=_HOW_MANY)) + 1
    classes = [int(k) for k in rng.permutation(len(VOC.classes))]
    if main is not None:
        classes.sort(key=lambda k: k != main)
    return tuple(classes[:count])


def render(
    rng: np.random.Generator,
    height: int,
    width: int,
    classes: Sequence[int],
    scale: tuple[float, float] | None = None,
) -> Scene:
    """Draw a picture (H, W) with one object of each entry of `classes` (0-based). A pure function
    of `rng`.

    `scale` bounds the longer side of an object over the picture's shorter side; None means 0.45-0.9
    for one object and
    0.35-0.6 for more, and at times adds a second object of a class. Raises ValueError for a picture
    below LEAST_SIDE or classes that do not exist.
    """
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"picture {height} x {width} is below {LEAST_SIDE} px")
    if any(not 0 <= k < len(SHAPES) for k in classes):
        raise ValueError(f"classes {tuple(classes)} are not all in 0..{len(SHAPES) - 1}")

    objects = list(classes)
    if scale is None and 0 < len(objects) < 3 and rng.random() < 0.15:
        objects.append(objects[0])

    bounds = scale or _SEVERAL
    if scale is None and len(objects) == 1:
        bounds = _ONE

    homes = [word for k in objects for word in SHAPES[k].homes]
    home = None
    if homes and rng.random() < 0.5:
        home = homes[rng.integers(len(homes))]
    ground = backdrop(rng, height, width, home)

    sizes = sorted((rng.uniform(*bounds) * min(height, width) for _ in objects), reverse=True)
    image = ground.image
    instances = np.zeros((height, width), np.uint8)
    drawn = []

    for number, (k, size) in enumerate(zip(objects, sizes), start=1):
        drawn.append(_place(rng, image, instances, paint(rng, SHAPES[k], size), number))

    labels, shown = _labels(instances, objects, drawn)
    stuff = np.where(instances > 0, CLUTTER, ground.stuff)
    counts = np.bincount(stuff.ravel(), minlength=len(WORDS))
    words = tuple(
        word for word, count in zip(WORDS, counts) if count >= _LEAST_STUFF * height * width
    )

    return Scene(_develop(rng, image), labels, shown, words, instances, tuple(objects))


def picture(seed: int, split: str, number: int, size: int) -> Scene:
    """Draw picture `number` (from 0) of "train" or "val": a pure function of the arguments, sides
    `size` or 3/4 of it.

    The first class cycles through all classes, so that they are balanced; up to two more are drawn.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), number))
    short = size * 3 // 4
    height, width = ((size, size), (size, short), (short, size))[rng.integers(3)]
    return render(rng, height, width, random_classes(rng, main=number % len(VOC.classes)))


def _place(
    rng: np.random.Generator, image: np.ndarray, instances: np.ndarray, sprite: Sprite, number: int
) -> int:
    """Paste a sprite where it hides little of the earlier ones (in place); returns its pixels,
    hidden ones included.
    """
    tries = 6 if number > 1 else 1
    spots = [_spot(rng, instances.shape, sprite.alpha.shape) for _ in range(tries)]
    there, here = min(spots, key=lambda spot: np.count_nonzero(instances[spot[0]]))
    alpha = sprite.alpha[here][..., None]
    colour = sprite.colour[here]
    image[there] = image[there] * (1 - alpha) + _set_off(image[there], colour, alpha)
    instances[there][alpha[..., 0] > 0.5] = number
    return int(np.count_nonzero(sprite.alpha > 0.5))


def _spot(
    rng: np.random.Generator, picture: tuple[int, int], sprite: tuple[int, int]
) -> tuple[Window, Window]:
    """Draw a random place of a sprite (h, w) in a picture (H, W): the window it fills there, and
    its own part in view.
    """
    height, width = picture
    rows, columns = sprite
    top = int(
        np.clip(
            rng.normal(0.55, 0.14) * height - rows / 2,
            -_OUTSIDE * rows,
            height - (1 - _OUTSIDE) * rows,
        )
    )
    low, high = sorted((-_OUTSIDE * columns, width - (1 - _OUTSIDE) * columns))
    left = int(rng.uniform(low, high))
    y = max(top, 0)
    x = max(left, 0)
    bottom = min(top + rows, height)
    right = min(left + columns, width)

    return np.s_[y:bottom, x:right], np.s_[y - top : bottom - top, x - left : right - left]


def _set_off(under: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Make the sprite's colour (h, w, 3) lighter or darker where it would be lost against what it
    covers.
    """
    area = float(alpha.sum()) + 1e-6
    own = float(colour.sum()) / area / 3
    other = float((under * alpha).sum()) / area / 3
    distance = float(np.abs(colour - under * alpha).mean(axis=2).sum()) / area
    if distance >= _CONTRAST:
        return colour
    if own > other:
        return np.minimum(1.4 * colour, 255 * alpha)
    return 0.6 * colour


def _labels(
    instances: np.ndarray, objects: Sequence[int], drawn: Sequence[int]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the labels (H, W) with a rim of 255, and the classes that show; what hardly shows
    becomes 255.
    """
    table = np.zeros(256, np.uint8)
    table[1 : len(objects) + 1] = [k + 1 for k in objects]
    labels = table[instances]
    kernel = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(instances, kernel)
    inner = instances  # for a rim of 1 px
    if min(instances.shape) >= 160:
        inner = cv2.erode(instances, kernel)  # of 2 px
    labels[grown != inner] = IGNORE

    visible = np.bincount(instances.ravel(), minlength=256)
    counts = np.bincount(labels.ravel(), minlength=256)
    whole = {k for n, k in enumerate(objects) if visible[n + 1] >= _LEAST_SHARE * drawn[n]}
    shown = tuple(sorted(k for k in whole if counts[k + 1] >= _LEAST_PIXELS))

    for k in set(objects) - set(shown):
        labels[labels == k + 1] = IGNORE

    return labels, shown


def _develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Give the whole picture exposure, colour cast and grain: (H, W, 3) float -> uint8."""
    gain = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, 3).astype(np.float32)
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1, 4.5))
    developed = (
        image * gain.astype(np.float32) + (grain + np.float32(rng.uniform(-10, 10)))[..., None]
    )
    return np.clip(developed, 0, 255).astype(np.uint8)
