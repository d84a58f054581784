"""Training views of stage 1 as MCTformer+ has them: random area, mirror, RandAugment, erasing.

The classifier sees few images for many epochs; without this it learns them by heart.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform

from datasets.data import TaggedImages
from datasets.transforms import IMAGENET_STD, View

POLICY = "rand-m9-mstd0.5-inc1"  # timm's name of the policy: magnitude 9 of 10, deviation 0.5
MAGNITUDE_MAX = 9.99  # at 10 no bit of a colour would be left, which Pillow refuses
AREA = (0.08, 1.0)  # share of the picture that a view shows
ASPECT = (3 / 4, 4 / 3)  # width / height of what it shows
ATTEMPTS = 10  # at an area that fits into the picture, before its middle is taken
ERASED = 0.25  # share of views of which a rectangle is erased
ERASED_AREA = (0.02, 1 / 3)  # share of the view that the rectangle covers
ERASED_ASPECT = (0.3, 1 / 0.3)  # its height / width


class ClassifierImages(TaggedImages):
    """Tagged images in the views of `random_area`, altered by RandAugment and `erase`.

    A view is a function of (seed, iteration, index), as those of `TaggedImages` are. `scale_range`
    and `longest` have no effect.
    """

    def view(self, key: tuple[int, int], height: int, width: int) -> View:
        """Return what image `index` shows at `iteration`, for key = (iteration, index)."""
        rng = np.random.default_rng((self.seed, *key))
        return random_area(height, width, self.crop_size, rng)

    def altered(self, crop: np.ndarray, key: tuple[int, int]) -> np.ndarray:
        """Apply RandAugment, then erasing, to a view (c, c, 3) uint8."""
        rng = np.random.default_rng((self.seed, *key, 1))  # other numbers than those of the view
        fill = tuple(round(value) for value in self.fill)

        with seeded_globals(int(rng.integers(2**32))):
            picture = policy(self.crop_size, fill)(Image.fromarray(crop))

        return erase(np.array(picture), rng, self.fill)


def random_area(height: int, width: int, size: int, rng: np.random.Generator) -> View:
    """Draw a view of a random part of a height x width picture, stretched to `size` x `size` px.

    Its area is uniform in `AREA`, the logarithm of its aspect uniform in that of `ASPECT`; where no
    attempt fits, the middle of the picture within `ASPECT`. Source: random resized crop of Szegedy
    et al. (2015), as DeiT and MCTformer+ train.
    """
    shown_height, shown_width = _extent(height, width, rng)
    top = int(rng.integers(height - shown_height + 1))
    left = int(rng.integers(width - shown_width + 1))
    mirrored = bool(rng.random() < 0.5)

    return View(
        height=height,
        width=width,
        scale=size / min(shown_height, shown_width),
        size=size,
        window=(left, top, left + shown_width, top + shown_height),
        rows=slice(0, size),
        columns=slice(0, size),
        mirrored=mirrored,
        resampling=Image.Resampling.BICUBIC,
    )


def _extent(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the height and width, px, of the area that is shown."""
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        shown_height = round(math.sqrt(area / aspect))
        shown_width = round(math.sqrt(area * aspect))
        if 0 < shown_height <= height and 0 < shown_width <= width:
            return shown_height, shown_width

    return min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))


@cache
def policy(size: int, fill: tuple[int, int, int]) -> RandAugment:
    """Make timm's RandAugment for views of `size` px; what it moves in from outside is `fill`.

    It draws from the global generators of `random` and NumPy.
    """
    options = {
        "translate_const": int(size * 0.45),
        "img_mean": fill,
        "interpolation": Image.Resampling.BICUBIC,
        "magnitude_max": MAGNITUDE_MAX,
    }
    return rand_augment_transform(POLICY, options)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed the global generators of `random` and NumPy within the block; restore them after it."""
    before = random.getstate()
    numpy_before = np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)


def erase(crop: np.ndarray, rng: np.random.Generator, mean: Sequence[float]) -> np.ndarray:
    """Replace a random rectangle of some views (c, c, 3) uint8 by noise, in place.

    The noise of each pixel is normal around `mean` with ImageNet's deviation, cut to 0..255.
    Source: random erasing of Zhong et al. (2020), one rectangle, noise per pixel.
    """
    if rng.random() >= ERASED:
        return crop

    height, width = crop.shape[:2]
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*ERASED_AREA)
        aspect = math.exp(rng.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])))
        rows = round(math.sqrt(area * aspect))
        columns = round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            top = int(rng.integers(height - rows + 1))
            left = int(rng.integers(width - columns + 1))
            noise = rng.normal(mean, IMAGENET_STD, (rows, columns, 3))
            crop[top : top + rows, left : left + columns] = noise.clip(0, 255)
            return crop

    return crop
